"""What a start does about jobs that were running when the last daemon ended."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from datetime import datetime

from ductile.config.model import BreakerRule, Retry
from ductile.db import NotWritten
from ductile.dispatch import transactions
from ductile.dispatch.conclude import Rules
from ductile.dispatch.followups import RoutingContext
from ductile.dispatch.outcome import Interrupted
from ductile.dispatch.run_lock import RunLocks
from ductile.injected import Chance, NewId
from ductile.log import Component
from ductile.queue import job_table
from ductile.queue.job import Job, StaleJob, Status
from ductile.runtime_config import RuntimeConfig
from ductile.workspace.manager import Workspaces

_log = Component("recovery")


def rules_for(runtime: RuntimeConfig, plugin: str) -> Rules:
    """Return what the configuration says of a plugin's jobs; the defaults for one that is no longer in it."""
    configured = runtime.plugins.get(plugin)
    manifest = None if configured is None or configured.plugin is None else configured.plugin.manifest
    ways = RoutingContext(
        router=runtime.router, max_hops=runtime.config.service.max_hops, max_attempts=runtime.max_attempts,
        dedupe_ttl=runtime.config.service.dedupe_ttl, tells_state=manifest is not None and manifest.protocol >= 2,
        private_state=frozenset() if manifest is None else manifest.private_state,
    )
    if configured is None:
        return Rules(retry=Retry(), breaker=BreakerRule(), fingerprint=None, ways=ways)
    return Rules(retry=configured.settings.retry, breaker=configured.settings.breaker,
                 fingerprint=configured.fingerprint, ways=ways)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Recovers orphans: jobs whose rows say `running` while no daemon runs them."""

    conn: sqlite3.Connection
    locks: RunLocks
    workspaces: Workspaces
    rng: Chance
    new_id: NewId
    alive: set[str] = field(default_factory=set)    # jobs of which something was seen to live

    def recover(self, runtime: RuntimeConfig, now: datetime, *, patience: float) -> set[str]:
        """Bring every orphan to its next status. Return the ids of jobs that must wait.

        To be called only while no job runs. `patience` is how many seconds a killed leftover is waited for.

        Those are jobs of which something still lives, or whose row could not be written. It can be called again
        at any time, and be killed anywhere: a job is an orphan until its row says otherwise. Raises OSError where
        leftovers cannot be looked for; then no job may start that has to wait for one.
        """
        waiting = {job.id for job in job_table.running(self.conn)
                   if not self._recover_one(runtime, job, now, patience)}
        for job_id in self.locks.job_ids():
            if job_id not in waiting and not self._end_leftover(job_id, patience):
                waiting.add(job_id)
        return waiting

    def _recover_one(self, runtime: RuntimeConfig, job: Job, now: datetime, patience: float) -> bool:
        """Prove that nothing of the job lives, then finish its attempt as orphaned. Return whether that was done."""
        if not self._end_leftover(job.id, patience):
            return False
        outcome = Interrupted(by="crash", error="orphaned: ductiled ended while it ran")
        fault = transactions.cleanup_workspace(self.workspaces, job, keep=False)
        if fault is not None:
            _log.warn("workspace not removed", job_id=job.id, error=fault)
        try:
            conclusion = transactions.finish(self.conn, job, outcome, rules_for(runtime, job.plugin), now=now, rng=self.rng,
                                          new_id=self.new_id)
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
            _log.warn("leftover processes cannot be looked for", job_id=job_id, error=error.strerror)
            return False
        if killed:
            _log.warn("leftover processes of a run killed", job_id=job_id, pids=killed)
        if proved:
            self.alive.discard(job_id)
        elif job_id not in self.alive:
            # Once: it is looked at again at each heartbeat.
            self.alive.add(job_id)
            _log.warn("something of a run still lives; another attempt of its job waits", job_id=job_id)
        return proved
