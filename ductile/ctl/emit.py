"""`ductilectl emit`: publish an event to the pipelines and routes that match it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ductile import submit
from ductile.config import load_table
from ductile.ctl.daemon_link import wake
from ductile.ctl.inputs import CLI_SOURCE, new_event
from ductile.ctl.lookup import configured, quoted, runtime
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, DuctileError
from ductile.queue.job import Submitter
from ductile.runtime_config import RuntimeConfig
from ductile.submit import EventJob


def emit(session: Session, *, event_type: str, payload: str | None, source: str | None) -> int:
    """Route an event, as one of the plugin `source` if that is given, and queue the jobs that it becomes.

    Raises DuctileError, with nothing stored: 64 and 65 for a type and a payload that no event can have, 66 for a
    plugin that is not configured, 78 if the daemon runs on other files, 1 if the event has no subscribers.
    """
    known = runtime(session)
    with session.changing() as conn:
        if source is not None:
            configured(known, source)
        event = new_event(session, event_type, payload, source=source or CLI_SOURCE, option="EVENT")
        now = session.now()
        with transaction(conn):
            _require_same_files(conn, known)
            found = submit.jobs_for_event(known, event, source, Submitter.CLI, new_id=session.new_id)
            if not found:
                raise _no_subscribers(event_type, source)
            ids = [submit.submit(conn, each.job, context=each.context, dedupe_ttl=known.config.service.dedupe_ttl,
                                 now=now).job_id for each in found]
        if not wake(session):
            session.err.write("ductiled is not running; the jobs wait until it does\n")
        _warn(session, found)
    jobs = [{"job_id": job_id, "plugin": each.job.plugin, "command": each.job.command, "step_id": each.job.step_id}
            for job_id, each in zip(ids, found, strict=True)]
    session.emit({"event_id": event["event_id"], "jobs": jobs}, "".join(f"{job_id}\n" for job_id in ids))
    return EXIT_OK


def _require_same_files(conn: sqlite3.Connection, known: RuntimeConfig) -> None:
    in_force = load_table.digest_in_force(conn)
    if in_force is not None and in_force != known.digest:
        raise DuctileError("the files differ from those that ductiled has loaded; run `ductilectl reload` first, or"
                           " start it; nothing was stored", exit_code=EXIT_CONFIG)


def _no_subscribers(event_type: str, source: str | None) -> DuctileError:
    if source is None:
        text = (f"no pipeline subscribes to the event {quoted(event_type)}; nothing was stored (use --source PLUGIN"
                " to publish it to the routes of a plugin)")
    else:
        text = (f"no route or pipeline subscribes to the event {quoted(event_type)} of plugin {source}; nothing was"
                " stored")
    return DuctileError(text, exit_code=EXIT_FAILED)


def _warn(session: Session, found: Sequence[EventJob]) -> None:
    """Show what was kept out of the baggage, once: it is the same for all jobs of an event."""
    for warning in dict.fromkeys(warning for each in found for warning in each.warnings):
        session.err.write(f"{warning}\n")
