"""Clears away workspaces: those of chains that ended a while ago, and what no job knows of."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ductile.clock import Clock
from ductile.db import transaction
from ductile.log import Component
from ductile.queue import rows as queue_rows
from ductile.text import one_line
from ductile.workspace.directories import Workspaces
from ductile.workspace.operations import Entry

# At each beat, so that a job that wants to start waits for no more than this.
_LOOKED_AT_ONCE = 1000
_REMOVED_AT_ONCE = 100
_AGAIN_SECONDS = 24 * 3600

_log = Component("janitor")


class Janitor:
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
        for entry in entries:
            self._after = entry.name
            removed += self._is_due(entry.name) and self._clear(entry, before)
            if removed == _REMOVED_AT_ONCE:
                break
        else:
            if len(entries) < _LOOKED_AT_ONCE:
                self._after = ""
        if removed:
            _log.info("old workspaces removed", count=removed)

    def _is_due(self, name: str) -> bool:
        return self._clock.monotonic() >= self._not_before.get(name, 0.0)

    def _clear(self, entry: Entry, before: datetime) -> bool:
        """Remove an entry that nothing needs any more. Return whether that was done."""
        if self._workspaces.is_retired(entry.name):
            return self._remove(entry.name)
        if not self._is_old(entry, before):
            return False
        # Under the lock: an operator's replay queues a job that starts from it.
        with transaction(self._conn):
            retired = self._retire(entry.name) if self._is_old(entry, before) else None
        return retired is not None and self._remove(retired)

    def _is_old(self, entry: Entry, before: datetime) -> bool:
        # An id is ASCII; another name may not even be text that SQLite takes.
        chain = queue_rows.chain_end(self._conn, entry.name) if entry.name.isascii() else None
        if chain is None:
            return entry.mtime < before.timestamp()
        return chain.ended_at is not None and chain.ended_at < before

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
