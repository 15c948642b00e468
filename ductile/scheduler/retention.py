"""What the heartbeat clears away: chains past their retention, and queued jobs that nobody can run any more."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ductile.db import free_pages, transaction
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status
from ductile.routing import context_table
from ductile.runtime_config import RuntimeConfig
from ductile.workspace import artifact_table

# Small transactions: a job that wants to start waits for one of them at most.
JOBS_AT_ONCE = 100
_FILES_AT_ONCE = 1000
_PAGES_A_JOB = 5
_BURIED_AT_ONCE = 500


def prune(conn: sqlite3.Connection, retention: int, now: datetime, most: int = JOBS_AT_ONCE) -> int:
    """Delete one batch, up to `most`, of the jobs whose whole chain ended over `retention` seconds ago, or give freed pages back.

    Return how many rows and pages that were; 0 when nothing is left to do. Of a chain longer than a batch the newest
    jobs go first: what is left of it is as old as it was. Raises what `transaction` raises.
    """
    before = now - timedelta(seconds=retention)
    if not job_table.ended_chains(conn, before, 1):
        return free_pages(conn, most * _PAGES_A_JOB)
    # Not synced: what a power failure brings back is pruned again.
    with transaction(conn, synced=False):
        # Under the lock: the operator may have put a dead job back in the queue.
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
    """End one batch of queued jobs whose plugin is configured no more, or disabled. Return them as they were.

    None where no plugin is enabled at all: a file that lost its end must not end what waits. Raises what `transaction`
    raises.
    """
    if not runtime.enabled:
        return []
    if not job_table.queued_outside(conn, runtime.enabled, 1):
        return []
    with transaction(conn):
        jobs = job_table.queued_outside(conn, runtime.enabled, _BURIED_AT_ONCE)
        for job in jobs:
            why = "disabled" if job.plugin in runtime.plugins else "removed from the configuration"
            job_table.move(conn, job, Status.DEAD, now, error=f"plugin {job.plugin} was {why}")
    return jobs
