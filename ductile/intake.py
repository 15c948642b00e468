"""The one way into the queue, whoever submits."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ductile.chance import NewId
from ductile.db import transaction
from ductile.plugin import rows as plugin_rows
from ductile.plugin.configured import ConfiguredPlugin
from ductile.plugin.manifest import INIT
from ductile.queue import rows as queue_rows
from ductile.queue.job import NewJob, Submitter
from ductile.strictjson import encode
from ductile.units import utc_text

_INIT_ATTEMPTS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The job that stands for what was submitted: a new one, or the earlier one that it repeats."""

    job_id: str
    is_new: bool


def submit(conn: sqlite3.Connection, job: NewJob, *, dedupe_ttl: int, now: datetime) -> Submitted:
    """Queue one job in the caller's transaction, unless one with its key has succeeded within `dedupe_ttl` seconds."""
    if job.dedupe_key is not None and job.replay_of is None:
        earlier = queue_rows.succeeded_with_key(conn, job, now - timedelta(seconds=dedupe_ttl))
        if earlier is not None:
            return Submitted(job_id=earlier, is_new=False)
    queue_rows.add(conn, [job], now)
    return Submitted(job_id=job.id, is_new=True)


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


def submit_inits(conn: sqlite3.Connection, plugins: Mapping[str, ConfiguredPlugin], *, new_id: NewId,
                 now: datetime) -> list[str]:
    """Queue `init`, in one transaction, for each plugin whose version or configuration has not been initialised.

    Return the plugins. One whose `init` waits already is left alone.
    """
    done = plugin_rows.initialised(conn)
    due = [plugin for name, plugin in plugins.items()
           if plugin.runnable and plugin.needs_init is not None and (name, plugin.needs_init) not in done]
    if not due:
        return []
    with transaction(conn):
        fresh = [plugin for plugin in due if not queue_rows.has_open(conn, plugin.settings.name, INIT)]
        queue_rows.add(conn, [command_job(plugin, INIT, Submitter.INIT, new_id=new_id) for plugin in fresh], now)
    return [plugin.settings.name for plugin in fresh]
