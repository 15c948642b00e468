"""The one way into the queue, whoever submits."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ductile.db import transaction
from ductile.errors import EXIT_DATA, DuctileError
from ductile.injected import NewId
from ductile.plugin import plugin_table
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.protocol import ANNOUNCED, INIT
from ductile.queue import job_table
from ductile.queue.job import NewJob, Submitter
from ductile.routing import context_table
from ductile.routing.baggage import NewContext, Origin, check, extend, reserved_key_warnings, size_bytes
from ductile.routing.router import Target
from ductile.runtime_config import RuntimeConfig
from ductile.strictjson import encode
from ductile.units import utc_text

_INIT_ATTEMPTS = 1
_FIRST_HOP = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The job that stands for what was submitted: a new one, or the earlier one that it repeats."""

    job_id: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventJob:
    """A job that an event from outside becomes, with its context.

    `warnings` are about keys that were refused or have a name of the core's own.
    """

    job: NewJob
    context: NewContext | None = None
    warnings: tuple[str, ...] = ()


def submit(conn: sqlite3.Connection, job: NewJob, *, dedupe_ttl: int, now: datetime,
           context: NewContext | None = None) -> Submitted:
    """Queue one job, with the context that it carries, in the caller's transaction.

    Not where a job with its key has succeeded within `dedupe_ttl` seconds.
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
    """`submit` a job whose sender repeats itself until it is answered: one that waits or runs stands for it too."""
    if job.dedupe_key is not None:
        earlier = job_table.open_with_key(conn, job)
        if earlier is not None:
            return Submitted(job_id=earlier, is_new=False)
    return submit(conn, job, dedupe_ttl=dedupe_ttl, now=now, context=context)


def max_attempts(plugin: ConfiguredPlugin, command: str) -> int:
    """Return how many attempts a new job of a command has."""
    return _INIT_ATTEMPTS if command == INIT else plugin.settings.retry.max_attempts


def command_job(plugin: ConfiguredPlugin, command: str, submitted_by: Submitter, *, new_id: NewId,
                event: Mapping[str, Any] | None = None) -> NewJob:
    """Return the job of one command of a plugin, with an event where one goes with it. `init` has one attempt."""
    return NewJob(
        id=new_id(), plugin=plugin.settings.name, command=command, submitted_by=submitted_by,
        max_attempts=max_attempts(plugin, command),
        payload=None if event is None else encode(event),
        source_event_id=None if event is None else event["event_id"],
        dedupe_key=None if event is None else event.get("dedupe_key"),
    )


def new_event(event_type: str, payload: Any, source: str, *, new_id: NewId, now: datetime) -> dict[str, Any]:
    """Return an event with what the core gives it: its source, its time and its id."""
    return {"type": event_type, "payload": payload, "source": source, "timestamp": utc_text(now), "event_id": new_id()}


def jobs_for_event(runtime: RuntimeConfig, event: Mapping[str, Any], source_plugin: str | None, submitted_by: Submitter, *,
             new_id: NewId) -> list[EventJob]:
    """Return the jobs that an event becomes, each the first of a chain; none where nothing takes it.

    `event` is as `new_event` makes it, with the sender's `dedupe_key` where there is one. `source_plugin` is the plugin
    whose routes it goes by. Raises DuctileError (65) where it says more than a context may hold.
    """
    return [_arrival(runtime, event, dispatch, source_plugin or event["source"], submitted_by, new_id)
            for dispatch in runtime.router.next(event["type"], source_plugin)]


def _arrival(runtime: RuntimeConfig, event: Mapping[str, Any], dispatch: Target, origin: str, submitted_by: Submitter,
             new_id: NewId) -> EventJob:
    job_id = new_id()
    added = extend(None, trigger=event["payload"], state_updates={}, payload=event["payload"],
                origin=Origin(plugin=origin, event_type=event["type"], job_id=job_id))
    fault = check(size_bytes(added.accumulated), _FIRST_HOP, runtime.config.service.max_hops)
    if fault is not None:
        raise DuctileError(f"the event cannot be taken: {fault}", exit_code=EXIT_DATA)
    context = NewContext(id=new_id(), hop=_FIRST_HOP, accumulated=added.accumulated,
                         pipeline_name=dispatch.pipeline_name, step_id=dispatch.step_id)
    job = NewJob(
        id=job_id, plugin=dispatch.plugin, command=dispatch.command, submitted_by=submitted_by,
        max_attempts=runtime.max_attempts[dispatch.plugin], payload=encode({**event, "payload": added.payload}),
        dedupe_key=event.get("dedupe_key"), root_job_id=job_id, source_event_id=event["event_id"],
        event_context_id=context.id, pipeline_name=dispatch.pipeline_name, pipeline_hash=dispatch.pipeline_hash,
        step_id=dispatch.step_id, core_event=event["type"] if event["type"] in ANNOUNCED else None,
    )
    return EventJob(job=job, context=context, warnings=(*added.warnings, *reserved_key_warnings(added.payload, "payload")))


def submit_inits(conn: sqlite3.Connection, plugins: Mapping[str, ConfiguredPlugin], *, new_id: NewId,
                 now: datetime) -> list[str]:
    """Queue `init`, in one transaction, for each plugin whose version or configuration has not been initialised.

    Return the plugins. One whose `init` waits already is left alone.
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
