"""The configuration as the operator's commands need it, and the plugins in it by name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from io import TextIOBase
from pathlib import Path

from ductile import runtime_config
from ductile.ctl import queries
from ductile.errors import EXIT_CONFIG, EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.queue import job_table
from ductile.runtime_config import LoadResult, RuntimeConfig
from ductile.text import one_line
from ductile.validation import nearest


def read(path: Path, environ: Mapping[str, str], *, keep_unset: bool = True) -> LoadResult:
    """Read configuration and plugins. Raises DuctileError (78) with every problem."""
    reading = runtime_config.read(path, environ, keep_unset=keep_unset)
    if reading.problems:
        raise DuctileError(*reading.problems, exit_code=EXIT_CONFIG)
    return reading


def configured(known: RuntimeConfig, name: str) -> ConfiguredPlugin:
    """Return a plugin of the configuration. Raises DuctileError (66), naming the nearest."""
    plugin = known.plugins.get(name)
    if plugin is None:
        hint = nearest(name, known.plugins)
        raise DuctileError(f"no plugin {shown(name)} is configured{hint}", exit_code=EXIT_NOT_FOUND)
    return plugin


def enabled(known: RuntimeConfig, name: str) -> ConfiguredPlugin:
    """Return a plugin whose jobs may wait. Raises DuctileError (66) for any other."""
    plugin = configured(known, name)
    if not plugin.settings.enabled:
        raise DuctileError(f"plugin {name} is disabled; set plugins.{name}.enabled to true", exit_code=EXIT_NOT_FOUND)
    return plugin


def shown(text: str) -> str:
    """Return what the operator has typed, for a message."""
    return f"'{one_line(text, 80)}'"


JOBS = {"jobs": None, "dead": ("dead",), "queued": ("queued",), "ended": ("succeeded", "dead", "deduped")}
_RECENT = 100
# So much of an id is enough to look for it among all jobs.
_SHORTEST_PREFIX = 4


def names(known: Iterable[str], *, prefix: str, out: TextIOBase) -> int:
    """Show the names that begin with `prefix`, one a line."""
    out.write("".join(f"{name}\n" for name in sorted(known) if name.startswith(prefix)))
    return EXIT_OK


def jobs(conn: sqlite3.Connection, *, kind: str, prefix: str, out: TextIOBase) -> int:
    """Show the ids of jobs that begin with `prefix`: the latest, and of those that are longer ago what is named more
    closely. `kind` is a key of `JOBS`.
    """
    prefix = prefix.lower()
    recent = (*queries.open_jobs(conn, _RECENT), *queries.ended_jobs(conn, _RECENT))
    found = {row["job_id"]: row["status"] for row in recent if row["job_id"].startswith(prefix)}
    if len(prefix) >= _SHORTEST_PREFIX:
        found |= {job.id: job.status for job in job_table.with_prefix(conn, prefix, _RECENT)}
    wanted = JOBS[kind]
    out.write("".join(f"{job_id}\n" for job_id, status in found.items() if wanted is None or status in wanted))
    return EXIT_OK
