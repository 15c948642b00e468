from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ductile.dispatch.recovery import Recovery
from ductile.dispatch.run_lock import JOB_ID_VARIABLE, RunLocks
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Status, Submitter
from ductile.workspace.manager import Workspaces
from support import logs, worlds
from support.clock import START
from support.launch import ended_pid
from support.ledger import dump, ids, opened, put_job

WORLD = worlds.runtime(worlds.plugin("echo"))


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened(tmp_path) as made:
        yield made


@pytest.fixture
def recovery(conn: sqlite3.Connection, tmp_path: Path) -> Recovery:
    workspaces = Workspaces(tmp_path / "ws")
    workspaces.make_root()
    return Recovery(conn=conn, locks=RunLocks(tmp_path / "running"), workspaces=workspaces, rng=Random(0), new_id=ids())


def test_without_orphans_nothing_is_written(conn: sqlite3.Connection, recovery: Recovery) -> None:
    for job_id, status in (("a", Status.QUEUED), ("b", Status.SUCCEEDED), ("c", Status.DEAD), ("d", Status.DEDUPED)):
        put_job(conn, job_id, status)
    before = dump(conn)
    assert recovery.recover(WORLD, START, patience=1) == set()
    assert dump(conn) == before


@pytest.mark.parametrize(("plugin", "max_attempts", "status", "attempt"), [
    ("echo", 4, Status.QUEUED, 2),
    ("echo", 1, Status.DEAD, 1),
    ("no longer configured", 4, Status.QUEUED, 2),
])
def test_an_orphan_is_queued_at_once_where_attempts_are_left(
    conn: sqlite3.Connection, recovery: Recovery, plugin: str, max_attempts: int, status: Status, attempt: int,
) -> None:
    put_job(conn, "a", Status.RUNNING, plugin=plugin, max_attempts=max_attempts)
    assert recovery.recover(WORLD, START, patience=1) == set()
    row = job_table.get(conn, "a")
    assert (row.status, row.attempt, row.next_retry_at) == (status, attempt, None)
    [logged] = attempt_table.of_job(conn, "a")
    assert (logged.status, logged.attempt, logged.last_error) == (
        "orphaned", 1, "orphaned: ductiled ended while it ran")


def test_a_half_made_workspace_is_thrown_away_and_others_stay(
    conn: sqlite3.Connection, recovery: Recovery, tmp_path: Path,
) -> None:
    put_job(conn, "a", Status.RUNNING)
    for job_id in ("a", "b"):
        (recovery.workspaces.create(job_id) / "half").write_text("x")
    recovery.recover(WORLD, START, patience=1)
    assert os.listdir(tmp_path / "ws") == ["b"]


def test_recovering_twice_is_recovering_once(conn: sqlite3.Connection, recovery: Recovery) -> None:
    put_job(conn, "a", Status.RUNNING)
    recovery.recover(WORLD, START, patience=1)
    before = dump(conn)
    assert recovery.recover(WORLD, START, patience=1) == set()
    assert dump(conn) == before


def test_what_lives_of_an_orphan_is_ended_first(conn: sqlite3.Connection, recovery: Recovery) -> None:
    put_job(conn, "a", Status.RUNNING)
    lock = recovery.locks.take()
    holder = subprocess.Popen(["/bin/sleep", "600"], env={}, pass_fds=(lock,))
    os.close(lock)
    carrier = subprocess.Popen(["/bin/sleep", "600"], env={JOB_ID_VARIABLE: "a"}, start_new_session=True)
    assert recovery.recover(WORLD, START, patience=10) == set()
    assert [each.wait(timeout=10) for each in (holder, carrier)] == [-signal.SIGKILL] * 2
    assert job_table.get(conn, "a").status is Status.QUEUED


def test_a_job_of_which_something_lives_waits_and_the_next_is_recovered(
    conn: sqlite3.Connection, recovery: Recovery,
) -> None:
    for job_id in ("a", "b"):
        put_job(conn, job_id, Status.RUNNING)
    # This process itself holds the lock: it is never counted as evidence, and so cannot be ended.
    lock = recovery.locks.take()
    recovery.locks.mark("a", ended_pid())
    try:
        assert recovery.recover(WORLD, START, patience=0.1) == {"a"}
        assert job_table.get(conn, "a").status is Status.RUNNING
        assert job_table.get(conn, "b").status is Status.QUEUED
        assert recovery.recover(WORLD, START, patience=0.1) == {"a"}
    finally:
        os.close(lock)
    assert recovery.recover(WORLD, START, patience=0.1) == set()
    assert job_table.get(conn, "a").status is Status.QUEUED
    assert recovery.locks.job_ids() == []


def test_a_finished_job_of_which_something_lives_still_waits_but_its_row_stays(
    conn: sqlite3.Connection, recovery: Recovery,
) -> None:
    put_job(conn, "a", Status.SUCCEEDED)
    lock = recovery.locks.take()
    recovery.locks.mark("a", ended_pid())
    assert recovery.locks.release("a") is False
    before = dump(conn)
    try:
        assert recovery.recover(WORLD, START, patience=0.1) == {"a"}
    finally:
        os.close(lock)
    assert recovery.recover(WORLD, START, patience=0.1) == set()
    assert dump(conn) == before


def test_what_lives_is_told_of_once_until_it_has_ended(
    conn: sqlite3.Connection, recovery: Recovery, tmp_path: Path,
) -> None:
    put_job(conn, "a", Status.SUCCEEDED)
    with logs.kept(tmp_path) as path:
        for _ in range(2):
            lock = recovery.locks.take()
            recovery.locks.mark("a", ended_pid())
            try:
                for _ in range(3):
                    assert recovery.recover(WORLD, START, patience=0.0) == {"a"}
            finally:
                os.close(lock)
            assert recovery.recover(WORLD, START, patience=0.0) == set()
        said = [(line["message"], line["job_id"]) for line in logs.lines(path)]
    assert said == [("processes of an earlier run are still alive; the job is blocked", "a")] * 2


def test_a_row_that_cannot_be_written_waits_and_the_next_is_recovered(
    conn: sqlite3.Connection, recovery: Recovery,
) -> None:
    for job_id in ("a", "b"):
        put_job(conn, job_id, Status.RUNNING)
    conn.execute("CREATE TEMP TRIGGER full BEFORE UPDATE ON job_queue WHEN OLD.id = 'a'"
                 " BEGIN SELECT RAISE(ABORT, 'no room for it'); END")
    assert recovery.recover(WORLD, START, patience=1) == {"a"}
    assert (job_table.get(conn, "a").status, attempt_table.of_job(conn, "a")) == (Status.RUNNING, [])
    assert job_table.get(conn, "b").status is Status.QUEUED
    conn.execute("DROP TRIGGER full")
    assert recovery.recover(WORLD, START, patience=1) == set()
    assert job_table.get(conn, "a").status is Status.QUEUED


def test_a_workspace_that_cannot_be_removed_holds_no_job_back(
    conn: sqlite3.Connection, tmp_path: Path, recovery: Recovery,
) -> None:
    put_job(conn, "a", Status.RUNNING)
    root = tmp_path / "ws"
    root.rmdir()
    root.write_text("a file in its place")
    assert recovery.recover(WORLD, START, patience=1) == set()
    assert job_table.get(conn, "a").status is Status.QUEUED


def test_an_orphaned_init_has_attempts_of_its_own(conn: sqlite3.Connection, recovery: Recovery) -> None:
    put_job(conn, "a", Status.RUNNING, command="init", submitted_by=Submitter.INIT, max_attempts=1)
    recovery.recover(WORLD, START, patience=1)
    row = job_table.get(conn, "a")
    assert (row.status, row.attempt, row.max_attempts) == (Status.QUEUED, 2, 2)


def test_a_leftover_that_cannot_be_looked_for_holds_its_job_back(
    conn: sqlite3.Connection, recovery: Recovery, tmp_path: Path,
) -> None:
    put_job(conn, "a", Status.RUNNING)
    directory = tmp_path / "running"
    # A circle of links: every look at what is below it is an error, as where the process is out of descriptors.
    directory.symlink_to(directory)
    with pytest.raises(OSError):
        recovery.recover(WORLD, START, patience=0)
    assert job_table.get(conn, "a").status is Status.RUNNING
    directory.unlink()
    assert recovery.recover(WORLD, START, patience=0) == set()
    assert job_table.get(conn, "a").status is Status.QUEUED
