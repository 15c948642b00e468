"""Jobs put into the ledger by hand: many at once, and one at a time as an operator's command does."""

from __future__ import annotations

import sqlite3
import uuid
from datetime import UTC, datetime, timedelta

from ductile.db import transaction
from ductile.queue import job_table
from ductile.queue.job import NewJob, Submitter
from ductile.units import utc_text

_ATTEMPTS = 4
# Finished jobs lie so far apart: a million of them ends within the time that they are kept.
_APART_SECONDS = 2
_RESULT = '{"status":"ok","result":"hello"}'


def submit(conn: sqlite3.Connection, plugin: str, count: int = 1) -> list[str]:
    """Queue `poll` jobs of a plugin in one durable commit, and return their ids."""
    jobs = [NewJob(id=str(uuid.uuid4()), plugin=plugin, command="poll", submitted_by=Submitter.CLI,
                   max_attempts=_ATTEMPTS) for _ in range(count)]
    with transaction(conn):
        job_table.add(conn, jobs, datetime.now(UTC))
    return [job.id for job in jobs]


def fill(conn: sqlite3.Connection, plugin: str, *, waiting: int, finished: int) -> None:
    """Add finished `poll` jobs, each with its row in the log, and then as many runnable ones as asked for."""
    conn.execute("PRAGMA cache_size = -1000000")
    now = datetime.now(UTC)
    with transaction(conn, synced=False):
        for back in range(finished, 0, -1):
            _add_finished(conn, plugin, utc_text(now - timedelta(seconds=_APART_SECONDS * back)))
        queued = ((new_id, new_id, plugin, _ATTEMPTS, utc_text(now))
                  for new_id in (str(uuid.uuid4()) for _ in range(waiting)))
        conn.executemany("INSERT INTO job_queue (id, root_job_id, plugin, command, status, attempt, max_attempts,"
                         " submitted_by, created_at) VALUES (?, ?, ?, 'poll', 'queued', 1, ?, 'cli', ?)", queued)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _add_finished(conn: sqlite3.Connection, plugin: str, moment: str) -> None:
    job_id = str(uuid.uuid4())
    conn.execute(
        "INSERT INTO job_queue (id, root_job_id, plugin, command, status, attempt, max_attempts, submitted_by,"
        " created_at, started_at, completed_at) VALUES (?1, ?1, ?2, 'poll', 'succeeded', 1, ?3, 'cli', ?4, ?4, ?4)",
        (job_id, plugin, _ATTEMPTS, moment),
    )
    conn.execute(
        "INSERT INTO job_log (id, job_id, attempt, plugin, command, status, submitted_by, created_at, started_at,"
        " completed_at, exit_code, result) VALUES (?1, ?2, 1, ?3, 'poll', 'succeeded', 'cli', ?4, ?4, ?4, 0, ?5)",
        (str(uuid.uuid4()), job_id, plugin, moment, _RESULT),
    )


def last_logged(conn: sqlite3.Connection) -> int:
    """Return the number of the last row in the log, 0 where it is empty."""
    return conn.execute("SELECT coalesce(max(seq), 0) FROM job_log").fetchone()[0]


def is_idle(conn: sqlite3.Connection) -> bool:
    """Say whether every job has ended."""
    return conn.execute("SELECT NOT EXISTS (SELECT 1 FROM job_queue WHERE completed_at IS NULL)").fetchone()[0] == 1
