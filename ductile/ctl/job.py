"""`ductilectl retry` and `cancel`."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable

from ductile import submit
from ductile.ctl import queries, table
from ductile.ctl.daemon_link import wake
from ductile.ctl.lookup import find, moment
from ductile.ctl.on_disk import enabled, runtime
from ductile.ctl.queries import JobFilter
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.dispatch.outcome import CANCELLED
from ductile.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, DuctileError
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status
from ductile.text import counted

# A plugin has five seconds between SIGTERM and SIGKILL.
_CANCEL_SECONDS = 12
_LOOK_SECONDS = 0.02
_ALL = -1    # LIMIT without a limit


def retry(session: Session, *, job: str) -> int:
    """Put a dead job back in its place in the queue, with as many attempts more as its plugin has.

    Raises DuctileError as `find` does, 66 if its plugin is not configured or disabled, 1 for a job that is not dead.
    """
    known = runtime(session)
    with session.changing() as conn:
        with transaction(conn):
            found = find(conn, job)
            _require(found, Status.DEAD, "only a dead job can be retried")
            attempt, most = _requeue(session, conn, found, enabled(known, found.plugin))
        later = "" if wake(session) else "; it runs when ductiled does"
    session.emit({"job_id": found.id, "status": Status.QUEUED, "attempt": attempt, "max_attempts": most},
                 f"job {found.id} is queued again, attempt {attempt} of {most}{later}\n")
    return EXIT_OK


def _requeue(session: Session, conn: sqlite3.Connection, job: Job, plugin: ConfiguredPlugin) -> tuple[int, int]:
    """Queue a dead job again. Return its next attempt, and how many it may have."""
    used_up = attempt_table.has_attempt(conn, job.id, job.attempt)
    attempt = job.attempt + 1 if used_up else job.attempt
    most = attempt - 1 + submit.max_attempts(plugin, job.command)
    job_table.move(conn, job, Status.QUEUED, session.now(), attempt=attempt, max_attempts=most, error=job.last_error)
    return attempt, most


def retry_all_failed(session: Session, *, plugin: str | None, since: str | None, ask: bool) -> int:
    """Retry every job that failed permanently, in one transaction; cancelled ones are not retried.

    With `ask` the operator confirms. Raises DuctileError: 64 without a terminal to ask on or for a time that is none,
    66 for a plugin that is not configured or disabled, 1 if the operator declines.
    """
    known = runtime(session)
    if plugin is not None:
        enabled(known, plugin)
    wanted = JobFilter(status=Status.DEAD, plugin=plugin, since=moment(session, "--since", since))
    with session.changing() as conn:
        failed = [row for row in queries.jobs(conn, wanted, _ALL) if row["last_error"] != CANCELLED]
        counts = Counter(row["plugin"] for row in failed if row["plugin"] in known.enabled)
        skipped = Counter(row["plugin"] for row in failed if row["plugin"] not in known.enabled)
        for name, count in sorted(skipped.items()):
            session.err.write(f"warning: {counted(count, 'job')} of plugin {table.cell(name)} cannot be retried: the"
                              " plugin is disabled or not configured\n")
        if counts and ask:
            _confirm_retry(session, counts)
        retried = []
        with transaction(conn):
            for row in failed:
                job = job_table.get(conn, row["job_id"])
                # It may have been retried, or pruned, since it was counted.
                if job is not None and job.status is Status.DEAD and job.plugin in counts:
                    _requeue(session, conn, job, known.plugins[job.plugin])
                    retried.append(job.id)
        later = "" if not retried or wake(session) else "; they run when ductiled does"
    session.emit({"retried": retried, "skipped": skipped.total()},
                 f"{counted(len(retried), 'job')} queued again{later}\n" if retried else "no failed job to retry\n")
    return EXIT_OK


def _confirm_retry(session: Session, counts: Counter[str]) -> None:
    if not session.can_ask:
        raise DuctileError(f"this would retry {counted(counts.total(), 'job')}; give --yes to do it without a terminal",
                           exit_code=EXIT_USAGE)
    by_plugin = ", ".join(f"{count:,} of {table.cell(name)}" for name, count in sorted(counts.items()))
    if not session.ask(f"Retry {counted(counts.total(), 'failed job')} ({by_plugin})?"):
        raise DuctileError("nothing was changed", exit_code=EXIT_FAILED)


def cancel(session: Session, *, job: str, wait: bool, sleep: Callable[[float], None]) -> int:
    """End a queued job, or have the daemon end a running one and, with `wait`, wait for that.

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
        status, said = Status.DEAD, "is cancelled"
        if found.status is Status.RUNNING and not is_up:
            status, said = Status.RUNNING, "will be cancelled when ductiled starts"
        elif found.status is Status.RUNNING and not wait:
            status, said = Status.RUNNING, "is being cancelled"
        elif found.status is Status.RUNNING:
            _await_end(session, conn, found.id, sleep)
    session.emit({"job_id": found.id, "status": status, "last_error": CANCELLED}, f"job {found.id} {said}\n")
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
