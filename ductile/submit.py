"""The only way into the queue, for every submitter."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ductile.config.model import Schedule
from ductile.db import transaction
from ductile.errors import EXIT_DATA, DuctileError
from ductile.injected import NewId
from ductile.plugin import plugin_table
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.protocol import ANNOUNCED, INIT, SCHEDULE_SOURCE, SCHEDULE_TYPE, SOURCE
from ductile.queue import job_table
from ductile.queue.job import NewJob, Submitter
from ductile.routing import context_table
from ductile.routing.baggage import NO_STATE, NewContext, Origin, check, extend, reserved_key_warnings, size_bytes
from ductile.routing.router import Target
from ductile.runtime_config import RuntimeConfig
from ductile.strictjson import encode
from ductile.units import utc_text

_INIT_ATTEMPTS = 1
_FIRST_HOP = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The new job, or the earlier job that it would duplicate."""

    job_id: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventJob:
    """A job that an external event becomes, with its context. `warnings` name refused and reserved keys."""

    job: NewJob
    context: NewContext | None = None
    warnings: tuple[str, ...] = ()


def submit(conn: sqlite3.Connection, job: NewJob, *, dedupe_ttl: int, now: datetime,
           context: NewContext | None = None) -> Submitted:
    """Queue a job with its context, in the caller's transaction.

    The job is a duplicate, and not queued, if one with its key has succeeded within `dedupe_ttl` seconds.
    """
    if job.dedupe_key is not None and job.replay_of is None:
        earlier = job_table.succeeded_with_key(conn, job, now - timedelta(seconds=dedupe_ttl))
        if earlier is not None:
            return Submitted(job_id=earlier, is_new=False)
    if context is not None:
        context_table.add(conn, context, now)
    job_table.add(conn, [job], now)
    return Submitted(job_id=job.id, is_new=True)


def submit_once(conn: sqlite3.Connection, job: NewJob, *, dedupe_ttl: int, now: datetime,
                context: NewContext | None = None) -> Submitted:
    """Submit a job whose sender repeats unanswered requests: an open job with its key makes it a duplicate too."""
    if job.dedupe_key is not None:
        earlier = job_table.open_with_key(conn, job)
        if earlier is not None:
            return Submitted(job_id=earlier, is_new=False)
    return submit(conn, job, dedupe_ttl=dedupe_ttl, now=now, context=context)


def max_attempts(plugin: ConfiguredPlugin, command: str) -> int:
    """Return the number of attempts of a new job."""
    return _INIT_ATTEMPTS if command == INIT else plugin.settings.retry.max_attempts


def command_job(plugin: ConfiguredPlugin, command: str, submitted_by: Submitter, *, new_id: NewId,
                event: Mapping[str, Any] | None = None) -> NewJob:
    """Return a job for a command of a plugin, with an optional event."""
    return NewJob(
        id=new_id(), plugin=plugin.settings.name, command=command, submitted_by=submitted_by,
        max_attempts=max_attempts(plugin, command),
        payload=None if event is None else encode(event),
        source_event_id=None if event is None else event["event_id"],
        dedupe_key=None if event is None else event.get("dedupe_key"),
    )


def scheduled_job(plugin: ConfiguredPlugin, schedule: Schedule, *, new_id: NewId, now: datetime) -> NewJob:
    """Return the job of a schedule's run, with an event if the schedule has a payload."""
    event = None if schedule.payload is None else new_event(
        SCHEDULE_TYPE, schedule.payload, SCHEDULE_SOURCE, new_id=new_id, now=now)
    job = command_job(plugin, schedule.command, Submitter.SCHEDULER, new_id=new_id, event=event)
    return replace(job, schedule_id=schedule.id)


def new_event(event_type: str, payload: Any, source: str, *, new_id: NewId, now: datetime) -> dict[str, Any]:
    """Return an event with the keys that the core adds: source, time and id."""
    return {"type": event_type, "payload": payload, "source": source, "timestamp": utc_text(now), "event_id": new_id()}


def jobs_for_event(runtime: RuntimeConfig, event: Mapping[str, Any], source_plugin: str | None,
                   submitted_by: Submitter, *, new_id: NewId) -> list[EventJob]:
    """Return the jobs that an external event becomes, each the first of a chain; none if nothing subscribes to it.

    `event` comes from `new_event`, with the sender's `dedupe_key` if it has one. `source_plugin` is the plugin whose
    routes apply. Raises DuctileError (65) if the event is too large for a context.
    """
    return [_event_job(runtime, event, target, source_plugin or event["source"], submitted_by, new_id)
            for target in runtime.router.next(event["type"], source_plugin)]


def submit_core_event(conn: sqlite3.Connection, runtime: RuntimeConfig, event_type: str, payload: Mapping[str, Any], *,
                      new_id: NewId, now: datetime) -> None:
    """Queue the jobs that one of the core's own events becomes, in the caller's transaction; each begins a chain."""
    event = new_event(event_type, payload, SOURCE, new_id=new_id, now=now)
    for each in jobs_for_event(runtime, event, None, Submitter.PIPELINE, new_id=new_id):
        submit(conn, each.job, context=each.context, dedupe_ttl=runtime.config.service.dedupe_ttl, now=now)


def _event_job(runtime: RuntimeConfig, event: Mapping[str, Any], target: Target, origin: str, submitted_by: Submitter,
               new_id: NewId) -> EventJob:
    job_id = new_id()
    added = extend(None, trigger=event["payload"], state=NO_STATE, payload=event["payload"],
                   origin=Origin(plugin=origin, event_type=event["type"], job_id=job_id))
    fault = check(size_bytes(added.accumulated), _FIRST_HOP, runtime.config.service.max_hops)
    if fault is not None:
        raise DuctileError(f"the event cannot be accepted: {fault}", exit_code=EXIT_DATA)
    context = NewContext(id=new_id(), hop=_FIRST_HOP, accumulated=added.accumulated,
                         pipeline_name=target.pipeline_name, step_id=target.step_id)
    job = NewJob(
        id=job_id, plugin=target.plugin, command=target.command, submitted_by=submitted_by,
        max_attempts=runtime.max_attempts[target.plugin], payload=encode({**event, "payload": added.payload}),
        dedupe_key=event.get("dedupe_key"), root_job_id=job_id, source_event_id=event["event_id"],
        event_context_id=context.id, pipeline_name=target.pipeline_name, pipeline_hash=target.pipeline_hash,
        step_id=target.step_id, core_event=event["type"] if event["type"] in ANNOUNCED else None,
    )
    warnings = (*added.warnings, *reserved_key_warnings(added.payload, "payload"))
    return EventJob(job=job, context=context, warnings=warnings)


def submit_inits(conn: sqlite3.Connection, plugins: Mapping[str, ConfiguredPlugin], *, new_id: NewId,
                 now: datetime) -> list[str]:
    """Queue `init`, in one transaction, for each plugin whose version or configuration is not initialised yet.

    Return the names of the plugins. One with an open `init` is skipped.
    """
    done = plugin_table.initialised(conn)
    due = [plugin for name, plugin in plugins.items()
           if plugin.runnable and plugin.needs_init is not None and (name, plugin.needs_init) not in done]
    if not due:
        return []
    with transaction(conn):
        fresh = [plugin for plugin in due if not job_table.has_open(conn, plugin.settings.name, INIT)]
        job_table.add(conn, [command_job(plugin, INIT, Submitter.INIT, new_id=new_id) for plugin in fresh], now)
    return [plugin.settings.name for plugin in fresh]
