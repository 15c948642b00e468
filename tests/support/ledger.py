"""A fresh real database, and rows in it quickly made."""

from __future__ import annotations

import functools
import itertools
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from ductile import db
from ductile.queue import job_table
from ductile.queue.job import Job, NewJob, Status, Submitter
from support.clock import START

_PATHS = {
    Status.QUEUED: (),
    Status.RUNNING: (Status.RUNNING,),
    Status.SUCCEEDED: (Status.RUNNING, Status.SUCCEEDED),
    Status.DEAD: (Status.DEAD,),
    Status.DEDUPED: (Status.DEDUPED,),
}


@contextmanager
def opened(directory: Path) -> Iterator[sqlite3.Connection]:
    """The database of a directory as the daemon opens it, a fresh one where there is none; closed at the end."""
    path = directory / "state.db"
    place_fresh(path)
    conn = db.open_for_daemon(path)
    try:
        yield conn
    finally:
        if not conn.in_transaction:
            conn.execute("PRAGMA synchronous = OFF")    # no power fails between two tests
        conn.close()


def place_fresh(path: Path) -> None:
    """Put a copy of a database that the daemon has made here, unless there is one: migrations take 20 ms."""
    if not path.exists():
        path.write_bytes(_fresh())
        path.chmod(0o600)


@functools.cache
def _fresh() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state.db"
        db.open_for_daemon(path).close()
        return path.read_bytes()


def ids() -> Callable[[], str]:
    """A factory of ids in the form of UUIDs, the same ones in every run."""
    count = itertools.count(1)
    return lambda: f"00000000-0000-4000-8000-{next(count):012x}"


def new_job(job_id: str, **fields: Any) -> NewJob:
    """A job of the plugin `echo`, asked for by the operator, unless `fields` say otherwise."""
    return NewJob(**{"id": job_id, "plugin": "echo", "command": "poll", "max_attempts": 4,
                     "submitted_by": Submitter.CLI} | fields)


def put_job(conn: sqlite3.Connection, job_id: str, status: Status = Status.QUEUED, *, now: datetime = START,
            **fields: Any) -> Job:
    """Store one job and bring it to a status by legal moves; return its row."""
    with db.transaction(conn, synced=False):
        job_table.add(conn, [new_job(job_id, **fields)], now)
        for step in _PATHS[status]:
            job_table.move(conn, job_table.get(conn, job_id), step, now)
    return job_table.get(conn, job_id)


def open_jobs(conn: sqlite3.Connection, limit: int) -> list[Job]:
    """Return up to `limit` jobs that have not ended, oldest first."""
    return [job_table.get(conn, job_id) for job_id, in conn.execute(
        "SELECT id FROM job_queue WHERE completed_at IS NULL ORDER BY seq LIMIT ?", (limit,)).fetchall()]


def put_ended(conn: sqlite3.Connection, numbers: Iterable[int], *, at: str, result: str = "{}") -> None:
    """Store succeeded jobs, each a chain of its own with one attempt in the log, quickly."""
    jobs = [(number, f"{number:08d}-0000-4000-8000-000000000000") for number in numbers]
    with db.transaction(conn, synced=False):
        conn.executemany(
            "INSERT INTO job_queue (id, plugin, command, status, attempt, max_attempts, submitted_by, dedupe_key,"
            " created_at, started_at, completed_at, root_job_id)"
            " VALUES (?, 'echo', 'poll', 'succeeded', 1, 4, 'webhook', ?, ?, ?, ?, ?)",
            [(job_id, f"key-{number}", at, at, at, job_id) for number, job_id in jobs])
        conn.executemany(
            "INSERT INTO job_log (id, job_id, attempt, plugin, command, status, submitted_by, created_at,"
            " completed_at, result) VALUES (?, ?, 1, 'echo', 'poll', 'succeeded', 'webhook', ?, ?, ?)",
            [(job_id, job_id, at, at, result) for _, job_id in jobs])


def dump(conn: sqlite3.Connection) -> list[str]:
    """The whole content of the database as SQL."""
    return list(conn.iterdump())


@contextmanager
def steps(conn: sqlite3.Connection) -> Iterator[list[int]]:
    """Count the steps of SQLite's machine in the block, in tens: work, whatever the time it takes."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    conn.set_progress_handler(count, 10)
    try:
        yield counted
    finally:
        conn.set_progress_handler(None, 10)


class Recording(sqlite3.Connection):
    """A connection that keeps the statements it runs, with what was bound to them: a plan depends on that."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.seen: list[tuple[str, Any]] = []

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        self.seen.append((sql, parameters))
        return super().execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        kept = list(rows)
        self.seen += [(sql, row) for row in kept]
        return super().executemany(sql, kept)


@contextmanager
def recording(directory: Path) -> Iterator[Recording]:
    """A connection of its own to the database in a directory that `opened` has made."""
    conn = sqlite3.connect(directory / "state.db", isolation_level=None, factory=Recording)
    try:
        yield conn
    finally:
        conn.close()
