"""Daily values: for each source and metric one number a day, for 400 days, and what they say.

A series is `{"unit": ..., "start": DATE, "values": [NUMBER or null, ...]}`, one value for each day from the start on.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from statistics import fmean

from ductile_plugin import Permanent

KEPT_DAYS = 400
MOST_SERIES = 60
MOST_VALUES = 100
LARGEST = 1e9
# A record says something only among so many values.
FEWEST_FOR_RECORD = 60
WEEK, BEFORE = 7, 28
_NAME = re.compile("[A-Za-z0-9_-]{1,40}")
# Kinds of which a day can have several rows, such as a night and a nap, or two devices: the largest counts.
_LARGEST_COUNTS = ("activity", "sleep")


def measurement(payload: object) -> dict:
    """Return an event's payload if it is one of new_health_data. Raises Permanent."""
    values = payload.get("values") if isinstance(payload, dict) else None
    if not isinstance(values, list) or not values or len(values) > MOST_VALUES:
        raise Permanent("the payload has no `values`: expected an event of withings or garmin")
    for name in ("source", "kind"):
        if not isinstance(payload.get(name), str) or not _NAME.fullmatch(payload[name]):
            raise Permanent(f"{name}: expected a word")
    try:
        date.fromisoformat(payload["date"])
    except (KeyError, TypeError, ValueError):
        raise Permanent("date: expected a date such as 2026-11-30") from None
    for index, value in enumerate(values):
        if not (isinstance(value, dict) and isinstance(value.get("metric"), str) and _NAME.fullmatch(value["metric"])
                and type(value.get("value")) in (int, float) and abs(value["value"]) < LARGEST
                and isinstance(value.get("unit", ""), str) and len(value.get("unit", "")) <= 20):
            raise Permanent(f"values[{index}]: expected metric, value and unit")
    return payload


def add(series: dict, found: dict, today: date) -> tuple[dict, list[str]]:
    """Return the series that a measurement changes, and the names of those that there was no room for."""
    day = date.fromisoformat(found["date"])
    if not today - timedelta(days=KEPT_DAYS - 1) <= day <= today + timedelta(days=1):
        return {}, [found["date"]]
    changed, refused = {}, []
    takes_largest = found["kind"] in _LARGEST_COUNTS and found.get("id") != found["date"]
    for value in found["values"]:
        name = f"{found['source']}.{value['metric']}"
        if name not in series | changed and len(series | changed) >= MOST_SERIES:
            refused.append(name)
            continue
        by_day = days_of(changed.get(name, series.get(name)))
        number = round(value["value"], 3)
        by_day[day] = max(number, by_day.get(day, number)) if takes_largest else number
        changed[name] = _series(by_day, value.get("unit", ""), today)
    return changed, refused


def days_of(series: dict | None) -> dict[date, float]:
    """Return a series by day, without the days that have none. One of another form is empty."""
    try:
        start = date.fromisoformat(series["start"])
        return {start + timedelta(days=index): value for index, value in enumerate(series["values"])
                if value is not None}
    except (KeyError, TypeError, ValueError, OverflowError):
        return {}


def _series(by_day: dict[date, float], unit: str, today: date) -> dict:
    start = max(min(by_day), today - timedelta(days=KEPT_DAYS - 1))
    length = (max(by_day) - start).days + 1
    return {"unit": unit, "start": start.isoformat(),
            "values": [by_day.get(start + timedelta(days=index)) for index in range(length)]}


def describe(name: str, series: dict, today: date) -> dict | None:
    """Return what a series says: the last week against the four before, gaps and records; None without a value."""
    by_day = days_of(series)
    if not by_day:
        return None
    # A day that is not over may have no value yet.
    end = today if today in by_day else today - timedelta(days=1)
    week, before = _within(by_day, end, WEEK), _within(by_day, end - timedelta(days=WEEK), BEFORE)
    last = max(by_day)
    source, _, metric = name.partition(".")
    mean = fmean(week) if week else None
    usual = fmean(before) if before else None
    return {
        "series": name, "source": source, "metric": metric, "unit": series.get("unit", ""),
        "last": by_day[last], "last_date": last.isoformat(), "days_ago": (today - last).days,
        "mean_7": _rounded(mean), "mean_28": _rounded(usual),
        "change": _rounded(mean - usual) if week and before else None,
        "missing_28": BEFORE - len(_within(by_day, end, BEFORE)), "record": _record(by_day, end),
    }


def _within(by_day: dict[date, float], end: date, days: int) -> list[float]:
    wanted = (end - timedelta(days=back) for back in range(days))
    return [by_day[day] for day in wanted if day in by_day]


def _record(by_day: dict[date, float], end: date) -> str | None:
    """Return which record the last week holds among all values, highest or lowest."""
    earlier = [value for day, value in by_day.items() if day <= end - timedelta(days=WEEK)]
    week = _within(by_day, end, WEEK)
    if len(earlier) < FEWEST_FOR_RECORD or not week:
        return None
    if max(week) > max(earlier):
        return "highest"
    return "lowest" if min(week) < min(earlier) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
