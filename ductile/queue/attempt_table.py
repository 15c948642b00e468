"""The `job_log` table: one row for each finished attempt."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from ductile.queue.job import Job, LogEntry
from ductile.units import parse_utc, utc_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A row of `job_log`; the fields are its columns, with times as UTC text."""

    seq: int
    id: str
    job_id: str
    attempt: int
    plugin: str
    command: str
    status: str
    submitted_by: str
    created_at: str
    started_at: str | None
    completed_at: str
    exit_code: int | None
    last_error: str | None
    stderr: str | None
    result: str | None
    printed: str | None
    parent_job_id: str | None
    source_event_id: str | None

    @property
    def seconds(self) -> float | None:
        """How long the attempt took, None if unknown."""
        if self.started_at is None:
            return None
        return (parse_utc(self.completed_at) - parse_utc(self.started_at)).total_seconds()


_COLUMNS = ", ".join(field.name for field in fields(Attempt))


def append(conn: sqlite3.Connection, job: Job, entry: LogEntry, result: str | None) -> None:
    """Add a finished attempt; `result` is its response as JSON."""
    conn.execute(
        "INSERT INTO job_log (id, job_id, attempt, plugin, command, status, submitted_by, created_at, started_at,"
        " completed_at, exit_code, last_error, stderr, result, printed, parent_job_id, source_event_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (entry.id, job.id, job.attempt, job.plugin, job.command, entry.status, job.submitted_by,
         utc_text(job.created_at), job.started_at and utc_text(job.started_at), utc_text(entry.completed_at),
         entry.exit_code, entry.error, entry.stderr, result, entry.printed, job.parent_job_id,
         job.source_event_id),
    )


def of_job(conn: sqlite3.Connection, job_id: str) -> list[Attempt]:
    """Return the attempts of a job in the order they ended."""
    return _attempts(conn, "WHERE job_id = ? ORDER BY seq", job_id)


def of_jobs(conn: sqlite3.Connection, jobs: Iterable[str]) -> Iterator[Attempt]:
    """Yield the attempts of several jobs, job by job, in the order they ended.

    They come one at a time because responses may be large.
    """
    # This is the order of the index, so no row is kept for sorting.
    return _each(conn, "WHERE job_id IN (SELECT value FROM json_each(?)) ORDER BY job_id, attempt, seq",
                 json.dumps(list(jobs)))


def last_seq(conn: sqlite3.Connection) -> int:
    """Return the `seq` of the newest attempt, 0 if there is none."""
    return int(conn.execute("SELECT coalesce(max(seq), 0) FROM job_log").fetchone()[0])


def totals(conn: sqlite3.Connection, *, after: int, upto: int) -> list[tuple[str, str, str, int, float]]:
    """Return plugin, command, status, count and seconds of the attempts from one `seq`, exclusive, to another."""
    return list(conn.execute(
        "SELECT plugin, command, status, count(*), coalesce(sum(max(0, (julianday(completed_at)"
        " - julianday(started_at)) * 86400)), 0.0) FROM job_log WHERE seq > ? AND seq <= ?"
        " GROUP BY plugin, command, status", (after, upto)))


def count_interruptions(conn: sqlite3.Connection, job_id: str) -> int:
    """Return how many attempts of a job a stop or crash interrupted."""
    return int(conn.execute(
        "SELECT count(*) FROM job_log WHERE job_id = ? AND status IN ('orphaned', 'interrupted')", (job_id,)
    ).fetchone()[0])


# Attempts of a plugin that are looked back on.
_MOST_LOOKED_BACK_ON = 10_000


def latest_ends(conn: sqlite3.Connection, plugin: str, command: str) -> Iterator[tuple[str, str, str]]:
    """Yield job, status and end of the latest attempts of a plugin's command, the newest first."""
    yield from conn.execute(
        "SELECT job_id, status, completed_at FROM (SELECT job_id, command, status, completed_at FROM job_log"
        f" WHERE plugin = ? ORDER BY seq DESC LIMIT {_MOST_LOOKED_BACK_ON}) WHERE command = ?", (plugin, command))


def has_attempt(conn: sqlite3.Connection, job_id: str, attempt: int) -> bool:
    """Return whether an attempt with this number is used up; an interrupted one is not."""
    return bool(conn.execute(
        "SELECT EXISTS (SELECT 1 FROM job_log WHERE job_id = ? AND attempt = ? AND status != 'interrupted')",
        (job_id, attempt),
    ).fetchone()[0])


def remove(conn: sqlite3.Connection, jobs: Iterable[str]) -> None:
    """Delete the attempts of these jobs."""
    conn.execute("DELETE FROM job_log WHERE job_id IN (SELECT value FROM json_each(?))", (json.dumps(list(jobs)),))


def _attempts(conn: sqlite3.Connection, where: str, *parameters: object) -> list[Attempt]:
    return list(_each(conn, where, *parameters))


def _each(conn: sqlite3.Connection, where: str, *parameters: object) -> Iterator[Attempt]:
    names = [field.name for field in fields(Attempt)]
    for row in conn.execute(f"SELECT {_COLUMNS} FROM job_log {where}", parameters):
        yield Attempt(**dict(zip(names, row, strict=True)))
