"""Schedules and moments, written shortly, for the tests of this room."""

from __future__ import annotations

from datetime import UTC, datetime, time
from random import Random
from zoneinfo import ZoneInfo

from ductile.config.model import Schedule, Window
from ductile.config.schedules import parse_every
from ductile.scheduler.schedule import advance, first

UTC = UTC
NOW = datetime(2026, 2, 8, 10, tzinfo=UTC)    # a Sunday


def clock(text: str) -> time:
    return time.fromisoformat(text)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def schedule(every: str, *, at: str | None = None, day: int | tuple[int, ...] | None = None, zone: str = "UTC",
             window: str | None = None, **keys) -> Schedule:
    """`at` has blanks between several times."""
    start, _, end = (window or "").partition("-")
    return Schedule(
        id="main",
        every=parse_every(every),
        at=tuple(map(clock, (at or "").split())),
        day=day if isinstance(day, tuple) else () if day is None else (day,),
        zone=ZoneInfo(zone),
        zone_name=zone,
        window=Window(start=clock(start), end=clock(end)) if window else None,
        **keys,
    )


def runs(rule: Schedule, start: datetime, count: int) -> list[datetime]:
    """The due times of the first `count` runs, each enqueued the moment it is due."""
    rng = Random(0)
    slot = first(rule, start, rng)
    due = []
    for _ in range(count):
        due.append(slot.next_run_at)
        slot = advance(rule, slot, slot.next_run_at, rng)
    return due


def local(moments: list[datetime], zone: str) -> list[str]:
    return [f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}" for moment in moments]
