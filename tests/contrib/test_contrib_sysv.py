"""The SysV script as init runs it: as root, with start-stop-daemon, in a PID and mount namespace of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.launch import writable_by_all

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "contrib" / "sysv" / "ductiled"
DEFAULTS = ROOT / "contrib" / "sysv" / "ductiled.default"
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 120
USER = "nobody"
NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
# Where the programs are that the daemon's user runs; in somebody's home that user may not get there.
NEEDED = sorted({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT})

CONFIG = """\
service: {log: ./data/ductiled.log, tick_interval: 1h}
plugins: {who: {}}
"""
MANIFEST = """\
name: who
version: 0.1.0
protocol: 2
entrypoint: run
commands: [poll]
"""
WHO = """\
#!/bin/sh
printf '{"status": "ok", "result": "%s at %s under %s"}' "$(id -un)" "$HOME" "$USER"
"""
# Words for a test's steps. The lock tells of the end: a PID could be another process's by now.
WORDS = """\
for action in start stop restart reload force-reload status; do
    eval "$action() { $SCRIPT $action; }"
done
await_end() { flock --timeout 20 "$DATA/ductiled.pid" true; }
killed() { kill -KILL "$(cat "$DATA/ductiled.pid")" && await_end; }
ctl() { setpriv --reuid "$RUN_AS" --regid "$(id -g "$RUN_AS")" --clear-groups "$BIN/ductilectl" -c "$CONFIG" "$@"; }
"""


def why_not() -> str | None:
    """Say why the script cannot be run here as init does."""
    if os.geteuid() != 0:
        return "only root can start a daemon as another user"
    for program in ("start-stop-daemon", "flock", "unshare", "setpriv"):
        if shutil.which(program, path=f"{os.defpath}:/sbin:/usr/sbin") is None:
            return f"{program} is not installed"
    if not Path("/etc/default").is_dir():
        return "there is no /etc/default to put the settings in"
    done = subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True, timeout=PATIENCE_SECONDS)
    return None if done.returncode == 0 else "no PID and mount namespace can be made here"


WHY_NOT = why_not()
in_a_namespace = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")


@dataclass(slots=True, kw_only=True)
class Machine:
    """A machine on which nothing runs but what the steps start; `settings` is its /etc/default/ductiled."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    def does(self, *steps: str) -> list[tuple[int, str]]:
        """Boot, take these steps, each a shell command, power off. Return their exit codes and what they said."""
        (self.home / "default" / "ductiled").write_text(assignments(self.settings))
        taken = [f"printf '\\0'; ({step}) 2>&1; printf '\\1%d' $?" for step in steps]
        known = {"SCRIPT": SCRIPT, "DATA": self.home / "data", "BIN": BIN, "RUN_AS": USER, "CONFIG": self.home}
        script = "\n".join(["set -eu", *mounts(self.home), assignments(known), WORDS, "set +eu", *taken])
        done = subprocess.run(
            [*NAMESPACE, "bash", "-c", script], check=False, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=PATIENCE_SECONDS, cwd="/",
            env={"PATH": f"{os.defpath}:/sbin:/usr/sbin", "HOME": "/root", "USER": "root", "LANG": "C.UTF-8"},
        )
        parts = [part.split("\1") for part in done.stdout.split("\0")[1:]]
        assert len(parts) == len(steps), done.stderr
        return [(int(code), re.sub(r"\bPID \d+", "PID N", text)) for text, code in parts]


def assignments(values: Mapping[str, object]) -> str:
    return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())


def mounts(home: Path) -> list[str]:
    """Commands that put the settings in place, hide a systemd that runs, and open the way to the programs."""
    lines = ["mount -t tmpfs tmpfs /run", f"mount --bind {home}/default /etc/default"]
    # The outermost of each: what is below is seen no more.
    closed = {next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & stat.S_IXOTH), None)
              for path in NEEDED} - {None}
    held = [path for path in NEEDED if any(path.is_relative_to(parent) for parent in closed)]
    lines += [f"mkdir {home}/{number} && mount --bind {shlex.quote(str(path))} {home}/{number}"
              for number, path in enumerate(held)]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(parent))}" for parent in closed]
    lines += [f"mkdir -p {shlex.quote(str(path))} && mount --bind {home}/{number} {shlex.quote(str(path))}"
              for number, path in enumerate(held)]
    return lines


@contextmanager
def booted() -> Iterator[Machine]:
    """A machine with a configuration and a plugin, where the daemon's user may write in `data` alone."""
    with writable_by_all() as home:
        home.chmod(0o755)
        for name in ("default", "data", "plugins", "plugins/who"):
            (home / name).mkdir(mode=0o755)
        shutil.chown(home / "data", USER)
        (home / "data").chmod(0o700)
        (home / "config.yaml").write_text(CONFIG)
        (home / "plugins" / "who" / "manifest.yaml").write_text(MANIFEST)
        (home / "plugins" / "who" / "run").write_text(WHO)
        (home / "plugins" / "who" / "run").chmod(0o755)
        yield Machine(home=home, settings={
            "DAEMON": os.fspath(BIN / "ductiled"), "CTL": os.fspath(BIN / "ductilectl"), "CONFIG": os.fspath(home),
            "PIDFILE": os.fspath(home / "data" / "ductiled.pid"), "RUN_AS": USER,
        })


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine of one test."""
    with booted() as made:
        yield made


# One life of a machine, step by step, for all that looks at a daemon: each start of one takes half a second.
LIFE = {
    "restart of none": "restart", "status of the first": "status", "start again": "start", "run": "ctl run who --wait",
    "PID of the first": 'cat "$DATA/ductiled.pid"', "restart": "restart",
    "PID of the second": 'cat "$DATA/ductiled.pid"',
    "change": "sed -i s/1h/2h/ $CONFIG/config.yaml", "reload": "reload",
    "change more": "sed -i s/2h/3h/ $CONFIG/config.yaml", "force-reload": "force-reload",
    "break": "sed -i s/3h/soon/ $CONFIG/config.yaml", "reload of nonsense": "reload", "status after": "status",
    "crash": "killed", "status of a dead one": "status", "stop of a dead one": "stop", "reload of a dead one": "reload",
    "start of nonsense": "start", "status of nonsense": "status",
    "mend": "sed -i s/soon/1h/ $CONFIG/config.yaml", "start": "start", "status of the third": "status",
    "stop": "stop", "status of none": "status", "stop of none": "stop",
}
REFUSED = "{}/config.yaml:1:52: service.tick_interval: expected a duration such as 30s, got 'soon'\n"
RUNNING, STOPPED = (0, "ductiled: running as PID N\n"), (3, "ductiled: not running\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What the steps ended with and said, and what was left of the machine's files."""

    steps: Mapping[str, tuple[int, str]]
    home: Path
    pid_file: str
    log: str

    def said(self, *names: str) -> list[tuple[int, str]]:
        return [self.steps[name] for name in names]


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    """The whole life of a machine."""
    with booted() as machine:
        steps = dict(zip(LIFE, machine.does(*LIFE.values()), strict=True))
        yield Life(steps=steps, home=machine.home, pid_file=(machine.home / "data" / "ductiled.pid").read_text(),
                   log=(machine.home / "data" / "ductiled.log").read_text())


@in_a_namespace
def test_it_starts_once_and_stops_once(life: Life) -> None:
    assert life.said("start again", "start", "status of the third", "stop", "status of none", "stop of none") == [
        (0, "ductiled: already running\n"), (0, ""), RUNNING, (0, ""), STOPPED, (0, "ductiled: not running\n")]
    assert life.pid_file == ""
    assert '"message": "stopped"' in life.log.splitlines()[-1]


@in_a_namespace
def test_it_is_ready_when_it_has_started_and_runs_plugins_as_its_user(life: Life) -> None:
    home = subprocess.run(["getent", "passwd", USER], check=True, capture_output=True, text=True, timeout=10)
    code, text = life.steps["run"]
    assert (code, text.splitlines()[-2:]) == (
        0, [f"    result: {USER} at {home.stdout.split(':')[5]} under {USER}", "succeeded"])


@in_a_namespace
def test_a_restart_starts_another_daemon_whether_one_ran_or_not(life: Life) -> None:
    assert life.said("restart of none", "status of the first", "restart") == [
        (0, "ductiled: not running\n"), RUNNING, (0, "")]
    first, second = life.said("PID of the first", "PID of the second")
    assert (first[0], second[0], first != second) == (0, 0, True)


@in_a_namespace
def test_a_daemon_that_was_killed_is_dead_with_a_pid_file_and_can_be_started(life: Life) -> None:
    assert life.said("crash", "status of a dead one", "stop of a dead one", "reload of a dead one", "start") == [
        (0, ""), (1, "ductiled: not running; it did not stop cleanly\n"), (0, "ductiled: not running\n"),
        (7, "ductiled: not running\n"), (0, "")]


@in_a_namespace
def test_a_reload_says_what_changed_or_why_it_is_refused(life: Life) -> None:
    assert life.said("reload", "force-reload", "reload of nonsense", "status after") == [
        (0, "setting service.tick_interval 1h -> 2h\n"), (0, "setting service.tick_interval 2h -> 3h\n"),
        (6, REFUSED.format(life.home)), RUNNING]


@in_a_namespace
def test_a_configuration_that_is_wrong_is_told_and_starts_nothing(life: Life) -> None:
    assert life.said("start of nonsense", "status of nonsense") == [
        (6, REFUSED.format(life.home)), (1, "ductiled: not running; it did not stop cleanly\n")]


@in_a_namespace
@pytest.mark.parametrize(
    ("setting", "value", "code", "message"),
    [
        ("DAEMON", "/no/such/ductiled", 5, "/no/such/ductiled or {CTL} is missing: install ductile, or name them in"
         " /etc/default/ductiled"),
        ("CTL", "/no/such/ductilectl", 5, "{DAEMON} or /no/such/ductilectl is missing: install ductile, or name them"
         " in /etc/default/ductiled"),
        ("CONFIG", "/no/such/place", 6, "/no/such/place has no config.yaml: write one, or name its place in"
         " /etc/default/ductiled"),
    ],
)
def test_what_is_missing_is_named(machine: Machine, setting: str, value: str, code: int, message: str) -> None:
    line = f"ductiled: {message.format(**machine.settings)}\n"
    machine.settings[setting] = value
    assert machine.does("start", "restart", "reload", "status") == [
        (code, line), (code, line), (code, line), (3, "ductiled: not running\n")]


@in_a_namespace
def test_an_ordinary_user_may_do_nothing_and_is_told_so(machine: Machine) -> None:
    ordinary = "setpriv --reuid=12345 --regid=12345 --clear-groups $SCRIPT"
    refused = (4, "ductiled: only root may do this\n")
    assert machine.does(*(f"{ordinary} {action}" for action in ("start", "stop", "restart", "reload", "status"))) == [
        *[refused] * 4, (4, f"ductiled: cannot read {machine.home}/data/ductiled.pid: ask as root\n")]


@in_a_namespace
@pytest.mark.parametrize("arguments", ["", "begin", "start now", "-h"])
def test_wrong_usage_is_told(machine: Machine, arguments: str) -> None:
    usage = f"usage: {SCRIPT} {{start|stop|restart|reload|force-reload|status}}\n"
    assert machine.does(f"$SCRIPT {arguments}") == [(2, usage)]


@in_a_namespace
def test_the_pid_of_another_users_process_is_never_signalled(machine: Machine) -> None:
    """The file is the daemon's own: a plugin that took the daemon over could write any PID into it."""
    assert machine.does(
        'sleep 1000 & echo $! >"$DATA/ductiled.pid"; status; stop; kill -0 "$(cat "$DATA/ductiled.pid")"',
        'exec 8<"$DATA/ductiled.pid"; flock 8; stop; kill "$(cat "$DATA/ductiled.pid")"',
    ) == [
        (0, "ductiled: not running; it did not stop cleanly\nductiled: not running\n"),
        (0, "ductiled: PID N does not end\n"),
    ]


def test_the_header_is_one_that_insserv_reads() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    header = re.search(r"^### BEGIN INIT INFO\n(.*?)^### END INIT INFO$", text, re.MULTILINE | re.DOTALL)[1]
    fields = dict(re.findall(r"^# ([A-Z][A-Za-z-]+): +(.+)$", header, re.MULTILINE))
    assert fields["Provides"] == "ductiled"
    assert (fields["Default-Start"], fields["Default-Stop"]) == ("2 3 4 5", "0 1 6")
    assert {"Required-Start", "Required-Stop", "Short-Description", "Description"} <= set(fields)


def test_the_shipped_settings_are_the_scripts_own() -> None:
    script = SCRIPT.read_text(encoding="utf-8")
    shown = re.findall(r"^# ([A-Z_]+=.+)$", DEFAULTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) == 6
    assert [line for line in shown if f"\n{line}\n" not in script] == []
    assert subprocess.run(["sh", "-n", DEFAULTS], check=False, timeout=10).returncode == 0
