"""`ductilectl run`: one job by hand, and how it ends."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime
from io import TextIOBase
from pathlib import Path

from ductile import submit
from ductile.ctl import attempts, table
from ductile.ctl.daemon_link import lives, wake, watch
from ductile.ctl.inputs import CLI_SOURCE, by_hand
from ductile.ctl.lookup import enabled, shown
from ductile.ctl.output import document
from ductile.db import transaction
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_UNAVAILABLE, DuctileError
from ductile.injected import NewId
from ductile.pidfile import pid_file, running_pid
from ductile.plugin import plugin_table
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.plugin.plugin_table import PluginLoad
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, NewJob, Status, Submitter
from ductile.runtime_config import RuntimeConfig
from ductile.validation import nearest

DEFAULT_TYPE = "manual"
_LOOK_SECONDS = 0.1


def run(conn: sqlite3.Connection, *, plugin: str, command: str, payload: str | None, event_type: str | None, wait: bool,
        runtime: RuntimeConfig, state_path: Path, now: datetime, new_id: NewId, as_json: bool, out: TextIOBase,
        err: TextIOBase) -> int:
    """Queue one job; with `wait` show its attempts and return 1 where it does not succeed, or is held back.

    Raises DuctileError: 66 for a plugin or command that cannot be run, 78 for a command that the daemon has not
    loaded yet, 65 and 64 for a payload and a type that cannot be an event's, 69 where the daemon that is waited for
    does not run or ends.
    """
    found = enabled(runtime, plugin)
    load = next((load for load in plugin_table.loads(conn) if load.plugin == plugin and load.enabled), None)
    is_up = running_pid(pid_file(state_path)) is not None
    _require_command(found, command, load if is_up else None)
    job = _new_job(found, command, payload, event_type, now, new_id)
    held = _why_held(found, load, is_up)
    daemon = watch(state_path) if wait else None
    if wait and daemon is None:
        raise DuctileError("ductiled is not running, and --wait needs it; nothing was queued",
                           exit_code=EXIT_UNAVAILABLE)
    try:
        if held is not None:
            err.write(f"{held}\n")
        with transaction(conn):
            submitted = submit.submit(conn, job, dedupe_ttl=runtime.config.service.dedupe_ttl, now=now)
        runs = wake(state_path, err)
        if daemon is not None and held is None:
            return _wait(conn, submitted.job_id, daemon, as_json=as_json, out=out)
    finally:
        if daemon is not None:
            os.close(daemon)
    if not runs:
        err.write("ductiled is not running; the job waits until it does\n")
    row = {"job_id": submitted.job_id, "plugin": plugin, "command": command, "status": Status.QUEUED}
    out.write(document(row) if as_json else f"{submitted.job_id}\n")
    # Nobody knows for how long it will wait.
    return EXIT_FAILED if wait else EXIT_OK


def _new_job(plugin: ConfiguredPlugin, command: str, payload: str | None, event_type: str | None, now: datetime,
             new_id: NewId) -> NewJob:
    event = None
    if payload is not None or event_type is not None:
        event = by_hand(event_type or DEFAULT_TYPE, payload, source=CLI_SOURCE, option="--type", new_id=new_id, now=now)
    return submit.command_job(plugin, command, Submitter.CLI, new_id=new_id, event=event)


def _why_held(plugin: ConfiguredPlugin, load: PluginLoad | None, is_up: bool) -> str | None:
    """Return why the job will not run yet; None where it will as soon as its turn comes."""
    name = plugin.settings.name
    if load is None:
        return f"ductiled has not read the configuration that has plugin {name}; the job waits until it does"
    if is_up and load.reason is None:
        return None
    if plugin.plugin is None:
        return f"plugin {name} is not loaded, the job waits until it is: {plugin.reason}"
    return f"ductiled has not loaded plugin {name} yet; the job waits until `ductilectl reload`" if is_up else None


def _require_command(plugin: ConfiguredPlugin, command: str, load: PluginLoad | None) -> None:
    """Refuse a command that the plugin lacks. `load` is what the running daemon has loaded, None where it is unknown.

    The files decide where no daemon runs, for it reads them at its start.
    """
    name, in_files = plugin.settings.name, plugin.commands
    known = in_files if load is None or load.commands is None else load.commands
    if known is not None and command not in known:
        if command in (in_files or ()):
            raise DuctileError(f"ductiled has not loaded the command {shown(command)} of plugin {name} yet;"
                               " run `ductilectl reload` first", exit_code=EXIT_CONFIG)
        hint = nearest(command, known) or f" (it has {', '.join(known)})"
        raise DuctileError(f"plugin {name} has no command {shown(command)}{hint}", exit_code=EXIT_NOT_FOUND)


def _wait(conn: sqlite3.Connection, job_id: str, daemon: int, *, as_json: bool, out: TextIOBase) -> int:
    """Show each attempt as it ends, until the job does. Raises DuctileError (69) where the daemon ends first."""
    if not as_json:
        out.write(f"{job_id}\n")
        out.flush()
    shown_attempts: list[dict] = []
    runs = True
    while True:
        job = job_table.get(conn, job_id)
        for attempt in attempt_table.of_job(conn, job_id)[len(shown_attempts):]:
            shown_attempts.append(attempts.row(attempt))
            if not as_json:
                out.write(attempts.text(shown_attempts[-1]))
                out.flush()
        if job.status.is_last:
            return _outcome(job, shown_attempts, as_json, out)
        if not runs:
            raise DuctileError(f"ductiled ended while job {job_id} was {job.status}; its next start goes on with it",
                               exit_code=EXIT_UNAVAILABLE)
        runs = lives(daemon, _LOOK_SECONDS)


def _outcome(job: Job, rows: list[dict], as_json: bool, out: TextIOBase) -> int:
    if as_json:
        out.write(document({"job_id": job.id, "plugin": job.plugin, "command": job.command, "status": job.status,
                                  "last_error": job.last_error, "attempts": rows}))
    else:
        out.write(f"{job.status}: {table.cell(job.last_error)}\n" if job.last_error else f"{job.status}\n")
    return EXIT_OK if job.status is Status.SUCCEEDED else EXIT_FAILED
