"""Turns the outcome of an attempt into one value that lists everything that follows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ductile.config.model import BreakerRule, Retry
from ductile.dispatch.followups import (
    FollowUp,
    FollowUps,
    RoutingContext,
    core_event_jobs,
    follow_up_jobs,
    reserved_keys,
)
from ductile.dispatch.outcome import (
    Cancelled,
    Interrupted,
    Outcome,
    Refused,
    Succeeded,
    cancelled,
    log_status,
    overruled,
    retryable,
)
from ductile.dispatch.result_record import Delivery
from ductile.injected import Chance, NewId
from ductile.pipeline.graph import Position, lost
from ductile.protocol import INIT, JOB_DEAD, JOB_RECOVERED, JOB_SUCCEEDED, Event, Response
from ductile.queue.job import Job, LogEntry, Status, Submitter
from ductile.queue.retry import delay
from ductile.routing.baggage import Context, credentials
from ductile.scheduler.breaker import Breaker, breaker_after, transition_event
from ductile.state.merge import check_size, merge
from ductile.workspace.artifact import Artifact

# How often an `init` that a stop or crash interrupted is queued again.
_INIT_INTERRUPTIONS = 3
# Of a result in an event.
_RESULT_CHARACTERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration that a job was claimed under says about it.

    `fingerprint` is that of the plugin's version and configuration, None if the plugin is not loaded.
    """

    retry: Retry
    breaker: BreakerRule
    fingerprint: str | None
    routing: RoutingContext
    announces_success: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """The jobs of a plugin's command that have failed permanently since the last one that succeeded."""

    count: int = 0
    since: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the database held when the attempt ended.

    `interruptions` counts this job's interrupted attempts. `cancel_requested`: an operator cancelled the job while it
    ran; that counts unless it succeeded. `context` is the job's baggage, None for the first job of a
    chain. `position` is its step in the pipeline version that it began with, None outside or if that is unknown.
    `failures` are those before this job, as far as a core event needs them.
    """

    state: Mapping[str, Any]
    breaker: Breaker
    interruptions: int
    cancel_requested: bool = False
    context: Context | None = None
    position: Position | None = None
    failures: Failures = Failures()


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """The result of a plugin's `init` for the configuration named by `fingerprint`."""

    fingerprint: str
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """Everything that follows from an attempt. `succeeded_schedule` is the schedule that the job was submitted for.

    `attempt` and `max_attempts` are the new values of the row. `jobs` are queued unless they are duplicates, and
    `deliveries` say which were, once they are written. `warnings` name refused and reserved keys,
    `large_state` state that is too large for the baggage, and `notes` say what else is not passed on. `artifacts` are
    the job's files.
    """

    job: Job
    status: Status
    attempt: int
    max_attempts: int
    log: LogEntry
    retry_at: datetime | None = None
    error: str | None = None
    state: Mapping[str, Any] | None = None
    breaker: Breaker | None = None
    init: Init | None = None
    succeeded_schedule: str | None = None
    response: Response | None = None
    jobs: tuple[FollowUp, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    warnings: tuple[str, ...] = ()
    large_state: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _NextStatus:
    """The job's next status."""

    status: Status
    attempt: int
    max_attempts: int
    retry_at: datetime | None = None


def conclude(job: Job, outcome: Outcome, before: Before, rules: Rules, *, now: datetime, rng: Chance,
             new_id: NewId) -> Conclusion:
    """Return everything that follows from the outcome of a job's attempt."""
    if before.cancel_requested and not isinstance(outcome, Succeeded):
        outcome = cancelled(outcome)
    state, outcome = _state_after(outcome, before.state)
    follow_ups, outcome = _follow_ups(job, outcome, before, rules, now, new_id)
    if outcome.is_overruled:
        state = _credentials_after(outcome, before.state, rules.routing.private_state)
    after = _next_status(job, outcome, before, rules, now, rng)
    # Cancelling says nothing about the plugin.
    breaker = None if isinstance(outcome, Cancelled) else _breaker_after(job, after.status, before, rules, now)
    events = _core_events(job, after, outcome, before, breaker) + _success_events(job, outcome, before, rules, now)
    reserved = () if outcome.response is None else reserved_keys(job, outcome.response, before.context)
    return Conclusion(
        job=job, status=after.status, attempt=after.attempt, max_attempts=after.max_attempts,
        retry_at=after.retry_at, error=outcome.error, state=state, breaker=breaker,
        init=_init_after(job, after.status, rules),
        succeeded_schedule=job.schedule_id if after.status is Status.SUCCEEDED else None,
        log=_log_entry(outcome, now, new_id), response=outcome.response,
        jobs=follow_ups.jobs + core_event_jobs(job, events, before.context, rules.routing, now=now, new_id=new_id),
        warnings=(*follow_ups.warnings, *reserved), large_state=follow_ups.large_state, notes=follow_ups.notes,
        artifacts=outcome.artifacts if isinstance(outcome, Succeeded) else (),
    )


def _state_after(outcome: Outcome, state: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Outcome]:
    """Return the new state, None for no change, and the outcome: a state that is too large fails a job that is not
    cancelled.
    """
    if outcome.response is None or not outcome.response.state_updates:
        return None, outcome
    merged = merge(state, outcome.response.state_updates)
    fault = check_size(merged)
    if fault is None:
        return merged, outcome
    if isinstance(outcome, Cancelled):
        return None, replace(outcome, is_overruled=True)
    return None, overruled(outcome, Refused, fault)


def _credentials_after(outcome: Outcome, state: Mapping[str, Any],
                       private_state: Collection[str]) -> Mapping[str, Any] | None:
    """Return the state after a refused response, None for no change.

    A rotated token must survive, but a cursor must not pass events that were never stored.
    """
    kept = {} if outcome.response is None else credentials(outcome.response.state_updates, private_state)
    merged = merge(state, kept)
    return merged if kept and check_size(merged) is None else None


def _follow_ups(job: Job, outcome: Outcome, before: Before, rules: Rules, now: datetime,
            new_id: NewId) -> tuple[FollowUps, Outcome]:
    """Return the jobs that follow from a success, and the outcome: an exceeded limit fails the job permanently."""
    if not isinstance(outcome, Succeeded) or outcome.response is None:
        return FollowUps(), outcome
    if job.pipeline_hash is not None and before.position is None:
        return FollowUps(), overruled(outcome, Refused, lost(job.pipeline_name, job.pipeline_hash))
    found = follow_up_jobs(job, outcome.response, before.context, before.position, rules.routing, now=now,
                           new_id=new_id)
    if found.fault is None:
        return found, outcome
    return FollowUps(warnings=found.warnings), overruled(outcome, Refused, found.fault)


def _next_status(job: Job, outcome: Outcome, before: Before, rules: Rules, now: datetime,
                 rng: Chance) -> _NextStatus:
    same = _NextStatus(status=Status.DEAD, attempt=job.attempt, max_attempts=job.max_attempts)
    if isinstance(outcome, Succeeded):
        return replace(same, status=Status.SUCCEEDED)
    if isinstance(outcome, Interrupted):
        return _after_interruption(job, outcome, before, same)
    if not retryable(outcome) or job.attempt >= job.max_attempts:
        return same
    seconds = delay(job.attempt, base=rules.retry.backoff_base, most=rules.retry.backoff_max, rng=rng)
    return replace(same, status=Status.QUEUED, attempt=job.attempt + 1, retry_at=now + timedelta(seconds=seconds))


def _after_interruption(job: Job, outcome: Interrupted, before: Before, same: _NextStatus) -> _NextStatus:
    """Queue the job again at once: a stop uses no attempt, a crash uses one. `init` has a count of its own."""
    again = replace(same, status=Status.QUEUED)
    if job.command == INIT and before.interruptions >= _INIT_INTERRUPTIONS:
        return same
    if outcome.by == "stop":
        return again
    if job.command == INIT:
        return replace(again, attempt=job.attempt + 1, max_attempts=max(job.max_attempts, job.attempt + 1))
    return replace(again, attempt=job.attempt + 1) if job.attempt < job.max_attempts else same


def _breaker_after(job: Job, status: Status, before: Before, rules: Rules, now: datetime) -> Breaker | None:
    """Return the new breaker of a scheduled job's command, None for no change."""
    if job.submitted_by is not Submitter.SCHEDULER or not status.is_last:
        return None
    changed = breaker_after(before.breaker, status is Status.SUCCEEDED, rules.breaker.threshold, now)
    return None if changed == before.breaker else changed


def _core_events(job: Job, after: _NextStatus, outcome: Outcome, before: Before,
                 breaker: Breaker | None) -> list[Event]:
    """Return the core's own events about this end; none for a cancelled job or one that follows from such an event."""
    if job.core_event is not None or isinstance(outcome, Cancelled):
        return []
    events = []
    if after.status is Status.DEAD:
        events.append(Event(type=JOB_DEAD, payload={
            "job_id": job.id, "plugin": job.plugin, "command": job.command, "step_id": job.step_id,
            "pipeline": job.pipeline_name, "error": outcome.error, "attempts": after.attempt,
            "failures_in_row": before.failures.count + 1,
        }))
    transition = None if breaker is None else transition_event(before.breaker, breaker)
    if transition is not None and breaker is not None:
        events.append(Event(type=transition, payload={
            "plugin": job.plugin, "command": job.command, "failures": breaker.failure_count, "job_id": job.id,
            "error": outcome.error,
        }))
    return events


def _success_events(job: Job, outcome: Outcome, before: Before, rules: Rules, now: datetime) -> list[Event]:
    """Return the core's own events about a success; none for a job that follows from such an event."""
    if not isinstance(outcome, Succeeded) or job.core_event is not None:
        return []
    names = {"job_id": job.id, "plugin": job.plugin, "command": job.command}
    events = []
    if before.failures.count:
        events.append(Event(type=JOB_RECOVERED, payload={
            **names, "failures": before.failures.count, "dead_since": before.failures.since}))
    if rules.announces_success:
        result = None if outcome.response is None or outcome.response.result is None else outcome.response.result
        seconds = None if job.started_at is None else round((now - job.started_at).total_seconds(), 3)
        events.append(Event(type=JOB_SUCCEEDED, payload={
            **names, "result": result and result[:_RESULT_CHARACTERS], "seconds": seconds}))
    return events


def _init_after(job: Job, status: Status, rules: Rules) -> Init | None:
    if job.command != INIT or not status.is_last or rules.fingerprint is None:
        return None
    return Init(fingerprint=rules.fingerprint, ok=status is Status.SUCCEEDED)


def _log_entry(outcome: Outcome, now: datetime, new_id: NewId) -> LogEntry:
    return LogEntry(
        id=new_id(), status=log_status(outcome), completed_at=now, exit_code=outcome.exit_code,
        error=outcome.error, stderr=outcome.stderr or None, printed=outcome.printed,
    )
