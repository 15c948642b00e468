#!/usr/bin/env python3
"""Emits an event shortly before each event of a calendar starts, once."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

import ics
from ductile_plugin import (
    MIB,
    URL,
    ZONE,
    ConfigError,
    Permanent,
    Retry,
    basic,
    counted,
    digest,
    http,
    is_absolute,
    is_line,
    is_url,
    is_zone,
    log,
    main,
    one_line,
    seconds_left,
    settings,
    where,
)

LIMIT_BYTES = 20 * MIB
TIMEOUT_SECONDS = 30
MOST_EVENTS = 100
# Events that started while the plugin did not run are announced for so long.
LATE = timedelta(days=1)
LONGEST_TEXT, MOST_WARNINGS = 5000, 20
UNITS = {"m": 60, "h": 3600, "d": 86_400}
KEYS = {
    "url": (lambda value: isinstance(value, str) and is_url(re.sub("^webcals?:", "https:", value)), URL, None),
    "path": (is_absolute, "an absolute path", None),
    "username": (is_line, "one line", None), "password": (is_line, "one line", None),
    "ahead": (lambda value: isinstance(value, str) and re.fullmatch("[0-9]{1,3}[mhd]", value) is not None
              and seconds(value) <= 31 * 86_400, "a time such as 15m, 2h or 1d, up to 31d", "15m"),
    "all_day_at": (lambda value: isinstance(value, str) and re.fullmatch("([01][0-9]|2[0-3]):[0-5][0-9]", value)
                   is not None, 'a time of day such as "07:00"', "07:00"),
    "timezone": (is_zone, ZONE, None),
}


def seconds(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


def checked(request: dict) -> dict:
    """Return the configuration. Raises ConfigError."""
    config = settings(request, KEYS)
    if (config["url"] is None) == (config["path"] is None):
        raise ConfigError("url, path: expected one of them")
    if (config["username"] is None) != (config["password"] is None):
        raise ConfigError("username, password: expected both or neither")
    if config["url"] is not None:
        config["url"] = re.sub("^webcals?:", "https:", config["url"])
    return config


def system_zone() -> tzinfo:
    """Return the zone of times that have none: the system's own with its rules, not only today's offset."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if name:
        return ZoneInfo(name)
    try:
        with open("/etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file, key="local")
    except OSError:
        return UTC


def respond(request: dict) -> dict:
    config, now = checked(request), datetime.fromtimestamp(time.time(), UTC)
    if request.get("command") not in ("poll", "health"):
        raise Permanent("calendar has no such command")
    place = config["path"] if config["url"] is None else where(config["url"])
    zone = ZoneInfo(config["timezone"]) if config["timezone"] else system_zone()
    try:
        calendar = ics.parse(read(request, config))
    except ics.NoCalendar:
        raise Retry(f"{place} is no whole calendar") from None
    if request["command"] == "health":
        count = sum(part.name == "VEVENT" for part in calendar.parts)
        return {"status": "ok", "result": f"{place} has {counted(count, 'event')}"}
    return poll(config, request.get("state") or {}, calendar, ics.Zones(calendar, zone), now)


def read(request: dict, config: dict) -> bytes:
    """Return the calendar as it is. Raises Failed."""
    if config["url"] is None:
        return read_file(os.path.expanduser(config["path"]))
    headers = {"Accept": "text/calendar, */*;q=0.1"}
    if config["username"] is not None:
        headers["Authorization"] = basic(config["username"], config["password"])
    answer = http("GET", config["url"], headers=headers, timeout=min(TIMEOUT_SECONDS, seconds_left(request)),
                  limit=LIMIT_BYTES, redirects=5)
    if not answer.ok:
        raise answer.error()
    return answer.body


def read_file(path: str) -> bytes:
    try:
        # A FIFO would wait for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Permanent(f"{path} is not a file")
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise Retry(f"{path}: {error.strerror}") from None
    if len(data) > LIMIT_BYTES:
        raise Permanent(f"{path} is larger than {LIMIT_BYTES // MIB} MiB")
    return data


def poll(config: dict, state: dict, calendar: ics.Component, zones: ics.Zones, now: datetime) -> dict:
    """Return an event for each occurrence that is due and was not announced, with the state after them."""
    announced = {key: at for key, at in (state.get("announced") or {}).items() if type(at) is int}
    polled = state.get("polled_at")
    since = now if type(polled) is not int else max(datetime.fromtimestamp(min(polled, int(now.timestamp())), UTC),
                                                    now - LATE)
    ahead, warnings = timedelta(seconds=seconds(config["ahead"])), []
    # A whole day begins before its time of day comes.
    found = ics.occurrences(calendar, zones, now - LATE - timedelta(days=1), now + ahead + timedelta(days=1), warnings)
    due = []
    for each in found:
        at = notice(each, config, ahead)
        key = f"{one_line(each.event.text('UID'), 200)}|{ics.fixed(each.start).isoformat()}"
        # What has started is announced only if the plugin did not run when it was due.
        if at <= now and key not in announced and (relevant_until(each, at) > now or at > since):
            due.append((each.start.astimezone(UTC), key, each, relevant_until(each, at) <= now))
    due.sort(key=lambda entry: entry[:2])
    emitted = due[:MOST_EVENTS]
    # Once, and not at each poll.
    warned = digest("\n".join(sorted(warnings)), 8) if warnings else ""
    for line in warnings[:MOST_WARNINGS] if warned != state.get("warned", "") else ():
        log(one_line(line), "warn")
    oldest = int((now - LATE - timedelta(days=2)).timestamp())
    announced |= {key: int(start.timestamp()) for start, key, _, _ in emitted}
    updates = {"announced": {key: at for key, at in announced.items() if at >= oldest}}
    if warned != state.get("warned", ""):
        updates["warned"] = warned
    if len(emitted) == len(due):
        updates["polled_at"] = int(now.timestamp())
    name = one_line(calendar.text("X-WR-CALNAME"), 200)
    return {"status": "ok", "result": f"{len(emitted)} announced", "state_updates": updates,
            "events": [event(key, each, is_late, name, now) for _, key, each, is_late in emitted]}


def notice(each: ics.Occurrence, config: dict, ahead: timedelta) -> datetime:
    """Return when an occurrence is announced: some time ahead, or on its day at a time of day."""
    if not each.is_all_day:
        return each.start.astimezone(UTC) - ahead
    hour, minute = map(int, config["all_day_at"].split(":"))
    return each.start.replace(hour=hour, minute=minute).astimezone(UTC)


def relevant_until(each: ics.Occurrence, at: datetime) -> datetime:
    """Return until when an occurrence is announced: until it starts; an all-day one until it ends."""
    return each.end.astimezone(UTC) if each.is_all_day else max(each.start.astimezone(UTC), at)


def event(key: str, each: ics.Occurrence, is_late: bool, name: str, now: datetime) -> dict:
    start, end = ics.fixed(each.start), ics.fixed(each.end)
    summary = one_line(each.event.text("SUMMARY")) or "(no title)"
    location = one_line(each.event.text("LOCATION"))
    when = start.strftime("%Y-%m-%d") if each.is_all_day else start.strftime("%Y-%m-%d %H:%M")
    payload = {
        "uid": one_line(each.event.text("UID"), 200), "summary": summary, "location": location,
        "description": each.event.text("DESCRIPTION").replace("\0", "")[:LONGEST_TEXT],
        "url": one_line(each.event.text("URL"), 2000), "calendar": name,
        "start": start.date().isoformat() if each.is_all_day else start.isoformat(),
        "end": end.date().isoformat() if each.is_all_day else end.isoformat(), "all_day": each.is_all_day,
        "recurring": each.is_recurring, "late": is_late,
        "minutes": round((each.start - now).total_seconds() / 60),
        "message": f"{summary}, {when}" + (f", {location}" if location else "")}
    return {"type": "calendar.starts_soon", "payload": payload, "dedupe_key": f"calendar:{key}"}


if __name__ == "__main__":
    main(respond)
