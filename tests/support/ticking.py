"""A scheduler in a test's hand: a real database, a clock that stands still, jobs that end as they are told."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random
from typing import Any

from ductile import db
from ductile.dispatch import transactions
from ductile.dispatch.outcome import Failed, Outcome, Succeeded
from ductile.dispatch.transactions import rules_for
from ductile.queue import job_table
from ductile.queue.job import Job, Status
from ductile.runtime_config import RuntimeConfig
from ductile.scheduler import schedule_table
from ductile.scheduler import tick as ticker
from ductile.scheduler.schedule_table import ScheduleEntry
from support.clock import FakeClock
from support.ledger import ids

FAILED = Failed(error="it failed")
SUCCEEDED = Succeeded()


class Ticking:
    """Looks at the schedules of `world`, which may be changed at any time, as the heartbeat does."""

    def __init__(self, conn: sqlite3.Connection, runtime: RuntimeConfig, clock: FakeClock | None = None) -> None:
        self.conn = conn
        self.runtime = runtime
        self.clock = clock or FakeClock()
        self.rng = Random(0)
        self.new_id = ids()

    def tick(self) -> ticker.TickResult:
        return ticker.tick(self.conn, self.runtime, now=self.clock.now(), rng=self.rng, new_id=self.new_id)

    def notes(self) -> list[str]:
        """The lines that one look logs: level, message and, where there is one, the reason."""
        return [" ".join(filter(None, (note.level, note.message, note.fields.get("reason"))))
                for note in self.tick().log_lines]

    def after(self, seconds: float) -> list[str]:
        """The lines of a look some seconds later."""
        self.clock.move(seconds)
        return self.notes()

    def entry(self, plugin: str = "echo", schedule: str = "main") -> ScheduleEntry:
        return schedule_table.entries(self.conn)[plugin, schedule]

    def count(self) -> int:
        """How many jobs there have been."""
        return self.conn.execute("SELECT count(*) FROM job_queue").fetchone()[0]

    def end(self, outcome: Outcome) -> Job:
        """Run the next job to this end; return its row."""
        claimed = transactions.claim(self.conn, plugins=self.runtime.runnable, blocked=(), dedupe_ttl=0,
                                     now=self.clock.now())
        assert claimed.job is not None
        job = claimed.job
        transactions.finish(self.conn, job, outcome, rules_for(self.runtime, job.plugin), now=self.clock.now(),
                         rng=self.rng, new_id=self.new_id)
        return job_table.get(self.conn, job.id)

    def cancel(self) -> None:
        """End the next job as the operator does."""
        with db.transaction(self.conn):
            job = job_table.next_ready(self.conn, self.runtime.runnable, ())
            job_table.move(self.conn, job, Status.DEAD, self.clock.now(), error="cancelled by operator")


def written(conn: sqlite3.Connection, path: Path) -> tuple[Any, ...]:
    """What changes whenever anything is written, by this connection or another."""
    log = path.with_name(path.name + "-wal")
    return (conn.total_changes, log.stat().st_size, path.stat().st_mtime_ns, log.stat().st_mtime_ns)
