"""The runtime configuration as commands need it, and the names in it that an operator types or completes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ductile import runtime_config
from ductile.ctl import queries
from ductile.ctl.queries import JobFilter
from ductile.ctl.session import Session
from ductile.errors import EXIT_CONFIG, EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.queue import job_table
from ductile.runtime_config import LoadResult, RuntimeConfig
from ductile.text import one_line
from ductile.validation import nearest


def load(session: Session, *, keep_unset: bool = True) -> LoadResult:
    """Read configuration, plugins and pipelines. Raises DuctileError (78) with every problem.

    `keep_unset` leaves unset variables as `${NAME}`; otherwise they are problems.
    """
    loaded = runtime_config.read(session.config_path, session.environ, keep_unset=keep_unset)
    if loaded.problems:
        raise DuctileError(*loaded.problems, exit_code=EXIT_CONFIG)
    return loaded


def runtime(session: Session) -> RuntimeConfig:
    """Return the runtime configuration that is on disk. Raises as `load` does."""
    return load(session).runtime


def configured(known: RuntimeConfig, name: str) -> ConfiguredPlugin:
    """Return a plugin of the configuration. Raises DuctileError (66), naming the nearest."""
    plugin = known.plugins.get(name)
    if plugin is None:
        hint = nearest(name, known.plugins)
        raise DuctileError(f"no plugin {quoted(name)} is configured{hint}", exit_code=EXIT_NOT_FOUND)
    return plugin


def enabled(known: RuntimeConfig, name: str) -> ConfiguredPlugin:
    """Return a plugin that may have queued jobs. Raises DuctileError (66) for any other."""
    plugin = configured(known, name)
    if not plugin.settings.enabled:
        raise DuctileError(f"plugin {name} is disabled; set plugins.{name}.enabled to true", exit_code=EXIT_NOT_FOUND)
    return plugin


def require_configured(session: Session, name: str) -> None:
    """Refuse a plugin that is not configured. Needs no plugin's files. Raises DuctileError (66)."""
    if name not in session.config.plugins:
        hint = nearest(name, session.config.plugins)
        raise DuctileError(f"no plugin {quoted(name)} is configured{hint}", exit_code=EXIT_NOT_FOUND)


def require_plugin(session: Session, conn: sqlite3.Connection, name: str) -> None:
    """Refuse a plugin that is neither configured nor in the database. Raises DuctileError (66)."""
    if not is_known(session, conn, name):
        hint = nearest(name, {*session.plugins, *queries.logged_plugins(conn)})
        raise DuctileError(f"no plugin {quoted(name)} is configured or in the log{hint}", exit_code=EXIT_NOT_FOUND)


def is_known(session: Session, conn: sqlite3.Connection, name: str) -> bool:
    """Return whether a plugin is configured, has jobs or is in the log."""
    return (name in session.plugins or bool(queries.jobs(conn, JobFilter(plugin=name), 1))
            or name in queries.logged_plugins(conn))


def quoted(text: str) -> str:
    """Return what the operator has typed, for a message."""
    return f"'{one_line(text, 80)}'"


JOBS = {"jobs": None, "dead": ("dead",), "queued": ("queued",), "ended": ("succeeded", "dead", "deduped")}
_RECENT = 100
# A prefix of this length is specific enough to search all jobs for it.
_SHORTEST_PREFIX = 4


def complete(session: Session, *, kind: str, prefix: str) -> int:
    """Show what completes `prefix`, one a line; `kind` is `plugins`, `pipelines` or a key of `JOBS`."""
    if kind == "plugins":
        found = _names(session.config.plugins, prefix)
    elif kind == "pipelines":
        found = _names(runtime(session).router.pipelines, prefix)
    else:
        found = _job_ids(session, kind, prefix.lower())
    session.out.write("".join(f"{name}\n" for name in found))
    return EXIT_OK


def _names(known: Iterable[str], prefix: str) -> list[str]:
    return [name for name in sorted(known) if name.startswith(prefix)]


def _job_ids(session: Session, kind: str, prefix: str) -> list[str]:
    """Return the ids of recent jobs, and with a longer prefix those of any job."""
    with session.database() as conn:
        if conn is None:
            return []
        recent = (*queries.open_jobs(conn, _RECENT), *queries.ended_jobs(conn, _RECENT))
        found = {row["job_id"]: row["status"] for row in recent if row["job_id"].startswith(prefix)}
        if len(prefix) >= _SHORTEST_PREFIX:
            found |= {job.id: job.status for job in job_table.with_prefix(conn, prefix, _RECENT)}
    wanted = JOBS[kind]
    return [job_id for job_id, status in found.items() if wanted is None or status in wanted]
