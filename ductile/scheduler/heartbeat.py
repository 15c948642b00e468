"""What happens at each heartbeat, and when the next look at the schedules is due."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from ductile.chance import Chance, NewId
from ductile.clock import Clock
from ductile.log import Component
from ductile.scheduler import sweep, ticker
from ductile.scheduler.janitor import Janitor
from ductile.workspace.directories import Workspaces
from ductile.world import World

# A wall clock that gains this much on the monotonic one has been set: what it calls old may be young.
_JUMP_SECONDS = 3600
_NO_PRUNING_SECONDS = 3600
_BATCHES_AT_ONCE = 10

_log = Component("scheduler")


class Heartbeat:
    """The scheduler's turn of the loop. `next_at` is when a run falls due; `holding`, that one is held back."""

    def __init__(self, conn: sqlite3.Connection, *, clock: Clock, rng: Chance, new_id: NewId,
                 workspaces: Workspaces) -> None:
        self._conn = conn
        self._clock = clock
        self._rng = rng
        self._new_id = new_id
        self._janitor = Janitor(conn, clock=clock, workspaces=workspaces)
        self._wall = clock.now()
        self._monotonic = clock.monotonic()
        self._prune_from = self._monotonic
        self.next_at: datetime | None = None
        self.holding = False

    def look(self, world: World) -> None:
        """Enqueue what is due. Raises what `transaction` raises."""
        ticked = ticker.tick(self._conn, world, now=self._clock.now(), rng=self._rng, new_id=self._new_id)
        self.next_at, self.holding = ticked.next_at, ticked.holding
        for note in ticked.notes:
            _log.at(note.level, note.message, **note.fields)

    def beat(self, world: World) -> None:
        """Look at the schedules, let go of stuck retries, prune and clear away. Raises what `transaction` raises."""
        self._watch_the_clock()
        self.look(world)
        now = self._clock.now()
        released = ticker.release_stranded(self._conn, world, now)
        if released:
            _log.warn("retries set for too far ahead are due now: the clock has gone back", count=released)
        if self._clock.monotonic() >= self._prune_from:
            self._prune(world, now)
            self._janitor.clean(world.config.workspace_ttl)

    def _prune(self, world: World, now: datetime) -> None:
        pruned = 0
        for _ in range(_BATCHES_AT_ONCE):
            batch = sweep.prune(self._conn, world.config.service.job_log_retention, now)
            pruned += batch
            if batch == 0:
                break
        if pruned:
            _log.info("old jobs pruned", chains=pruned)

    def _watch_the_clock(self) -> None:
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        gained = (wall - self._wall).total_seconds() - (monotonic - self._monotonic)
        self._wall, self._monotonic = wall, monotonic
        if gained > _JUMP_SECONDS:
            self._prune_from = monotonic + _NO_PRUNING_SECONDS
            _log.warn("the clock has jumped ahead; nothing is pruned for an hour", seconds=round(gained))
