"""A line of the log: one JSON object for programs, or text for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from ductile.text import one_line
from ductile.units import utc_text

# Takes the time, the level, the component, the message and its fields; returns the line with its newline.
Format: TypeAlias = Callable[[datetime, str, str, str, Mapping[str, Any]], bytes]

_ENCODER = json.JSONEncoder(default=str)
_LONGEST_FIELD = 100_000    # characters: more than standard error has
_SHORT_ID = 8               # characters, as `ductilectl` shows them


def as_json(now: datetime, level: str, component: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """Return one JSON object, in ASCII."""
    line = {"timestamp": utc_text(now), "level": level, "component": component, "message": message}
    try:
        text = _ENCODER.encode({**line, **fields})
    except Exception as error:
        text = _ENCODER.encode({**line, "fields_not_written": _not_written(fields, error)})
    return text.encode("ascii") + b"\n"


def as_text(now: datetime, level: str, component: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """Return `07:30:01 INFO  dispatch  job started  echo poll  4f2a9c01`, in local time, with other fields behind."""
    return _text(f"{now.astimezone():%H:%M:%S}", level, component, message, fields)


def as_dated_text(now: datetime, level: str, component: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """Return what `as_text` does, with date and offset: for a file, which is kept."""
    return _text(f"{now.astimezone():%Y-%m-%d %H:%M:%S %z}", level, component, message, fields)


def _text(time: str, level: str, component: str, message: str, fields: Mapping[str, Any]) -> bytes:
    try:
        said = _fields(fields)
    except Exception as error:
        said = [f"fields_not_written={_quoted(_not_written(fields, error))}"]
    line = "  ".join((f"{time} {level.upper():<5} {component:<8}", one_line(message, _LONGEST_FIELD), *said))
    return line.rstrip().encode("utf-8", "backslashreplace") + b"\n"


def _fields(fields: Mapping[str, Any]) -> list[str]:
    left = dict(fields)
    plugin, command, job_id = (left.pop(key, None) for key in ("plugin", "command", "job_id"))
    first = " ".join(one_line(str(name)) for name in (plugin, command) if name is not None)
    rest = " ".join(f"{key}={_value(value)}" for key, value in left.items())
    return [part for part in (first, "" if job_id is None else one_line(str(job_id))[:_SHORT_ID], rest) if part]


def _value(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else _ENCODER.encode(value)


def _quoted(text: str) -> str:
    """Return a value on one line, in quotation marks if it would not be read as one otherwise."""
    line = one_line(text, _LONGEST_FIELD)
    if line and not set(line) & {" ", '"', "="}:
        return line
    return '"' + line.replace('"', '\\"') + '"'


def _not_written(fields: Mapping[str, Any], error: Exception) -> str:
    # __str__ of a value may raise anything.
    return f"{type(error).__name__} in one of {', '.join(fields)}"
