"""The protocol between Ductile and a plugin: encodes requests, decodes responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ductile import strictjson
from ductile.text import one_line
from ductile.validation import kind_of

T = TypeVar("T")
Level = Literal["debug", "info", "warn", "error"]

# The commands that the core knows. A plugin may have others.
POLL, HANDLE, HEALTH, INIT = "poll", "handle", "health", "init"

# Event types with these prefixes are reserved for the core.
RESERVED_TYPES = ("ductile.job.", "ductile.breaker.", "ductile.step.", "ductile.schedule.", "ductile.plugin.")

_LEVELS: Mapping[Any, Level] = {
    "debug": "debug", "info": "info", "warn": "warn", "warning": "warn", "error": "error",
}


# The largest response: each value takes memory, however short it is.
SIZE_LIMIT = strictjson.Limit(values=500_000, members=300_000)
LOGS_LIMIT = 1000


def reserved_prefix(event_type: str) -> str | None:
    """Return the reserved prefix of an event type, None if it has none."""
    return next((prefix for prefix in RESERVED_TYPES if event_type.startswith(prefix)), None)


class ProtocolError(ValueError):
    """The output of a plugin is not one valid response. The text says in one line what is wrong and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as a plugin emitted it, before the core adds source, time and id."""

    type: str
    payload: Any
    dedupe_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line for the log."""

    level: Level
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A plugin's response.

    `raw` is the object as printed, with unknown keys, but without logs over the limit. `logs_dropped` counts these.
    """

    status: Literal["ok", "error"]
    result: str | None = None
    error: str | None = None
    retry: bool = True
    events: tuple[Event, ...] = ()
    state_updates: Mapping[str, Any] = field(default_factory=dict)
    logs: tuple[LogLine, ...] = ()
    logs_dropped: int = 0
    raw: Mapping[str, Any] = field(default_factory=dict)


def encode_request(
    *,
    protocol: int,
    job_id: str,
    command: str,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    event: Mapping[str, Any] | None,
    deadline_at: str,
    context: Mapping[str, Any],
    workspace_dir: str,
) -> bytes:
    """Return the request as one line of ASCII JSON with its newline.

    Without an event there is no key `event`. Only protocol 2 has `context` and `workspace_dir`, and for commands other
    than `handle` the event's payload as `payload` too. Raises ValueError or TypeError for a value that JSON cannot
    represent.
    """
    request: dict[str, Any] = {
        "protocol": protocol, "job_id": job_id, "command": command, "config": config, "state": state,
    }
    if event is not None:
        request["event"] = event
        if protocol >= 2 and command != HANDLE and "payload" in event:
            request["payload"] = event["payload"]
    request["deadline_at"] = deadline_at
    if protocol >= 2:
        request["context"] = context
        request["workspace_dir"] = workspace_dir
    return strictjson.encode(request).encode("ascii") + b"\n"


def decode_response(stdout: bytes) -> Response:
    """Return the response in `stdout`. Raises ProtocolError."""
    return read_response(parse_response(stdout))


def parse_response(stdout: bytes) -> dict[str, Any]:
    """Return the strict JSON object in `stdout`. Raises ProtocolError for anything else."""
    if not stdout.strip():
        raise ProtocolError("printed nothing")
    try:
        raw = strictjson.decode(stdout, limit=SIZE_LIMIT)
    except strictjson.JSONRefused as error:
        raise ProtocolError(f"not one strict JSON object: {error}{_hint(stdout, str(error))}") from None
    if not isinstance(raw, dict):
        raise ProtocolError(f"expected one JSON object, got {_got(raw)}")
    return raw


def _hint(stdout: bytes, fault: str) -> str:
    """Return advice if there is text before or after the JSON, nothing if the JSON itself is wrong."""
    is_before = fault.endswith("expected a value") and not stdout.lstrip().startswith(b"{")
    if is_before or fault.endswith("got more after the first value"):
        return "; standard output must hold the JSON alone, print to standard error"
    return ""


def read_response(raw: dict[str, Any]) -> Response:
    """Return the response in an object. Unknown keys are ignored, and null means absent.

    An empty `dedupe_key` means absent too, or every such event would be a duplicate of the last. The number of events
    is not limited here. Raises ProtocolError for an invalid response.
    """
    retry = _typed(raw.get("retry"), bool, "retry")
    logs, count = _logs(raw.get("logs"))
    if count > len(logs):
        raw = {**raw, "logs": raw["logs"][:LOGS_LIMIT]}
    return Response(
        status=_status(raw.get("status")),
        result=_typed(raw.get("result"), str, "result"),
        error=_typed(raw.get("error"), str, "error"),
        retry=True if retry is None else retry,
        events=tuple(_items(raw.get("events"), "events", _event)),
        state_updates=_typed(raw.get("state_updates"), dict, "state_updates") or {},
        logs=logs,
        logs_dropped=count - len(logs),
        raw=raw,
    )


_EXPECTED = {str: "a string", bool: "true or false", dict: "a mapping", list: "a list"}


def _typed(value: Any, kind: type[T], place: str) -> T | None:
    # `type` and not `isinstance`, because True is an int in Python.
    if value is None or type(value) is kind:
        return value
    raise ProtocolError(f"{place}: expected {_EXPECTED[kind]}, got {_got(value)}")


def _required(item: dict[str, Any], key: str, place: str) -> str:
    text = _typed(item.get(key), str, f"{place}.{key}")
    if text is None:
        raise ProtocolError(f"{place}: the key {key!r} is missing")
    return text


def _status(value: Any) -> Literal["ok", "error"]:
    if value is None:
        raise ProtocolError("the key 'status' is missing")
    if value == "ok":
        return "ok"
    if value == "error":
        return "error"
    raise ProtocolError(f"status: expected one of ok, error, got {_got(value)}")


def _items(value: Any, place: str, read: Callable[[dict[str, Any], str], T]) -> Iterator[T]:
    for index, item in enumerate(_typed(value, list, place) or ()):
        here = f"{place}[{index}]"
        if type(item) is not dict:
            raise ProtocolError(f"{here}: expected a mapping, got {_got(item)}")
        yield read(item, here)


def _logs(value: Any) -> tuple[tuple[LogLine, ...], int]:
    """Return the first lines, and the number of all. Dropped lines must be valid too."""
    kept: list[LogLine] = []
    count = 0
    for line in _items(value, "logs", _log_line):
        count += 1
        if count <= LOGS_LIMIT:
            kept.append(line)
    return tuple(kept), count


def _event(item: dict[str, Any], place: str) -> Event:
    event_type = _required(item, "type", place)
    if not event_type:
        raise ProtocolError(f"{place}.type: expected a string, got an empty string")
    reserved = reserved_prefix(event_type)
    if reserved is not None:
        raise ProtocolError(
            f"{place}.type: {_got(event_type)} is refused, types that start with {reserved!r} are reserved")
    payload = item.get("payload")
    return Event(
        type=event_type,
        payload={} if payload is None else payload,
        dedupe_key=_typed(item.get("dedupe_key"), str, f"{place}.dedupe_key") or None,
    )


def _log_line(item: dict[str, Any], place: str) -> LogLine:
    level = _typed(item.get("level"), str, f"{place}.level")
    if level is not None and level not in _LEVELS:
        raise ProtocolError(f"{place}.level: expected one of debug, info, warn, error, got {_got(level)}")
    return LogLine(level=_LEVELS["info" if level is None else level], message=_required(item, "message", place))


def _got(value: Any) -> str:
    if isinstance(value, str):
        return f"'{one_line(value, 60)}'"
    return one_line(kind_of(value), 60)


JOB_DEAD = "ductile.job.dead"
BREAKER_OPENED = "ductile.breaker.opened"
BREAKER_CLOSED = "ductile.breaker.closed"
JOB_RECOVERED = "ductile.job.recovered"
JOB_SUCCEEDED = "ductile.job.succeeded"
SCHEDULE_OVERDUE = "ductile.schedule.overdue"
SCHEDULE_RECOVERED = "ductile.schedule.recovered"
PLUGIN_UNAVAILABLE = "ductile.plugin.unavailable"
PLUGIN_AVAILABLE = "ductile.plugin.available"

# Core events that pipelines can subscribe to.
ANNOUNCED = (JOB_DEAD, JOB_RECOVERED, JOB_SUCCEEDED, BREAKER_OPENED, BREAKER_CLOSED, SCHEDULE_OVERDUE,
             SCHEDULE_RECOVERED, PLUGIN_UNAVAILABLE, PLUGIN_AVAILABLE)

# The event of a step that emitted none itself. Only the next step gets it.
STEP_SUCCEEDED = "ductile.step.succeeded"

# The source of core events.
SOURCE = "ductile"

# The type and the source of the event that a schedule with a payload gives its job.
SCHEDULE_TYPE, SCHEDULE_SOURCE = "schedule", "scheduler"
