"""`ductilectl emit`: an event by hand, to whatever takes it."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from io import TextIOBase
from pathlib import Path

from ductile import submit
from ductile.config import load_table
from ductile.ctl.daemon_link import wake
from ductile.ctl.inputs import CLI_SOURCE, by_hand
from ductile.ctl.lookup import configured, shown
from ductile.ctl.output import document
from ductile.db import transaction
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, DuctileError
from ductile.injected import NewId
from ductile.queue.job import Submitter
from ductile.runtime_config import RuntimeConfig
from ductile.submit import EventJob


def emit(conn: sqlite3.Connection, *, event_type: str, payload: str | None, source: str | None, runtime: RuntimeConfig,
         state_path: Path, now: datetime, new_id: NewId, as_json: bool, out: TextIOBase, err: TextIOBase) -> int:
    """Hand an event to the router, as one of the plugin `source` where that is given, and queue what it becomes.

    Raises DuctileError, with nothing stored: 64 and 65 for a type and a payload that cannot be an event's, 66 for a
    plugin that is not configured, 78 where the daemon runs on other files, 1 where nothing takes the event.
    """
    if source is not None:
        configured(runtime, source)
    event = by_hand(event_type, payload, source=source or CLI_SOURCE, option="EVENT", new_id=new_id, now=now)
    with transaction(conn):
        _require_same_files(conn, runtime)
        found = submit.jobs_for_event(runtime, event, source, Submitter.CLI, new_id=new_id)
        if not found:
            raise _nothing_takes(event_type, source)
        ids = [submit.submit(conn, each.job, context=each.context, dedupe_ttl=runtime.config.service.dedupe_ttl,
                             now=now).job_id for each in found]
    if not wake(state_path, err):
        err.write("ductiled is not running; what the event became waits until it does\n")
    _tell_what_stays_out(found, err)
    jobs = [{"job_id": job_id, "plugin": each.job.plugin, "command": each.job.command, "step_id": each.job.step_id}
            for job_id, each in zip(ids, found)]
    out.write(document({"event_id": event["event_id"], "jobs": jobs}) if as_json
              else "".join(f"{job_id}\n" for job_id in ids))
    return EXIT_OK


def _require_same_files(conn: sqlite3.Connection, runtime: RuntimeConfig) -> None:
    in_force = load_table.digest_in_force(conn)
    if in_force is not None and in_force != runtime.digest:
        raise DuctileError("the files differ from those that ductiled has read last; run `ductilectl reload` first, or"
                           " start it; nothing was stored", exit_code=EXIT_CONFIG)


def _nothing_takes(event_type: str, source: str | None) -> DuctileError:
    if source is None:
        text = (f"no pipeline takes the event {shown(event_type)}; nothing was stored (to hand it to the routes of a"
                " plugin: --source PLUGIN)")
    else:
        text = f"no route or pipeline takes the event {shown(event_type)} of plugin {source}; nothing was stored"
    return DuctileError(text, exit_code=EXIT_FAILED)


def _tell_what_stays_out(found: list[EventJob], err: TextIOBase) -> None:
    """Say, once, what was kept out of the baggage: it is the same for all jobs of an event."""
    for warning in dict.fromkeys(warning for each in found for warning in each.warnings):
        err.write(f"{warning}\n")
