"""Where a success leads: its events to the jobs that follow, each with its baggage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ductile.injected import NewId
from ductile.pipeline.graph import Position
from ductile.protocol import SOURCE, STEP_SUCCEEDED, Event, Response
from ductile.queue.job import Job, NewJob
from ductile.routing.baggage import (
    Context,
    NewContext,
    Origin,
    anchor,
    check,
    extend,
    reserved_key_warnings,
    size_bytes,
    without_credentials,
)
from ductile.routing.router import Router, Target, following
from ductile.strictjson import encode
from ductile.units import utc_text

_FIRST_HOP = 1
# Bytes, of all payloads and contexts that follow from one response: they are stored in one transaction.
RESPONSE_LIMIT_BYTES = 64 * 1024 * 1024
# Of a plugin that the configuration no longer has: its job is queued, and ended for that reason.
_SOME_ATTEMPTS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingContext:
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

    def attempts_of(self, plugin: str) -> int:
        """Return how many attempts a new job of a plugin has, also of one that an older pipeline alone still names."""
        return self.max_attempts.get(plugin, _SOME_ATTEMPTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """A job that follows, with the context that it carries.

    `event` is the number of the response's event that it comes from; None where the core's own event led to it.
    """

    event: int | None
    job: NewJob
    context: NewContext


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUps:
    """Everything that follows; `fault` says which limit forbids it, `warnings` what was kept out of the baggage."""

    jobs: tuple[FollowUp, ...] = ()
    fault: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """An event on its way to its targets: `number` as in `Next`, `accumulated` the baggage that goes with it."""

    number: int | None
    event: Event
    source: str
    targets: tuple[Target, ...]
    payload: Any
    accumulated: Mapping[str, Any]
    hop: int
    core_event: str | None


def follow_up_jobs(job: Job, response: Response, context: Context | None, place: Position | None, ways: RoutingContext, *, now: datetime,
         new_id: NewId) -> FollowUps:
    """Return the jobs that a success's events become, in the order given, each target in the router's order.

    `context` is the row that the job itself carries, None for the first of a chain; `place` is where it stands in a
    pipeline, None outside. A step without events passes what it was given on to the next ones.
    """
    taken = [(number, event, targets) for number, event in enumerate(response.events)
             if (targets := ways.router.next(event.type, job.plugin, place))]
    if place is not None and not response.events and place.node.next:
        return _pass_on(job, context, place, ways, now=now, new_id=new_id)
    if not taken:
        return FollowUps()
    jobs: list[FollowUp] = []
    warnings: dict[str, None] = {}
    updates = without_credentials(response.state_updates, ways.private_state) if ways.tells_state else {}
    trigger = _payload(job, None)
    hop = _next_hop(context)
    total = 0
    for number, event, targets in taken:
        added = extend(
            None if context is None else context.accumulated, trigger=trigger, state_updates=updates,
            payload=event.payload,
            origin=Origin(plugin=job.plugin, event_type=event.type, job_id=job.root_job_id),
        )
        size = size_bytes(added.accumulated)
        fault = check(size, hop, ways.max_hops)
        if fault is not None:
            return FollowUps(fault=fault, warnings=tuple(warnings))
        warnings.update(dict.fromkeys(added.warnings))
        sent = _Sent(number=number, event=event, source=job.plugin, targets=targets, payload=added.payload,
                     accumulated=added.accumulated, hop=hop, core_event=job.core_event)
        fresh = _jobs(sent, job, context, ways, now=now, new_id=new_id)
        total += _stored_bytes(fresh, size)
        if total > RESPONSE_LIMIT_BYTES:
            return FollowUps(fault=_too_much(total), warnings=tuple(warnings))
        jobs += fresh
    return FollowUps(jobs=tuple(jobs), warnings=tuple(warnings))


def _stored_bytes(jobs: Sequence[FollowUp], context_size: int) -> int:
    """Return the bytes of payloads and contexts of jobs that carry one context each, of the same size."""
    return sum(len(each.job.payload) + context_size for each in jobs)


def _too_much(total: int) -> str:
    return (f"the payloads and contexts of its events would be {total:,} bytes or more, at most "
            f"{RESPONSE_LIMIT_BYTES:,} are allowed in one response: emit fewer events, keep what is large in a file of "
            "the workspace")


def _pass_on(job: Job, context: Context | None, place: Position, ways: RoutingContext, *, now: datetime, new_id: NewId) -> FollowUps:
    """Return the next steps' jobs, with the payload that the step itself was given and nothing more in the baggage."""
    origin = Origin(plugin=job.plugin, event_type=STEP_SUCCEEDED, job_id=job.root_job_id)
    payload = _payload(job, {})
    added = extend(None if context is None else context.accumulated, trigger=payload, state_updates={}, payload={},
                origin=origin)
    hop = _next_hop(context)
    size = size_bytes(added.accumulated)
    fault = check(size, hop, ways.max_hops)
    if fault is not None:
        return FollowUps(fault=fault)
    sent = _Sent(number=None, event=Event(type=STEP_SUCCEEDED, payload=payload), source=job.plugin,
                 targets=following(place), payload=payload, accumulated=added.accumulated, hop=hop,
                 core_event=job.core_event)
    jobs = _jobs(sent, job, context, ways, now=now, new_id=new_id)
    total = _stored_bytes(jobs, size)
    return FollowUps(jobs=tuple(jobs)) if total <= RESPONSE_LIMIT_BYTES else FollowUps(fault=_too_much(total))


def names_of_the_core(job: Job, response: Response, context: Context | None) -> tuple[str, ...]:
    """Return a warning for each key that has a name of the core's own in what a plugin said, or a chain began with."""
    said = [(response.state_updates, "state"), *((event.payload, "payload") for event in response.events)]
    if context is None:
        said.insert(0, (_payload(job, None), "payload"))
    return tuple(dict.fromkeys(warning for value, whose in said for warning in reserved_key_warnings(value, whose)))


def core_event_jobs(job: Job, events: Sequence[Event], context: Context | None, ways: RoutingContext, *, now: datetime,
         new_id: NewId) -> tuple[FollowUp, ...]:
    """Return the jobs that the core's own events about a job become, in the pipelines that take them.

    They know what the job's chain knew where it fits, and else where that began. Their hops are counted anew: a chain
    that ended for its length has to be told of too.
    """
    jobs: list[FollowUp] = []
    for event in events:
        targets = ways.router.next(event.type, None)
        if targets:
            sent = _Sent(number=None, event=event, source=SOURCE, targets=targets, payload=event.payload,
                         accumulated=_told(job, event, context, ways), hop=_FIRST_HOP, core_event=event.type)
            jobs += _jobs(sent, job, context, ways, now=now, new_id=new_id)
    return tuple(jobs)


def _told(job: Job, event: Event, context: Context | None, ways: RoutingContext) -> Mapping[str, Any]:
    origin = Origin(plugin=job.plugin, event_type=event.type, job_id=job.root_job_id)
    if context is None:
        known = extend(None, trigger=_payload(job, None), state_updates={}, payload={}, origin=origin).accumulated
    else:
        known = context.accumulated
    whole = {**known, **event.payload}
    if check(size_bytes(whole), _FIRST_HOP, ways.max_hops) is None:
        return whole
    return {**{key: known[key] for key in anchor(origin)}, **event.payload}


def _next_hop(context: Context | None) -> int:
    return _FIRST_HOP if context is None else context.hop + 1


def _payload(job: Job, absent: Any) -> Any:
    return absent if job.payload is None else json.loads(job.payload).get("payload", absent)


def _jobs(sent: _Sent, job: Job, context: Context | None, ways: RoutingContext, *, now: datetime, new_id: NewId) -> list[FollowUp]:
    envelope = _envelope(sent, now, new_id())
    payload = encode(envelope)
    jobs = []
    for target in sent.targets:
        row = NewContext(
            id=new_id(), parent_id=None if context is None else context.id, pipeline_name=target.pipeline_name,
            step_id=target.step_id, hop=sent.hop, accumulated=sent.accumulated,
        )
        jobs.append(FollowUp(event=sent.number, context=row, job=NewJob(
            id=new_id(), plugin=target.plugin, command=target.command, submitted_by=target.submitted_by,
            max_attempts=ways.attempts_of(target.plugin), payload=payload, dedupe_key=sent.event.dedupe_key,
            parent_job_id=job.id, root_job_id=job.root_job_id, source_event_id=envelope["event_id"],
            event_context_id=row.id, pipeline_name=target.pipeline_name, pipeline_hash=target.pipeline_hash,
            step_id=target.step_id, replay_of=job.replay_of, core_event=sent.core_event,
        )))
    return jobs


def _envelope(sent: _Sent, now: datetime, event_id: str) -> dict[str, Any]:
    """Return an event with what the core gives it; the plugin's own dedupe key stays with it."""
    envelope = {"type": sent.event.type, "payload": sent.payload, "source": sent.source, "timestamp": utc_text(now),
                "event_id": event_id}
    return envelope if sent.event.dedupe_key is None else envelope | {"dedupe_key": sent.event.dedupe_key}
