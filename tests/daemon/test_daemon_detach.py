"""`ductiled -d`: the command ends when the daemon is ready, or says why it is not."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from ductile.pidfile import signal_daemon
from support import processes
from support.daemon import RealDaemon
from support.surprise import at


class Detached:
    """A daemon without a terminal, found by its PID file."""

    def __init__(self, daemon: RealDaemon) -> None:
        self.daemon = daemon

    def start(self, *options: str, **settings: object) -> CompletedProcess[str]:
        """Run the command and return what became of it."""
        run = self.daemon.run(*(options or ("-d", "-c", str(self.daemon.home))), **settings)
        if run.returncode == 0:
            self.daemon.watch(self.pid)
        return run

    @property
    def pid(self) -> int:
        """The daemon's PID, from its PID file."""
        return int(self.daemon.pid_file.read_text())

    def stop(self) -> int:
        """Stop the daemon and return its exit code: an orphan, it has become the test's child."""
        pid = signal_daemon(self.daemon.pid_file, signal.SIGTERM)
        assert pid is not None, "no daemon runs"
        processes.await_end(pid, 20)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def detached(daemon: RealDaemon) -> Iterator[Detached]:
    """A detached daemon that logs to a file."""
    daemon.output = daemon.home / "ductile.log"
    daemon.configure(service={"log": "./ductile.log"})
    yield Detached(daemon)


def test_the_command_ends_when_the_daemon_is_ready_to_work(detached: Detached) -> None:
    detached.daemon.install("ok")
    run = detached.start()
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert len(detached.daemon.log("ready", pid=detached.pid)) == 1
    detached.daemon.await_job(detached.daemon.submit("ok"), "succeeded")
    assert detached.stop() == 0
    assert detached.daemon.pid_file.read_text() == ""


def test_the_daemon_has_left_terminal_session_and_directory(detached: Detached) -> None:
    assert detached.start().returncode == 0
    pid = detached.pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    parent, session, terminal = int(fields[1]), int(fields[3]), fields[4]
    assert (parent, terminal) == (os.getpid(), "0")
    # Not its leader either: it could get a terminal by opening one.
    assert session not in (pid, os.getsid(0))
    assert processes.status(pid)["Umask"] == "0077"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
    assert detached.stop() == 0


def test_the_daemon_keeps_no_descriptor_of_the_command_open(detached: Detached) -> None:
    with open(detached.daemon.home / "precious", "w") as precious:
        assert detached.start(pass_fds=[precious.fileno()]).returncode == 0
    fds = Path(f"/proc/{detached.pid}/fd")
    assert not [entry for entry in fds.iterdir() if "precious" in os.path.realpath(entry)]
    assert detached.stop() == 0


def test_a_command_without_standard_descriptors_detaches_all_the_same(detached: Detached) -> None:
    detached.daemon.forked["closed"] = [0, 1, 2]
    assert detached.start().returncode == 0
    assert {os.readlink(f"/proc/{detached.pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
    assert detached.stop() == 0


def test_a_relative_path_to_the_configuration_means_the_same_as_on_the_terminal(detached: Detached) -> None:
    assert detached.start("-d", "-c", "config.yaml", cwd=detached.daemon.home).returncode == 0
    assert detached.daemon.log("ready")[0]["config"] == str(detached.daemon.home / "config.yaml")
    assert detached.stop() == 0


def test_its_files_are_for_the_owner_whatever_the_terminals_umask_was(detached: Detached) -> None:
    assert detached.start(umask=0).returncode == 0
    assert stat.S_IMODE(detached.daemon.database.stat().st_mode) == 0o600
    assert stat.S_IMODE(detached.daemon.output.stat().st_mode) == 0o600
    assert detached.stop() == 0


def test_a_wrong_configuration_is_told_on_the_terminal_before_anything_is_made(detached: Detached) -> None:
    detached.daemon.configure(service={"tick_interval": "soon"})
    before = sorted(detached.daemon.home.iterdir())
    run = detached.start()
    assert (run.returncode, run.stderr.count("\n")) == (78, 1)
    assert "service.tick_interval: expected a duration such as 30s, got 'soon'" in run.stderr
    assert sorted(detached.daemon.home.iterdir()) == before


def test_a_data_directory_that_cannot_be_made_is_told_by_the_command(detached: Detached) -> None:
    detached.daemon.data.write_text("in the way")
    run = detached.start()
    line = f"cannot create the data directory {detached.daemon.data}: File exists"
    assert (run.returncode, run.stderr) == (71, line + "\n")
    assert [entry["message"] for entry in detached.daemon.lines() if entry["level"] == "error"] == [line]


def test_a_second_daemon_is_told_by_the_command(detached: Detached) -> None:
    assert detached.start().returncode == 0
    run = detached.start()
    assert (run.returncode, run.stderr) == (
        75, f"ductiled is already running as PID {detached.pid} (it holds {detached.daemon.pid_file})\n")
    assert detached.stop() == 0


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_process_that_cannot_be_had_on_the_way_is_told_by_the_command(detached: Detached, nth: int) -> None:
    surprised = at(detached.daemon.home, "os.fork", action="raise OSError(11, 'no process')", nth=nth)
    run = detached.start(env={**detached.daemon.environ, **surprised})
    assert (run.returncode, run.stdout, run.stderr) == (71, "", "cannot detach: no process\n")
    assert not detached.daemon.data.exists()


def test_a_damaged_database_is_told_by_the_command(detached: Detached) -> None:
    detached.daemon.data.mkdir()
    detached.daemon.database.write_bytes(b"this is not a database " * 1000)
    run = detached.start()
    assert (run.returncode, run.stderr) == (
        65, f"the database {detached.daemon.database} is damaged (file is not a database);"
            " restore a backup with `ductilectl restore FILE`\n")


@pytest.mark.skipif(os.path.exists("/dev/log"), reason="this machine has a syslog, which tests leave alone")
def test_without_a_syslog_the_log_is_a_file_beside_the_database_and_the_command_says_so(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.output = daemon.data / "ductiled.log"
    # A reload without a plugin is rejected.
    daemon.install("ok")
    detached = Detached(daemon)
    run = detached.start()
    assert (run.returncode, run.stdout, run.stderr) == (
        0, "", f"no syslog (/dev/log) found: logging to {daemon.output}\n")
    daemon.configure(service={"log_level": "debug"})
    daemon.output.rename(daemon.data / "rotated")
    signal_daemon(daemon.pid_file, signal.SIGHUP)
    daemon.await_log("configuration reloaded")
    assert detached.stop() == 0
    assert [stat.S_IMODE(each.stat().st_mode) for each in (daemon.data, daemon.output)] == [0o700, 0o600]


@pytest.mark.skipif(os.path.exists("/dev/log"), reason="this machine has a syslog, which tests leave alone")
def test_without_a_syslog_one_that_is_asked_for_is_refused(daemon: RealDaemon) -> None:
    daemon.configure(service={"log": "syslog"})
    run = daemon.run("-d", "-c", str(daemon.home))
    assert (run.returncode, run.stderr) == (
        71, "cannot open the log syslog at /dev/log: No such file or directory;"
            " set service.log to a writable path\n")
    assert not daemon.data.exists()
