"""`ductilectl queue` and `jobs`: lists of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ductile.ctl import queries, table, times
from ductile.ctl.lookup import moment, require_plugin
from ductile.ctl.queries import JobFilter, Row
from ductile.ctl.session import Session
from ductile.ctl.table import Page
from ductile.errors import EXIT_OK
from ductile.units import parse_utc


def queue(session: Session, *, limit: int) -> int:
    """Show up to `limit` jobs that have not ended: those that run, then the others, oldest first."""
    now, page = session.now(), session.page
    with session.reading() as conn:
        rows = [_queue_row(job, now) for job in queries.open_jobs(conn, limit)]
    header = ("job", "plugin", "command", "status", "attempt", "age", "submitted by")
    session.emit(rows, table.lines(header, [
        (table.short(row["job_id"]), row["plugin"], row["command"], _status(row, page),
         f"{row['attempt']}/{row['max_attempts']}", times.age(row["created_at"], now), row["submitted_by"])
        for row in rows
    ], page=page) if rows else "queue is empty\n")
    return EXIT_OK


def _queue_row(job: Row, now: datetime) -> dict[str, Any]:
    shown = {name: job[name] for name in ("job_id", "plugin", "command", "next_retry_at", "attempt", "max_attempts",
                                          "created_at", "submitted_by")}
    age = max(0, int((now - parse_utc(job["created_at"])).total_seconds()))
    return {**shown, "status": queries.status_of(job), "age_seconds": age}


def _status(row: Row, page: Page) -> str:
    return row["status"] if row["next_retry_at"] is None else f"{row['status']} {page.wait(row['next_retry_at'])}"


def jobs(session: Session, *, status: str | None, plugin: str | None, pipeline: str | None, since: str | None,
         until: str | None, limit: int) -> int:
    """Show up to `limit` jobs that match, newest first: those that have not ended, then by when they ended.

    Raises DuctileError: 64 for a time that is none, 66 for a plugin that is neither configured nor in the database.
    """
    page = session.page
    wanted = JobFilter(status=status, plugin=plugin, pipeline=pipeline, since=moment(session, "--since", since),
                       until=moment(session, "--until", until))
    with session.reading() as conn:
        if plugin is not None:
            require_plugin(session, conn, plugin)
        rows = [_job_row(job) for job in queries.jobs(conn, wanted, limit)]
    header = ("job", "plugin", "command", "status", "attempt", "ended", "error")
    session.emit(rows, table.lines(header, [
        (table.short(row["job_id"]), row["plugin"], row["command"], _status(row, page),
         f"{row['attempt']}/{row['max_attempts']}", page.time(row["completed_at"]), row["last_error"])
        for row in rows
    ], page=page) if rows else "no job matches\n")
    return EXIT_OK


def _job_row(job: Row) -> dict[str, Any]:
    shown = {name: value for name, value in job.items() if name != "seq"}
    return {**shown, "status": queries.status_of(job), "seconds": queries.seconds(job)}
