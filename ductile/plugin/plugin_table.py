"""The `plugin_inits`, `plugin_loads` and `paused_plugins` tables: which plugins are ready, and why others are not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ductile.units import utc_text


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginLoad:
    """A configured plugin as the daemon last read it.

    `needs_init` is the fingerprint that `init` must succeed for, None for a plugin without that command. `reason` says
    why it is not loaded. `commands` are its manifest's, None if it is not loaded or an older daemon wrote the row.
    """

    plugin: str
    version: str | None
    enabled: bool
    needs_init: str | None
    reason: str | None
    commands: tuple[str, ...] | None = None


def replace_loads(conn: sqlite3.Connection, loads: Iterable[PluginLoad], now: datetime) -> None:
    """Replace all rows with the plugins that the daemon has just read. Others are no longer paused."""
    conn.execute("DELETE FROM plugin_loads")
    conn.executemany(
        "INSERT INTO plugin_loads (plugin, version, enabled, needs_init, reason, commands, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(load.plugin, load.version, load.enabled, load.needs_init, load.reason,
          None if load.commands is None else json.dumps(load.commands), utc_text(now)) for load in loads],
    )
    conn.execute("DELETE FROM paused_plugins WHERE plugin NOT IN (SELECT plugin FROM plugin_loads)")


def pause(conn: sqlite3.Connection, plugin: str, now: datetime) -> None:
    """Have the jobs of a plugin wait. One that is paused already stays so since then."""
    conn.execute("INSERT OR IGNORE INTO paused_plugins (plugin, since) VALUES (?, ?)", (plugin, utc_text(now)))


def resume(conn: sqlite3.Connection, plugin: str) -> bool:
    """Have the jobs of a plugin run again. Return whether it was paused."""
    return conn.execute("DELETE FROM paused_plugins WHERE plugin = ?", (plugin,)).rowcount > 0


def paused(conn: sqlite3.Connection) -> dict[str, str]:
    """Return the paused plugins, each with the time since when, as UTC text."""
    return dict(conn.execute("SELECT plugin, since FROM paused_plugins ORDER BY plugin"))


def loads(conn: sqlite3.Connection) -> list[PluginLoad]:
    """Return every configured plugin as the daemon last read it, by name."""
    rows = conn.execute(
        "SELECT plugin, version, enabled, needs_init, reason, commands FROM plugin_loads ORDER BY plugin")
    return [PluginLoad(plugin=row[0], version=row[1], enabled=bool(row[2]), needs_init=row[3], reason=row[4],
                 commands=row[5] and tuple(json.loads(row[5]))) for row in rows]


def put_reason(conn: sqlite3.Connection, plugin: str, reason: str | None) -> None:
    """Store why a plugin cannot run, None if it can again."""
    conn.execute("UPDATE plugin_loads SET reason = ? WHERE plugin = ?", (reason, plugin))


def put_init(conn: sqlite3.Connection, plugin: str, *, fingerprint: str, ok: bool, job_id: str, now: datetime) -> None:
    """Store the result of an `init`. A failure does not undo an earlier success with the same fingerprint."""
    conn.execute(
        "INSERT INTO plugin_inits (plugin, fingerprint, ok, job_id, updated_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (plugin) DO UPDATE SET fingerprint = excluded.fingerprint, ok = excluded.ok,"
        " job_id = excluded.job_id, updated_at = excluded.updated_at"
        " WHERE excluded.ok OR NOT (plugin_inits.ok AND plugin_inits.fingerprint = excluded.fingerprint)",
        (plugin, fingerprint, ok, job_id, utc_text(now)),
    )


def initialised(conn: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return the pairs of plugin and fingerprint whose `init` has succeeded."""
    return set(conn.execute("SELECT plugin, fingerprint FROM plugin_inits WHERE ok = 1"))
