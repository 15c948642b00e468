"""Where a success leads: its events to the jobs that follow, each with its baggage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ductile.chance import NewId
from ductile.context.baggage import Added, Origin, add, check, without_credentials
from ductile.context.row import Context, NewContext
from ductile.protocol import Event, Response
from ductile.queue.job import Job, NewJob
from ductile.router import Dispatch, Router
from ductile.strictjson import encode
from ductile.units import utc_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """What the configuration says of the ways from one plugin on.

    `max_attempts` is by the receiving plugin; `private_state` are the keys that stay at home, and `tells_state` says
    whether others are passed on at all (not by protocol 1). `dedupe_ttl` is in seconds.
    """

    router: Router
    max_hops: int
    max_attempts: Mapping[str, int]
    private_state: frozenset[str]
    tells_state: bool
    dedupe_ttl: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """A job that follows from the event number `event` of a response, with the context that it carries."""

    event: int
    job: NewJob
    context: NewContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Onward:
    """Everything that follows; `fault` says which limit forbids it, `warnings` what was kept out of the baggage."""

    jobs: tuple[Next, ...] = ()
    fault: str | None = None
    warnings: tuple[str, ...] = ()


def plan(job: Job, response: Response, context: Context | None, ways: Map, *, now: datetime, new_id: NewId) -> Onward:
    """Return the jobs that a success's events become, in the order given, each target in the router's order.

    `context` is the row that the job itself carries, None for the first of a chain.
    """
    taken = [(number, event, targets) for number, event in enumerate(response.events)
             if (targets := ways.router.next(event.type, job.plugin))]
    if not taken:
        return Onward()
    jobs: list[Next] = []
    warnings: dict[str, None] = {}
    updates = without_credentials(response.state_updates, ways.private_state) if ways.tells_state else {}
    trigger = None if job.payload is None else json.loads(job.payload).get("payload")
    hop = 1 if context is None else context.hop + 1
    for number, event, targets in taken:
        added = add(
            None if context is None else context.accumulated, trigger=trigger, state_updates=updates,
            payload=event.payload,
            origin=Origin(plugin=job.plugin, event_type=event.type, job_id=job.root_job_id),
        )
        fault = check(added.accumulated, hop, ways.max_hops)
        if fault is not None:
            return Onward(fault=fault, warnings=tuple(warnings))
        warnings.update(dict.fromkeys(added.warnings))
        jobs += _jobs(number, event, targets, added, job, context, hop, ways, now=now, new_id=new_id)
    return Onward(jobs=tuple(jobs), warnings=tuple(warnings))


def _jobs(number: int, event: Event, targets: tuple[Dispatch, ...], added: Added, job: Job, context: Context | None,
          hop: int, ways: Map, *, now: datetime, new_id: NewId) -> list[Next]:
    envelope = _envelope(event, added.payload, job.plugin, now, new_id())
    payload = encode(envelope)
    jobs = []
    for target in targets:
        row = NewContext(
            id=new_id(), parent_id=None if context is None else context.id, pipeline_name=target.pipeline_name,
            step_id=target.step_id, hop=hop, accumulated=added.accumulated,
        )
        jobs.append(Next(event=number, context=row, job=NewJob(
            id=new_id(), plugin=target.plugin, command=target.command, submitted_by=target.submitted_by,
            max_attempts=ways.max_attempts[target.plugin], payload=payload, dedupe_key=event.dedupe_key,
            parent_job_id=job.id, root_job_id=job.root_job_id, source_event_id=envelope["event_id"],
            event_context_id=row.id, pipeline_name=target.pipeline_name, pipeline_hash=target.pipeline_hash,
            step_id=target.step_id, replay_of=job.replay_of,
        )))
    return jobs


def _envelope(event: Event, payload: Any, source: str, now: datetime, event_id: str) -> dict[str, Any]:
    """Return an event with what the core gives it; the plugin's own dedupe key stays with it."""
    envelope = {"type": event.type, "payload": payload, "source": source, "timestamp": utc_text(now),
                "event_id": event_id}
    return envelope if event.dedupe_key is None else envelope | {"dedupe_key": event.dedupe_key}
