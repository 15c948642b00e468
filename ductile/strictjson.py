"""Reads strict JSON from outside, and writes the one compact form of it."""

from __future__ import annotations

import json
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from math import isinf
from typing import Any

from ductile.text import one_line

MOST_DIGITS = 4300
MOST_NESTING = 100
_TOO_DEEP = f"nested more than {MOST_NESTING} deep"

# A pair of surrogates, which is allowed, or a NUL or a lone surrogate. No repeated group: the engine needs a hundred
# bytes for each repetition, and an answer may have millions of escapes.
_ESCAPE = re.compile(r"\\u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]|(0000|[dD][89a-fA-F]))")

# A character beyond the first 65,536 makes Python keep every character of its string in four bytes. In a large document
# the few such characters are read as escapes, spelled as no program spells them, so that only their own strings grow.
_ASTRAL = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}")
_ASTRAL_LEADS = bytes(range(0xF0, 0xF5))
_NARROWED = re.compile(r"\\uD[89AB][0-9A-F]{2}\\ud[C-F][0-9A-F]{2}")
_NARROWED_EXTRA = 11             # characters of such an escape, less the one that it replaces
_NARROWED_FROM_BYTES = 1024**2
_MOST_NARROWED = 1 / 16          # of all bytes

# A string without escaped quotes, also an unterminated one, or what is between two strings.
_PARTS = re.compile(rb'"[^"]*"?|[^"]+')
_BLANKS = b" \t\n\r"

_NO_WHITESPACE = re.compile(r"[^ \t\n\r]")
# The start of a message of the standard library, and our wording.
_FAULTS = {
    "Expecting value": "expected a value",
    "Expecting property name": "expected a key in double quotes",
    "Expecting ':'": "expected ':'",
    "Expecting ','": "expected ','",
    "Extra data": "expected the end, got more after the first value",
    "Unterminated string": "a string that begins here is not closed",
    "Invalid control character": "a control character in a string must be escaped",
    "Invalid \\": "an unknown escape",
}


class JSONRefused(ValueError):
    """The data is not strict JSON; the message says in one line what is wrong and, if known, where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many values a document may have at all depths, and how many of them in mappings."""

    values: int
    members: int


def decode(data: bytes | str, *, limit: Limit | None = None) -> Any:
    """Return the one JSON value in `data`, which may have white space around it.

    Raises JSONRefused for anything but JSON in UTF-8 without a byte order mark, and for NaN, Infinity, a number beyond
    a double, an integer of more than 4,300 digits, a repeated key, a lone surrogate, a NUL and more than 100 levels.
    Lines, columns and bytes in the message count from 1. The `limit` is checked before any value is created: an empty
    list has three bytes and takes seventy in memory, a mapping with one key seven and two hundred.
    """
    text = _text(data)
    if limit is not None:
        _check_size(data if isinstance(data, bytes) else data.encode("utf-8"), limit)
    try:
        value = (_COUNTING_DIGITS if _has_long_number(text) else _DECODER).decode(text)
    except json.JSONDecodeError as error:
        raise JSONRefused(_fault(error)) from None
    except RecursionError:
        raise JSONRefused(_TOO_DEEP) from None
    if "\\u" in text:
        _check_escapes(text)
    # A document with few brackets cannot be nested too deep.
    if text.count("[") + text.count("{") > MOST_NESTING:
        _check_nesting(value)
    return value


def encode(value: Any) -> str:
    """Return `value` as compact JSON: ASCII, one line, keys in their order.

    Raises ValueError for NaN and Infinity, TypeError for a value that JSON cannot express.
    """
    return _ENCODER.encode(value)


def is_longer(value: Any, most: int) -> bool:
    """Return whether `encode` would certainly return more than `most` bytes; escapes are not counted."""
    left = [value]
    length = 0
    while left and length <= most:
        item = left.pop()
        length += 1
        if isinstance(item, str):
            length += len(item) + 1
        elif isinstance(item, dict):
            length += sum(map(len, item)) + 4 * len(item)
            left += item.values()
        elif isinstance(item, list | tuple):
            length += len(item)
            left += item
    return length > most


def canonical(value: Any) -> str:
    """Return the same as `encode` with sorted keys, so that equal values give equal strings."""
    return _CANONICAL.encode(value)


def _text(data: bytes | str) -> str:
    if isinstance(data, bytes):
        text = _decoded(data)
    else:
        text = data
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise JSONRefused(f"{_position(text, error.start)}: a lone surrogate is not allowed") from None
    if text.startswith("\ufeff"):
        raise JSONRefused("starts with a byte order mark, expected UTF-8 without one")
    return text


def _decoded(data: bytes) -> str:
    with suppress(UnicodeDecodeError):
        return _narrowed(data).decode("utf-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JSONRefused(f"byte {error.start + 1}: not UTF-8") from None


def _narrowed(data: bytes) -> bytes:
    """Return a large document with its few characters beyond the first 65,536 as escapes."""
    if len(data) < _NARROWED_FROM_BYTES:
        return data
    count = len(data) - len(data.translate(None, _ASTRAL_LEADS))
    if not 0 < count < len(data) * _MOST_NARROWED:
        return data

    def escape(match: re.Match[bytes]) -> bytes:
        before = match.start()
        while before and data[before - 1] == ord("\\"):
            before -= 1
        if (match.start() - before) % 2:
            # An escape that is refused, and must not become a good one.
            return match.group()
        high, low = struct.unpack(">2H", match.group().decode("utf-8").encode("utf-16-be"))
        return b"\\uD%03X\\ud%03X" % (high & 0xFFF, low & 0xFFF)

    return _ASTRAL.sub(escape, data)


def _position(text: str, index: int) -> str:
    line = text.rfind("\n", 0, index)
    column = index - line
    if len(text) >= _NARROWED_FROM_BYTES:
        column -= _NARROWED_EXTRA * sum(1 for _ in _NARROWED.finditer(text, line + 1, index))
    return f"line {text.count(chr(10), 0, index) + 1}, column {column}"


def _fault(error: json.JSONDecodeError) -> str:
    if error.msg.startswith("Illegal trailing comma"):
        # Python 3.13 and newer point at the comma; the missing value is after it.
        after = _NO_WHITESPACE.search(error.doc, error.pos + 1)
        index = error.pos if after is None else after.start()
        expected = "a value" if error.doc[index] == "]" else "a key in double quotes"
        return f"{_position(error.doc, index)}: expected {expected}"
    for beginning, name in _FAULTS.items():
        if error.msg.startswith(beginning):
            return f"{_position(error.doc, error.pos)}: {name}"
    return f"{_position(error.doc, error.pos)}: {one_line(error.msg)}"


def _check_size(data: bytes, limit: Limit) -> None:
    """Count the values of a document without decoding it. Data that is no JSON may be refused here, too."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") < limit.members:
        return
    values, members = 1, 0
    for part in _PARTS.finditer(data.replace(b"\\\\", b"").replace(b'\\"', b"")):
        between = part.group()
        if between.startswith(b'"'):
            continue
        between = between.translate(None, _BLANKS)
        members += between.count(b":")
        # One for each comma, and one for each container that is not empty.
        values += between.count(b",") + between.count(b"[") + between.count(b"{")
        values -= between.count(b"[]") + between.count(b"{}")
        if values > limit.values:
            raise JSONRefused(f"more than {limit.values:,} values")
        if members > limit.members:
            raise JSONRefused(f"more than {limit.members:,} keys in mappings")


def _check_escapes(text: str) -> None:
    # The same length keeps positions. Every remaining backslash starts an escape.
    for found in _ESCAPE.finditer(text.replace("\\\\", "..")):
        if found.group(1) is not None:
            what = "a NUL" if found.group(1) == "0000" else "a lone surrogate"
            raise JSONRefused(f"{_position(text, found.start())}: {what} is not allowed")


def _check_nesting(value: Any) -> None:
    level: list[Any] = [[value]]
    for _ in range(MOST_NESTING + 1):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise JSONRefused(_TOO_DEEP)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise JSONRefused(f"the key {_shown(key)} is repeated")
            seen.add(key)
    return members


def _has_long_number(text: str) -> bool:
    # The digits may be in a string or a fraction; `_integer` decides, but is three times as slow as int.
    return len(text) > MOST_DIGITS and _LONG_NUMBER in text.encode("utf-8").translate(_DIGITS_TO_ZERO)


def _integer(digits: str) -> int:
    count = len(digits.removeprefix("-"))
    if count > MOST_DIGITS:
        raise JSONRefused(f"a whole number of {count:,} digits, at most {MOST_DIGITS:,} are allowed")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if isinf(number):
        raise JSONRefused(f"the number {one_line(digits, 40)} is too large for a double")
    return number


def _constant(name: str) -> None:
    raise JSONRefused(f"{name} is not allowed")


def _shown(key: str) -> str:
    return f"'{one_line(key, 60)}'"


_LONG_NUMBER = b"0" * (MOST_DIGITS + 1)
_DIGITS_TO_ZERO = bytes(ord("0" if chr(byte) in "0123456789" else " ") for byte in range(256))

_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
_COUNTING_DIGITS = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))
_CANONICAL = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True)
