"""`wait`: it returns once the daemon is ready, and not because an earlier one was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing

import pytest

import ductile
from ctl.desk import PATIENCE_SECONDS, Desk, Said, start
from ductile import daemon_run_table, db
from ductile.ctl.wait import wait
from ductile.errors import DuctileError
from ductile.pidfile import PidLock, pid_file
from support.clock import START, FakeClock
from support.daemon import RealDaemon

STARTING = f"ductiled, PID {os.getpid()}, is not ready after 1s; its log says what it is doing"


@pytest.fixture
def held(desk: Desk) -> Iterator[Desk]:
    """A database whose PID file this process holds, in place of the daemon."""
    with desk.ledger():
        lock = PidLock(pid_file(desk.database))
        lock.write()
        yield desk
        lock.release()


def record(desk: Desk, *, pid: int, is_ready: bool) -> None:
    with closing(db.connect_again(desk.database)) as conn, db.transaction(conn):
        daemon_run_table.start(conn, pid=pid, version="0.1.0", now=START)
        if is_ready:
            daemon_run_table.ready(conn, START)


def waited(desk: Desk) -> tuple[int, str]:
    """Call `wait` with a second that passes at once; return its exit code and what it said."""
    clock = FakeClock()
    session = desk.session(clock=clock)
    try:
        code = wait(session, seconds=1, sleep=clock.move)
    except DuctileError as error:
        return error.exit_code, str(error)
    return code, session.out.getvalue()


def called(daemon: RealDaemon, *options: str) -> Said:
    process = start("wait", *options, home=daemon.home)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return Said(code=process.returncode, out=out, err=err)


def test_it_returns_when_the_daemon_that_is_started_meanwhile_is_ready(daemon: RealDaemon) -> None:
    process = start("wait", "--json", home=daemon.home)
    daemon.start()
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    [(started_at, ready_at)] = daemon.rows("SELECT started_at, ready_at FROM daemon_run")
    assert (process.returncode, json.loads(out), err) == (0, {
        "pid": daemon.pid, "version": ductile.__version__, "started_at": started_at, "ready_at": ready_at}, "")
    assert started_at <= ready_at
    daemon.stop()


def test_a_daemon_is_waited_for_anew_after_a_crash(daemon: RealDaemon) -> None:
    daemon.start()
    daemon.kill()
    assert called(daemon, "--timeout", "0s") == Said(code=69, out="", err=(
        "ductiled is not running after 0s; if it was started, its log says why it ended\n"))
    daemon.start()
    assert called(daemon) == Said(code=0, out="", err="")
    daemon.stop()


def test_nothing_is_printed_where_it_is_ready(held: Desk) -> None:
    record(held, pid=os.getpid(), is_ready=True)
    assert waited(held) == (0, "")


def test_a_daemon_that_is_still_starting_is_69(held: Desk) -> None:
    assert waited(held) == (69, STARTING)
    record(held, pid=os.getpid(), is_ready=False)
    assert waited(held) == (69, STARTING)


def test_the_readiness_of_an_earlier_run_does_not_count(held: Desk) -> None:
    record(held, pid=os.getpid() + 1, is_ready=True)
    assert waited(held) == (69, STARTING)
    # In a container every run may have the same PID.
    record(held, pid=os.getpid(), is_ready=True)
    record(held, pid=os.getpid(), is_ready=False)
    assert waited(held) == (69, STARTING)


def test_where_none_runs_it_is_69_and_nothing_is_made(desk: Desk) -> None:
    assert waited(desk) == (69, "ductiled is not running after 1s; if it was started, its log says why it ended")
    assert not desk.database.parent.exists()


def test_a_time_that_is_none_is_64(desk: Desk) -> None:
    assert desk.process("wait", "--timeout", "soon") == Said(code=64, out="", err=(
        "ductilectl wait: argument --timeout: expected a duration such as 30s, got 'soon'; see ductilectl wait"
        " --help\n"))
