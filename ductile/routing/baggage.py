"""What a chain of events has been told: how it grows, what stays out of it, how large it may be."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ductile.strictjson import canonical, encode
from ductile.text import one_line

# Bytes, of one context as it is stored.
LIMIT_BYTES = 1024 * 1024

_ANCHORED = "origin_"
_RESERVED = "ductile_"
# What a request has beside the event's payload: a key of the same name misleads who reads both.
_REQUEST_FIELDS = frozenset({
    "protocol", "job_id", "command", "config", "state", "event", "deadline_at", "context", "workspace_dir",
})
_CREDENTIALS = frozenset({"passwd", "authorization", "cookie", "credentials", "apikey"})
# Compared with an underscore before the name, so that the bare word counts too.
_CREDENTIAL_ENDINGS = ("_token", "_secret", "_password", "_api_key", "_access_key", "_private_key", "_secret_key")
# Between a small letter or digit and a capital, and before the last capital of several: access|Token, API|Key.
_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a chain began. `plugin` is `webhook:<path>` or `cli` where it was none; `job_id` is the root's."""

    plugin: str
    event_type: str
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """One more row of a chain.

    `accumulated` is what the row holds and `payload` what the event keeps; `warnings` are texts of one line, on each
    key that the origin anchor kept out.
    """

    accumulated: dict[str, Any]
    payload: Any
    warnings: tuple[str, ...]


def extend(parent: Mapping[str, Any] | None, *, trigger: Any, state_updates: Mapping[str, Any], payload: Any,
        origin: Origin) -> Extended:
    """Return the row that follows from an event, shallowly merged, later wins.

    `parent` is what the row before holds, None for the first of a chain. `trigger` is the payload that the job began
    with and `origin` where that came from: only the first row takes from them. `state_updates` are those that
    `without_credentials` left, none for a protocol-1 plugin. A payload that is not an object is handed on as it is
    and adds nothing.
    """
    core = anchor(origin)
    before = core if parent is None else parent

    def offends(key: str, value: Any) -> bool:
        anchored = key in core if parent is None else key.startswith(_ANCHORED)
        return anchored and not (key in before and canonical(before[key]) == canonical(value))

    layers = [_object(state_updates), _object(payload)]
    if parent is None:
        layers.insert(0, _object(trigger))
    accumulated = dict(before)
    refused: dict[str, None] = {}
    for layer in layers:
        for key, value in layer.items():
            if offends(key, value):
                refused[key] = None
            else:
                accumulated[key] = value
    if isinstance(payload, Mapping):
        payload = {key: value for key, value in payload.items() if not offends(key, value)}
    return Extended(accumulated=accumulated, payload=payload, warnings=tuple(_refusals(refused, core)))


def anchor(origin: Origin) -> dict[str, Any]:
    """Return the keys that are the core's alone, from the first row on."""
    return {"origin_plugin": origin.plugin, "origin_event_type": origin.event_type, "origin_job_id": origin.job_id}


def without_credentials(state_updates: Mapping[str, Any], private_state: Collection[str]) -> dict[str, Any]:
    """Return the updates without the top-level keys in `private_state` and, at every depth, without credentials.

    The names of credentials are compared in lower case, with `-` and camelCase read as `_`.
    """
    return _uncredentialed({key: value for key, value in state_updates.items() if key not in private_state})


def credentials(state_updates: Mapping[str, Any], private_state: Collection[str]) -> dict[str, Any]:
    """Return the top-level keys that are in `private_state` or name a credential themselves or below, each whole."""
    return {key: value for key, value in state_updates.items()
            if key in private_state or _has_a_credential({key: value})}


def reserved_key_warnings(value: Any, whose: str) -> tuple[str, ...]:
    """Return a warning for each key that is a request's own or starts with what the core keeps for itself.

    `value` is a payload or a state, and `whose` says which.
    """
    return tuple(f"the key '{one_line(key, 60)}' of the {whose} has a name of the core's own, rename it"
                 for key in _object(value) if key in _REQUEST_FIELDS or key.startswith(_RESERVED))


def visible(accumulated: Mapping[str, Any], payload: Any) -> Any:
    """Return what a receiving plugin sees as its event's payload: all that the chain was told, the payload on top.

    A payload that is not an object is seen as it is.
    """
    return {**accumulated, **payload} if isinstance(payload, Mapping) else payload


def size_bytes(accumulated: Mapping[str, Any]) -> int:
    """Return the bytes of a context as it is stored: compact JSON in ASCII."""
    return len(encode(accumulated))


def check(size: int, hop: int, max_hops: int) -> str | None:
    """Return what is wrong with a row of `size` bytes, number `hop` of its chain, from 1; None where nothing is."""
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
    """Say whether a key has a name of which the value is to stay secret."""
    # As written and with camelCase taken apart: `APIkey` and `PassWord` would be taken apart in the wrong place.
    name = key.replace("-", "_")
    spellings = (name.lower(), _CAMEL.sub("_", name).lower())
    return any(text in _CREDENTIALS or f"_{text}".endswith(_CREDENTIAL_ENDINGS) for text in spellings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A row that a job carries; `hop` counts the rows of its chain from 1."""

    id: str
    hop: int
    accumulated: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewContext:
    """A row to be added, for one job."""

    id: str
    hop: int
    accumulated: Mapping[str, Any]
    parent_id: str | None = None
    pipeline_name: str | None = None
    step_id: str | None = None
