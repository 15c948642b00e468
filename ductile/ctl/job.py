"""`ductilectl retry` and `cancel`, and how a command finds the job that it is for."""

from __future__ import annotations

import sqlite3

from ductile import submit
from ductile.ctl.daemon_link import wake
from ductile.ctl.lookup import enabled, quoted, runtime
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.errors import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE, DuctileError
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status

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
