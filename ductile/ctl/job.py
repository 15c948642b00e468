"""`ductilectl queue`, `retry` and `cancel`: jobs one by one."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any

from ductile import submit
from ductile.ctl import table
from ductile.ctl.daemon_link import wake
from ductile.ctl.lookup import enabled, quoted, runtime
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.errors import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE, DuctileError
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status
from ductile.units import format_duration, utc_text

_SHORTEST_PREFIX = 4
_CANDIDATES_SHOWN = 10
_CANCELLED = "cancelled by operator"


def find(conn: sqlite3.Connection, text: str) -> Job:
    """Return the job with this id, or the only one whose id starts with it.

    Raises DuctileError: 66 if there is none, 64 if `text` is too short or there are several.
    """
    prefix = text.strip().lower()
    if len(prefix) < _SHORTEST_PREFIX:
        raise DuctileError(f"{quoted(text)} is too short for a job: give {_SHORTEST_PREFIX} characters of its id",
                           exit_code=EXIT_USAGE)
    found = job_table.with_prefix(conn, prefix, _CANDIDATES_SHOWN + 1)
    if not found:
        raise DuctileError(f"no job {quoted(text)}", exit_code=EXIT_NOT_FOUND)
    if len(found) > 1:
        names = ", ".join(job.id for job in found[:_CANDIDATES_SHOWN])
        more = ", …" if len(found) > _CANDIDATES_SHOWN else ""
        raise DuctileError(f"{quoted(text)} could be any of {names}{more}", exit_code=EXIT_USAGE)
    return found[0]


def queue(session: Session, *, limit: int) -> int:
    """Show up to `limit` jobs that have not ended, oldest first."""
    now, page = session.now(), session.page
    with session.reading() as conn:
        rows = [_open_row(job, now) for job in job_table.open_jobs(conn, limit)]
    header = ("job", "plugin", "command", "status", "attempt", "age", "submitted by")
    session.emit(rows, table.lines(header, [
        (table.short(row["job_id"]), row["plugin"], row["command"],
         row["status"] if row["next_retry_at"] is None else f"{row['status']} {page.wait(row['next_retry_at'])}",
         f"{row['attempt']}/{row['max_attempts']}", format_duration(row["age_seconds"]), row["submitted_by"])
        for row in rows
    ], page=page) if rows else "queue is empty\n")
    return EXIT_OK


def _open_row(job: Job, now: datetime) -> dict[str, Any]:
    retry_at = job.next_retry_at
    return {
        "job_id": job.id, "plugin": job.plugin, "command": job.command,
        "status": job.status if retry_at is None else "waiting",
        "next_retry_at": None if retry_at is None else utc_text(retry_at),
        "attempt": job.attempt, "max_attempts": job.max_attempts, "created_at": utc_text(job.created_at),
        "age_seconds": max(0, int((now - job.created_at).total_seconds())), "submitted_by": job.submitted_by,
    }


def retry(session: Session, *, job: str) -> int:
    """Put a dead job back in its place in the queue, with as many attempts more as its plugin has.

    Raises DuctileError as `find` does, 66 if its plugin is not configured or disabled, 1 for a job that is not dead.
    """
    known = runtime(session)
    with session.changing() as conn:
        with transaction(conn):
            found = find(conn, job)
            _require(found, Status.DEAD, "only a dead job can be retried")
            plugin = enabled(known, found.plugin)
            used_up = attempt_table.has_attempt(conn, found.id, found.attempt)
            attempt = found.attempt + 1 if used_up else found.attempt
            most = attempt - 1 + submit.max_attempts(plugin, found.command)
            job_table.move(conn, found, Status.QUEUED, session.now(), attempt=attempt, max_attempts=most,
                           error=found.last_error)
        later = "" if wake(session) else "; it runs when ductiled does"
    session.emit({"job_id": found.id, "status": Status.QUEUED, "attempt": attempt, "max_attempts": most},
                 f"job {found.id} is queued again, attempt {attempt} of {most}{later}\n")
    return EXIT_OK


def cancel(session: Session, *, job: str) -> int:
    """End a queued job. Raises DuctileError as `find` does, 1 for a job that is not queued."""
    with session.changing() as conn:
        with transaction(conn):
            found = find(conn, job)
            _require(found, Status.QUEUED, "only a queued job can be cancelled")
            job_table.move(conn, found, Status.DEAD, session.now(), error=_CANCELLED)
        # This job may be the one that blocked a scheduled run.
        wake(session)
    session.emit({"job_id": found.id, "status": Status.DEAD, "last_error": _CANCELLED},
                 f"job {found.id} is cancelled\n")
    return EXIT_OK


def _require(job: Job, status: Status, rule: str) -> None:
    if job.status is not status:
        raise DuctileError(f"job {job.id} is {job.status}: {rule}", exit_code=EXIT_FAILED)
