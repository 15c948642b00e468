"""The transactions of a job: claimed and finished. Submitting is in `ductile.submit`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ductile import submit
from ductile.config.model import BreakerRule, Retry
from ductile.db import database_errors, transaction
from ductile.dispatch.attempt import Inputs
from ductile.dispatch.conclude import Before, Conclusion, Failures, Rules, conclude
from ductile.dispatch.followups import FollowUp, RoutingContext
from ductile.dispatch.outcome import Interrupted, Outcome, Succeeded, retryable
from ductile.dispatch.result_record import Delivery, encode_result
from ductile.injected import Chance, NewId
from ductile.pipeline import version_table
from ductile.pipeline.graph import Pipeline, lost
from ductile.plugin import plugin_table
from ductile.protocol import JOB_DEAD, JOB_RECOVERED
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status, Submitter
from ductile.routing import context_table
from ductile.routing.baggage import Context
from ductile.routing.router import Router
from ductile.runtime_config import RuntimeConfig
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import CLOSED
from ductile.state import state_table
from ductile.workspace import artifact_table


def rules_for(runtime: RuntimeConfig, plugin: str) -> Rules:
    """Return what the configuration says about a plugin's jobs; the defaults if the plugin is no longer configured."""
    configured = runtime.plugins.get(plugin)
    manifest = None if configured is None or configured.plugin is None else configured.plugin.manifest
    routing = RoutingContext(
        router=runtime.router, max_hops=runtime.config.service.max_hops, max_attempts=runtime.max_attempts,
        dedupe_ttl=runtime.config.service.dedupe_ttl, passes_state=manifest is not None and manifest.protocol >= 2,
        private_state=frozenset() if manifest is None else manifest.private_state,
    )
    if configured is None:
        return Rules(retry=Retry(), breaker=BreakerRule(), fingerprint=None, routing=routing)
    return Rules(retry=configured.settings.retry, breaker=configured.settings.breaker,
                 fingerprint=configured.fingerprint, routing=routing,
                 announces_success=configured.settings.announces_success)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The job that now runs, if any, and the duplicates found on the way, each with the id of the earlier job."""

    job: Job | None
    duplicates: tuple[tuple[Job, str], ...] = ()


def is_any_ready(conn: sqlite3.Connection, *, plugins: Iterable[str], blocked: Iterable[str], now: datetime) -> bool:
    """Return whether `claim` may find a job. It only reads, so that an idle look takes no lock."""
    retry_at = job_table.next_retry_at(conn)
    return ((retry_at is not None and retry_at <= now)
            or job_table.next_ready(conn, _not_paused(conn, plugins), blocked) is not None)


def _not_paused(conn: sqlite3.Connection, plugins: Iterable[str]) -> list[str]:
    paused = plugin_table.paused(conn)
    return [name for name in plugins if name not in paused]


def claim(conn: sqlite3.Connection, *, plugins: Iterable[str], blocked: Iterable[str], dedupe_ttl: int,
          now: datetime) -> Claimed:
    """Mark the next job as running, in one transaction, and end jobs that have become duplicates as `deduped`.

    `blocked` are the ids of jobs that may not start yet. The commit is not synced: after a power failure the job is
    still queued. Raises what `transaction` raises.
    """
    with transaction(conn, synced=False):
        return _claim(conn, list(plugins), list(blocked), dedupe_ttl, now)


def _claim(conn: sqlite3.Connection, plugins: list[str], blocked: list[str], dedupe_ttl: int, now: datetime) -> Claimed:
    since = now - timedelta(seconds=dedupe_ttl)
    duplicates: list[tuple[Job, str]] = []
    plugins = _not_paused(conn, plugins)
    job_table.release_due_retries(conn, now)
    while (job := job_table.next_ready(conn, plugins, blocked)) is not None:
        earlier = None
        if job.dedupe_key is not None and job.replay_of is None:
            earlier = job_table.succeeded_with_key(conn, job, since)
        if earlier is None:
            job_table.move(conn, job, Status.RUNNING, now, error=job.last_error)
            running = replace(job, status=Status.RUNNING, started_at=now)
            return Claimed(job=running, duplicates=tuple(duplicates))
        job_table.move(conn, job, Status.DEDUPED, now, error=f"duplicate of job {earlier}")
        duplicates.append((job, earlier))
    return Claimed(job=None, duplicates=tuple(duplicates))


def read_inputs(conn: sqlite3.Connection, job: Job, pipelines: Mapping[str, Pipeline]) -> Inputs:
    """Read what the job's request needs; `pipelines` are the current ones. Raises what `database_errors` raises."""
    with database_errors(conn):
        position = version_table.position_of(conn, job, pipelines)
        is_lost = job.pipeline_hash is not None and position is None
        return Inputs(state=state_table.get(conn, job.plugin), context=_context(conn, job),
                      template=None if position is None else position.node.template,
                      fault=lost(job.pipeline_name, job.pipeline_hash or "") if is_lost else None)


def _context(conn: sqlite3.Connection, job: Job) -> Context | None:
    return None if job.event_context_id is None else context_table.get(conn, job.event_context_id)


def finish(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules, *, now: datetime, rng: Chance,
           new_id: NewId) -> Conclusion:
    """Commit everything that follows from an attempt, or nothing.

    Raises StaleJob if the row has changed since the claim, and what `transaction` raises.
    """
    with transaction(conn):
        return _finish(conn, job, outcome, rules, now=now, rng=rng, new_id=new_id)


def finish_and_claim(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules, *, plugins: Iterable[str],
                     blocked: Iterable[str], dedupe_ttl: int, ended_at: datetime, now: datetime, rng: Chance,
                     new_id: NewId) -> tuple[Conclusion, Claimed]:
    """Finish a job that ended at `ended_at` and claim the next one, in one transaction.

    A full queue then costs one commit a job instead of two. Raises what `finish` raises.
    """
    with transaction(conn):
        conclusion = _finish(conn, job, outcome, rules, now=ended_at, rng=rng, new_id=new_id)
        return conclusion, _claim(conn, list(plugins), list(blocked), dedupe_ttl, now)


def _finish(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules, *, now: datetime, rng: Chance,
            new_id: NewId) -> Conclusion:
    """Read, decide and write, in the caller's transaction."""
    before = _read(conn, job, outcome, rules)
    conclusion = conclude(job, outcome, before, rules, now=now, rng=rng, new_id=new_id)
    # First, because it raises StaleJob; the other writes would only report a failed constraint.
    job_table.move(conn, job, conclusion.status, now, attempt=conclusion.attempt, error=conclusion.error,
                   max_attempts=conclusion.max_attempts, retry_at=conclusion.retry_at)
    if conclusion.state is not None:
        state_table.put(conn, job.plugin, conclusion.state, now)
    if conclusion.breaker is not None:
        schedule_table.put_breaker(conn, job.plugin, job.command, conclusion.breaker, now)
    if conclusion.init is not None:
        plugin_table.put_init(conn, job.plugin, fingerprint=conclusion.init.fingerprint, ok=conclusion.init.ok,
                              job_id=job.id, now=now)
    if conclusion.succeeded_schedule is not None:
        schedule_table.put_success(conn, job.plugin, conclusion.succeeded_schedule, now)
    deliveries = tuple(_submit(conn, each, rules.routing.dedupe_ttl, now) for each in conclusion.jobs)
    counted = deliveries if conclusion.status is Status.SUCCEEDED else None
    notes = (*conclusion.warnings, *conclusion.large_state, *conclusion.notes)
    result = None if conclusion.response is None else encode_result(conclusion.response, counted, notes)
    attempt_table.append(conn, job, conclusion.log, result)
    artifact_table.add(conn, job.id, conclusion.artifacts)
    return replace(conclusion, deliveries=deliveries) if deliveries else conclusion


def _submit(conn: sqlite3.Connection, each: FollowUp, dedupe_ttl: int, now: datetime) -> Delivery:
    submitted = submit.submit(conn, each.job, context=each.context, dedupe_ttl=dedupe_ttl, now=now)
    return Delivery(event=each.event, plugin=each.job.plugin, step_id=each.job.step_id, dedupe_key=each.job.dedupe_key,
                    job_id=submitted.job_id, is_new=submitted.is_new)


def _read(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules) -> Before:
    """Read only what this conclusion needs: each statement counts when a long queue is worked off."""
    has_updates = outcome.response is not None and outcome.response.state_updates
    scheduled = job.submitted_by is Submitter.SCHEDULER
    return Before(
        state=state_table.get(conn, job.plugin) if has_updates else {},
        breaker=schedule_table.breaker(conn, job.plugin, job.command) if scheduled else CLOSED,
        cancel_requested=not isinstance(outcome, Succeeded) and job_table.is_cancel_requested(conn, job.id),
        interruptions=attempt_table.count_interruptions(conn, job.id) if isinstance(outcome, Interrupted) else 0,
        context=_context(conn, job),
        position=version_table.position_of(conn, job, rules.routing.router.pipelines),
        failures=_failures(conn, job, rules) if _matter(job, outcome, rules.routing.router) else Failures(),
    )


def _matter(job: Job, outcome: Outcome, router: Router) -> bool:
    """Return whether a core event about this end will name earlier failures, and a pipeline subscribes to it."""
    if job.core_event is not None:
        return False
    if isinstance(outcome, Succeeded):
        return bool(router.next(JOB_RECOVERED, None))
    return bool(router.next(JOB_DEAD, None)) and (job.attempt >= job.max_attempts or not retryable(outcome))


def _failures(conn: sqlite3.Connection, job: Job, rules: Rules) -> Failures:
    """Return the failures of this job's plugin and command before it."""
    found: dict[str, str] = {}
    for job_id, status, ended_at in attempt_table.latest_ends(conn, job.plugin, job.command):
        if status == "succeeded":
            break
        if job_id in found:
            continue
        # The end of the attempt was that of the job, and no later end of a job that was cancelled or removed. This job
        # itself may have failed before, if an operator retried it.
        retried = job_id == job.id and job.max_attempts > rules.retry.max_attempts
        if retried or job_table.failed_at(conn, job_id) == ended_at:
            found[job_id] = ended_at
    return Failures(count=len(found), since=min(found.values(), default=None))
