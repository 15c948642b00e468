"""Parses and formats durations, sizes and UTC times."""

from __future__ import annotations

import re
from datetime import UTC, datetime

SECOND = 1
MINUTE = 60
HOUR = 3600
DAY = 86400
WEEK = 7 * DAY

_SECONDS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": WEEK}
_BYTES = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_DURATION = re.compile(r"(?:[0-9]{1,9}w)?(?:[0-9]{1,9}d)?(?:[0-9]{1,9}h)?(?:[0-9]{1,9}m)?(?:[0-9]{1,9}s)?")
_PART = re.compile(r"([0-9]+)([smhdw])")
_SIZE = re.compile(r"([0-9]{1,12})(B|KB|MB|GB)")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def parse_duration(text: str) -> int:
    """Return the seconds in a duration such as `90s`, `5m`, `1h30m`, `1d` or `1w`, the larger unit first.

    Raises ValueError, with a text for the operator, for anything else.
    """
    if not text or _DURATION.fullmatch(text) is None:
        raise ValueError(f"expected a duration such as 30s, got {text!r}")
    return sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))


def format_duration(seconds: float) -> str:
    """Return a duration for people, in its two largest units: `2h 5m`, `45s`, `0s`."""
    left = max(0, int(seconds))
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _SECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def parse_size(text: str) -> int:
    """Return the bytes in a size such as `512KB` or `1MB` (powers of 1024).

    Raises ValueError, with a text for the operator, for anything else.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a size such as 512KB or 1MB, got {text!r}")
    return int(match[1]) * _BYTES[match[2]]


def format_size(count: int) -> str:
    """Return a number of bytes for people, in the units that `parse_size` reads: `0 B`, `512 B`, `1.5 KB`."""
    if count < _BYTES["KB"]:
        return f"{count} B"
    unit = next(unit for unit in ("GB", "MB", "KB") if count >= _BYTES[unit])
    return f"{count / _BYTES[unit]:.1f} {unit}"


def utc_text(moment: datetime) -> str:
    """Return an aware datetime as fixed-width UTC text, `YYYY-MM-DDTHH:MM:SS.mmmZ`, cut to the millisecond.

    The text sorts as the time does, for years 1 to 9999. Raises ValueError for a naive datetime.
    """
    if moment.tzinfo is not UTC:
        if moment.tzinfo is None:
            raise ValueError("a datetime without a zone has no UTC text")
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_utc(text: str) -> datetime:
    """Return the aware datetime that `utc_text` wrote. Raises ValueError for any other text."""
    if _UTC.fullmatch(text) is None:
        raise ValueError(f"expected a UTC time such as 2026-02-08T10:00:00.000Z, got {text!r}")
    return datetime.fromisoformat(text)
