"""`ductilectl queue`, `retry` and `cancel`: jobs one by one."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from io import TextIOBase
from pathlib import Path

from ductile import submit
from ductile.ctl import table
from ductile.ctl.daemon_link import wake
from ductile.ctl.lookup import enabled, shown
from ductile.ctl.output import document
from ductile.ctl.table import Page
from ductile.db import transaction
from ductile.errors import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE, DuctileError
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status
from ductile.runtime_config import RuntimeConfig
from ductile.units import format_duration, utc_text

_SHORTEST_PREFIX = 4
_CANDIDATES_SHOWN = 10
_CANCELLED = "cancelled by operator"


def find(conn: sqlite3.Connection, text: str) -> Job:
    """Return the job with this id, or with the only id that begins so.

    Raises DuctileError: 66 where there is none, 64 where `text` is too short or there are several.
    """
    prefix = text.strip().lower()
    if len(prefix) < _SHORTEST_PREFIX:
        raise DuctileError(f"{shown(text)} is too short for a job: give {_SHORTEST_PREFIX} characters of its id",
                           exit_code=EXIT_USAGE)
    found = job_table.with_prefix(conn, prefix, _CANDIDATES_SHOWN + 1)
    if not found:
        raise DuctileError(f"no job {shown(text)}", exit_code=EXIT_NOT_FOUND)
    if len(found) > 1:
        names = ", ".join(job.id for job in found[:_CANDIDATES_SHOWN])
        more = ", …" if len(found) > _CANDIDATES_SHOWN else ""
        raise DuctileError(f"{shown(text)} could be any of {names}{more}", exit_code=EXIT_USAGE)
    return found[0]


def queue(conn: sqlite3.Connection, *, limit: int, now: datetime, as_json: bool, out: TextIOBase,
         page: Page = table.PLAIN) -> int:
    """Show up to `limit` jobs that have not ended, oldest first."""
    rows = [_open_row(job, now) for job in job_table.open_jobs(conn, limit)]
    if as_json:
        out.write(document(rows))
        return EXIT_OK
    header = ("job", "plugin", "command", "status", "attempt", "age", "submitted by")
    out.write(table.lines(header, [
        (table.short(row["job_id"]), row["plugin"], row["command"],
         row["status"] if row["next_retry_at"] is None else f"{row['status']} {page.wait(row['next_retry_at'])}",
         f"{row['attempt']}/{row['max_attempts']}", format_duration(row["age_seconds"]), row["submitted_by"])
        for row in rows
    ], page=page) if rows else "no job waits or runs\n")
    return EXIT_OK


def _open_row(job: Job, now: datetime) -> dict:
    waits = job.next_retry_at is not None
    return {
        "job_id": job.id, "plugin": job.plugin, "command": job.command,
        "status": "waiting" if waits else job.status, "next_retry_at": utc_text(job.next_retry_at) if waits else None,
        "attempt": job.attempt, "max_attempts": job.max_attempts, "created_at": utc_text(job.created_at),
        "age_seconds": max(0, int((now - job.created_at).total_seconds())), "submitted_by": job.submitted_by,
    }


def retry(conn: sqlite3.Connection, *, job: str, runtime: RuntimeConfig, state_path: Path, now: datetime, as_json: bool,
          out: TextIOBase, err: TextIOBase) -> int:
    """Put a dead job back in its place in the queue, with as many attempts more as its plugin has.

    Raises DuctileError as `find` does, 66 where its plugin's jobs may not wait, 1 for a job that is not dead.
    """
    with transaction(conn):
        found = find(conn, job)
        _require(found, Status.DEAD, "only a dead job can be retried")
        plugin = enabled(runtime, found.plugin)
        used_up = attempt_table.has_attempt(conn, found.id, found.attempt)
        attempt = found.attempt + 1 if used_up else found.attempt
        most = attempt - 1 + submit.max_attempts(plugin, found.command)
        job_table.move(conn, found, Status.QUEUED, now, attempt=attempt, max_attempts=most, error=found.last_error)
    runs = wake(state_path, err)
    row = {"job_id": found.id, "status": Status.QUEUED, "attempt": attempt, "max_attempts": most}
    later = "" if runs else "; it runs when ductiled does"
    text = f"job {found.id} is queued again, attempt {attempt} of {most}{later}\n"
    out.write(document(row) if as_json else text)
    return EXIT_OK


def cancel(conn: sqlite3.Connection, *, job: str, state_path: Path, now: datetime, as_json: bool, out: TextIOBase,
           err: TextIOBase) -> int:
    """End a queued job. Raises DuctileError as `find` does, 1 for a job that is not queued."""
    with transaction(conn):
        found = find(conn, job)
        _require(found, Status.QUEUED, "only a queued job can be cancelled")
        job_table.move(conn, found, Status.DEAD, now, error=_CANCELLED)
    # A scheduled run may be held back by this very job.
    wake(state_path, err)
    row = {"job_id": found.id, "status": Status.DEAD, "last_error": _CANCELLED}
    out.write(document(row) if as_json else f"job {found.id} is cancelled\n")
    return EXIT_OK


def _require(job: Job, status: Status, rule: str) -> None:
    if job.status is not status:
        raise DuctileError(f"job {job.id} is {job.status}: {rule}", exit_code=EXIT_FAILED)
