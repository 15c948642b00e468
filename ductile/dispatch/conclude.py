"""What follows from one attempt: every consequence, as one value."""

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
    names_of_the_core,
)
from ductile.dispatch.outcome import Interrupted, Outcome, Refused, Succeeded, log_status, overruled, retryable
from ductile.dispatch.result_record import Delivery
from ductile.injected import Chance, NewId
from ductile.pipeline.graph import Position
from ductile.protocol import INIT, JOB_DEAD, Event, Response
from ductile.queue.job import Job, LogEntry, Status, Submitter
from ductile.queue.retry import delay
from ductile.routing.baggage import Context, credentials
from ductile.scheduler.breaker import Breaker, after, transition_event
from ductile.state.merge import check_size, merge
from ductile.workspace.artifact import Artifact

# An init that a stop or a crash has cut short is queued again this often.
_INIT_CUTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration says that a job was claimed under.

    `fingerprint` is of the plugin's version and configuration, None where it is not loaded.
    """

    retry: Retry
    breaker: BreakerRule
    fingerprint: str | None
    ways: RoutingContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the database held when the attempt ended.

    `cut_short` counts this job's interrupted attempts; `context` is what the job carries, None at the root; `place` is
    where it stands in the pipeline that it began with, None outside, and where that is no longer known.
    """

    state: Mapping[str, Any]
    breaker: Breaker
    cut_short: int
    context: Context | None = None
    place: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """That the `init` of a plugin has ended, for the configuration that `fingerprint` names."""

    fingerprint: str
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """Everything that follows from an attempt.

    `attempt` and `max_attempts` are the row's from now on. `jobs` are to be queued unless they repeat others; `ways`
    says what became of them, once they are. `warnings` are about keys that were refused or have a name of the core's;
    `artifacts` are the files that count from now on.
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
    response: Response | None = None
    jobs: tuple[FollowUp, ...] = ()
    ways: tuple[Delivery, ...] = ()
    warnings: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fate:
    """What becomes of the job."""

    status: Status
    attempt: int
    max_attempts: int
    retry_at: datetime | None = None


def conclude(job: Job, outcome: Outcome, before: Before, rules: Rules, *, now: datetime, rng: Chance,
             new_id: NewId) -> Conclusion:
    """Return what follows from the outcome of a job's attempt."""
    state, outcome = _state_after(outcome, before.state)
    onward, outcome = _onward(job, outcome, before, rules, now, new_id)
    if outcome.is_overruled:
        state = _credentials_after(outcome, before.state, rules.ways.private_state)
    fate = _fate(job, outcome, before, rules, now, rng)
    breaker = _breaker_after(job, fate.status, before, rules, now)
    told = _told(job, fate, outcome, before, breaker)
    misnamed = () if outcome.response is None else names_of_the_core(job, outcome.response, before.context)
    return Conclusion(
        job=job, status=fate.status, attempt=fate.attempt, max_attempts=fate.max_attempts, retry_at=fate.retry_at,
        error=outcome.error, state=state, breaker=breaker,
        init=_init_after(job, fate.status, rules), log=_log_entry(outcome, now, new_id), response=outcome.response,
        jobs=onward.jobs + core_event_jobs(job, told, before.context, rules.ways, now=now, new_id=new_id),
        warnings=(*onward.warnings, *misnamed), artifacts=outcome.artifacts if isinstance(outcome, Succeeded) else (),
    )


def _state_after(outcome: Outcome, state: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Outcome]:
    """Return the plugin's state, None where it stays, and the outcome: a state too large is a failure for good."""
    if outcome.response is None or not outcome.response.state_updates:
        return None, outcome
    merged = merge(state, outcome.response.state_updates)
    fault = check_size(merged)
    if fault is None:
        return merged, outcome
    return None, overruled(outcome, Refused, fault)


def _credentials_after(outcome: Outcome, state: Mapping[str, Any],
                       private_state: Collection[str]) -> Mapping[str, Any] | None:
    """Return the state after an answer that was refused, None where it stays.

    A rotated token must survive; a cursor must not pass events that never came to exist.
    """
    kept = {} if outcome.response is None else credentials(outcome.response.state_updates, private_state)
    merged = merge(state, kept)
    return merged if kept and check_size(merged) is None else None


def _onward(job: Job, outcome: Outcome, before: Before, rules: Rules, now: datetime,
            new_id: NewId) -> tuple[FollowUps, Outcome]:
    """Return the jobs that a success leads to, and the outcome: a limit overstepped is a failure for good."""
    if not isinstance(outcome, Succeeded) or outcome.response is None:
        return FollowUps(), outcome
    if job.pipeline_hash is not None and before.place is None:
        fault = (f"version {job.pipeline_hash[:12]} of pipeline {job.pipeline_name}, which it began with, "
                 "is gone from the database or damaged")
        return FollowUps(), overruled(outcome, Refused, fault)
    onward = follow_up_jobs(job, outcome.response, before.context, before.place, rules.ways, now=now, new_id=new_id)
    if onward.fault is None:
        return onward, outcome
    return FollowUps(warnings=onward.warnings), overruled(outcome, Refused, onward.fault)


def _fate(job: Job, outcome: Outcome, before: Before, rules: Rules, now: datetime, rng: Chance) -> _Fate:
    same = _Fate(status=Status.DEAD, attempt=job.attempt, max_attempts=job.max_attempts)
    if isinstance(outcome, Succeeded):
        return replace(same, status=Status.SUCCEEDED)
    if isinstance(outcome, Interrupted):
        return _fate_when_cut_short(job, outcome, before, same)
    if not retryable(outcome) or job.attempt >= job.max_attempts:
        return same
    seconds = delay(job.attempt, base=rules.retry.backoff_base, most=rules.retry.backoff_max, rng=rng)
    return replace(same, status=Status.QUEUED, attempt=job.attempt + 1, retry_at=now + timedelta(seconds=seconds))


def _fate_when_cut_short(job: Job, outcome: Interrupted, before: Before, same: _Fate) -> _Fate:
    """Queue the job again, at once: a stop uses no attempt, a crash uses one; `init` has a count of its own."""
    again = replace(same, status=Status.QUEUED)
    if job.command == INIT and before.cut_short >= _INIT_CUTS:
        return same
    if outcome.by == "stop":
        return again
    if job.command == INIT:
        return replace(again, attempt=job.attempt + 1, max_attempts=max(job.max_attempts, job.attempt + 1))
    return replace(again, attempt=job.attempt + 1) if job.attempt < job.max_attempts else same


def _breaker_after(job: Job, status: Status, before: Before, rules: Rules, now: datetime) -> Breaker | None:
    """Return the breaker of a scheduled job's command where this end changes it."""
    if job.submitted_by is not Submitter.SCHEDULER or not status.is_last:
        return None
    changed = after(before.breaker, status is Status.SUCCEEDED, rules.breaker.threshold, now)
    return None if changed == before.breaker else changed


def _told(job: Job, fate: _Fate, outcome: Outcome, before: Before, breaker: Breaker | None) -> list[Event]:
    """Return the core's own events about this end. A job that follows from one of these raises none."""
    if job.core_event is not None:
        return []
    events = []
    if fate.status is Status.DEAD:
        events.append(Event(type=JOB_DEAD, payload={
            "job_id": job.id, "plugin": job.plugin, "command": job.command, "step_id": job.step_id,
            "pipeline": job.pipeline_name, "error": outcome.error, "attempts": fate.attempt,
        }))
    turn = None if breaker is None else transition_event(before.breaker, breaker)
    if turn is not None:
        events.append(Event(type=turn, payload={
            "plugin": job.plugin, "command": job.command, "failures": breaker.failure_count, "job_id": job.id,
            "error": outcome.error,
        }))
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
