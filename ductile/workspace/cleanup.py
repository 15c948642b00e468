"""Clears away workspaces: those of chains that ended a while ago, and what no job knows of."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ductile.clock import Clock
from ductile.db import transaction
from ductile.log import Component
from ductile.queue import job_table
from ductile.text import one_line
from ductile.workspace.manager import RootEntry, Workspaces

# At each beat, so that a job that wants to start waits for no more than this.
_LOOKED_AT_ONCE = 1000
_REMOVED_AT_ONCE = 100
_AGAIN_SECONDS = 24 * 3600

_log = Component("janitor")


class WorkspaceCleanup:
    """Goes round the workspaces, a slice at each beat."""

    def __init__(self, conn: sqlite3.Connection, *, clock: Clock, workspaces: Workspaces) -> None:
        self._conn = conn
        self._clock = clock
        self._workspaces = workspaces
        self._after = ""                             # the last name that was looked at
        self._not_before: dict[str, float] = {}      # monotonic: when to try again what could not be removed

    def clean(self, ttl: int) -> None:
        """Remove what is over `ttl` seconds past its use, in one slice. Raises what `transaction` raises."""
        before = self._clock.now() - timedelta(seconds=ttl)
        try:
            entries = self._workspaces.entries(self._after, _LOOKED_AT_ONCE)
        except OSError:
            # The dispatcher reports a root that cannot be entered.
            return
        removed = 0
        for chain, found in self._by_chain(entries).items():
            removed += self._clear(chain, found, before, _REMOVED_AT_ONCE - removed)
            if removed == _REMOVED_AT_ONCE:
                # The rest of the slice is looked at again.
                break
        else:
            self._after = entries[-1].name if len(entries) == _LOOKED_AT_ONCE else ""
        if removed:
            _log.info("old workspaces removed", count=removed)

    def _by_chain(self, entries: list[RootEntry]) -> dict[str | None, list[RootEntry]]:
        """Return what is due by the root of its chain, None for what no job knows: each chain is looked at once."""
        # An id is ASCII; another name may not even be text that SQLite takes.
        roots = job_table.roots_of(self._conn, [entry.name for entry in entries if entry.name.isascii()])
        found: dict[str | None, list[RootEntry]] = {}
        for entry in entries:
            if self._clock.monotonic() >= self._not_before.get(entry.name, 0.0):
                found.setdefault(roots.get(entry.name), []).append(entry)
        return found

    def _clear(self, chain: str | None, entries: list[RootEntry], before: datetime, most: int) -> int:
        """Remove up to `most` entries of a chain, or of none, that nothing needs any more. Return how many."""
        if chain is None:
            names = [entry.name for entry in entries
                     if self._workspaces.is_retired(entry.name) or entry.mtime < before.timestamp()]
            retired = [name if self._workspaces.is_retired(name) else self._retire(name) for name in names[:most]]
        elif not self._is_over(chain, before):
            return 0
        else:
            # Under the lock: an operator's replay queues a job that starts from one of them.
            with transaction(self._conn):
                is_over = self._is_over(chain, before)
                retired = [self._retire(entry.name) for entry in entries[:most]] if is_over else []
        return sum(name is not None and self._remove(name) for name in retired)

    def _is_over(self, chain: str, before: datetime) -> bool:
        end = job_table.chain_end(self._conn, chain)
        return end is not None and end.ended_at is not None and end.ended_at < before

    def _retire(self, name: str) -> str | None:
        """Put an entry out of every job's reach. Return its name from now on, None where that cannot be."""
        try:
            return self._workspaces.retire(name)
        except OSError as error:
            self._put_off(name, error)
            return None

    def _remove(self, name: str) -> bool:
        try:
            self._workspaces.cleanup(name)
        except OSError as error:
            self._put_off(name, error)
            return False
        self._not_before.pop(name, None)
        return True

    def _put_off(self, name: str, error: OSError) -> None:
        if name not in self._not_before:
            _log.warn("old workspace not removed; it is tried again each day", workspace=one_line(name),
                      error=_told(error))
        self._not_before[name] = self._clock.monotonic() + _AGAIN_SECONDS


def _told(error: OSError) -> str:
    return one_line(f"{error.strerror}: {error.filename}")
