"""`ductilectl plugins`, `pause`, `resume` and `reset`: the plugins found, and whether one runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from ductile import submit
from ductile.ctl import table
from ductile.ctl.daemon_link import wake
from ductile.ctl.lookup import quoted
from ductile.ctl.on_disk import configured, runtime
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.errors import EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.pipeline import version_table
from ductile.plugin import plugin_table
from ductile.plugin.discovery import ConfiguredPlugin, Found
from ductile.protocol import BREAKER_CLOSED, INIT
from ductile.queue import job_table
from ductile.queue.job import NewJob, Submitter
from ductile.runtime_config import RuntimeConfig
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import CLOSED, transition_event
from ductile.text import counted
from ductile.validation import nearest


def plugins(session: Session) -> int:
    """Show every plugin found on disk and every one configured, and why one was not loaded."""
    rows = list(_rows(runtime(session)))
    header = ("plugin", "version", "protocol", "commands", "configured as", "enabled", "not loaded")
    session.emit(rows, table.lines(header, [
        (row["plugin"], row["version"], row["protocol"], " ".join(row["commands"]), row["configured_as"],
         _WORDS[row["enabled"]], row["not_loaded"]) for row in rows
    ], page=session.page, whole="not loaded") if rows else "no plugin was found in plugins_dir\n")
    return EXIT_OK


_WORDS = {True: "yes", False: "no", None: None}


def _rows(known: RuntimeConfig) -> Iterator[dict[str, Any]]:
    """Yield a row for each use of each plugin found, then one for each plugin configured that was not found."""
    uses: dict[str, list[ConfiguredPlugin]] = {}
    for plugin in known.plugins.values():
        uses.setdefault(plugin.settings.uses, []).append(plugin)
    for found in known.registry.found:
        # A name belongs to the directory that was found first; nothing uses the later ones.
        for user in uses.pop(found.name, [None]):
            yield _row(found.name, found, user)
    for name, users in uses.items():
        for user in users:
            yield _row(name, None, user)


def _row(name: str, found: Found | None, user: ConfiguredPlugin | None) -> dict[str, Any]:
    manifest = found.plugin.manifest if found is not None and found.plugin is not None else None
    return {
        "plugin": name, "version": manifest and manifest.version, "protocol": manifest and manifest.protocol,
        "commands": list(manifest.commands) if manifest else [],
        "command_details": [{"name": each.name, "type": each.type, "description": each.description}
                            for each in manifest.commands.values()] if manifest else [],
        "description": manifest and manifest.description,
        "configured_as": user and user.settings.name, "enabled": user.settings.enabled if user is not None else None,
        "not_loaded": user.reason if user is not None else found and found.reason,
        "directory": None if found is None else str(found.directory),
    }


def pause(session: Session, *, plugin: str) -> int:
    """Have the jobs of a plugin wait until it is resumed. Raises DuctileError (66) for one that is not configured."""
    with session.changing() as conn:
        _require_known(session, conn, plugin)
        with transaction(conn):
            was_paused = plugin in plugin_table.paused(conn)
            plugin_table.pause(conn, plugin, session.now())
            since = plugin_table.paused(conn)[plugin]
        wake(session)
    session.emit({"plugin": plugin, "paused": True, "since": since},
                 f"plugin {plugin} was paused already, since {session.page.clock(since)}\n" if was_paused else
                 f"plugin {plugin} is paused; its jobs wait until `ductilectl resume {plugin}`\n")
    return EXIT_OK


def resume(session: Session, *, plugin: str) -> int:
    """Have the jobs of a paused plugin run again. Raises DuctileError (66) for one that is not configured."""
    with session.changing() as conn:
        _require_known(session, conn, plugin)
        with transaction(conn):
            was_paused = plugin_table.resume(conn, plugin)
        wake(session)
    session.emit({"plugin": plugin, "paused": False, "since": None},
                 f"plugin {plugin} is resumed\n" if was_paused else f"plugin {plugin} was not paused\n")
    return EXIT_OK


def _require_known(session: Session, conn: sqlite3.Connection, name: str) -> None:
    """Refuse a plugin that is neither configured nor loaded: the file may be broken while the daemon runs."""
    known = {*session.plugins, *(load.plugin for load in plugin_table.loads(conn))}
    if name not in known:
        raise DuctileError(f"no plugin {quoted(name)} is configured{nearest(name, known)}", exit_code=EXIT_NOT_FOUND)


def reset(session: Session, *, plugin: str) -> int:
    """Close the circuit breakers of a plugin, clear its failures, and run its `init` again unless it has succeeded.

    Raises DuctileError (66) for a plugin that is not configured.
    """
    known = runtime(session)
    with session.changing() as conn:
        found = configured(known, plugin)
        with transaction(conn):
            _publish_closed(session, conn, known, plugin)
            count = schedule_table.clear_breakers(conn, plugin)
            job = _init_job(conn, found, session)
            if job is not None:
                job_table.add(conn, [job], session.now())
        later = "" if wake(session) else ", to run when ductiled does"
    text = f"plugin {plugin}: {counted(count, 'breaker')} cleared\n"
    if job is not None:
        text += f"plugin {plugin}: init is queued as job {job.id}{later}\n"
    session.emit({"plugin": plugin, "breakers_cleared": count, "init_job_id": job and job.id}, text)
    return EXIT_OK


def _publish_closed(session: Session, conn: sqlite3.Connection, known: RuntimeConfig, plugin: str) -> None:
    """Route the event of each circuit breaker that is about to close."""
    now = session.now()
    for (owner, command), breaker in schedule_table.breakers(conn).items():
        if owner == plugin and transition_event(breaker, CLOSED) is not None:
            payload = {"plugin": plugin, "command": command, "failures": CLOSED.failure_count, "job_id": None,
                       "error": None}
            submit.submit_core_event(conn, known, BREAKER_CLOSED, payload, new_id=session.new_id, now=now)
            version_table.add(conn, known.router.pipelines.values(), now)


def _init_job(conn: sqlite3.Connection, plugin: ConfiguredPlugin, session: Session) -> NewJob | None:
    """Return a new job of `init`; None if the daemon does not need one, or has one."""
    name = plugin.settings.name
    load = next((load for load in plugin_table.loads(conn) if load.plugin == name), None)
    if load is None or load.needs_init is None or not load.enabled or not plugin.settings.enabled:
        return None
    if (name, load.needs_init) in plugin_table.initialised(conn) or job_table.has_open(conn, name, INIT):
        return None
    return submit.command_job(plugin, INIT, Submitter.INIT, new_id=session.new_id)
