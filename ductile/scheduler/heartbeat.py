"""The work of each scheduler interval: schedules, stuck retries, retention, workspace cleanup."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from ductile import db, submit
from ductile.clock import Clock
from ductile.db import transaction
from ductile.injected import Chance, NewId
from ductile.log import Component
from ductile.plugin import plugin_table
from ductile.plugin.entrypoint import gone
from ductile.protocol import PLUGIN_AVAILABLE, PLUGIN_UNAVAILABLE
from ductile.runtime_config import RuntimeConfig
from ductile.scheduler import retention, tick
from ductile.workspace.cleanup import WorkspaceCleanup
from ductile.workspace.manager import Workspaces

# A wall clock that gains this much on the monotonic one was set: rows that look old may be new.
_JUMP_SECONDS = 3600
_NO_PRUNING_SECONDS = 3600
# How long after a start, or such a jump, a run that was missed may take before its schedule is overdue.
_SETTLING_SECONDS = 3600

_log = Component("scheduler")


class Heartbeat:
    """The scheduler's part of the loop.

    `next_at`: when the next run is due. `follows_jobs`: `look` may have something to do when a job ends. `prunes`:
    `prune` has another batch to do.
    """

    def __init__(self, conn: sqlite3.Connection, *, clock: Clock, rng: Chance, new_id: NewId,
                 workspaces: Workspaces) -> None:
        self._conn = conn
        self._clock = clock
        self._rng = rng
        self._new_id = new_id
        self._cleanup = WorkspaceCleanup(conn, clock=clock, workspaces=workspaces)
        self._wall = clock.now()
        self._monotonic = clock.monotonic()
        self._prune_from = self._monotonic
        self._settled_at = self._monotonic + _SETTLING_SECONDS
        self._awaited: tick.Awaited | None = None    # None before the first look after a start or a jump
        self._runtime: RuntimeConfig | None = None
        self._log_is_held = False          # by a reader, and reported
        self.gone: dict[str, str] = {}     # loaded plugins whose program is gone, with the reasons
        self.next_at: datetime | None = None
        self.follows_jobs = False
        self.prunes = False
        self._beat_at = self._wall
        self._pruned = 0

    def look(self, runtime: RuntimeConfig) -> None:
        """Enqueue the runs that are due. Raises what `transaction` raises."""
        ticked = tick.tick(self._conn, runtime, now=self._clock.now(), rng=self._rng, new_id=self._new_id,
                           awaited=self._awaited if self._clock.monotonic() < self._settled_at else {})
        self._awaited = ticked.awaited
        self.next_at, self.follows_jobs = ticked.next_at, ticked.follows_jobs
        for line in ticked.log_lines:
            _log.at(line.level, line.message, **line.fields)

    def beat(self, runtime: RuntimeConfig) -> None:
        """Do all of an interval's work, and begin to prune. Raises what `transaction` raises."""
        self._watch_the_clock()
        self._watch_the_log()
        self._watch_the_plugins(runtime)
        self.look(runtime)
        now = self._clock.now()
        released = tick.release_stranded_retries(self._conn, runtime, now)
        if released:
            _log.warn("the clock was set back; retries that would wait longer than their backoff are due now",
                      count=released)
        self.prunes = self._clock.monotonic() >= self._prune_from
        if self.prunes:
            self._beat_at = now
            self._cleanup.clean(runtime.config.workspace_ttl)

    def prune(self, runtime: RuntimeConfig) -> None:
        """Delete one batch of jobs past their retention. Raises what `transaction` raises."""
        # Uses the time of the interval, where a clock that was set ahead is noticed.
        pruned = retention.prune(self._conn, runtime.config.service.job_log_retention, self._beat_at,
                                 monotonic=self._clock.monotonic)
        self._pruned += pruned
        self.prunes = pruned > 0
        if not self.prunes and self._pruned:
            _log.info("old jobs pruned", rows_and_pages=self._pruned)
            self._pruned = 0

    def _watch_the_log(self) -> None:
        size = db.held_log_bytes(self._conn)
        if size is not None and not self._log_is_held:
            _log.warn("the write-ahead log grows: another program keeps a read transaction on the database open;"
                      " find it with `fuser` or `lsof` on the database and stop it", bytes=size)
        self._log_is_held = size is not None

    def _watch_the_plugins(self, runtime: RuntimeConfig) -> None:
        """Tell of a loaded plugin whose program is gone, and of one whose program is there again, for example mounted.

        One whose program was replaced waits for a reload.
        """
        if runtime is not self._runtime:
            # A reload has read them all.
            self._runtime, self.gone = runtime, {}
        for name, plugin in runtime.plugins.items():
            if plugin.plugin is None or not plugin.settings.enabled:
                continue
            reason = gone(plugin.plugin.program)
            if (reason is not None) == (name in self.gone):
                continue
            with transaction(self._conn):
                plugin_table.put_reason(self._conn, name, reason)
                submit.submit_core_event(
                    self._conn, runtime, PLUGIN_AVAILABLE if reason is None else PLUGIN_UNAVAILABLE,
                    {"plugin": name, "reason": reason}, new_id=self._new_id, now=self._clock.now())
            # Replaced and not changed: other threads read it.
            self.gone = {other: why for other, why in self.gone.items() if other != name}
            if reason is None:
                _log.info("plugin available again", plugin=name)
            else:
                self.gone = {**self.gone, name: reason}
                _log.error("plugin unavailable", plugin=name, reason=reason)

    def _watch_the_clock(self) -> None:
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        gained = (wall - self._wall).total_seconds() - (monotonic - self._monotonic)
        self._wall, self._monotonic = wall, monotonic
        if gained > _JUMP_SECONDS:
            self._prune_from = monotonic + _NO_PRUNING_SECONDS
            self._settled_at, self._awaited = monotonic + _SETTLING_SECONDS, None
            _log.warn("the clock jumped ahead; nothing is pruned for an hour", seconds=round(gained))
