"""`ductilectl emit`: publish an event to the pipelines and routes that match it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from ductile import submit
from ductile.config import load_table
from ductile.ctl import table
from ductile.ctl.daemon_link import wake
from ductile.ctl.inputs import CLI_SOURCE, new_event
from ductile.ctl.lookup import quoted
from ductile.ctl.on_disk import configured, runtime
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, DuctileError
from ductile.pipeline.templates import Unrenderable
from ductile.queue.job import Submitter
from ductile.routing.baggage import visible
from ductile.runtime_config import RuntimeConfig
from ductile.submit import EventJob

_INDENT = "    "


def emit(session: Session, *, event_type: str, payload: str | None, source: str | None, dry_run: bool) -> int:
    """Route an event, as one of the plugin `source` if that is given, and queue the jobs that it becomes.

    With `dry_run` only show them with their payloads, and return 1 if one of them would fail for a template.

    Raises DuctileError, with nothing stored: 64 and 65 for a type and a payload that no event can have, 66 for a
    plugin that is not configured, 78 if the daemon runs on other files, 1 if the event has no subscribers.
    """
    known = runtime(session)
    if dry_run:
        return _show(session, known, event_type, payload, source)
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


def _show(session: Session, known: RuntimeConfig, event_type: str, payload: str | None, source: str | None) -> int:
    """Show the jobs that the event would become under the configuration on disk; neither daemon nor database counts."""
    if source is not None:
        configured(known, source)
    event = new_event(session, event_type, payload, source=source or CLI_SOURCE, option="EVENT")
    found = submit.jobs_for_event(known, event, source, Submitter.CLI, new_id=session.new_id)
    if not found:
        raise _no_subscribers(event_type, source)
    _warn(session, found)
    rows = [_row(known, each) for each in found]
    session.emit({"jobs": rows}, "".join(map(_text, rows)))
    return EXIT_FAILED if any(row["error"] for row in rows) else EXIT_OK


def _row(known: RuntimeConfig, each: EventJob) -> dict[str, Any]:
    """Return a job with the payload that its plugin would get, or with the error of its template."""
    job = each.job
    node = None if job.pipeline_name is None else known.router.pipelines[job.pipeline_name].nodes[job.step_id or ""]
    row = {"plugin": job.plugin, "command": job.command, "pipeline_name": job.pipeline_name, "step_id": job.step_id}
    assert each.context is not None and job.payload is not None, "an event's job has both"
    try:
        payload = visible(each.context.accumulated, json.loads(job.payload)["payload"],
                          None if node is None else node.template)
    except Unrenderable as error:
        return {**row, "payload": None, "error": str(error)}
    return {**row, "payload": payload, "error": None}


def _text(row: dict[str, Any]) -> str:
    step = "" if row["step_id"] is None else f", step {row['pipeline_name']}/{row['step_id']}"
    line = f"{row['plugin']} {table.cell(row['command'])}{step}"
    if row["error"] is not None:
        return f"{line}: would fail: {table.cell(row['error'])}\n"
    return f"{line}\n{table.block(table.json_text(row['payload']), _INDENT)}"


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
