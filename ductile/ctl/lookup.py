"""The runtime configuration as commands need it, and the names in it that an operator types or completes."""

from __future__ import annotations

import sqlite3

from ductile import runtime_config
from ductile.ctl import queries
from ductile.ctl.queries import JobFilter
from ductile.ctl.session import Session
from ductile.errors import EXIT_CONFIG, EXIT_NOT_FOUND, DuctileError
from ductile.plugin.discovery import ConfiguredPlugin
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
