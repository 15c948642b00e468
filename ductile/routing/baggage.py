"""Baggage, the context that a chain of jobs carries: how it grows, what is kept out, how large it may be."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ductile.pipeline.templates import render
from ductile.strictjson import canonical, encode, is_longer
from ductile.text import counted, one_line

# Of one stored context, in bytes.
LIMIT_BYTES = 1024 * 1024
# Of what a plugin's state adds to it, as JSON: one value, and all together. A cursor of megabytes would be stored again
# for each job that follows.
STATE_VALUE_LIMIT_BYTES = 4 * 1024
STATE_LIMIT_BYTES = 64 * 1024
# Of a result that is passed on, in UTF-8.
RESULT_LIMIT_BYTES = 4 * 1024
_MOST_NAMED = 5

# The key of a payload that gets the result of the job before it.
RESULT = "result"
_ANCHORED = "origin_"
_RESERVED = "ductile_"
# Keys of a request. A payload key of the same name would mislead readers.
_REQUEST_FIELDS = frozenset({
    "protocol", "job_id", "command", "config", "state", "event", "deadline_at", "context", "workspace_dir",
})
_CREDENTIALS = frozenset({"passwd", "authorization", "cookie", "credentials", "apikey"})
# Compared with an underscore before the name, so that the word alone matches too.
_CREDENTIAL_ENDINGS = ("_token", "_secret", "_password", "_api_key", "_access_key", "_private_key", "_secret_key")
# Between a lower-case letter or digit and a capital, and before the last of several capitals: access|Token, API|Key.
_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a chain began. `plugin` may also be `webhook:<path>` or `cli`; `job_id` is the root job's."""

    plugin: str
    event_type: str
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """The next row of a chain.

    `accumulated` is its baggage, and `payload` is the event's without refused keys. `warnings` name each key that the
    origin anchor refused, a line each.
    """

    accumulated: dict[str, Any]
    payload: Any
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedState:
    """What a plugin's state adds to the baggage.

    `left_out` are the keys that are too large to travel; their older values leave the baggage too, because they would
    be stale. `notes` name them, a line each.
    """

    updates: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


NO_STATE = PassedState(updates={})


def passed_state(state_updates: Mapping[str, Any], private_state: Collection[str]) -> PassedState:
    """Return what state updates add to the baggage: no credentials, nothing in `private_state`, nothing large."""
    updates = without_credentials(state_updates, private_state)
    large = tuple(key for key, value in updates.items() if _is_longer(value, STATE_VALUE_LIMIT_BYTES))
    small = {key: value for key, value in updates.items() if key not in large} if large else updates
    notes = (f"{_named(large)} not passed on: longer than {STATE_VALUE_LIMIT_BYTES:,} bytes as JSON",) if large else ()
    if not _is_longer(small, STATE_LIMIT_BYTES):
        return PassedState(updates=small, left_out=large, notes=notes)
    note = f"{_named(tuple(small))} not passed on: longer than {STATE_LIMIT_BYTES:,} bytes as JSON together"
    return PassedState(updates={}, left_out=tuple(updates), notes=(*notes, note))


def _is_longer(value: Any, most: int) -> bool:
    return is_longer(value, most) or len(encode(value)) > most


def _named(keys: tuple[str, ...]) -> str:
    shown = ", ".join(f"'{one_line(key, 60)}'" for key in keys[:_MOST_NAMED])
    if len(keys) == 1:
        return f"the state key {shown} is"
    more = f" and {counted(len(keys) - _MOST_NAMED, 'more key')}" if len(keys) > _MOST_NAMED else ""
    return f"the state keys {shown}{more} are"


def extend(parent: Mapping[str, Any] | None, *, trigger: Any, state: PassedState, payload: Any,
           origin: Origin) -> Extended:
    """Return the row for an event. The merge is shallow, and later values win.

    `parent` is the baggage of the previous row, None for the first of a chain. Only the first row uses `trigger`, the
    payload of the job itself, and `origin`. `state` comes from `passed_state`, and is empty for a protocol-1 plugin. A
    payload that is not an object is passed on unchanged and adds nothing.
    """
    core = anchor(origin)
    before: Mapping[str, Any] = core if parent is None else parent

    def offends(key: str, value: Any) -> bool:
        anchored = key in core if parent is None else key.startswith(_ANCHORED)
        return anchored and not (key in before and canonical(before[key]) == canonical(value))

    accumulated = dict(before)
    refused: dict[str, None] = {}

    def lay(layer: Mapping[str, Any]) -> None:
        for key, value in layer.items():
            if offends(key, value):
                refused[key] = None
            else:
                accumulated[key] = value

    if parent is None:
        lay(_object(trigger))
    for key in state.left_out:
        if not key.startswith(_ANCHORED):
            accumulated.pop(key, None)
    lay(state.updates)
    lay(_object(payload))
    if isinstance(payload, Mapping):
        payload = {key: value for key, value in payload.items() if not offends(key, value)}
    return Extended(accumulated=accumulated, payload=payload, warnings=tuple(_refusals(refused, core)))


def anchor(origin: Origin) -> dict[str, Any]:
    """Return the keys that only the core may set."""
    return {"origin_plugin": origin.plugin, "origin_event_type": origin.event_type, "origin_job_id": origin.job_id}


def without_credentials(state_updates: Mapping[str, Any], private_state: Collection[str]) -> dict[str, Any]:
    """Return the updates without top-level keys in `private_state`, and without credentials at every depth."""
    return {key: _uncredentialed(value) for key, value in state_updates.items()
            if key not in private_state and not names_a_credential(key)}


def credentials(state_updates: Mapping[str, Any], private_state: Collection[str]) -> dict[str, Any]:
    """Return the whole top-level keys that are in `private_state`, or that name a credential at any depth."""
    return {key: value for key, value in state_updates.items()
            if key in private_state or _has_a_credential({key: value})}


def reserved_key_warnings(value: Any, kind: str) -> tuple[str, ...]:
    """Return a warning for each reserved key of `value`, a payload or a state. `kind` says which."""
    return tuple(f"the key '{one_line(key, 60)}' of the {kind} has a name of the core's own, rename it"
                 for key in _object(value) if key in _REQUEST_FIELDS or key.startswith(_RESERVED))


def visible(accumulated: Mapping[str, Any], payload: Any, template: Mapping[str, Any] | None = None) -> Any:
    """Return the payload that a receiving plugin sees: the baggage, the event's payload over it, and what the
    `template` of its step gives over both.

    A payload that is not an object is left alone, unless there is a template: that takes its place. Raises
    Unrenderable.
    """
    merged = {**accumulated, **payload} if isinstance(payload, Mapping) else payload
    if template is None:
        return merged
    return {**(merged if isinstance(merged, Mapping) else accumulated),
            **render(template, payload, accumulated, ("with",))}


def with_result(accumulated: Mapping[str, Any], payload: Any, result: str | None) -> tuple[Any, tuple[str, ...]]:
    """Return the payload of a job that follows with the `result` of the job before it, and notes.

    A `result` that the event or the chain's payloads have set is left alone: it is in `accumulated`. Any other one in
    the payload is that of an earlier job, which this one replaces.
    """
    if not isinstance(payload, Mapping) or RESULT in accumulated:
        return payload, ()
    without = {key: value for key, value in payload.items() if key != RESULT}
    if result is None:
        return without, ()
    if len(result.encode()) > RESULT_LIMIT_BYTES:
        return without, (f"the result is not passed on: longer than {RESULT_LIMIT_BYTES:,} bytes",)
    return {**without, RESULT: result}, ()


def size_bytes(accumulated: Mapping[str, Any]) -> int:
    """Return the size of a stored context: compact JSON in ASCII."""
    return len(encode(accumulated))


def check(size: int, hop: int, max_hops: int) -> str | None:
    """Return which limit a row exceeds, None if none. `size` is in bytes; `hop` counts the chain's rows from 1."""
    if hop > max_hops:
        return (f"its event would make a chain of {hop:,} hops, at most {max_hops:,} are allowed: "
                "look for a loop of routes or pipelines, or raise service.max_hops")
    if size > LIMIT_BYTES:
        return (f"the baggage of its event would be {size:,} bytes, at most {LIMIT_BYTES:,} are allowed: "
                "keep what is large in a file of the workspace")
    return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _refusals(refused: Collection[str], core: Collection[str]) -> list[str]:
    reasons = dict.fromkeys(core, "it is the core's own, rename it")
    other = f"only the first event of a chain may set keys that start '{_ANCHORED}'"
    return [f"the key '{one_line(key, 60)}' is refused: {reasons.get(key, other)}" for key in refused]


def _uncredentialed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _uncredentialed(item) for key, item in value.items() if not names_a_credential(key)}
    if isinstance(value, list):
        return [_uncredentialed(item) for item in value]
    return value


def _has_a_credential(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(names_a_credential(key) or _has_a_credential(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_a_credential, value))


def names_a_credential(key: str) -> bool:
    """Return whether a key names a credential. `-` and camelCase are read as `_`, and case does not matter."""
    # As written, and with camelCase split: `APIkey` and `PassWord` would be split in the wrong place.
    name = key.replace("-", "_")
    spellings = (name.lower(), _CAMEL.sub("_", name).lower())
    return any(each in _CREDENTIALS or f"_{each}".endswith(_CREDENTIAL_ENDINGS) for each in spellings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The baggage of a job. `hop` counts the rows of its chain from 1."""

    id: str
    hop: int
    accumulated: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewContext:
    """A new row, for one job."""

    id: str
    hop: int
    accumulated: Mapping[str, Any]
    parent_id: str | None = None
    pipeline_name: str | None = None
    step_id: str | None = None
