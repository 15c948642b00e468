"""What the ledger keeps of a response, and of where its events went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ductile.protocol import Response
from ductile.strictjson import encode
from ductile.text import one_line

# Past it a response is stored without what its plugin can give again.
RESULT_LIMIT_BYTES = 256 * 1024
_TYPE_LIMIT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where the event number `event` went: to a new job, or nowhere because the job `job_id` has done it already."""

    event: int
    plugin: str
    step_id: str | None
    dedupe_key: str | None
    job_id: str
    is_new: bool


def stored(response: Response, ways: Sequence[Way] | None, notes: Sequence[str]) -> str:
    """Return the response as JSON text, each event with its `ways`, and `notes` on what was kept out of the baggage.

    `ways` are None where the events did not count. A response too large is marked `truncated` and cut to what
    explains it: status, error, logs, each event's type and ways.
    """
    gone = [] if ways is None else _by_event(response, ways)
    raw: dict[str, Any] = dict(response.raw)
    if gone:
        raw["events"] = [{**event, "ways": told} for event, told in zip(raw["events"], gone)]
    if notes:
        raw["notes"] = list(notes)
    text = encode(raw)
    return text if len(text) <= RESULT_LIMIT_BYTES else _cut(response, gone, notes)


def _by_event(response: Response, ways: Sequence[Way]) -> list[list[dict[str, Any]]]:
    gone: list[list[dict[str, Any]]] = [[] for _ in response.events]
    for way in ways:
        gone[way.event].append(_told(way))
    return gone


def _told(way: Way) -> dict[str, Any]:
    told: dict[str, Any] = {"plugin": way.plugin, "job_id" if way.is_new else "duplicate_of": way.job_id}
    return told if way.step_id is None else told | {"step_id": way.step_id}


def _cut(response: Response, gone: Sequence[Any], notes: Sequence[str]) -> str:
    events: list[dict[str, Any]] = [{"type": one_line(event.type, _TYPE_LIMIT)} for event in response.events]
    if gone:
        events = [{**event, "ways": told} for event, told in zip(events, gone)]
    cut: dict[str, Any] = {
        "status": response.status, "error": response.error and one_line(response.error), "logs": _first_logs(response),
        "events": events, "truncated": True,
    }
    return encode(cut | {"notes": list(notes)} if notes else cut)


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
