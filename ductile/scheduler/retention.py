"""Removes chains past their retention, and fails queued jobs that can no longer run."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ductile.db import free_pages, transaction
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status
from ductile.routing import context_table
from ductile.runtime_config import RuntimeConfig
from ductile.workspace import artifact_table

# Transactions are small: a job that is ready waits for one of them at most.
JOBS_AT_ONCE = 100
_FILES_AT_ONCE = 1000
_PAGES_A_JOB = 5
_FAILED_AT_ONCE = 500


def prune(conn: sqlite3.Connection, retention: int, now: datetime, most: int = JOBS_AT_ONCE) -> int:
    """Delete a batch of up to `most` jobs whose whole chain ended over `retention` seconds ago, or free empty pages.

    Return the number of rows and pages, 0 if there is nothing left to do. The newest jobs of a chain go first, so that
    the rest of a long chain keeps its age. Raises what `transaction` raises.
    """
    before = now - timedelta(seconds=retention)
    if not job_table.ended_chains(conn, before, 1):
        return free_pages(conn, most * _PAGES_A_JOB)
    # Not synced: rows that a power failure brings back are pruned again.
    with transaction(conn, synced=False):
        # Read again under the lock: the operator may have retried a job.
        roots = job_table.ended_chains(conn, before, most)
        jobs = job_table.newest_of_chains(conn, roots, most)
        removed = artifact_table.remove(conn, jobs, _FILES_AT_ONCE)
        if removed < _FILES_AT_ONCE:
            contexts = job_table.contexts_of(conn, jobs)
            attempt_table.remove(conn, jobs)
            job_table.remove(conn, jobs)
            context_table.remove(conn, job_table.without_jobs(conn, contexts))
            removed += len(jobs)
    return removed + free_pages(conn, most * _PAGES_A_JOB)


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
