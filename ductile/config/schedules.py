"""Reads a plugin's `schedule`: one mapping or a list of them."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, time, tzinfo
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from ductile import units
from ductile.config import misnamed
from ductile.config.model import Every, Schedule, Unit, Window
from ductile.config.values import as_duration, as_name, sections
from ductile.protocol import HEALTH, INIT, POLL
from ductile.validation import MOST_HINTS, Path, Section, as_integer, as_text, kind_of, nearest

T = TypeVar("T", time, int)

_NEVER: tuple[time, ...] = ()
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKDAYS = "weekdays"
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_NEVER_SCHEDULED = (HEALTH, INIT)
_LONGEST_EVERY = 366 * units.DAY
_NAMED = {
    "hourly": Every(count=units.HOUR, unit=Unit.SECONDS),
    "daily": Every(count=1, unit=Unit.DAYS),
    "weekly": Every(count=1, unit=Unit.WEEKS),
    "monthly": Every(count=1, unit=Unit.MONTHS),
}


def parse_every(text: Any) -> Every:
    """Return the interval in `90s`, `5m`, `1h30m`, `1d`, `1w`, `hourly`, `daily`, `weekly` or `monthly`.

    Raises ValueError, with a text for the operator, for anything else and outside 1s to 366d.
    """
    if isinstance(text, str) and text in _NAMED:
        return _NAMED[text]
    try:
        seconds = units.parse_duration(text if isinstance(text, str) else "")
    except ValueError:
        expected = "expected an interval such as 5m, 6h, daily or monthly"
        hint = misnamed.interval(text) if isinstance(text, str) else ""
        raise ValueError(f"{expected}, got {kind_of(text)}{hint}") from None
    if not 1 <= seconds <= _LONGEST_EVERY:
        raise ValueError(f"expected an interval from 1s to 366d, got {text!r}")
    units_used = set(text) & set("smhdw")
    if not units_used & set("dw"):
        return Every(count=seconds, unit=Unit.SECONDS)
    if units_used & set("smh"):
        raise ValueError(f"expected either days and weeks, which follow the calendar, or hours, minutes and seconds,"
                         f" got {text!r}")
    if units_used == {"w"}:
        return Every(count=seconds // units.WEEK, unit=Unit.WEEKS)
    return Every(count=seconds // units.DAY, unit=Unit.DAYS)


def read_schedules(plugin: Section, local_zone: tzinfo) -> tuple[tuple[Schedule, ...], dict[Path, str]]:
    """Return the schedules of a plugin's section, none where it has none, and the commands they run by their places.

    Problems go to the section's list. A schedule that is wrong is left out, but not its command.
    """
    value = plugin.raw("schedule")
    commands: dict[Path, str] = {}
    if value is None:
        return (), commands
    if isinstance(value, str):
        plugin.wrong("schedule", f"expected a mapping, got {value!r}{misnamed.schedule(value)}")
        return (), commands
    if not isinstance(value, list | dict):
        plugin.wrong("schedule", f"expected a mapping, got {kind_of(value)}")
        return (), commands
    if isinstance(value, dict):
        section = plugin.section("schedule")
        schedule = _read(section, local_zone, commands)
        return () if schedule is None else (schedule,), commands
    schedules: dict[str, Schedule] = {}
    for section in sections(plugin, "schedule"):
        section.require("id")
        schedule = _read(section, local_zone, commands)
        if schedule is not None and section.has("id") and schedule.id in schedules:
            section.wrong("id", f"expected an id that no other schedule of the plugin has, got {schedule.id!r}")
        elif schedule is not None:
            schedules[schedule.id] = schedule
    return tuple(schedules.values()), commands


def _read(section: Section, local_zone: tzinfo, commands: dict[Path, str]) -> Schedule | None:
    if "cron" not in section:
        section.require("every")
    # The default in place of a wrong command would be looked for as if somebody had asked for it.
    command = section.read("command", None, _as_scheduled_command) if section.has("command") else POLL
    if command is not None:
        commands[(*section.path, "command")] = command
    every = section.read("every", None, parse_every)
    at = section.read("at", _NEVER, lambda value: _as_several(value, _as_time))
    day = _read_day(section, every)
    zone_name = section.read("timezone", None, lambda value: _as_zone_name(value, section))
    schedule = Schedule(
        id=section.read("id", "default", as_name),
        command=command or POLL,
        every=every or Every(count=1, unit=Unit.DAYS),
        at=at,
        day=day,
        jitter=section.read("jitter", 0, lambda value: _as_jitter(value, every, at, day)),
        window=_read_window(section),
        zone=local_zone if zone_name is None else _zone(zone_name),
        zone_name=zone_name,
        payload=section.read("payload", None, _as_payload),
        alert_after=section.read("alert_after", None, lambda value: as_duration(value, least=1)),
    )
    if section.has("at") and every is not None and every.unit is Unit.SECONDS:
        section.wrong("at", "expected an interval such as daily, weekly or monthly beside 'at', got elapsed time")
    section.finish(misnamed.in_schedule(section.value("cron")))
    return schedule if every is not None else None


def _read_day(section: Section, every: Every | None) -> tuple[int, ...]:
    if not section.has("day") or every is None:
        return ()
    if not section.has("at"):
        section.wrong("day", "expected 'at' beside 'day', got none")
    if every.unit is Unit.WEEKS:
        return section.read("day", (), _as_weekdays)
    if every.unit is Unit.MONTHS:
        return section.read("day", (), lambda value: (as_integer(value, least=1, most=31),))
    section.wrong("day", "expected weekly or monthly beside 'day', got another interval")
    return ()


def _read_window(section: Section) -> Window | None:
    if not section.has("preferred_window"):
        return None
    window = section.section("preferred_window")
    if window.written_keys():
        window.require("start", "end")
    start = window.read("start", None, _as_time)
    end = window.read("end", None, _as_end_time)
    window.finish()
    if start is None or end is None:
        return None
    if start == end:
        window.wrong("end", "expected another time than 'start', got the same (for the whole day leave the window out)")
        return None
    return Window(start=start, end=end)


def _as_payload(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping, got {kind_of(value)}")
    return value


def _as_time(value: Any) -> time:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a time such as \"07:30\", got {kind_of(value)}")
    return time(int(match[1]), int(match[2]))


def _as_end_time(value: Any) -> time:
    return time(0, 0) if value == "24:00" else _as_time(value)


def _as_several(value: Any, parse: Callable[[Any], T]) -> tuple[T, ...]:
    """Return one value, or those of a list, in their order. Raises ValueError."""
    items = [parse(each) for each in value] if isinstance(value, list) else [parse(value)]
    if not items:
        raise ValueError("expected at least one, got an empty list")
    if len(set(items)) < len(items):
        raise ValueError("expected each once, got one that is repeated")
    return tuple(sorted(items))


def _as_weekdays(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) and value.lower() == _WEEKDAYS:
        return tuple(range(5))
    return _as_several(value, _as_weekday)


def _as_weekday(value: Any) -> int:
    word = value.lower() if isinstance(value, str) else ""
    if word in _DAYS or word in _DAY_NAMES:
        return _DAYS.index(word[:3])
    hint = " (write [sat, sun])" if word in ("weekend", "weekends") else ""
    raise ValueError(f"expected {_WEEKDAYS}, or one or a list of {', '.join(_DAYS)}, got {kind_of(value)}{hint}")


def _as_jitter(value: Any, every: Every | None, at: tuple[time, ...], day: tuple[int, ...]) -> int:
    jitter = as_duration(value, least=0)
    if every is not None and jitter > every.seconds:
        raise ValueError(f"expected no more than the interval in 'every', got {value!r}")
    if every is not None and jitter > _shortest_gap(every, at, day):
        raise ValueError(f"expected no more than the time between two runs, got {value!r}")
    return jitter


def _shortest_gap(every: Every, at: tuple[time, ...], day: tuple[int, ...]) -> int:
    """Return the shortest time between two runs, in seconds, as far as `at` and `day` tell: a run drawn later than
    the next one would skip that."""
    days = day if every.unit is Unit.WEEKS else ()
    starts = [each * units.DAY + clock.hour * units.HOUR + clock.minute * units.MINUTE
              for each in days or (0,) for clock in at]
    return min((later - earlier for earlier, later in itertools.pairwise([*starts, starts[0] + every.seconds])),
               default=every.seconds) if starts else every.seconds


def _as_scheduled_command(value: Any) -> str:
    command = as_name(value)
    if command in _NEVER_SCHEDULED:
        raise ValueError(f"expected a command that can be scheduled, got {command!r}")
    return command


def _as_zone_name(value: Any, section: Section) -> str:
    name = as_text(value)
    try:
        _zone(name)
    except (LookupError, ValueError, OSError):
        hint = _zone_hint(name) if len(section.problems) < MOST_HINTS else ""
        raise ValueError(f"expected a time zone such as Australia/Sydney, got {name!r}{hint}") from None
    return name


@functools.cache
def _known_zones() -> frozenset[str]:
    # Looked for in a thousand files; for hints it does no harm that a later update is not seen.
    return frozenset(available_timezones())


def _zone_hint(name: str) -> str:
    """Return what may have been meant. An abbreviation is another zone's more often than a slip (CEST, EST)."""
    known = _known_zones()
    city = name.replace(" ", "_").lower()
    if "/" in name:
        return nearest(name, sorted(each for each in known if "/" in each))
    meant = sorted((each for each in known if each.lower() == city or each.lower().endswith(f"/{city}")), key=len)
    if meant:
        return f" (did you mean {meant[0]!r}?)"
    return " (an abbreviation names no zone; write the place)" if name.isupper() else ""


def _zone(name: str) -> tzinfo:
    # UTC is known even where no zone database is installed.
    return UTC if name == "UTC" else ZoneInfo(name)
