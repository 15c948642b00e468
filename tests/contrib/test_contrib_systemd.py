"""The systemd unit: what systemd-analyze says of it, and what it takes for granted of the daemon."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ductile import errors
from ductile.units import parse_duration
from support.daemon import RealDaemon

ROOT = Path(__file__).resolve().parents[2]
SLOW = "#!/bin/sh\nexec sleep 1000\n"
SYSTEMD = ROOT / "contrib" / "systemd"
UNIT = SYSTEMD / "ductiled.service"
PATIENCE_SECONDS = 60
EXPOSURE = re.compile(r"Overall exposure level for ductiled\.service: (\d+\.\d) ")
# systemd.unit(5): what of two lines of one name is added up, and what is replaced.
SECTIONS = {"Unit", "Service", "Install"}

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "--no-pager", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False, timeout=PATIENCE_SECONDS, env={**os.environ, **environ})


def unit_file(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters="=", strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


def service() -> configparser.SectionProxy:
    return unit_file(UNIT)["Service"]


def a_root_with(tmp_path: Path, *dropins: str) -> Path:
    """A tree that holds the unit, these drop-ins for it, and programs under the names that it calls."""
    units = tmp_path / "etc" / "systemd" / "system"
    (units / "ductiled.service.d").mkdir(parents=True)
    shutil.copy(UNIT, units)
    for name in dropins:
        shutil.copy(SYSTEMD / name, units / "ductiled.service.d")
    return tmp_path


@needs_analyze
@pytest.mark.parametrize(("file", "name"), [("ductiled.service", "ductiled.service"),
                                            ("ductiled@.service", "ductiled@slow.service")])
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path, file: str, name: str) -> None:
    unit = tmp_path / name
    text = (SYSTEMD / file).read_text(encoding="utf-8")
    # The programs are not installed here; whatever else is wrong is told.
    unit.write_text(re.sub(r"/opt/ductile/bin/\w+", "/bin/true", text), encoding="utf-8")
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_analyze
@pytest.mark.parametrize(("dropins", "most"), [((), 2.0), (("plugins-need-more.conf",), 3.0)])
def test_the_unit_exposes_no_more_than_promised(tmp_path: Path, dropins: tuple[str, ...], most: float) -> None:
    done = analyze("security", "--offline=true", f"--root={a_root_with(tmp_path, *dropins)}", "ductiled.service")
    if "unrecognized option" in done.stderr or "Unknown" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a unit that is not loaded")
    assert done.returncode == 0, done.stderr
    assert float(EXPOSURE.search(done.stdout)[1]) <= most


def test_a_lane_is_the_unit_with_directories_of_its_own() -> None:
    lane = (SYSTEMD / "ductiled@.service").read_text(encoding="utf-8")
    lines = lane[lane.index("[Unit]"):].splitlines()
    assert sum("-%i" in line for line in lines) == 6
    unit = UNIT.read_text(encoding="utf-8")
    assert [line.replace("-%i", "").replace(": %i", "") for line in lines] == unit[unit.index("[Unit]"):].splitlines()


@needs_analyze
def test_systemd_finds_no_fault_with_the_unit_of_a_user(tmp_path: Path) -> None:
    unit = tmp_path / "ductiled.service"
    text = (SYSTEMD / "user" / "ductiled.service").read_text(encoding="utf-8")
    unit.write_text(re.sub(r"/opt/ductile/bin/\w+", "/bin/true", text), encoding="utf-8")
    done = analyze("verify", "--user", "--man=no", "--recursive-errors=no", unit, XDG_RUNTIME_DIR=str(tmp_path),
                   HOME=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_of_a_user_ends_and_restarts_as_the_other_does() -> None:
    own, all_users = unit_file(SYSTEMD / "user" / "ductiled.service")["Service"], service()
    same = ("Type", "NotifyAccess", "Restart", "RestartSec", "RestartPreventExitStatus", "KillMode", "TimeoutStopSec",
            "TimeoutStartSec", "WatchdogSec", "OOMPolicy", "UMask", "NoNewPrivileges")
    assert {name: own[name] for name in same} == {name: all_users[name] for name in same}


@pytest.mark.parametrize("path", sorted(SYSTEMD.glob("*.conf")), ids=lambda path: path.name)
def test_a_drop_in_says_where_it_goes(path: Path) -> None:
    assert f"/etc/systemd/system/ductiled.service.d/{path.name}\n" in path.read_text(encoding="utf-8")
    assert set(unit_file(path).sections()) <= SECTIONS


def test_what_starting_again_does_not_mend_is_not_started_again() -> None:
    assert service()["Restart"] == "on-failure"
    assert set(map(int, service()["RestartPreventExitStatus"].split())) == {
        errors.EXIT_USAGE, errors.EXIT_DATA, errors.EXIT_CONFIG}
    assert unit_file(UNIT)["Unit"]["StartLimitIntervalSec"] == "0"


def test_systemd_waits_longer_for_the_end_than_the_daemon_does_for_its_plugin(daemon: RealDaemon) -> None:
    daemon.start()
    daemon.stop()
    (stopping,) = daemon.log("stopping")
    ending_a_plugin = 6
    assert parse_duration(service()["TimeoutStopSec"]) >= stopping["shutdown_grace"] + ending_a_plugin + 5


def test_the_programs_of_the_unit_are_called_as_they_want_to_be(daemon: RealDaemon) -> None:
    """The arguments of ExecStart and ExecReload are accepted, with another configuration."""
    daemon.plugin("slow", SLOW)
    daemon.start()
    (start, *arguments), (reload, *options) = (service()[name].split() for name in ("ExecStart", "ExecReload"))
    assert (Path(start).name, arguments) == ("ductiled", ["-c", "/etc/ductile"])
    command = [daemon.home if word == "/etc/ductile" else word for word in options]
    done = subprocess.run([Path(daemon.environ["PATH"].split(":")[0]) / Path(reload).name, *command], check=False,
                          env=daemon.environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    daemon.stop()


def test_a_reload_is_announced_with_its_time_and_its_end(daemon: RealDaemon) -> None:
    """What Type=notify-reload wants: RELOADING=1 with MONOTONIC_USEC, then READY=1, also of a rejected one."""
    daemon.plugin("slow", SLOW)
    daemon.start()
    for count, interval in ((1, "2h"), (2, "soon")):
        daemon.configure(service={"tick_interval": interval})
        daemon.send(1)
        daemon.await_note("READY=1", 1 + count)
    notes = [note.partition("=")[0] for note in daemon.notes if not note.startswith("STATUS=")]
    assert notes == ["READY", "RELOADING", "MONOTONIC_USEC", "READY", "RELOADING", "MONOTONIC_USEC", "READY"]
    daemon.await_log("reload rejected; keeping the current configuration")
    daemon.stop()


def test_the_watchdog_hears_of_an_idle_daemon_and_of_one_that_stops(daemon: RealDaemon) -> None:
    daemon.plugin("slow", SLOW)
    daemon.environ["WATCHDOG_USEC"] = "100000"
    daemon.start()
    daemon.await_note("WATCHDOG=1", 4)
    daemon.submit("slow")
    daemon.await_log("job started")
    daemon.send(15)
    daemon.await_note("STOPPING=1")
    daemon.await_note("WATCHDOG=1", daemon.notes.count("WATCHDOG=1") + 4)
    daemon.stop()


@pytest.mark.parametrize("name", ["try-under-systemd", "drive"])
def test_the_trial_is_executable_and_free_of_syntax_errors(name: str) -> None:
    done = subprocess.run(["bash", "-n", SYSTEMD / name], check=False, capture_output=True, text=True,
                          timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr, (SYSTEMD / name).stat().st_mode & 0o777) == (0, "", 0o755)
