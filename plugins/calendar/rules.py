"""Recurrence rules: the days and times that a rule of RFC 5545, 3.3.10 gives, from a time on."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta

WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_NUMBERS = {"BYMONTH": (1, 12), "BYMONTHDAY": (-31, 31), "BYYEARDAY": (-366, 366), "BYSETPOS": (-366, 366),
            "BYHOUR": (0, 23), "BYMINUTE": (0, 59)}
# A rule that gives nothing for so many periods gives nothing any more.
MOST_EMPTY, MOST_COUNT = 10_000, 20_000


class Unsupported(ValueError):
    """A rule that is not understood; its text says which part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: `until` is local to the event as its start is. `by` has lists of numbers, `days` (ordinal, weekday)."""

    freq: str
    interval: int = 1
    count: int | None = None
    until: datetime | None = None
    first_weekday: int = 0
    days: tuple[tuple[int, int], ...] = ()
    by: dict[str, tuple[int, ...]] = field(default_factory=dict)


def parse(text: str, until: datetime | None) -> Rule:
    """Return the rule that a text such as `FREQ=WEEKLY;BYDAY=MO,WE` describes. Raises Unsupported."""
    parts = dict(part.partition("=")[::2] for part in text.upper().split(";") if "=" in part)
    freq = parts.pop("FREQ", "")
    if freq not in ("DAILY", "WEEKLY", "MONTHLY", "YEARLY"):
        raise Unsupported(f"FREQ={freq[:20]}")
    found: dict = {"freq": freq, "until": until, "by": {}}
    for name, value in parts.items():
        if name == "BYDAY":
            found["days"] = tuple(_weekday(word) for word in value.split(","))
        elif name in _NUMBERS:
            found["by"][name] = tuple(_number(name, word, *_NUMBERS[name]) for word in value.split(","))
        elif name in ("INTERVAL", "COUNT"):
            found[name.lower()] = _number(name, value, 1, 10_000)
        elif name == "WKST" and value in WEEKDAYS:
            found["first_weekday"] = WEEKDAYS.index(value)
        elif name not in ("UNTIL", "BYSECOND"):
            raise Unsupported(name[:20])
    return Rule(**found)


def _number(name: str, word: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[+-]?\d{1,5}", word) or not least <= int(word) <= most:
        raise Unsupported(f"{name}={word[:20]}")
    return int(word)


def _weekday(word: str) -> tuple[int, int]:
    match = re.fullmatch(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)", word)
    if match is None:
        raise Unsupported(f"BYDAY={word[:20]}")
    return int(match[1] or 0), WEEKDAYS.index(match[2])


def occurrences(rule: Rule, start: datetime, after: datetime, before: datetime) -> Iterator[datetime]:
    """Yield the times within [after, before), all of them local and without a zone; the start is the first."""
    # Where nothing is counted, all that lies long before is passed over.
    period = 0 if rule.count is not None else max(_period(rule, start, after) - 1, 0)
    given = empty = 0
    while empty < MOST_EMPTY:
        try:
            if _begin(rule, start, period) >= before:
                return
            found = [at for at in _within(rule, start, period) if at >= start]
        except OverflowError:
            return
        period += 1
        empty = 0 if found else empty + 1
        for at in found:
            given += 1
            is_over = rule.count is not None and given > min(rule.count, MOST_COUNT)
            if is_over or at >= before or (rule.until is not None and at > rule.until):
                return
            if at >= after:
                yield at


def _period(rule: Rule, start: datetime, at: datetime) -> int:
    """Return the number of the period that a time lies in; the start lies in period 0."""
    days = (at.date() - start.date()).days
    whole = {"DAILY": days, "WEEKLY": days // 7, "YEARLY": at.year - start.year,
             "MONTHLY": (at.year - start.year) * 12 + at.month - start.month}[rule.freq]
    return whole // rule.interval


def _begin(rule: Rule, start: datetime, period: int) -> datetime:
    """Return a time before which nothing of a period lies. Raises OverflowError past the last year."""
    step = period * rule.interval
    if rule.freq in ("DAILY", "WEEKLY"):
        weeks = rule.freq == "WEEKLY"
        return datetime.combine(start.date(), time()) + timedelta(days=step * (7 if weeks else 1) - 6 * weeks)
    year, month = divmod(start.year * 12 + start.month - 1 + step, 12) if rule.freq == "MONTHLY" else (
        start.year + step, 0)
    if year > date.max.year:
        raise OverflowError
    return datetime(year, month + 1, 1)


def _within(rule: Rule, start: datetime, period: int) -> list[datetime]:
    """Return all times of a period, in order. Raises OverflowError past the last year."""
    step = period * rule.interval
    if rule.freq == "DAILY":
        days = _filtered(rule, [start.date() + timedelta(days=step)])
    elif rule.freq == "WEEKLY":
        week = start.date() - timedelta(days=(start.weekday() - rule.first_weekday) % 7) + timedelta(weeks=step)
        wanted = {weekday for _, weekday in rule.days} or {start.weekday()}
        days = [day for day in (week + timedelta(days=number) for number in range(7)) if day.weekday() in wanted
                and _is_month(rule, day)]
    elif rule.freq == "MONTHLY":
        months = start.year * 12 + start.month - 1 + step
        days = _of_month(rule, start, months // 12, months % 12 + 1) if not rule.by.get("BYMONTH") or (
            months % 12 + 1 in rule.by["BYMONTH"]) else []
    else:
        days = _of_year(rule, start, start.year + step)
    times = [time(hour, minute, start.second) for hour in sorted(rule.by.get("BYHOUR", (start.hour,)))
             for minute in sorted(rule.by.get("BYMINUTE", (start.minute,)))]
    found = [datetime.combine(day, at) for day in sorted(set(days)) for at in times]
    positions = rule.by.get("BYSETPOS")
    if positions is None:
        return found
    indexes = {position - 1 if position > 0 else len(found) + position for position in positions}
    return [at for index, at in enumerate(found) if index in indexes]


def _is_month(rule: Rule, day: date) -> bool:
    return "BYMONTH" not in rule.by or day.month in rule.by["BYMONTH"]


def _filtered(rule: Rule, days: list[date]) -> list[date]:
    wanted, weekdays = rule.by.get("BYMONTHDAY"), {weekday for _, weekday in rule.days}
    return [day for day in days if _is_month(rule, day) and (not weekdays or day.weekday() in weekdays) and (
        wanted is None or day.day in wanted or day.day - calendar.monthrange(day.year, day.month)[1] - 1 in wanted)]


def _of_month(rule: Rule, start: datetime, year: int, month: int) -> list[date]:
    if year > date.max.year:
        raise OverflowError
    length = calendar.monthrange(year, month)[1]
    days = [date(year, month, number) for number in range(1, length + 1)]
    wanted = rule.by.get("BYMONTHDAY")
    if wanted is None and not rule.days:
        wanted = (start.day,)
    if wanted is not None:
        days = [day for day in days if day.day in wanted or day.day - length - 1 in wanted]
    return _on_weekdays(rule, days, date(year, month, 1), date(year, month, length))


def _of_year(rule: Rule, start: datetime, year: int) -> list[date]:
    if year > date.max.year:
        raise OverflowError
    first, last = date(year, 1, 1), date(year, 12, 31)
    if "BYYEARDAY" in rule.by:
        length = (last - first).days + 1
        numbers = {number - 1 if number > 0 else length + number for number in rule.by["BYYEARDAY"]}
        return _filtered(rule, [first + timedelta(days=number) for number in numbers if 0 <= number < length])
    if rule.days and "BYMONTH" not in rule.by and "BYMONTHDAY" not in rule.by:
        every = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        return _on_weekdays(rule, every, first, last)
    # A rule with days of the month and no month means every month.
    months = rule.by.get("BYMONTH", range(1, 13) if "BYMONTHDAY" in rule.by else (start.month,))
    return [day for month in months for day in _of_month(rule, start, year, month)]


def _on_weekdays(rule: Rule, days: list[date], first: date, last: date) -> list[date]:
    """Return the days that the rule's weekdays leave: each of the span, or the nth from its start or its end."""
    if not rule.days:
        return days
    return [day for day in days if any(
        weekday == day.weekday() and (ordinal == 0 or ordinal == (day - first).days // 7 + 1
                                      or ordinal == -((last - day).days // 7 + 1))
        for ordinal, weekday in rule.days)]
