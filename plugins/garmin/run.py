#!/usr/bin/env python3
"""Reads a Garmin account by its personal API; the last days are read again, as watches are synchronized late."""

from __future__ import annotations

import os
import sys
import time
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

import rows
from api import LONGEST_WAIT_SECONDS, TIMEOUT_SECONDS, Api, Busy, Missing
from ductile_plugin import (
    URL,
    ZONE,
    Failed,
    Permanent,
    Retry,
    is_line,
    is_number,
    is_url,
    is_zone,
    log,
    main,
    seconds_left,
    settings,
)

BASE_URL = "https://personal.connectapi.garmin.com"
# The API takes 28 days at once everywhere. What is older than three times that is not made up for.
SPAN_DAYS, LONGEST_GAP_DAYS = 28, 84
# How many days are read again: at each poll, and once a day.
AGAIN_DAYS, AGAIN_DAILY_DAYS = 3, 7
REMEMBERED_DAYS = 100
MOST_EVENTS = 500
KEYS = {
    "api_key": (lambda value: is_line(value) and value.isascii() and " " not in value, "the key from Garmin Connect"),
    "timezone": (is_zone, ZONE),
    "kinds": (lambda value: isinstance(value, list) and value != [] and all(
        isinstance(each, str) and each in rows.KINDS for each in value), f"a list of {', '.join(rows.KINDS)}",
        list(rows.KINDS)),
    "first_days": (is_number(0, LONGEST_GAP_DAYS, whole=True),
                   f"a whole number of days, 0 to {LONGEST_GAP_DAYS}", 7),
    "base_url": (is_url, URL, BASE_URL),
}


def respond(request: dict) -> dict:
    config, now = settings(request, KEYS), time.time()
    zone = ZoneInfo(config["timezone"])
    state = request.get("state") or {}
    if request.get("command") == "health":
        return health(config, state, now, zone)
    if request.get("command") != "poll":
        raise Permanent("garmin has no such command")
    # A time further off than any that is stored: the clock was set back.
    if now < state.get("not_before", 0) <= now + LONGEST_WAIT_SECONDS:
        raise Retry(f"Garmin asked to wait {state['not_before'] - now:.0f} s more")
    try:
        return poll(request, config, state, now, zone)
    except Busy as error:
        error.state_updates = {"not_before": int(now + error.seconds)}
        raise


def health(config: dict, state: dict, now: float, zone: ZoneInfo) -> dict:
    """Say whether Garmin takes the key; the answer is not kept."""
    today = datetime.fromtimestamp(now, zone).date()
    rows.read(rows.KINDS["days"], Api(config, {}, now, 4), today, today, zone)
    return {"status": "ok", "result": f"Garmin accepts the key; read until {state.get('until', 'never')}"}


def poll(request: dict, config: dict, state: dict, now: float, zone: ZoneInfo) -> dict:
    """Return the events for what is new or has changed, with the state after them."""
    today = datetime.fromtimestamp(now, zone).date()
    first, is_daily = first_day(state, today, config["first_days"])
    api = Api(config, state, now, min(TIMEOUT_SECONDS, seconds_left(request)))
    items, missing = [], []
    for name in config["kinds"]:
        found = read(name, api, first, today, zone, warned=name in (state.get("missing") or ()))
        missing += [name] if found is None else []
        items += found or []
    known = state.get("known") or {}
    fresh = sorted((item for item in items if known.get(item.key, [0, None])[1] != item.digest),
                   key=lambda item: (item.day, item.key))
    emitted, left = fresh[:MOST_EVENTS], fresh[MOST_EVENTS:]
    oldest = (today - timedelta(days=REMEMBERED_DAYS)).isoformat()
    remembered = {key: mark for key, mark in (
        known | {item.key: [item.day, item.digest] for item in emitted}).items() if mark[0] >= oldest}
    updates = api.state | {"known": remembered, "not_before": 0, "missing": missing,
                           "until": left[0].day if left else today.isoformat()}
    if is_daily and not left:
        updates["daily"] = today.isoformat()
    more = ", more at the next poll" if left else ""
    return {"status": "ok", "result": f"{len(emitted)} new or changed{more}", "state_updates": updates,
            "events": [rows.event(item, item.key in known) for item in emitted]}


def first_day(state: dict, today: date, first_days: int) -> tuple[date, bool]:
    """Return the first day to read, and whether this is the one poll of the day that goes back further."""
    is_daily = state.get("daily") != today.isoformat()
    try:
        until = min(date.fromisoformat(state["until"]), today)
    except (KeyError, TypeError, ValueError):
        return today - timedelta(days=first_days), is_daily
    again = until - timedelta(days=AGAIN_DAILY_DAYS if is_daily else AGAIN_DAYS)
    return max(again, today - timedelta(days=LONGEST_GAP_DAYS)), is_daily


def read(name: str, api: Api, first: date, today: date, zone: ZoneInfo, *, warned: bool) -> list | None:
    """Return the rows of a kind; None for one that this account does not have, which is a warning once."""
    found, kind = [], rows.KINDS[name]
    try:
        for start, end in rows.spans(first, today, SPAN_DAYS):
            found += rows.read(kind, api, start, end, zone)
    except Missing as error:
        if not warned:
            log(f"{name}: {error}", "warn")
        return None
    except Busy:
        raise
    except Failed as error:
        raise Failed(f"{name}: {error}", retry=error.retry) from None
    return [item for item in found if not kind.must_be_over or item.day < today.isoformat()]


if __name__ == "__main__":
    main(respond)
