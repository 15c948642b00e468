"""Ctrl-C before the daemon is ready: one line, and the code of an interrupt."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ductile.pidfile import signal_daemon
from support import processes
from support.daemon import PATIENCE_SECONDS, RealDaemon, until
from support.surprise import INTERRUPT, TERMINATE, at
from support.warm import Started

LOOK_SECONDS = 0.005
GOES_ON = "interrupted; the daemon continues to start, see its log\n"


@pytest.mark.parametrize(("options", "line"), [
    ((), "interrupted before ductiled was ready\n"), (("-d",), "interrupted before ductiled was ready\n"),
    (("-t",), "interrupted before the check was complete\n"),
])
def test_an_interrupt_while_the_configuration_is_read_is_one_line(daemon: RealDaemon, options: tuple[str, ...],
                                                                  line: str) -> None:
    surprised = at(daemon.home, "open", about="config.yaml", action=INTERRUPT)
    run = daemon.run("-c", str(daemon.home), *options, env={**daemon.environ, **surprised})
    assert (run.returncode, run.stdout, run.stderr) == (130, "", line)
    assert not daemon.data.exists()


def test_a_termination_while_the_configuration_is_read_is_a_stop(daemon: RealDaemon) -> None:
    surprised = at(daemon.home, "open", about="config.yaml", action=TERMINATE)
    run = daemon.run(env={**daemon.environ, **surprised})
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert not daemon.data.exists()


def test_a_check_that_is_terminated_has_found_nothing_good(daemon: RealDaemon) -> None:
    surprised = at(daemon.home, "open", about="config.yaml", action=TERMINATE)
    run = daemon.run("-c", str(daemon.home), "-t", env={**daemon.environ, **surprised})
    assert (run.returncode, run.stdout) == (-signal.SIGTERM, "")


@pytest.mark.parametrize(("action", "code", "line"), [
    (INTERRUPT, 130, "interrupted before ductiled was ready\n"), (TERMINATE, 0, ""),
])
def test_a_start_is_interrupted_once_its_database_is_whole(daemon: RealDaemon, action: str, code: int,
                                                           line: str) -> None:
    daemon.install("ok")
    surprised = at(daemon.home, "open", about="ductiled.pid", nth=2, action=action)
    run = daemon.run(env={**daemon.environ, **surprised})
    assert (run.returncode, run.stderr) == (code, line)
    # What was left of it is no obstacle.
    daemon.start()
    daemon.await_job(daemon.submit("ok"), "succeeded")


@contextmanager
def detaching(daemon: RealDaemon, environ: Mapping[str, str]) -> Iterator[Started]:
    """The command `ductiled -d`, killed in the end."""
    daemon.output = daemon.home / "ductile.log"
    daemon.configure(service={"log": "./ductile.log"})
    process = daemon.warm.popen(["-c", daemon.home, "-d"], {**daemon.environ, **environ}, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        daemon.watch(process.pid)
        yield process
    finally:
        process.kill()
        process.communicate()


def stops(daemon: RealDaemon) -> None:
    """Wait until the daemon that was left behind is ready, stop it and see that it ends well."""
    # Until there is a PID in its file, what is alive may be the process between the command and the daemon.
    until(lambda: daemon.pid_file.exists() and daemon.pid_file.read_text() != "", True,
          pause=lambda: select.select([], [], [], LOOK_SECONDS) == ([], [], []), explain=daemon.story)
    pid = int(daemon.pid_file.read_text())
    daemon.watch(pid)
    daemon.await_log("ready", pid=pid)
    assert daemon.survivors() == {pid}
    assert signal_daemon(daemon.pid_file, signal.SIGTERM) == pid
    processes.await_end(pid, PATIENCE_SECONDS)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def opened_for_writing(fifo: Path) -> int | None:
    """Return the end of a FIFO to write to, once somebody waits at the other."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def test_an_interrupt_of_the_command_that_waits_leaves_the_daemon_to_start(daemon: RealDaemon) -> None:
    gate = daemon.home / "gate"
    os.mkfifo(gate)
    ends: list[int] = []

    def is_there() -> bool:
        end = opened_for_writing(gate)
        ends.extend([] if end is None else [end])
        return bool(ends)

    surprised = at(daemon.home, "open", about="ductiled.pid", action=f"open({str(gate)!r}).read()")
    with detaching(daemon, surprised) as process:
        until(is_there, True, pause=lambda: not daemon.ended_within(LOOK_SECONDS), explain=daemon.story)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE_SECONDS) == ("", GOES_ON)
        assert process.returncode == 130
    assert daemon.log("ready") == []
    os.close(ends[0])
    stops(daemon)


@pytest.mark.parametrize(("event", "code", "line"), [("os.fork", 130, GOES_ON), ("os.chdir", 0, "")])
def test_an_interrupt_that_both_get_while_they_part_does_not_reach_the_daemon(
        daemon: RealDaemon, event: str, code: int, line: str) -> None:
    with detaching(daemon, at(daemon.home, event, action=INTERRUPT)) as process:
        assert process.communicate(timeout=PATIENCE_SECONDS) == ("", line)
        assert process.returncode == code
    stops(daemon)
