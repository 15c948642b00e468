"""The `result` column of `job_log`: a plugin's response and where its events went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ductile.protocol import Response
from ductile.strictjson import encode, is_longer
from ductile.text import one_line

# A larger response is stored without its payloads.
RESULT_LIMIT_BYTES = 256 * 1024
_TYPE_LIMIT = 200
_RESERVED = {"ways", "notes", "truncated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Where an event went: to a new job `job_id`, or to none because it is a duplicate of that job.

    `event` is its index in the response, None for one that the core emitted.
    """

    event: int | None
    plugin: str
    step_id: str | None
    dedupe_key: str | None
    job_id: str
    is_new: bool


def encode_result(response: Response, deliveries: Sequence[Delivery] | None, notes: Sequence[str]) -> str:
    """Return the response as JSON, with the deliveries of each event as its `ways`, and `notes` on refused keys.

    Deliveries of the core's own events are `ways` of the response itself. A plugin's own keys `ways`, `notes` and
    `truncated` are left out. `deliveries` are None if the events did not count. A response that is too large is cut to
    its status, error, logs and the type and `ways` of each event, and marked `truncated`.
    """
    by_event = [] if deliveries is None else _by_event(response, deliveries)
    raw = {key: value for key, value in response.raw.items() if key not in _RESERVED}
    if response.events:
        raw["events"] = _with_ways([_without_ways(event) for event in raw["events"]], by_event)
    if response.logs_dropped:
        notes = [*notes, f"{response.logs_dropped:,} more log lines were not kept"]
    added = _added(deliveries or (), notes)
    whole = {**raw, **added}
    if not is_longer(whole, RESULT_LIMIT_BYTES):
        text = encode(whole)
        if len(text) <= RESULT_LIMIT_BYTES:
            return text
    return _cut(response, by_event, added)


def _without_ways(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "ways"}


def _with_ways(events: list[dict[str, Any]], by_event: Sequence[Any]) -> list[dict[str, Any]]:
    return [{**event, "ways": ways} for event, ways in zip(events, by_event, strict=True)] if by_event else events


def _added(deliveries: Sequence[Delivery], notes: Sequence[str]) -> dict[str, Any]:
    passed_on = [_way(delivery) for delivery in deliveries if delivery.event is None]
    return ({"ways": passed_on} if passed_on else {}) | ({"notes": list(notes)} if notes else {})


def _by_event(response: Response, deliveries: Sequence[Delivery]) -> list[list[dict[str, Any]]]:
    ways: list[list[dict[str, Any]]] = [[] for _ in response.events]
    for delivery in deliveries:
        if delivery.event is not None:
            ways[delivery.event].append(_way(delivery))
    return ways


def _way(delivery: Delivery) -> dict[str, Any]:
    way: dict[str, Any] = {
        "plugin": delivery.plugin, "job_id" if delivery.is_new else "duplicate_of": delivery.job_id}
    return way if delivery.step_id is None else way | {"step_id": delivery.step_id}


def _cut(response: Response, by_event: Sequence[Any], added: Mapping[str, Any]) -> str:
    events = _with_ways([{"type": one_line(event.type, _TYPE_LIMIT)} for event in response.events], by_event)
    cut: dict[str, Any] = {
        "status": response.status, "error": response.error and one_line(response.error), "logs": _first_logs(response),
        "events": events, "truncated": True,
    }
    return encode({**cut, **added})


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
