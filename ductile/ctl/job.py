"""`ductilectl retry` and `cancel`, and how a command finds the job that it is for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from ductile import submit
from ductile.ctl.daemon_link import wake
from ductile.ctl.lookup import enabled, quoted, runtime
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.dispatch.outcome import CANCELLED
from ductile.errors import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE, DuctileError
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status

SHORTEST_PREFIX = 4
_CANDIDATES_SHOWN = 10
# A plugin has five seconds between SIGTERM and SIGKILL.
_CANCEL_SECONDS = 12
_LOOK_SECONDS = 0.02


def find(conn: sqlite3.Connection, text: str) -> Job:
    """Return the job with this id, or the only one whose id starts with it.

    Raises DuctileError: 66 if there is none, 64 if `text` is too short or there are several.
    """
    prefix = text.strip().lower()
    if len(prefix) < SHORTEST_PREFIX:
        raise DuctileError(f"{quoted(text)} is too short for a job: give {SHORTEST_PREFIX} characters of its id",
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


def cancel(session: Session, *, job: str, sleep: Callable[[float], None]) -> int:
    """End a queued job, or have the daemon end a running one and wait for that.

    Raises DuctileError as `find` does; 1 for a job that has ended, or that does not end in 12 seconds.
    """
    with session.changing() as conn:
        with transaction(conn):
            found = find(conn, job)
            if found.status.is_last:
                raise DuctileError(f"job {found.id} is {found.status}: only a queued or running job can be cancelled",
                                   exit_code=EXIT_FAILED)
            if found.status is Status.RUNNING:
                job_table.request_cancel(conn, found.id, session.now())
            else:
                job_table.move(conn, found, Status.DEAD, session.now(), error=CANCELLED)
        # A queued job may be the one that blocked a scheduled run.
        is_up = wake(session)
        is_stored = found.status is Status.RUNNING and not is_up
        if found.status is Status.RUNNING and is_up:
            _await_end(session, conn, found.id, sleep)
    session.emit({"job_id": found.id, "status": Status.RUNNING if is_stored else Status.DEAD, "last_error": CANCELLED},
                 f"job {found.id} {'will be cancelled when ductiled starts' if is_stored else 'is cancelled'}\n")
    return EXIT_OK


def _await_end(session: Session, conn: sqlite3.Connection, job_id: str, sleep: Callable[[float], None]) -> None:
    """Wait until a job that is being cancelled is dead. Raises DuctileError (1) for any other end."""
    deadline = session.clock.monotonic() + _CANCEL_SECONDS
    while session.clock.monotonic() < deadline:
        job = job_table.get(conn, job_id)
        if job is not None and job.status is Status.DEAD:
            return
        if job is not None and job.status is Status.SUCCEEDED:
            raise DuctileError(f"job {job_id} had already succeeded", exit_code=EXIT_FAILED)
        sleep(_LOOK_SECONDS)
    raise DuctileError(f"job {job_id} has not ended after {_CANCEL_SECONDS} s; it is cancelled when it ends",
                       exit_code=EXIT_FAILED)


def _require(job: Job, status: Status, rule: str) -> None:
    if job.status is not status:
        raise DuctileError(f"job {job.id} is {job.status}: {rule}", exit_code=EXIT_FAILED)
