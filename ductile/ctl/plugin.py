"""`ductilectl plugins` and `reset`: what is there to run, and a fresh start for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from io import TextIOBase
from pathlib import Path

from ductile import submit
from ductile.ctl import table
from ductile.ctl.daemon_link import wake
from ductile.ctl.lookup import configured
from ductile.ctl.output import document
from ductile.ctl.table import Page
from ductile.db import transaction
from ductile.errors import EXIT_OK
from ductile.injected import NewId
from ductile.pipeline import version_table
from ductile.plugin import plugin_table
from ductile.plugin.discovery import ConfiguredPlugin, Found
from ductile.protocol import BREAKER_CLOSED, INIT, SOURCE
from ductile.queue import job_table
from ductile.queue.job import NewJob, Submitter
from ductile.runtime_config import RuntimeConfig
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import CLOSED, transition_event
from ductile.text import counted


def plugins(runtime: RuntimeConfig, *, as_json: bool, out: TextIOBase, page: Page = table.PLAIN) -> int:
    """Show every plugin found on disk and every one configured, and why one was not loaded."""
    rows = list(_rows(runtime))
    if as_json:
        out.write(document(rows))
        return EXIT_OK
    header = ("plugin", "version", "protocol", "commands", "configured as", "enabled", "not loaded")
    out.write(table.lines(header, [
        (row["plugin"], row["version"], row["protocol"], " ".join(row["commands"]), row["configured_as"],
         _WORDS[row["enabled"]], row["not_loaded"]) for row in rows
    ], page=page, whole="not loaded") if rows else "no plugin was found in plugins_dir\n")
    return EXIT_OK


_WORDS = {True: "yes", False: "no", None: None}


def _rows(runtime: RuntimeConfig) -> Iterator[dict]:
    """Yield a row for each use of each plugin found, then one for each plugin configured that was not found."""
    uses: dict[str, list[ConfiguredPlugin]] = {}
    for plugin in runtime.plugins.values():
        uses.setdefault(plugin.settings.uses, []).append(plugin)
    for found in runtime.registry.found:
        # A name belongs to what was found first: what comes later is used by nobody.
        users = uses.pop(found.name, [None])
        for user in users:
            yield _row(found.name, found, user)
    for name, users in uses.items():
        for user in users:
            yield _row(name, None, user)


def _row(name: str, found: Found | None, user: ConfiguredPlugin | None) -> dict:
    manifest = found.plugin.manifest if found is not None and found.plugin is not None else None
    return {
        "plugin": name, "version": manifest and manifest.version, "protocol": manifest and manifest.protocol,
        "commands": list(manifest.commands) if manifest else [],
        "description": manifest and manifest.description,
        "configured_as": user and user.settings.name, "enabled": user.settings.enabled if user is not None else None,
        "not_loaded": user.reason if user is not None else found.reason,
        "directory": None if found is None else str(found.directory),
    }


def reset(conn: sqlite3.Connection, *, plugin: str, runtime: RuntimeConfig, state_path: Path, now: datetime, new_id: NewId,
          as_json: bool, out: TextIOBase, err: TextIOBase) -> int:
    """Close the breakers of a plugin, forget its failures and try its `init` again where that has not succeeded.

    Raises DuctileError (66) for a plugin that is not configured.
    """
    known = configured(runtime, plugin)
    with transaction(conn):
        _tell(conn, runtime, plugin, now, new_id)
        count = schedule_table.clear_breakers(conn, plugin)
        job = _init_job(conn, known, new_id)
        if job is not None:
            job_table.add(conn, [job], now)
    runs = wake(state_path, err)
    row = {"plugin": plugin, "breakers_cleared": count, "init_job_id": job and job.id}
    text = f"plugin {plugin}: {counted(count, 'breaker')} cleared\n"
    if job is not None:
        later = "" if runs else ", to run when ductiled does"
        text += f"plugin {plugin}: init is queued as job {job.id}{later}\n"
    out.write(document(row) if as_json else text)
    return EXIT_OK


def _tell(conn: sqlite3.Connection, runtime: RuntimeConfig, plugin: str, now: datetime, new_id: NewId) -> None:
    """Hand each breaker that is about to close to the pipelines that take such an event."""
    for (owner, command), breaker in schedule_table.breakers(conn).items():
        if owner == plugin and transition_event(breaker, CLOSED) is not None:
            payload = {"plugin": plugin, "command": command, "failures": CLOSED.failure_count, "job_id": None,
                       "error": None}
            event = submit.new_event(BREAKER_CLOSED, payload, SOURCE, new_id=new_id, now=now)
            for each in submit.jobs_for_event(runtime, event, None, Submitter.CLI, new_id=new_id):
                submit.submit(conn, each.job, context=each.context, dedupe_ttl=runtime.config.service.dedupe_ttl, now=now)
            version_table.add(conn, runtime.router.pipelines.values(), now)


def _init_job(conn: sqlite3.Connection, plugin: ConfiguredPlugin, new_id: NewId) -> NewJob | None:
    """Return a new job of `init`, where the daemon needs it to have succeeded and none waits or runs."""
    name = plugin.settings.name
    load = next((load for load in plugin_table.loads(conn) if load.plugin == name), None)
    if load is None or load.needs_init is None or not load.enabled or not plugin.settings.enabled:
        return None
    if (name, load.needs_init) in plugin_table.initialised(conn) or job_table.has_open(conn, name, INIT):
        return None
    return submit.command_job(plugin, INIT, Submitter.INIT, new_id=new_id)
