"""What the ledger keeps of a response, and of where its events went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ductile.protocol import Response
from ductile.strictjson import encode, is_longer
from ductile.text import one_line

# Past it a response is stored without what its plugin can give again.
RESULT_LIMIT_BYTES = 256 * 1024
_TYPE_LIMIT = 200
_OURS = {"ways", "notes", "truncated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Where the event number `event` went: to a new job, or nowhere because the job `job_id` has done it already.

    The number is None for what the core itself passed on.
    """

    event: int | None
    plugin: str
    step_id: str | None
    dedupe_key: str | None
    job_id: str
    is_new: bool


def encode_result(response: Response, ways: Sequence[Delivery] | None, notes: Sequence[str]) -> str:
    """Return the response as JSON text, each event with its `ways`, and `notes` on misnamed keys.

    The response itself has `ways` where the core passed on what the plugin did not. Keys of these names are the core's:
    a plugin's own are left out. `ways` are None where the events did not count. A response too large is marked
    `truncated` and cut to what explains it: status, error, logs, each event's type and ways.
    """
    gone = [] if ways is None else _by_event(response, ways)
    raw = {key: value for key, value in response.raw.items() if key not in _OURS}
    if response.events:
        raw["events"] = _told_events([_without_ways(event) for event in raw["events"]], gone)
    if response.logs_dropped:
        notes = [*notes, f"{response.logs_dropped:,} more log lines were not kept"]
    ours = _of_the_core(ways or (), notes)
    whole = raw | ours
    if not is_longer(whole, RESULT_LIMIT_BYTES):
        text = encode(whole)
        if len(text) <= RESULT_LIMIT_BYTES:
            return text
    return _cut(response, gone, ours)


def _without_ways(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "ways"}


def _told_events(events: list[dict[str, Any]], gone: Sequence[Any]) -> list[dict[str, Any]]:
    return [{**event, "ways": told} for event, told in zip(events, gone)] if gone else events


def _of_the_core(ways: Sequence[Delivery], notes: Sequence[str]) -> dict[str, Any]:
    passed_on = [_told(way) for way in ways if way.event is None]
    return ({"ways": passed_on} if passed_on else {}) | ({"notes": list(notes)} if notes else {})


def _by_event(response: Response, ways: Sequence[Delivery]) -> list[list[dict[str, Any]]]:
    gone: list[list[dict[str, Any]]] = [[] for _ in response.events]
    for way in ways:
        if way.event is not None:
            gone[way.event].append(_told(way))
    return gone


def _told(way: Delivery) -> dict[str, Any]:
    told: dict[str, Any] = {"plugin": way.plugin, "job_id" if way.is_new else "duplicate_of": way.job_id}
    return told if way.step_id is None else told | {"step_id": way.step_id}


def _cut(response: Response, gone: Sequence[Any], ours: Mapping[str, Any]) -> str:
    events = _told_events([{"type": one_line(event.type, _TYPE_LIMIT)} for event in response.events], gone)
    cut: dict[str, Any] = {
        "status": response.status, "error": response.error and one_line(response.error), "logs": _first_logs(response),
        "events": events, "truncated": True,
    }
    return encode(cut | ours)


def _first_logs(response: Response) -> list[dict[str, str]]:
    logs: list[dict[str, str]] = []
    left = RESULT_LIMIT_BYTES
    for line in response.logs:
        kept = {"level": line.level, "message": line.message}
        left -= len(encode(kept))
        if left < 0:
            break
        logs.append(kept)
    return logs
