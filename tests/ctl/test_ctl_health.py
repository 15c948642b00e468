"""`health`: plugins are asked how they are, and nothing is stored."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ctl.desk import Desk, Said, job_id, load
from ctl.terminals import terminal
from ductile import db
from ductile.ctl.health import Health
from ductile.pidfile import pid_file
from ductile.plugin import entrypoint, plugin_table
from ductile.state import state_table
from support.clock import START

PATH = "/usr/bin:/bin"
SAYS_ERROR = "#!/bin/sh\nprintf '{\"status\":\"error\",\"error\":\"no\\\\u001b route\"}'\n"
ECHOES = "#!/bin/sh\ncat >\"$HOME/request\"\nenv >\"$HOME/environment\"\npwd >\"$HOME/where\"\n" \
         "printf '{\"status\":\"ok\",\"state_updates\":{\"a\":2}}'\n"


def rows(said: Said) -> list[tuple[str, bool, str | None]]:
    return [(row["plugin"], row["healthy"], row["says"]) for row in said.json]


def test_a_plugin_says_that_it_is_well(desk: Desk) -> None:
    desk.plugin("echo")
    said = desk.call("health", "echo", "--json")
    (row,) = said.json
    assert (said.code, row["plugin"], row["healthy"], row["says"]) == (0, "echo", True, "fine")
    assert 0 <= row["seconds"] < 10


def test_the_table_is_of_the_same_rows(desk: Desk) -> None:
    desk.plugin("quiet", commands=("poll",))
    assert desk.call("health") == Said(code=0, err="", out="""\
PLUGIN  HEALTH                       SECONDS  MESSAGE
quiet   unknown (no health command)  -        -
""")
    assert desk.call("health", "quiet", "--json").json == [
        {"plugin": "quiet", "healthy": None, "seconds": None, "says": None, "stderr": None, "hint": None}]


@pytest.mark.parametrize(("program", "said", "stderr"), [
    ("echo one >&2; echo two >&2; exit 127", "exited 127: two; standard error: one", "one"),
    ("printf '\\n one\\033\\n' >&2; exit 127", "exited 127: one\\x1b", "one\\x1b"),
    ("echo warns >&2; printf '{\"status\":\"ok\"}'", "standard error: warns", "warns"),
])
def test_the_first_line_of_standard_error_is_shown(desk: Desk, program: str, said: str, stderr: str) -> None:
    desk.plugin("odd", program=f"#!/bin/sh\n{program}\n")
    table = desk.call("health").out.splitlines()
    assert re.split("  +", table[1], maxsplit=3)[3] == said
    assert desk.call("health", "--json").json[0]["stderr"] == stderr


def test_one_that_is_not_well_makes_it_1(desk: Desk) -> None:
    desk.plugin("bad", program=SAYS_ERROR)
    desk.plugin("good")
    (desk.plugin("gone") / "run").unlink()
    desk.plugin("off", enabled=False)
    desk.plugin("slow", program="#!/bin/sh\nexec sleep 60\n", timeouts={"health": "1s"})
    said = desk.call("health", "--json")
    gone = desk.home / "plugins" / "gone"
    assert said.code == 1
    assert rows(said) == [
        ("bad", False, "no\\x1b route"), ("good", True, "fine"),
        ("gone", False, f"not loaded: {gone}/run: the entrypoint is missing; put it there, or mend 'entrypoint' in"
                        f" {gone}/manifest.yaml"),
        ("slow", False, "timed out after 1s")]
    assert desk.call("health", "good").code == 0
    assert desk.call("health", "bad").code == 1


def test_a_plugin_that_cannot_be_started_is_not_well(desk: Desk) -> None:
    directory = desk.plugin("odd", program="no first line\n")
    said = desk.call("health", "--json")
    assert rows(said) == [("odd", False, f"could not be started: {os.strerror(errno.ENOEXEC)}: {directory}/run")]


def test_an_init_that_has_not_succeeded_is_not_well(desk: Desk) -> None:
    desk.plugin("fresh")
    desk.plugin("done")
    with desk.ledger() as conn:
        desk.loaded(conn, load("fresh", needs_init="f1"), load("done", needs_init="f2"))
        with db.transaction(conn):
            plugin_table.put_init(conn, "done", fingerprint="f2", ok=True, job_id=job_id(1), now=START)
    said = desk.call("health", "--json")
    assert (said.code, rows(said)) == (1, [("fresh", False, "init has not succeeded"), ("done", True, "fine")])


def test_the_plugin_gets_what_a_job_would_and_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.plugin("echo", program=ECHOES, config={"token": "${TOKEN}"}, env=["EXTRA"], timeouts={"health": "30s"})
    with desk.ledger() as conn, db.transaction(conn):
        state_table.put(conn, "echo", {"a": 1}, START)
    before = desk.dump()
    environ = {"PATH": PATH, "HOME": str(tmp_path), "TOKEN": "secret", "EXTRA": "x", "OTHER": "y"}
    assert desk.call("health", "echo", environ=environ).code == 0
    assert desk.dump() == before
    request = json.loads((tmp_path / "request").read_text())
    assert (request["command"], request["config"], request["state"]) == ("health", {"token": "secret"}, {"a": 1})
    assert "event" not in request
    seen = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    assert (seen["EXTRA"], seen["DUCTILE_PLUGIN"], seen["DUCTILE_ATTEMPT"]) == ("x", "echo", "1")
    assert "TOKEN" not in seen and "OTHER" not in seen
    where = (tmp_path / "where").read_text().strip()
    assert where == seen["DUCTILE_WORKSPACE"] == request["workspace_dir"]
    assert not Path(where).exists()


def test_it_names_the_variable_that_is_missing(desk: Desk) -> None:
    desk.plugin("echo", config={"token": "${TOKEN_OF_ECHO}"})
    said = desk.call("health")
    assert (said.code, said.out) == (78, "")
    assert said.err.endswith("plugins.echo.config.token: the variable TOKEN_OF_ECHO is not set\n")


def test_an_unknown_plugin_is_66(desk: Desk) -> None:
    assert desk.call("health", "echo") == Said(code=66, out="", err="no plugin 'echo' is configured\n")


def test_without_plugins_it_says_so(desk: Desk) -> None:
    assert desk.call("health") == Said(code=0, out="no plugin is enabled\n", err="")


def test_on_a_terminal_it_is_told_whom_it_waits_for(desk: Desk) -> None:
    desk.plugin("first")
    desk.plugin("slow", program=f"#!/bin/sh\nread line <'{desk.home}/go'\nprintf '{{\"status\":\"ok\"}}'\n",
                timeouts={"health": "30s"})
    os.mkfifo(desk.home / "go")
    # For both ways: it opens at once, whether the plugin has come so far or not.
    with open(desk.home / "go", "r+b", buffering=0) as go, \
            terminal(desk.home, "health", shows_errors=True, environ={"PATH": PATH}) as pty:
        pty.await_text("\rslow health runs, for 30 s at most …")
        go.write(b"\n")
        pty.await_text("\r\x1b[KPLUGIN")
        assert pty.ends()[0] == 0
    assert b"first health runs" not in pty.shown


@pytest.mark.parametrize(("line", "name"), [
    ("#!/usr/bin/env node", "node"), ("#!/usr/bin/env -S NODE_ENV=x node --jitless", "node"),
    ("#!/usr/local/bin/deno run", "deno"), ("#!/bin/sh", None), ("#!/usr/bin/python3", None), ("", None),
    ("# node", None),
])
def test_an_interpreter_that_compiles_is_known_by_its_name(line: str, name: str | None, tmp_path: Path) -> None:
    program = tmp_path / "run"
    program.write_text(f"{line}\nnode\n")
    assert entrypoint.compiler(program) == name
    assert entrypoint.compiler(tmp_path / "missing") is None


def test_the_hint_is_shown_beside_what_the_plugin_says() -> None:
    assert Health(plugin="a", healthy=True, says="fine", stderr="warns", hint="do this").message == (
        "fine; standard error: warns; do this")
    assert Health(plugin="a", healthy=True, hint="do this").message == "do this"
    assert Health(plugin="a", healthy=True).message is None


# Takes the lock as a daemon does, under a filter that allows every system call (seccomp(2), bpf(2)).
FILTERED = """
import ctypes, struct, sys
from pathlib import Path
from ductile.pidfile import PidLock
libc = ctypes.CDLL(None, use_errno=True)
allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(allow)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
lock = PidLock(Path(sys.argv[1]))
lock.write()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_plugin_that_compiles_gets_a_hint_if_the_daemon_is_confined(desk: Desk, tmp_path: Path) -> None:
    directory = desk.plugin("jit", commands=("health",))
    desk.plugin("plain", commands=("health",))
    # As `node` would be found: a shell under that name.
    (tmp_path / "node").symlink_to("/bin/sh")
    (directory / "run").write_text(f"#!{tmp_path}/node\nprintf '{{\"status\":\"ok\"}}'\n")
    assert [row["hint"] for row in desk.call("health", "--json").json] == [None, None]
    with desk.ledger():
        pass
    with subprocess.Popen([sys.executable, "-c", FILTERED, pid_file(desk.database)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout.readline() == b"held\n"
        jit, plain = desk.call("health", "--json").json
        daemon.communicate()
    assert jit["healthy"]
    assert jit["hint"].startswith("node compiles at run time")
    assert plain["hint"] is None
