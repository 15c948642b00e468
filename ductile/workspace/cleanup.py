"""Removes the workspaces of chains that have ended, and directories that belong to no job."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ductile.clock import Clock
from ductile.db import transaction
from ductile.log import Component
from ductile.queue import job_table
from ductile.text import one_line
from ductile.workspace.manager import RootEntry, Workspaces

# Per scheduler interval, so that a job never waits long for the cleanup.
_ENTRIES_PER_SLICE = 1000
_REMOVALS_PER_SLICE = 100
_RETRY_SECONDS = 24 * 3600

_log = Component("workspace")


class WorkspaceCleanup:
    """Goes through the workspaces, one slice per scheduler interval."""

    def __init__(self, conn: sqlite3.Connection, *, clock: Clock, workspaces: Workspaces) -> None:
        self._conn = conn
        self._clock = clock
        self._workspaces = workspaces
        self._after = ""                             # the last name of the previous slice
        self._not_before: dict[str, float] = {}      # monotonic time of the next try, by name

    def clean(self, ttl: int) -> None:
        """Remove what has been unused for `ttl` seconds, one slice. Raises what `transaction` raises."""
        before = self._clock.now() - timedelta(seconds=ttl)
        try:
            entries = self._workspaces.entries(self._after, _ENTRIES_PER_SLICE)
        except OSError:
            # The dispatcher reports a root that cannot be entered.
            return
        removed = 0
        for chain, found in self._by_chain(entries).items():
            removed += self._clear(chain, found, before, _REMOVALS_PER_SLICE - removed)
            if removed == _REMOVALS_PER_SLICE:
                # The next call starts with this slice again.
                break
        else:
            self._after = entries[-1].name if len(entries) == _ENTRIES_PER_SLICE else ""
        if removed:
            _log.info("old workspaces removed", count=removed)

    def _by_chain(self, entries: list[RootEntry]) -> dict[str | None, list[RootEntry]]:
        """Group entries by the root job of their chain, or None if they belong to no job."""
        # A job id is ASCII; SQLite may refuse other names.
        roots = job_table.roots_of(self._conn, [entry.name for entry in entries if entry.name.isascii()])
        found: dict[str | None, list[RootEntry]] = {}
        for entry in entries:
            if self._clock.monotonic() >= self._not_before.get(entry.name, 0.0):
                found.setdefault(roots.get(entry.name), []).append(entry)
        return found

    def _clear(self, chain: str | None, entries: list[RootEntry], before: datetime, most: int) -> int:
        """Remove up to `most` entries of a chain (None: of no job) that are no longer needed. Return how many."""
        if chain is None:
            names = [entry.name for entry in entries
                     if self._workspaces.is_retired(entry.name) or entry.mtime < before.timestamp()]
            retired = [name if self._workspaces.is_retired(name) else self._retire(name) for name in names[:most]]
        elif not self._is_over(chain, before):
            return 0
        else:
            # In a transaction: `replay` may queue a job that starts from one of them.
            with transaction(self._conn):
                is_over = self._is_over(chain, before)
                retired = [self._retire(entry.name) for entry in entries[:most]] if is_over else []
        return sum(name is not None and self._remove(name) for name in retired)

    def _is_over(self, chain: str, before: datetime) -> bool:
        end = job_table.chain_end(self._conn, chain)
        return end is not None and end.ended_at is not None and end.ended_at < before

    def _retire(self, name: str) -> str | None:
        """Rename an entry so that no job can use it. Return the new name, or None if that failed."""
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
            _log.warn("old workspace not removed; retrying daily", workspace=one_line(name),
                      error=one_line(f"{error.strerror}: {error.filename}"))
        self._not_before[name] = self._clock.monotonic() + _RETRY_SECONDS
