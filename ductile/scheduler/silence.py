"""When a schedule has gone without a success for too long, and when it has recovered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """What is stored of a schedule with `alert_after`.

    `since` is when that came into force, None without it. `overdue_at` is when the schedule was found overdue, None
    while it is not.
    """

    last_success_at: datetime | None = None
    since: datetime | None = None
    overdue_at: datetime | None = None


def silence_after(silence: Silence, alert_after: int | None, now: datetime) -> Silence:
    """Return what is to be stored now. `alert_after` is in seconds, None if the schedule has none."""
    if alert_after is None:
        return replace(silence, since=None, overdue_at=None)
    # A time in the future: the clock was set back.
    known = replace(silence, since=now if silence.since is None else min(silence.since, now),
                    overdue_at=silence.overdue_at and min(silence.overdue_at, now))
    if known.overdue_at is None:
        return replace(known, overdue_at=now) if alert_at(known, alert_after, now) <= now else known
    has_recovered = known.last_success_at is not None and known.overdue_at <= known.last_success_at <= now
    return replace(known, overdue_at=None) if has_recovered else known


def alert_at(silence: Silence, alert_after: int, now: datetime) -> datetime:
    """Return when a schedule that is not overdue will be: counted from its last success, or since it is watched."""
    since = silence.since or now
    if silence.last_success_at is not None and since < silence.last_success_at <= now:
        since = silence.last_success_at
    return since + timedelta(seconds=alert_after)
