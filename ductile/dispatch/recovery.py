"""Crash recovery: what a start does about jobs that the last daemon left running."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from datetime import datetime

from ductile.db import NotWritten
from ductile.dispatch import transactions
from ductile.dispatch.attempt import cleanup_workspace
from ductile.dispatch.outcome import Interrupted
from ductile.dispatch.run_lock import RunLocks
from ductile.injected import Chance, NewId
from ductile.log import Component
from ductile.queue import job_table
from ductile.queue.job import Job, StaleJob, Status
from ductile.runtime_config import RuntimeConfig
from ductile.workspace.manager import Workspaces

_log = Component("recovery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Recovers orphaned jobs: their rows say `running`, but no daemon runs them."""

    conn: sqlite3.Connection
    locks: RunLocks
    workspaces: Workspaces
    rng: Chance
    new_id: NewId
    alive: set[str] = field(default_factory=set)    # ids of jobs with leftover processes, already reported

    def recover(self, runtime: RuntimeConfig, now: datetime, *, patience: float) -> set[str]:
        """Bring every orphaned job to its next status. Return the ids of the jobs that are blocked.

        A job is blocked while processes of its run are alive, or while its row cannot be written. Call this only while
        no job runs. It is safe to call again, and to be killed anywhere: a job is an orphan until its row says
        otherwise. `patience` is how many seconds to wait for a killed process. Raises OSError if it cannot search for
        leftover processes; no job may start then.
        """
        blocked = {job.id for job in job_table.running(self.conn)
                   if not self._recover_one(runtime, job, now, patience)}
        for job_id in self.locks.job_ids():
            if job_id not in blocked and not self._end_leftover(job_id, patience):
                blocked.add(job_id)
        return blocked

    def _recover_one(self, runtime: RuntimeConfig, job: Job, now: datetime, patience: float) -> bool:
        """End leftover processes of the job, then finish its attempt as orphaned. Return whether that succeeded."""
        if not self._end_leftover(job.id, patience):
            return False
        outcome = Interrupted(by="crash", error="orphaned: ductiled ended while it ran")
        fault = cleanup_workspace(self.workspaces, job, keep=False)
        if fault is not None:
            _log.warn("workspace not removed", job_id=job.id, error=fault)
        try:
            conclusion = transactions.finish(self.conn, job, outcome, transactions.rules_for(runtime, job.plugin),
                                             now=now, rng=self.rng, new_id=self.new_id)
        except (NotWritten, StaleJob) as error:
            _log.warn("orphaned job not recovered", job_id=job.id, plugin=job.plugin, error=str(error))
            return False
        again = conclusion.status is Status.QUEUED
        _log.warn("orphaned job recovered", job_id=job.id, plugin=job.plugin, command=job.command,
                  attempt=job.attempt, status=conclusion.status, next_attempt=conclusion.attempt if again else None)
        return True

    def _end_leftover(self, job_id: str, patience: float) -> bool:
        try:
            proved, killed = self.locks.end(job_id, patience)
        except OSError as error:
            _log.warn("cannot search for leftover processes", job_id=job_id, error=error.strerror)
            return False
        if killed:
            _log.warn("killed leftover processes of an interrupted run", job_id=job_id, pids=killed)
        if proved:
            self.alive.discard(job_id)
        elif job_id not in self.alive:
            # Reported once; it is checked again at each interval.
            self.alive.add(job_id)
            _log.warn("processes of an earlier run are still alive; the job is blocked", job_id=job_id)
        return proved
