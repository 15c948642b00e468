"""The daemon's loop in a test's hand: it is fed with notes, its clock stands still, its plugins are real."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from ductile import db, inbox
from ductile.daemon import Daemon
from ductile.dispatch.reaper import ignore_existing_children
from ductile.dispatch.run_lock import RunLocks
from ductile.inbox import Signal
from ductile.queue import job_table
from ductile.runtime_config import ConfigSource, RuntimeConfig
from ductile.sdnotify import Notifier
from ductile.workspace.manager import Workspaces
from support.clock import FakeClock
from support.ledger import ids, opened
from support.logs import kept, lines

# Plugins, as shell scripts; the last one waits for a line from a FIFO.
OK = """#!/bin/sh
echo '{"status": "ok"}'
"""
FAILS = """#!/bin/sh
echo '{"status": "error", "error": "it failed"}'
"""
WAITS = """#!/bin/sh
read line <"%s"
echo '{"status": "ok"}'
"""

# A plugin's end is waited for in real time, and no longer than this.
_LIMIT_SECONDS = 20.0


class Inbox(inbox.Inbox):
    """Notes for the loop. Where there is none, the time that the loop would wait passes at once.

    While a plugin runs its end is waited for in real time. At `until` the loop is told to stop.
    """

    def __init__(self, clock: FakeClock, conn: sqlite3.Connection) -> None:
        super().__init__()
        self._clock = clock
        self._conn = conn
        self.until: datetime | None = None
        self.waits: list[float] = []

    def get(self, *, timeout: float | None, descriptors: Collection[int] = ()) -> Any:
        found = super().get(timeout=0, descriptors=descriptors)
        if found is not None:
            return found
        if descriptors or job_table.running(self._conn):
            return super().get(timeout=_LIMIT_SECONDS if timeout is None else timeout, descriptors=descriptors)
        assert timeout is not None, "the loop would wait for ever"
        self.waits.append(round(timeout, 3))
        self._clock.move(timeout)
        if self.until is not None and self._clock.now() >= self.until:
            return Signal(number=signal.SIGTERM)
        return None


class Loop:
    """A daemon in this process, with all that it needs below one directory."""

    def __init__(self, directory: Path, conn: sqlite3.Connection, runtime: RuntimeConfig, log: Path, *,
                 environ: dict[str, str]) -> None:
        self.conn = conn
        self.clock = FakeClock()
        self.log = log
        self.inbox = Inbox(self.clock, conn)
        workspaces = Workspaces(directory / "ws")
        workspaces.make_root()
        self.daemon = Daemon(
            runtime, conn, clock=self.clock, rng=Random(0), new_id=ids(), workspaces=workspaces,
            locks=RunLocks(directory / "running"), notifier=Notifier(environ), inbox=self.inbox,
            source=ConfigSource(path=directory / "config.yaml", environ=environ))
        self.daemon._dispatcher.open()
        # As at the daemon's start: processes of other tests are no strays of a plugin.
        ignore_existing_children()

    def run_for(self, seconds: float) -> list[float]:
        """Let the loop run so long by its clock, then stop; return its waits in seconds."""
        self.inbox.until = self.clock.now() + timedelta(seconds=seconds)
        self.daemon.run()
        return self.inbox.waits

    def turn(self, *numbers: int) -> None:
        """One turn for each signal, or one for the passing of time."""
        for note in [Signal(number=number) for number in numbers] or [None]:
            self.daemon.turn(note)

    def finish(self) -> None:
        """Let the loop turn until the job that runs has ended, or its result is to be saved again."""
        deadline = time.monotonic() + _LIMIT_SECONDS
        job = self.daemon._dispatcher.job
        while self.daemon._dispatcher.job is job and not self.daemon._dispatcher.is_unsaved:
            assert time.monotonic() < deadline, "the job does not end"
            self.daemon.turn(self.daemon._receive())

    def close(self) -> None:
        """End what runs, as a loop does that ends for whatever reason."""
        self.daemon.close()

    def statuses(self) -> list[tuple]:
        return self.conn.execute("SELECT id, status, attempt FROM job_queue ORDER BY seq").fetchall()

    def said(self) -> list[str]:
        return [f"{line['level']} {line['message']}" for line in lines(self.log) if line["level"] != "debug"]


@contextmanager
def loop(directory: Path, runtime: RuntimeConfig, *, environ: dict[str, str] | None = None) -> Iterator[Loop]:
    """A loop that has done nothing yet; the plugin that it may leave running is ended."""
    with opened(directory) as conn, kept(directory) as log:
        made = Loop(directory, conn, runtime, log, environ=environ or {})
        try:
            yield made
        finally:
            made.close()
            made.inbox.close()


def program(directory: Path, text: str) -> Path:
    """Write an entrypoint and return its path."""
    path = directory / "run.sh"
    path.write_text(text)
    path.chmod(0o755)
    return path


def locked(made: Loop, directory: Path) -> sqlite3.Connection:
    """A write of somebody else that does not end, and no patience with it in the loop."""
    made.conn.execute("PRAGMA busy_timeout = 0")
    other = db.connect_again(directory / "state.db")
    other.execute("BEGIN IMMEDIATE")
    return other
