"""The `schedule_entries` and `circuit_breakers` tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ductile.scheduler.breaker import CLOSED, Breaker
from ductile.scheduler.schedule import Slot
from ductile.scheduler.silence import Silence
from ductile.units import parse_utc, utc_text

# A plugin and the id of its schedule.
ScheduleKey = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEntry:
    """A row of `schedule_entries`. `held_reason` says why a due run is blocked, or the last one was skipped."""

    plugin: str
    schedule_id: str
    slot: Slot
    rule: str
    last_run_at: datetime | None = None
    last_job_id: str | None = None
    held_reason: str | None = None
    silence: Silence = field(default_factory=Silence)

    @property
    def key(self) -> ScheduleKey:
        """The plugin and the schedule."""
        return self.plugin, self.schedule_id


def entries(conn: sqlite3.Connection) -> dict[tuple[str, str], ScheduleEntry]:
    """Return all entries by plugin and schedule."""
    rows = conn.execute(
        "SELECT plugin, schedule_id, base_at, next_run_at, anchor, rule, last_run_at, last_job_id, held_reason,"
        " last_success_at, alert_since, overdue_at FROM schedule_entries ORDER BY plugin, schedule_id"
    )
    return {(row[0], row[1]): ScheduleEntry(
        plugin=row[0], schedule_id=row[1],
        slot=Slot(base_at=parse_utc(row[2]), next_run_at=parse_utc(row[3]), anchor=row[4]), rule=row[5],
        last_run_at=row[6] and parse_utc(row[6]), last_job_id=row[7], held_reason=row[8],
        silence=Silence(last_success_at=row[9] and parse_utc(row[9]), since=row[10] and parse_utc(row[10]),
                        overdue_at=row[11] and parse_utc(row[11])),
    ) for row in rows}


def last_successes(conn: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Return plugin, schedule and the time of the last success, UTC text, of each schedule that has one."""
    return list(conn.execute("SELECT plugin, schedule_id, last_success_at FROM schedule_entries"
                             " WHERE last_success_at IS NOT NULL ORDER BY plugin, schedule_id"))


def put_entry(conn: sqlite3.Connection, entry: ScheduleEntry) -> None:
    """Store one entry."""
    conn.execute(
        "INSERT OR REPLACE INTO schedule_entries (plugin, schedule_id, base_at, next_run_at, anchor, rule,"
        " last_run_at, last_job_id, held_reason, last_success_at, alert_since, overdue_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (entry.plugin, entry.schedule_id, utc_text(entry.slot.base_at), utc_text(entry.slot.next_run_at),
         entry.slot.anchor, entry.rule, entry.last_run_at and utc_text(entry.last_run_at), entry.last_job_id,
         entry.held_reason, *(moment and utc_text(moment) for moment in (
             entry.silence.last_success_at, entry.silence.since, entry.silence.overdue_at))),
    )


def put_success(conn: sqlite3.Connection, plugin: str, schedule_id: str, now: datetime) -> None:
    """Store that a job of a schedule has succeeded."""
    conn.execute("UPDATE schedule_entries SET last_success_at = ? WHERE plugin = ? AND schedule_id = ?",
                 (utc_text(now), plugin, schedule_id))


def remove_entries(conn: sqlite3.Connection, keys: Iterable[tuple[str, str]]) -> None:
    """Delete entries by plugin and schedule."""
    conn.executemany("DELETE FROM schedule_entries WHERE plugin = ? AND schedule_id = ?", list(keys))


def breaker(conn: sqlite3.Connection, plugin: str, command: str) -> Breaker:
    """Return the breaker of a plugin's command; it is closed if no failure was ever counted."""
    row = conn.execute(
        "SELECT state, failure_count, opened_at FROM circuit_breakers WHERE plugin = ? AND command = ?",
        (plugin, command),
    ).fetchone()
    return CLOSED if row is None else _breaker(row)


def breakers(conn: sqlite3.Connection) -> dict[tuple[str, str], Breaker]:
    """Return all stored breakers by plugin and command."""
    rows = conn.execute("SELECT plugin, command, state, failure_count, opened_at FROM circuit_breakers")
    return {(row[0], row[1]): _breaker(row[2:]) for row in rows}


def count_open_breakers(conn: sqlite3.Connection) -> int:
    """Return how many plugins have a breaker that is not closed."""
    row = conn.execute("SELECT count(DISTINCT plugin) FROM circuit_breakers WHERE state != 'closed'").fetchone()
    return int(row[0])


def put_breaker(conn: sqlite3.Connection, plugin: str, command: str, changed: Breaker, now: datetime) -> None:
    """Store the breaker of a plugin's command."""
    conn.execute(
        "INSERT OR REPLACE INTO circuit_breakers (plugin, command, state, failure_count, opened_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (plugin, command, changed.state, changed.failure_count, changed.opened_at and utc_text(changed.opened_at),
         utc_text(now)),
    )


def clear_breakers(conn: sqlite3.Connection, plugin: str) -> int:
    """Close the breakers of a plugin and clear its failures. Return how many rows that removed."""
    return conn.execute("DELETE FROM circuit_breakers WHERE plugin = ?", (plugin,)).rowcount


def _breaker(row: tuple[Any, ...]) -> Breaker:
    return Breaker(state=row[0], failure_count=row[1], opened_at=row[2] and parse_utc(row[2]))
