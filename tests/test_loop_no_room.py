"""A result for which the disk has no room, and plugins for which the machine has no process or thread."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ductile.dispatch.worker import Worker
from ductile.errors import EXIT_SYSTEM, DuctileError
from support import failing, worlds
from support.failing import FailingConnection
from support.launch import in_a_child, writable_by_all
from support.ledger import opened, put_job
from support.logs import kept
from support.loop import OK, Loop, loop, program

FULL = sqlite3.SQLITE_FULL
BUSY = sqlite3.SQLITE_BUSY
NOT_SAVED = "error job result not saved, retrying"
# Writes so many bytes into its workspace, and says ok.
WRITES = """#!/bin/sh
head -c %d /dev/zero >large
echo '{"status": "ok", "events": [{"type": "e"}], "state_updates": {"cursor": 9, "token": "new"}}'
"""
MIB = 1024 * 1024


@contextmanager
def ended(directory: Path, size: int, code: int, **job: object) -> Iterator[tuple[Loop, FailingConnection]]:
    """A loop whose job has ended with so many bytes in its workspace, and none of whose commits works."""
    runtime = worlds.runtime(worlds.plugin("echo", entrypoint=program(directory, WRITES % size)), directory=directory)
    with opened(directory), closing(failing.connect(directory / "state.db")) as conn, kept(directory) as log:
        made = Loop(directory, conn, runtime, log, environ={})
        try:
            put_job(conn, "a", **job)
            made.turn()
            conn.fail_at("COMMIT", code)
            made.finish()
            yield made, conn
        finally:
            conn.mend()
            made.close()
            made.inbox.close()


def try_again(made: Loop, count: int) -> None:
    for _ in range(count):
        made.clock.move(5.1)
        made.turn()


def test_a_job_whose_files_leave_no_room_for_its_result_fails_and_they_go_first(tmp_path: Path) -> None:
    with ended(tmp_path, 2 * MIB, FULL, max_attempts=1) as (made, conn):
        try_again(made, 1)
        assert (tmp_path / "ws" / "a" / "large").stat().st_size == 2 * MIB
        try_again(made, 1)
        assert not (tmp_path / "ws" / "a").exists()
        assert made.said().count(NOT_SAVED) == 3
        # That made room; at once, and not after five seconds more.
        conn.mend()
        made.turn()
        assert made.statuses() == [("a", "dead", 1)]
        error = "its workspace left no room for its own result"
        assert conn.execute("SELECT last_error, status FROM job_log").fetchall() == [(error, "failed")]
        assert conn.execute("SELECT count(*) FROM artifacts").fetchone() == (0,)
        # Its events did not come to exist, so its cursor stays.
        assert [json.loads(state) for state, in conn.execute("SELECT state FROM plugin_state")] == [{"token": "new"}]


def test_such_a_job_is_tried_again_as_any_failure_is(tmp_path: Path) -> None:
    with ended(tmp_path, 2 * MIB, FULL) as (made, conn):
        try_again(made, 2)
        conn.mend()
        made.turn()
        assert made.statuses() == [("a", "queued", 2)]


@pytest.mark.parametrize(("size", "code"), [(1000, FULL), (2 * MIB, BUSY)], ids=["small", "another fault"])
def test_a_result_that_something_else_keeps_from_the_disk_waits(tmp_path: Path, size: int, code: int) -> None:
    with ended(tmp_path, size, code, max_attempts=1) as (made, conn):
        try_again(made, 10)
        assert made.said().count(NOT_SAVED) == 11
        conn.mend()
        try_again(made, 1)
        assert made.statuses() == [("a", "succeeded", 1)]
        assert (tmp_path / "ws" / "a" / "large").stat().st_size == size


def test_files_that_are_on_another_file_system_are_not_to_blame(tmp_path: Path) -> None:
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (tmp_path / "ws").symlink_to(elsewhere)
        with ended(tmp_path, 2 * MIB, FULL, max_attempts=1) as (made, conn):
            try_again(made, 5)
            assert (Path(elsewhere) / "a" / "large").stat().st_size == 2 * MIB
            conn.mend()
            try_again(made, 1)
            assert made.statuses() == [("a", "succeeded", 1)]


def test_a_plugin_for_which_there_is_no_process_starts_when_there_is() -> None:
    with writable_by_all() as directory:
        statuses, errors = in_a_child(run_short_of_processes, directory, ordinary=True)
        assert errors == [f"could not be started: {os.strerror(errno.EAGAIN)}: {directory}/run.sh"] * 3
    assert statuses == [("a", "succeeded", 1)]


def run_short_of_processes(directory: Path) -> tuple[list[tuple], list[str]]:
    """Run a job while this user may have no more processes, then when he may."""
    runtime = worlds.runtime(worlds.plugin("echo", entrypoint=program(directory, OK)), directory=directory)
    with loop(directory, runtime) as made:
        put_job(made.conn, "a", max_attempts=1)
        with no_more_processes():
            made.turn(signal.SIGUSR1)
            for _ in range(2):
                made.clock.move(1.1)
                made.turn()
        made.clock.move(1.1)
        made.turn()
        made.finish()
        text = made.log.read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        return made.statuses(), [line["error"] for line in lines if line["message"] == "job not started yet"]


def test_a_daemon_without_a_thread_to_have_does_not_start() -> None:
    with writable_by_all() as directory:
        exit_code, text = in_a_child(start_short_of_threads, directory, ordinary=True)
    assert exit_code == EXIT_SYSTEM
    assert text.startswith("cannot start a thread: ")


def start_short_of_threads(directory: Path) -> tuple[int, str]:
    with no_more_processes():
        try:
            Worker(lambda result: None).start()
        except DuctileError as error:
            return error.exit_code, str(error)
    return 0, ""


@contextmanager
def no_more_processes() -> Iterator[None]:
    """Let this user start no process and no thread."""
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NPROC, before)
