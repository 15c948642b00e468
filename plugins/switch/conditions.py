"""Conditions on a payload: what may be written, and whether one holds."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal

from ductile_plugin import ConfigError, Permanent, as_text, is_line, lookup, within

NESTED = ("all", "any", "not")
LONGEST_PATTERN = 500
SECONDS_PER_PATTERN = 0.5
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?")
_NOW = re.compile(r"now(?:\s*([+-])\s*([0-9]{1,6})([smhdw]))?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# From here on a number is taken for milliseconds: as seconds it would be in the year 5138.
_MILLISECONDS = 1e11
_MISSING = object()


def _is_any(value: object) -> bool:
    return not isinstance(value, dict)


def _is_pattern(value: object) -> bool:
    try:
        return isinstance(value, str) and len(value) <= LONGEST_PATTERN and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def _is_moment(value: object) -> bool:
    return _reference(value, None, datetime.now(UTC)) is not None


# By test, what may be written for it.
TESTS = {
    "equals": (_is_any, "a string, number, true, false, null or a list"),
    "not": (_is_any, "a string, number, true, false, null or a list"),
    "in": (lambda value: isinstance(value, list), "a list"),
    "contains": (_is_any, "a string, number, true, false or null"),
    "matches": (_is_pattern, f"a regular expression of at most {LONGEST_PATTERN} characters"),
    "gt": (lambda value: _number(value) is not None, "a number"),
    "lt": (lambda value: _number(value) is not None, "a number"),
    "exists": (lambda value: type(value) is bool, "true or false"),
    "before": (_is_moment, "a date, a date and time, or now, now-24h, now+7d"),
    "after": (_is_moment, "a date, a date and time, or now, now-24h, now+7d"),
}


def check(condition: object, name: str) -> None:
    """Raise ConfigError with its place if a condition cannot be one."""
    if isinstance(condition, list):
        for index, each in enumerate(condition):
            check(each, f"{name}[{index}]")
        if not condition:
            raise ConfigError(f"{name}: expected at least one condition")
        return
    if not isinstance(condition, dict) or not condition:
        raise ConfigError(f"{name}: expected a condition such as {{path: action, equals: opened}}, or a list of them")
    if "path" not in condition:
        _check_nested(condition, name)
        return
    if not is_line(condition["path"]):
        raise ConfigError(f"{name}.path: expected a name in the payload, such as a.b.0")
    if type(condition.get("ignore_case", False)) is not bool:
        raise ConfigError(f"{name}.ignore_case: expected true or false")
    tests = condition.keys() - {"path", "ignore_case"}
    for test in condition:
        if test not in TESTS and test not in ("path", "ignore_case"):
            raise ConfigError(f"{name}: unknown test {test!r}, expected one of {', '.join(TESTS)}")
        if test in TESTS and not TESTS[test][0](condition[test]):
            raise ConfigError(f"{name}.{test}: expected {TESTS[test][1]}")
    if not tests:
        raise ConfigError(f"{name}: expected a test beside path, one of {', '.join(TESTS)}")


def _check_nested(condition: dict, name: str) -> None:
    if len(condition) != 1 or not condition.keys() <= set(NESTED):
        raise ConfigError(f"{name}: expected path and a test, or one of {', '.join(NESTED)} alone")
    ((kind, inner),) = condition.items()
    if kind != "not" and not isinstance(inner, list):
        raise ConfigError(f"{name}.{kind}: expected a list of conditions")
    check(inner, f"{name}.{kind}")


def holds(condition: object, sources: tuple, name: str, zone: tzinfo | None, now: datetime) -> bool:
    """Say whether a checked condition holds for the payload and the context.

    Raises Permanent where a value is of a type that its test cannot judge: that is an answer of neither yes nor no.
    """
    if isinstance(condition, list):
        return all(holds(each, sources, f"{name}[{index}]", zone, now) for index, each in enumerate(condition))
    if "path" not in condition:
        ((kind, inner),) = condition.items()
        if kind == "not":
            return not holds(inner, sources, f"{name}.not", zone, now)
        results = (holds(each, sources, f"{name}.{kind}[{index}]", zone, now) for index, each in enumerate(inner))
        return all(results) if kind == "all" else any(results)
    value = lookup(condition["path"], *sources, default=_MISSING)
    judge = _Judge(path=condition["path"], name=name, fold=condition.get("ignore_case", False), zone=zone, now=now)
    return all(judge.passes(value, test, wanted) for test, wanted in condition.items() if test in TESTS)


class _Judge:
    """What the tests of one condition have in common."""

    def __init__(self, *, path: str, name: str, fold: bool, zone: tzinfo | None, now: datetime) -> None:
        self.path, self.name, self.fold, self.zone, self.now = path, name, fold, zone, now

    def passes(self, value: object, test: str, wanted: object) -> bool:
        """Say whether a value passes a test. A missing one passes only `not`, and `exists: false`."""
        if test == "exists":
            return (value is not _MISSING) is wanted
        if value is _MISSING:
            return test == "not"
        if test in ("equals", "not"):
            return self.same(value, wanted) is (test == "equals")
        if test == "in":
            return any(self.same(value, each) for each in wanted)
        return getattr(self, f"_{test}")(value, wanted)

    def same(self, value: object, other: object) -> bool:
        """Say whether two values are equal; 1 and 1.0 are, 1, "1" and true are not."""
        if isinstance(value, str) and isinstance(other, str):
            return self.folded(value) == self.folded(other)
        if isinstance(value, list) and isinstance(other, list):
            return len(value) == len(other) and all(map(self.same, value, other))
        if _is_number(value) and _is_number(other):
            return value == other or math.isclose(value, other, rel_tol=1e-9)
        return type(value) is type(other) and value == other

    def folded(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        return text.casefold() if self.fold else text

    def wrong(self, value: object, expected: str) -> Permanent:
        kinds = {dict: "a mapping", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
        return Permanent(f"{self.name}: {self.path} is {kinds.get(type(value), 'a number')}, expected {expected}")

    def _contains(self, value: object, wanted: object) -> bool:
        if isinstance(value, str):
            return self.folded(as_text(wanted)) in self.folded(value)
        if isinstance(value, list):
            return any(self.same(each, wanted) for each in value)
        if isinstance(value, dict):
            return any(self.same(each, wanted) for each in value)
        raise self.wrong(value, "a string, a list or a mapping")

    def _matches(self, value: object, wanted: str) -> bool:
        if not isinstance(value, str):
            raise self.wrong(value, "a string")
        with within(SECONDS_PER_PATTERN, f"{self.name}.matches"):
            return re.search(wanted, value, re.IGNORECASE if self.fold else 0) is not None

    def _gt(self, value: object, wanted: object) -> bool:
        return self._compared(value) > _number(wanted)

    def _lt(self, value: object, wanted: object) -> bool:
        return self._compared(value) < _number(wanted)

    def _compared(self, value: object) -> Decimal:
        found = _number(value)
        if found is None:
            raise self.wrong(value, "a number")
        return found

    def _before(self, value: object, wanted: object) -> bool:
        return self._dated(value) < _reference(wanted, self.zone, self.now)

    def _after(self, value: object, wanted: object) -> bool:
        return self._dated(value) > _reference(wanted, self.zone, self.now)

    def _dated(self, value: object) -> datetime:
        found = _moment(value, self.zone)
        if found is None:
            raise self.wrong(value, "a date, a date and time, or seconds since 1970")
        return found


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _number(value: object) -> Decimal | None:
    """Return a number, also one that a string holds, or None."""
    if _is_number(value):
        return Decimal(value)
    text = value.strip() if isinstance(value, str) else ""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _reference(value: object, zone: tzinfo | None, now: datetime) -> datetime | None:
    """Return the time that a condition names, which may be one before or after `now`, or None."""
    relative = _NOW.fullmatch(value.strip()) if isinstance(value, str) else None
    if relative is None:
        return _moment(value, zone)
    sign, count, unit = relative.groups()
    step = timedelta(**{_UNITS[unit]: int(count)}) if count else timedelta()
    try:
        return now - step if sign == "-" else now + step
    except OverflowError:
        return None


def _moment(value: object, zone: tzinfo | None) -> datetime | None:
    """Return the time that a value names, or None; without a zone of its own it is in `zone`, else the system's."""
    try:
        if _is_number(value):
            return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS else value, UTC)
        if not isinstance(value, str):
            return None
        found = datetime.fromisoformat(value.strip().upper())
        if found.tzinfo is None:
            found = found.replace(tzinfo=zone) if zone else found.astimezone()
        return found.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
