"""Removes chains past their retention, and fails queued jobs that can no longer run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta

from ductile.db import free_pages, small_checkpoints, transaction
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status
from ductile.routing import context_table
from ductile.runtime_config import RuntimeConfig
from ductile.workspace import artifact_table

# Transactions are small: a job that is ready waits for one of them at most. Rows with large results take as long as a
# hundred small ones each.
JOBS_AT_ONCE = 100
_SECONDS_AT_ONCE = 0.01
_FILES_AT_ONCE = 1000
_PAGES_AT_ONCE = 200
_FAILED_AT_ONCE = 500


def prune(conn: sqlite3.Connection, retention: int, now: datetime, *, monotonic: Callable[[], float]) -> int:
    """Delete a batch of jobs whose whole chain ended over `retention` seconds ago, or else free empty pages.

    Return the number of rows or pages, 0 if there is nothing left to do. The newest jobs of a chain go first, so that
    the rest of a long chain keeps its age. Raises what `transaction` raises.
    """
    before = now - timedelta(seconds=retention)
    with small_checkpoints(conn):
        if not job_table.ended_chains(conn, before, 1):
            return free_pages(conn, _PAGES_AT_ONCE)
        # Not synced: rows that a power failure brings back are pruned again.
        with transaction(conn, synced=False):
            # Read again under the lock: the operator may have retried a job.
            roots = job_table.ended_chains(conn, before, JOBS_AT_ONCE)
            return _remove(conn, job_table.newest_of_chains(conn, roots, JOBS_AT_ONCE), monotonic)


def _remove(conn: sqlite3.Connection, jobs: list[str], monotonic: Callable[[], float]) -> int:
    """Delete jobs with all that belongs to them, in growing groups until the time is up. Return the number of rows."""
    deadline = monotonic() + _SECONDS_AT_ONCE
    removed, size, took = 0, 1, 0.0
    # A group that is twice as large takes about twice as long.
    while jobs and (started := monotonic()) + 2 * took <= deadline:
        group, jobs = jobs[:size], jobs[size:]
        files = artifact_table.remove(conn, group, _FILES_AT_ONCE)
        removed += files
        if files == _FILES_AT_ONCE:
            break
        contexts = job_table.contexts_of(conn, group)
        attempt_table.remove(conn, group)
        job_table.remove(conn, group)
        context_table.remove(conn, job_table.without_jobs(conn, contexts))
        removed += len(group)
        size, took = 2 * size, monotonic() - started
    return removed


def fail_unrunnable_jobs(conn: sqlite3.Connection, runtime: RuntimeConfig, now: datetime) -> list[Job]:
    """Fail a batch of queued jobs whose plugin is disabled or no longer configured. Return them as they were.

    If no plugin is enabled at all, nothing happens: a truncated file must not fail all queued jobs. Raises what
    `transaction` raises.
    """
    if not runtime.enabled:
        return []
    if not job_table.queued_outside(conn, runtime.enabled, 1):
        return []
    with transaction(conn):
        jobs = job_table.queued_outside(conn, runtime.enabled, _FAILED_AT_ONCE)
        for job in jobs:
            why = "disabled" if job.plugin in runtime.plugins else "removed from the configuration"
            job_table.move(conn, job, Status.DEAD, now, error=f"plugin {job.plugin} was {why}")
    return jobs
