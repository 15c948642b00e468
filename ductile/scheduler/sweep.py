"""What the heartbeat clears away: chains past their retention, and queued jobs that nobody can run any more."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ductile import history
from ductile.context import rows as context_rows
from ductile.db import free_pages, transaction
from ductile.queue import rows as queue_rows
from ductile.queue.job import Job, Status
from ductile.workspace import rows as artifact_rows
from ductile.world import World

# Small transactions: a job that wants to start waits for one of them at most.
_CHAINS_AT_ONCE = 100
_JOBS_AT_ONCE = 500
_PAGES_AT_ONCE = 2000


def prune(conn: sqlite3.Connection, retention: int, now: datetime) -> int:
    """Delete one batch of chains whose every job ended over `retention` seconds ago. Return the number of chains.

    Freed pages go back to the file system. Raises what `transaction` raises.
    """
    before = now - timedelta(seconds=retention)
    roots = queue_rows.ended_chains(conn, before, _CHAINS_AT_ONCE)
    if not roots:
        # Of large jobs a batch frees more pages than are given back at once.
        free_pages(conn, _PAGES_AT_ONCE)
        return 0
    with transaction(conn):
        # Read again under the lock: the operator may have put a dead job back in the queue.
        roots = queue_rows.ended_chains(conn, before, _CHAINS_AT_ONCE)
        jobs = queue_rows.ids_of_chains(conn, roots)
        contexts = queue_rows.contexts_of(conn, jobs)
        history.remove(conn, jobs)
        artifact_rows.remove(conn, jobs)
        queue_rows.remove(conn, jobs)
        context_rows.remove(conn, contexts)
    free_pages(conn, _PAGES_AT_ONCE)
    return len(roots)


def bury(conn: sqlite3.Connection, world: World, now: datetime) -> list[Job]:
    """End one batch of queued jobs whose plugin is configured no more, or disabled. Return them as they were.

    None where no plugin is enabled at all: a file that lost its end must not end what waits. Raises what `transaction`
    raises.
    """
    if not world.enabled:
        return []
    if not queue_rows.queued_outside(conn, world.enabled, 1):
        return []
    with transaction(conn):
        jobs = queue_rows.queued_outside(conn, world.enabled, _JOBS_AT_ONCE)
        for job in jobs:
            why = "disabled" if job.plugin in world.plugins else "removed from the configuration"
            queue_rows.move(conn, job, Status.DEAD, now, error=f"plugin {job.plugin} was {why}")
    return jobs
