"""iCalendar (RFC 5545): events, their times and zones, and when they occur within a span of time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import rules

DEEPEST = 10
# What Outlook and Exchange call zones, where they do not describe them (CLDR, windowsZones).
WINDOWS = {
    "AUS Eastern Standard Time": "Australia/Sydney", "Central Europe Standard Time": "Europe/Budapest",
    "Central European Standard Time": "Europe/Warsaw", "Central Standard Time": "America/Chicago",
    "China Standard Time": "Asia/Shanghai", "E. Europe Standard Time": "Europe/Chisinau",
    "E. South America Standard Time": "America/Sao_Paulo", "Eastern Standard Time": "America/New_York",
    "FLE Standard Time": "Europe/Kyiv", "GMT Standard Time": "Europe/London", "GTB Standard Time": "Europe/Bucharest",
    "India Standard Time": "Asia/Kolkata", "Israel Standard Time": "Asia/Jerusalem",
    "Mountain Standard Time": "America/Denver", "New Zealand Standard Time": "Pacific/Auckland",
    "Pacific Standard Time": "America/Los_Angeles", "Romance Standard Time": "Europe/Paris",
    "Russian Standard Time": "Europe/Moscow", "Singapore Standard Time": "Asia/Singapore",
    "South Africa Standard Time": "Africa/Johannesburg", "Tokyo Standard Time": "Asia/Tokyo",
    "Turkey Standard Time": "Europe/Istanbul", "W. Europe Standard Time": "Europe/Berlin",
}
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?")
_DURATION = re.compile(r"([+-]?)P(?:(\d{1,5})W)?(?:(\d{1,5})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,7})S)?)?")


class NoCalendar(ValueError):
    """What was read is no calendar."""


@dataclass(slots=True, kw_only=True)
class Component:
    """A component: its properties by name, each with parameters and a value, and the components within it."""

    name: str
    properties: dict[str, list[tuple[dict[str, str], str]]] = field(default_factory=dict)
    parts: list[Component] = field(default_factory=list)

    def first(self, name: str) -> tuple[dict[str, str], str] | None:
        return self.properties.get(name, [None])[0]

    def text(self, name: str) -> str:
        """Return a property without its escapes; empty where there is none."""
        found = self.first(name)
        return "" if found is None else re.sub(
            r"\\(.)", lambda part: "\n" if part[1] in "nN" else part[1], found[1]).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One time at which an event happens; those of a day have no zone and begin at its local midnight."""

    event: Component
    start: datetime
    end: datetime
    is_all_day: bool
    is_recurring: bool


def parse(data: bytes) -> Component:
    """Return the calendar. Raises NoCalendar."""
    text = re.sub(rb"\r?\n[ \t]", b"", data.removeprefix(b"\xef\xbb\xbf")).decode("utf-8", "replace")
    root = Component(name="")
    stack = [root]
    for line in re.split(r"\r\n|\n|\r", text):
        name, parameters, value = _line(line)
        if name == "BEGIN":
            if len(stack) > DEEPEST:
                raise NoCalendar
            made = Component(name=value.strip().upper())
            stack[-1].parts.append(made)
            stack.append(made)
        elif name == "END" and len(stack) > 1:
            stack.pop()
        elif name:
            stack[-1].properties.setdefault(name, []).append((parameters, value))
    found = next((part for part in root.parts if part.name == "VCALENDAR"), None)
    # What was cut off would look like events that were deleted.
    if found is None or len(stack) > 1:
        raise NoCalendar
    return found


def _line(line: str) -> tuple[str, dict[str, str], str]:
    match = re.match(r'([A-Za-z0-9-]+)((?:;[^:;="]+=(?:"[^"]*"|[^":;]*))*):', line)
    if match is None:
        return "", {}, ""
    found = re.findall(r';([^:;="]+)=("[^"]*"|[^":;]*)', match[2])
    return match[1].upper(), {key.upper(): value.strip('"') for key, value in found}, line[match.end():]


class Zones:
    """The zones of a calendar by name: those of the system first, else as the calendar describes them."""

    def __init__(self, calendar: Component, local: tzinfo) -> None:
        self.local = local
        self._described = {part.text("TZID"): part for part in calendar.parts if part.name == "VTIMEZONE"}
        self._found: dict[str, tzinfo] = {}

    def get(self, name: str | None) -> tzinfo:
        """Return a zone; the local one where there is no such name."""
        if name is None:
            return self.local
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> tzinfo:
        words = name.split("/")
        described = self._described.get(name)
        location = described.text("X-LIC-LOCATION") if described is not None else ""
        for candidate in (name, location, WINDOWS.get(name, ""), "/".join(words[-2:]), "/".join(words[-3:])):
            try:
                return ZoneInfo(candidate)
            except (ValueError, OSError, LookupError):
                continue
        return self.local if described is None else Described(described)


class Described(tzinfo):
    """A zone by its own rules (RFC 5545, 3.6.5): in each part, from when on which offset holds."""

    def __init__(self, component: Component) -> None:
        self._name, self._parts, self._onsets = component.text("TZID"), [], {}
        for part in component.parts:
            start = part.first("DTSTART")
            match = _TIME.fullmatch(start[1].strip()) if start is not None else None
            if match is None or match[4] is None:
                continue
            try:
                rule = part.first("RRULE")
                parsed = None if rule is None else rules.parse(rule[1], _until(rule[1]))
            except rules.Unsupported:
                parsed = None
            self._parts.append((_naive(match), parsed, _offset(part.text("TZOFFSETTO"))))

    def utcoffset(self, moment: datetime | None) -> timedelta:
        if moment is None or not self._parts:
            return timedelta()
        if moment.year not in self._onsets:
            self._onsets[moment.year] = sorted(self._of(moment.year), key=lambda onset: onset[0])
        local = moment.replace(tzinfo=None)
        past = [offset for start, offset in self._onsets[moment.year] if start <= local]
        return past[-1] if past else min(self._parts, key=lambda part: part[0])[2]

    def _of(self, year: int) -> Iterator[tuple[datetime, timedelta]]:
        for start, rule, offset in self._parts:
            yield start, offset
            if rule is not None:
                first, last = datetime(max(year - 1, 1), 1, 1), datetime(min(year + 1, 9999), 1, 1)
                yield from ((at, offset) for at in rules.occurrences(rule, start, first, last))

    def fromutc(self, moment: datetime) -> datetime:
        offsets = sorted({offset for _, _, offset in self._parts}, reverse=True) or [timedelta()]
        # In the hour that comes twice, the second time has no clock of its own here.
        return next((moment + offset for offset in offsets if self.utcoffset(moment + offset) == offset),
                    moment + offsets[-1])

    def dst(self, _: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _: datetime | None) -> str:
        return self._name


def _offset(text: str) -> timedelta:
    match = re.fullmatch(r"([+-])(\d\d)(\d\d)(\d\d)?", text)
    if match is None or int(match[2]) > 23:
        return timedelta()
    found = timedelta(hours=int(match[2]), minutes=int(match[3]), seconds=int(match[4] or 0))
    return -found if match[1] == "-" else found


def _naive(match: re.Match) -> datetime:
    year, month, day, *clock = (int(part or 0) for part in match.groups()[:6])
    # A leap second is none here.
    return datetime(year, month, day, clock[0], clock[1], min(clock[2], 59))


def _until(rule: str) -> datetime | None:
    match = re.search(r"UNTIL=(\d{8}(?:T\d{6}Z?)?)", rule.upper())
    parsed = _TIME.fullmatch(match[1]) if match else None
    if parsed is None:
        return None
    # A day is over at its end.
    return _naive(parsed) if parsed[4] else _naive(parsed) + timedelta(days=1, seconds=-1)


def moment(value: tuple[dict[str, str], str], zones: Zones) -> tuple[datetime, bool]:
    """Return a time with its zone, and whether it is a whole day. Raises ValueError."""
    parameters, text = value
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("no time")
    if match[4] is None:
        return _naive(match).replace(tzinfo=zones.local), True
    return _naive(match).replace(tzinfo=UTC if match[7] else zones.get(parameters.get("TZID"))), False


def _moments(event: Component, name: str, zones: Zones) -> list[tuple[datetime, bool]]:
    found = []
    for parameters, text in event.properties.get(name, []):
        for part in text.split(","):
            try:
                found.append(moment((parameters, part.partition("/")[0]), zones))
            except (ValueError, OverflowError):
                continue
    return found


def occurrences(calendar: Component, zones: Zones, after: datetime, before: datetime,
                warn: list[str]) -> list[Occurrence]:
    """Return what happens with a start within [after, before). What is not understood is a warning."""
    singles, replaced = _latest(calendar, zones)
    found = []
    for event in singles:
        try:
            found += _of_event(event, zones, replaced.get(event.text("UID"), set()), (after, before), warn)
        except (ValueError, OverflowError, TypeError):
            warn.append(f"{event.text('UID')[:100]}: its times are not understood")
    return [each for each in found if each.event.text("STATUS").upper() != "CANCELLED"]


def _latest(calendar: Component, zones: Zones) -> tuple[list[Component], dict[str, set[datetime]]]:
    """Return the latest version of each event, and by UID the times of recurring ones that others replace."""
    versions: dict[tuple, Component] = {}
    replaced: dict[str, set[datetime]] = {}
    for event in calendar.parts:
        if event.name != "VEVENT":
            continue
        at = _moments(event, "RECURRENCE-ID", zones)[:1]
        key = (event.text("UID") or id(event), at[0][0].astimezone(UTC) if at else None)
        if at:
            replaced.setdefault(event.text("UID"), set()).add(key[1])
        before = versions.get(key)
        if before is None or _sequence(event) >= _sequence(before):
            versions[key] = event
    return list(versions.values()), replaced


def _sequence(event: Component) -> int:
    text = event.text("SEQUENCE")
    return int(text) if re.fullmatch(r"\d{1,9}", text) else 0


def _of_event(event: Component, zones: Zones, replaced: set[datetime], span: tuple[datetime, datetime],
              warn: list[str]) -> Iterator[Occurrence]:
    value = event.first("DTSTART")
    if value is None:
        raise ValueError("no start")
    start, is_all_day = moment(value, zones)
    length = _length(event, start, is_all_day, zones)
    is_single = "RECURRENCE-ID" in event.properties
    starts = {start}
    for _, rule in [] if is_single else event.properties.get("RRULE", []):
        try:
            starts |= set(_by_rule(rule, start, is_all_day, span))
        except rules.Unsupported as error:
            warn.append(f"{event.text('UID')[:100]}: the rule {error} is not supported, only the first time counts")
    # Times of one zone are compared by the clock, and these may be of several.
    starts |= set() if is_single else {at.astimezone(start.tzinfo) for at, _ in _moments(event, "RDATE", zones)}
    left_out = _moments(event, "EXDATE", zones)
    instants = {at.astimezone(UTC) for at, is_day in left_out if is_day == is_all_day} | (
        set() if is_single else replaced)
    days = {at.date() for at, is_day in left_out if is_day}
    is_recurring = is_single or bool({"RRULE", "RDATE"} & event.properties.keys())
    for at in starts:
        if at.astimezone(UTC) in instants or at.date() in days or not span[0] <= at < span[1]:
            continue
        # A whole day has 23 or 25 hours where the clock changes.
        end = at + length if is_all_day else (at.astimezone(UTC) + length).astimezone(at.tzinfo)
        yield Occurrence(event=event, start=at, end=end, is_all_day=is_all_day, is_recurring=is_recurring)


def _by_rule(text: str, start: datetime, is_all_day: bool, span: tuple[datetime, datetime]) -> Iterator[datetime]:
    zone, until = start.tzinfo, _until(text)
    if until is not None and re.search(r"UNTIL=\d{8}T\d{6}Z", text.upper()) and not is_all_day:
        until = until.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)
    rule = rules.parse(text, until)
    # A day more on both sides: the clock may change in between.
    first, last = (edge.astimezone(zone).replace(tzinfo=None) + timedelta(days=more)
                   for edge, more in zip(span, (-1, 1), strict=True))
    yield from (at.replace(tzinfo=zone) for at in rules.occurrences(rule, start.replace(tzinfo=None), first, last))


def _length(event: Component, start: datetime, is_all_day: bool, zones: Zones) -> timedelta:
    end, duration = event.first("DTEND"), event.first("DURATION")
    if end is not None:
        at, _ = moment(end, zones)
        found = at.replace(tzinfo=None) - start.replace(tzinfo=None) if is_all_day else (
            at.astimezone(UTC) - start.astimezone(UTC))
    elif duration is not None and (match := _DURATION.fullmatch(duration[1].strip().upper())):
        weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups()[1:])
        found = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    else:
        found = timedelta(days=1) if is_all_day else timedelta()
    return max(found, timedelta())


def fixed(moment: datetime) -> datetime:
    """Return the same instant with an offset instead of a zone."""
    return moment.astimezone(timezone(moment.utcoffset() or timedelta()))


