"""`ductilectl schedule`: when the schedules of plugins run next, and why one will not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

from ductile.config.model import Schedule
from ductile.ctl import status, table, times
from ductile.ctl.lookup import require_configured
from ductile.ctl.session import Session
from ductile.errors import EXIT_OK
from ductile.injected import NoChance
from ductile.scheduler import schedule_table
from ductile.scheduler.schedule import Slot, advance, first
from ductile.scheduler.schedule_table import ScheduleEntry
from ductile.units import format_duration, parse_utc, utc_text

_CLOCK = "%H:%M"
_INDENT = "  "


class _Earliest:
    """A random source that always returns the least."""

    def uniform(self, least: float, most: float) -> float:
        return least


class _Latest:
    """A random source that always returns the most."""

    def uniform(self, least: float, most: float) -> float:
        return most


def schedule(session: Session, *, plugin: str | None, count: int) -> int:
    """Show the next `count` runs of each schedule, of one plugin or of all.

    Raises DuctileError: 78 for a wrong configuration, 66 for a plugin that is not configured.
    """
    configured = session.whole_config.plugins
    if plugin is not None:
        require_configured(session, plugin)
    now = session.now()
    known = {name: each for name, each in configured.items() if plugin in (None, name)}
    with session.database() as conn:
        stored = {} if conn is None else schedule_table.entries(conn)
        held = {} if conn is None else _held(session, conn, now)
    rows = [_row(name, each, stored.get((name, each.id)), held.get(name, []) if settings.enabled else ["disabled"],
                 now=now, count=count)
            for name, settings in known.items() for each in settings.schedules]
    zones = [each.zone for settings in known.values() for each in settings.schedules]
    nothing = "no plugin has a schedule\n" if plugin is None else f"plugin {plugin} has no schedule\n"
    text = "\n".join(_text(row, UTC if session.utc else zone, now) for row, zone in zip(rows, zones, strict=True))
    session.emit(rows, text or nothing)
    return EXIT_OK


def _held(session: Session, conn: sqlite3.Connection, now: datetime) -> dict[str, list[str]]:
    """Return why each plugin's next run will not start."""
    found = status.read(conn, state_path=session.state_path, plugins=session.plugins, now=now)
    return {row["plugin"]: row["held"] for row in found["plugins"]}


def _row(plugin: str, schedule: Schedule, entry: ScheduleEntry | None, held: list[str], *, now: datetime,
         count: int) -> dict[str, Any]:
    window = schedule.window
    return {
        "plugin": plugin, "schedule_id": schedule.id, "command": schedule.command, "rule": times.rule(schedule),
        "jitter_seconds": schedule.jitter,
        "window": window and f"{window.start.strftime(_CLOCK)}-{window.end.strftime(_CLOCK)}",
        "held": held, "overdue_at": entry and entry.silence.overdue_at and utc_text(entry.silence.overdue_at),
        "last_success_at": entry and entry.silence.last_success_at and utc_text(entry.silence.last_success_at),
        "runs": list(_runs(schedule, entry, now, count)),
    }


def _runs(schedule: Schedule, entry: ScheduleEntry | None, now: datetime, count: int) -> Iterator[dict[str, Any]]:
    """Yield the next runs. The time of the first one is drawn already, if the daemon has seen this schedule."""
    if entry is not None and entry.rule == schedule.rule():
        slot = entry.slot
        yield _run(slot, slot, slot, is_drawn=True)
    else:
        slot = first(schedule, now, NoChance())
        yield _run(slot, first(schedule, now, _Earliest()), first(schedule, now, _Latest()))
    for _ in range(count - 1):
        after = max(now, slot.base_at)
        earliest, latest = (advance(schedule, slot, after, rng) for rng in (_Earliest(), _Latest()))
        slot = advance(schedule, slot, after, NoChance())
        yield _run(slot, earliest, latest)


def _run(slot: Slot, earliest: Slot, latest: Slot, *, is_drawn: bool = False) -> dict[str, Any]:
    return {"at": utc_text(slot.next_run_at), "earliest": utc_text(earliest.next_run_at),
            "latest": utc_text(latest.next_run_at), "drawn": is_drawn}


def _between(run: Mapping[str, Any], zone: tzinfo) -> str:
    """Return when a run is due: `2026-12-02 06:00 +1100`, or `2026-12-02 06:00 to 06:30 +1100`."""
    earliest, latest = times.local(run["earliest"], zone), times.local(run["latest"], zone)
    if earliest == latest:
        return earliest
    day, clock, offset = earliest.split()
    if latest.startswith(day) and latest.endswith(offset):
        return f"{day} {clock} to {latest.split()[1]} {offset}"
    return f"{earliest} to {latest}"


def _text(row: Mapping[str, Any], zone: tzinfo, now: datetime) -> str:
    parts = [row["rule"]]
    if row["jitter_seconds"]:
        parts.append(f"jitter {format_duration(row['jitter_seconds'])}")
    if row["window"] is not None:
        parts.append(f"window {row['window']}")
    lines = [f"{row['plugin']} {row['command']}, schedule {row['schedule_id']}: {', '.join(parts)}"]
    lines += [f"{_INDENT}blocked: {times.localized(reason, zone)}" for reason in row["held"]]
    if row["overdue_at"] is not None:
        success = row["last_success_at"]
        since = "no success yet" if success is None else f"last success {times.local(success, zone)}"
        lines.append(f"{_INDENT}overdue since {times.local(row['overdue_at'], zone)}: {since}")
    for run in row["runs"]:
        due = "due now" if parse_utc(run["at"]) <= now else times.relative(run["at"], now)
        lines.append(f"{_INDENT}{_between(run, zone)}  {due}")
    return "".join(table.block(line, "") for line in lines)
