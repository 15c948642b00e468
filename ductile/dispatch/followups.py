"""Turns the events of a job into the jobs that follow, each with its baggage."""

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
    NO_STATE,
    Context,
    NewContext,
    Origin,
    anchor,
    check,
    extend,
    passed_state,
    reserved_key_warnings,
    size_bytes,
    with_result,
)
from ductile.routing.router import Router, Target, following
from ductile.strictjson import encode
from ductile.units import utc_text

_FIRST_HOP = 1
# All payloads and contexts that follow from one response, in bytes: one transaction stores them.
RESPONSE_LIMIT_BYTES = 64 * 1024 * 1024
# For a plugin that is no longer configured: its job is queued and then fails for that reason.
_DEFAULT_ATTEMPTS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingContext:
    """What the configuration says about the events of one plugin.

    `max_attempts` is by receiving plugin. `private_state` are the state keys that never enter the baggage, and
    `passes_state` says whether the others do (not with protocol 1). `dedupe_ttl` is in seconds.
    """

    router: Router
    max_hops: int
    max_attempts: Mapping[str, int]
    private_state: frozenset[str]
    passes_state: bool
    dedupe_ttl: int

    def attempts_of(self, plugin: str) -> int:
        """Return the attempts of a new job; its plugin may be one that only an older pipeline still names."""
        return self.max_attempts.get(plugin, _DEFAULT_ATTEMPTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """A job that follows, with its context. `event` is the index of the response's event, None for a core event."""

    event: int | None
    job: NewJob
    context: NewContext


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUps:
    """All jobs that follow, or the `fault`: a limit that is exceeded.

    `warnings` name keys that are refused. `large_state` names state that is too large for the baggage, and `notes` say
    what else is not passed on.
    """

    jobs: tuple[FollowUp, ...] = ()
    fault: str | None = None
    warnings: tuple[str, ...] = ()
    large_state: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """An event with its targets and the baggage that goes with it; `index` as in `FollowUp.event`."""

    index: int | None
    event: Event
    source: str
    targets: tuple[Target, ...]
    payload: Any
    accumulated: Mapping[str, Any]
    hop: int
    core_event: str | None


def follow_up_jobs(job: Job, response: Response, context: Context | None, position: Position | None,
                   routing: RoutingContext, *, now: datetime, new_id: NewId) -> FollowUps:
    """Return the jobs that the events of a success become: events in the order given, targets in the router's order.

    `context` is the job's own baggage, None for the first job of a chain. `position` is the job's step in a pipeline,
    None outside one. A step that emitted no event passes its own payload on to the next steps.
    """
    matched = [(index, event, targets) for index, event in enumerate(response.events)
               if (targets := routing.router.next(event.type, job.plugin, position))]
    if position is not None and not response.events and position.node.next:
        return _pass_on(job, response, context, position, routing, now=now, new_id=new_id)
    if not matched:
        return FollowUps()
    jobs: list[FollowUp] = []
    warnings: dict[str, None] = {}
    notes: tuple[str, ...] = ()
    state = passed_state(response.state_updates, routing.private_state) if routing.passes_state else NO_STATE
    trigger = _payload(job, None)
    hop = _next_hop(context)
    total = 0
    for index, event, targets in matched:
        added = extend(
            None if context is None else context.accumulated, trigger=trigger, state=state,
            payload=event.payload,
            origin=Origin(plugin=job.plugin, event_type=event.type, job_id=job.root_job_id),
        )
        size = size_bytes(added.accumulated)
        fault = check(size, hop, routing.max_hops)
        if fault is not None:
            return FollowUps(fault=fault, warnings=tuple(warnings))
        warnings.update(dict.fromkeys(added.warnings))
        payload, of_result = with_result(added.accumulated, added.payload, response.result)
        notes = notes or of_result
        sent = _Sent(index=index, event=event, source=job.plugin, targets=targets, payload=payload,
                     accumulated=added.accumulated, hop=hop, core_event=job.core_event)
        new_jobs = _jobs(sent, job, context, routing, now=now, new_id=new_id)
        total += _stored_bytes(new_jobs, size)
        if total > RESPONSE_LIMIT_BYTES:
            return FollowUps(fault=_too_much(total), warnings=tuple(warnings))
        jobs += new_jobs
    return FollowUps(jobs=tuple(jobs), warnings=tuple(warnings), large_state=state.notes, notes=notes)


def _stored_bytes(jobs: Sequence[FollowUp], context_size: int) -> int:
    """Return the bytes of all payloads and contexts; each job has a context of the same size."""
    return sum(len(each.job.payload or "") + context_size for each in jobs)


def _too_much(total: int) -> str:
    return (f"the payloads and contexts of its events would be {total:,} bytes or more, at most "
            f"{RESPONSE_LIMIT_BYTES:,} are allowed in one response: emit fewer events, keep what is large in a file of "
            "the workspace")


def _pass_on(job: Job, response: Response, context: Context | None, position: Position, routing: RoutingContext, *,
             now: datetime, new_id: NewId) -> FollowUps:
    """Return the jobs of the next steps, with the step's own payload and result and nothing added to the baggage."""
    origin = Origin(plugin=job.plugin, event_type=STEP_SUCCEEDED, job_id=job.root_job_id)
    payload = _payload(job, {})
    added = extend(None if context is None else context.accumulated, trigger=payload, state=NO_STATE, payload={},
                   origin=origin)
    payload, notes = with_result(added.accumulated, payload, response.result)
    hop = _next_hop(context)
    size = size_bytes(added.accumulated)
    fault = check(size, hop, routing.max_hops)
    if fault is not None:
        return FollowUps(fault=fault)
    sent = _Sent(index=None, event=Event(type=STEP_SUCCEEDED, payload=payload), source=job.plugin,
                 targets=following(position), payload=payload, accumulated=added.accumulated, hop=hop,
                 core_event=job.core_event)
    jobs = _jobs(sent, job, context, routing, now=now, new_id=new_id)
    total = _stored_bytes(jobs, size)
    if total > RESPONSE_LIMIT_BYTES:
        return FollowUps(fault=_too_much(total))
    return FollowUps(jobs=tuple(jobs), notes=notes)


def reserved_keys(job: Job, response: Response, context: Context | None) -> tuple[str, ...]:
    """Return a warning for each reserved key in the response, or in the payload that the chain began with."""
    values = [(response.state_updates, "state"), *((event.payload, "payload") for event in response.events)]
    if context is None:
        values.insert(0, (_payload(job, None), "payload"))
    return tuple(dict.fromkeys(warning for value, kind in values for warning in reserved_key_warnings(value, kind)))


def core_event_jobs(job: Job, events: Sequence[Event], context: Context | None, routing: RoutingContext, *,
                    now: datetime, new_id: NewId) -> tuple[FollowUp, ...]:
    """Return the jobs that the core's own events about a job become, in the pipelines that subscribe to them.

    They carry the chain's baggage, or only its origin if it is too large. Their hops start at 1 again, so that a chain
    that failed because of its length can be reported too.
    """
    jobs: list[FollowUp] = []
    for event in events:
        targets = routing.router.next(event.type, None)
        if targets:
            sent = _Sent(index=None, event=event, source=SOURCE, targets=targets, payload=event.payload,
                         accumulated=_core_event_baggage(job, event, context, routing), hop=_FIRST_HOP,
                         core_event=event.type)
            jobs += _jobs(sent, job, context, routing, now=now, new_id=new_id)
    return tuple(jobs)


def _core_event_baggage(job: Job, event: Event, context: Context | None,
                        routing: RoutingContext) -> Mapping[str, Any]:
    origin = Origin(plugin=job.plugin, event_type=event.type, job_id=job.root_job_id)
    known = context.accumulated if context is not None else extend(
        None, trigger=_payload(job, None), state=NO_STATE, payload={}, origin=origin).accumulated
    whole = {**known, **event.payload}
    if check(size_bytes(whole), _FIRST_HOP, routing.max_hops) is None:
        return whole
    return {**{key: known[key] for key in anchor(origin)}, **event.payload}


def _next_hop(context: Context | None) -> int:
    return _FIRST_HOP if context is None else context.hop + 1


def _payload(job: Job, absent: Any) -> Any:
    return absent if job.payload is None else json.loads(job.payload).get("payload", absent)


def _jobs(sent: _Sent, job: Job, context: Context | None, routing: RoutingContext, *, now: datetime,
          new_id: NewId) -> list[FollowUp]:
    envelope = _envelope(sent, now, new_id())
    payload = encode(envelope)
    jobs = []
    for target in sent.targets:
        row = NewContext(
            id=new_id(), parent_id=None if context is None else context.id, pipeline_name=target.pipeline_name,
            step_id=target.step_id, hop=sent.hop, accumulated=sent.accumulated,
        )
        jobs.append(FollowUp(event=sent.index, context=row, job=NewJob(
            id=new_id(), plugin=target.plugin, command=target.command, submitted_by=target.submitted_by,
            max_attempts=routing.attempts_of(target.plugin), payload=payload, dedupe_key=sent.event.dedupe_key,
            parent_job_id=job.id, root_job_id=job.root_job_id, source_event_id=envelope["event_id"],
            event_context_id=row.id, pipeline_name=target.pipeline_name, pipeline_hash=target.pipeline_hash,
            step_id=target.step_id, replay_of=job.replay_of, core_event=sent.core_event,
        )))
    return jobs


def _envelope(sent: _Sent, now: datetime, event_id: str) -> dict[str, Any]:
    """Return the event with the keys that the core adds, and the plugin's own dedupe key."""
    envelope = {"type": sent.event.type, "payload": sent.payload, "source": sent.source, "timestamp": utc_text(now),
                "event_id": event_id}
    return envelope if sent.event.dedupe_key is None else envelope | {"dedupe_key": sent.event.dedupe_key}
