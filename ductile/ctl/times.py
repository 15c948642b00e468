"""Moments as people read and write them: local time with its offset, how long ago, `--since 1d`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from ductile.config.model import Every, Schedule, Unit
from ductile.units import format_duration, parse_duration, parse_utc

_UTC = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_CALENDAR = {Unit.DAYS: ("daily", "days"), Unit.WEEKS: ("weekly", "weeks"), Unit.MONTHS: ("monthly", "months")}
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")


def local(moment: str, zone: tzinfo | None, *, seconds: bool = False) -> str:
    """Return a moment, UTC text, as `2026-12-01 07:30 +0100`. The zone of None is the system's."""
    return parse_utc(moment).astimezone(zone).strftime(f"%Y-%m-%d %H:%M{':%S' if seconds else ''} %z")


def localized(text: str, zone: tzinfo | None) -> str:
    """Return a text with each moment in it, UTC text, as local time."""
    return _UTC.sub(lambda match: local(match[0], zone), text)


def relative(moment: str, now: datetime) -> str:
    """Return a moment, UTC text, as `3m ago`, `in 2h` or `now`, in its largest unit."""
    seconds = (parse_utc(moment) - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    largest = format_duration(abs(seconds)).split()[0]
    return f"in {largest}" if seconds > 0 else f"{largest} ago"


def due(moment: str, now: datetime) -> str:
    """Return when something is to happen: `in 2h`, or `due` if that is past."""
    return relative(moment, now) if parse_utc(moment) > now else "due"


def age(moment: str, now: datetime) -> str:
    """Return how long ago a moment, UTC text, is: `2h 5m`."""
    return format_duration((now - parse_utc(moment)).total_seconds())


def interval(every: Every) -> str:
    """Return an interval as people say it: `every 6h`, `daily`, `every 2 weeks`."""
    if every.unit is Unit.SECONDS:
        return f"every {format_duration(every.count)}"
    one, many = _CALENDAR[every.unit]
    return one if every.count == 1 else f"every {every.count} {many}"


def rule(schedule: Schedule) -> str:
    """Return when a schedule is due: `weekly on Mon, Fri at 07:30 (Europe/Berlin)`."""
    text = interval(schedule.every)
    if schedule.day and schedule.every.unit is Unit.WEEKS:
        text += f" on {', '.join(_WEEKDAYS[day] for day in schedule.day)}"
    elif schedule.day:
        text += f" on day {', '.join(map(str, schedule.day))}"
    if schedule.at:
        text += f" at {', '.join(f'{at:%H:%M}' for at in schedule.at)}"
    return text if schedule.zone_name is None else f"{text} ({schedule.zone_name})"


def parse_moment(text: str, now: datetime, zone: tzinfo | None) -> datetime:
    """Return the moment that an operator means by `1d`, `07:30`, `2026-11-30`, `2026-11-30 07:30` or `yesterday`.

    A duration is that long ago; a time of day is the last one that has passed. Text without an offset is in the zone.
    Raises ValueError, with a text for the operator.
    """
    word = text.strip().lower()
    here = now.astimezone(zone)
    midnight = datetime(here.year, here.month, here.day)
    if word in ("now", "today", "yesterday"):
        return now if word == "now" else _in_zone(midnight - timedelta(days=word == "yesterday"), zone)
    clock = _CLOCK.fullmatch(word)
    try:
        if clock is not None:
            hour, minute, second = (int(part or 0) for part in clock.groups())
            at = midnight.replace(hour=hour, minute=minute, second=second)
            return next(moment for day in (0, 1, 2) if (moment := _in_zone(at - timedelta(days=day), zone)) <= now)
        return _in_zone(datetime.fromisoformat(text.strip()), zone)
    except (ValueError, OverflowError):
        pass
    try:
        return now - timedelta(seconds=parse_duration(word))
    except (ValueError, OverflowError):
        raise ValueError("expected a duration such as 1d, a time such as 07:30, a date such as 2026-11-30 or both, got"
                         f" {text!r}") from None


def _in_zone(moment: datetime, zone: tzinfo | None) -> datetime:
    """Return a moment in UTC; one without an offset is in the zone."""
    if moment.tzinfo is None and zone is not None:
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)
