"""`ductilectl run`: queue one job of a plugin, and show how it ends."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from ductile import submit
from ductile.ctl import attempts, table
from ductile.ctl.daemon_link import is_running_after, pidfd, wake
from ductile.ctl.inputs import CLI_SOURCE, new_event
from ductile.ctl.lookup import find, quoted
from ductile.ctl.on_disk import enabled, runtime
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_UNAVAILABLE, DuctileError
from ductile.pidfile import pid_file, running_pid
from ductile.plugin import plugin_table
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.plugin.plugin_table import PluginLoad
from ductile.queue import attempt_table
from ductile.queue.job import Job, NewJob, Status, Submitter
from ductile.units import utc_text
from ductile.validation import nearest

DEFAULT_TYPE = "manual"
_LOOK_SECONDS = 0.1


def run(session: Session, *, plugin: str, command: str, payload: str | None, event_type: str | None, wait: bool) -> int:
    """Queue one job; with `wait` show its attempts and return 1 if it does not succeed or is blocked.

    Raises DuctileError: 66 for a plugin or command that cannot be run, 78 for a command that the daemon has not
    loaded yet, 65 and 64 for a payload and a type that no event can have, 69 if `wait` needs a daemon and none runs.
    """
    known = runtime(session)
    found = enabled(known, plugin)
    with session.changing() as conn:
        load = next((load for load in plugin_table.loads(conn) if load.plugin == plugin and load.enabled), None)
        is_up = running_pid(pid_file(session.state_path)) is not None
        _require_command(found, command, load if is_up else None)
        job = _new_job(session, found, command, payload, event_type)
        blocked = _why_blocked(found, load, is_up=is_up, is_paused=plugin in plugin_table.paused(conn))
        daemon = pidfd(session) if wait else None
        if wait and daemon is None:
            raise DuctileError("ductiled is not running, and --wait needs it; nothing was queued",
                               exit_code=EXIT_UNAVAILABLE)
        try:
            if blocked is not None:
                session.err.write(f"{blocked}\n")
            with transaction(conn):
                job_id = submit.submit(conn, job, dedupe_ttl=known.config.service.dedupe_ttl, now=session.now()).job_id
            runs = wake(session)
            if daemon is not None and blocked is None:
                return _wait(session, conn, job_id, daemon)
        finally:
            if daemon is not None:
                os.close(daemon)
    if not runs:
        session.err.write("ductiled is not running; the job waits until it does\n")
    session.emit({"job_id": job_id, "plugin": plugin, "command": command, "status": Status.QUEUED}, f"{job_id}\n")
    # A blocked job is not waited for: nobody knows how long that takes.
    return EXIT_FAILED if wait else EXIT_OK


def _new_job(session: Session, plugin: ConfiguredPlugin, command: str, payload: str | None,
             event_type: str | None) -> NewJob:
    event = None
    if payload is not None or event_type is not None:
        event = new_event(session, event_type or DEFAULT_TYPE, payload, source=CLI_SOURCE, option="--type")
    return submit.command_job(plugin, command, Submitter.CLI, new_id=session.new_id, event=event)


def _why_blocked(plugin: ConfiguredPlugin, load: PluginLoad | None, *, is_up: bool, is_paused: bool) -> str | None:
    """Return why the job will not run yet; None if it will in its turn."""
    name = plugin.settings.name
    if is_paused:
        return f"plugin {name} is paused; the job waits until `ductilectl resume {name}`"
    if load is None:
        return f"ductiled has not loaded a configuration with plugin {name} yet; the job waits until it does"
    if is_up and load.reason is None:
        return None
    if plugin.plugin is None:
        return f"plugin {name} is not loaded; the job waits until it is: {plugin.reason}"
    return f"ductiled has not loaded plugin {name} yet; the job waits until `ductilectl reload`" if is_up else None


def _require_command(plugin: ConfiguredPlugin, command: str, load: PluginLoad | None) -> None:
    """Refuse a command that the plugin lacks.

    `load` is what the running daemon has loaded; None if no daemon runs: the next one reads the files at its start, and
    so they decide.
    """
    name, in_files = plugin.settings.name, plugin.commands
    known = in_files if load is None or load.commands is None else load.commands
    if known is not None and command not in known:
        if command in (in_files or ()):
            raise DuctileError(f"ductiled has not loaded the command {quoted(command)} of plugin {name} yet;"
                               " run `ductilectl reload` first", exit_code=EXIT_CONFIG)
        hint = nearest(command, known) or f" (it has {', '.join(known)})"
        raise DuctileError(f"plugin {name} has no command {quoted(command)}{hint}", exit_code=EXIT_NOT_FOUND)


def _wait(session: Session, conn: sqlite3.Connection, job_id: str, daemon: int) -> int:
    """Show each attempt as it ends, until the job does. Raises DuctileError (69) if the daemon ends first."""
    if not session.as_json:
        session.out.write(f"{job_id}\n")
        session.out.flush()
    rows: list[dict[str, Any]] = []
    runs, retry = True, None
    while True:
        job = find(conn, job_id)
        for attempt in attempt_table.of_job(conn, job_id)[len(rows):]:
            rows.append(attempts.row(attempt))
            if not session.as_json:
                session.out.write(attempts.text(rows[-1], page=session.page))
                session.out.flush()
        if job.status.is_last:
            return _outcome(session, job, rows)
        if job.next_retry_at not in (None, retry) and not session.as_json:
            retry = job.next_retry_at
            session.out.write(f"next: attempt {job.attempt} of {job.max_attempts} at"
                              f" {session.page.clock(utc_text(retry), seconds=True)}\n")
            session.out.flush()
        if not runs:
            raise DuctileError(f"ductiled ended while job {job_id} was {job.status}; it resumes at the next start",
                               exit_code=EXIT_UNAVAILABLE)
        runs = is_running_after(daemon, _LOOK_SECONDS)


def _outcome(session: Session, job: Job, rows: list[dict[str, Any]]) -> int:
    session.emit({"job_id": job.id, "plugin": job.plugin, "command": job.command, "status": job.status,
                  "last_error": job.last_error, "attempts": rows},
                 f"{job.status}: {table.cell(job.last_error)}\n" if job.last_error else f"{job.status}\n")
    return EXIT_OK if job.status is Status.SUCCEEDED else EXIT_FAILED
