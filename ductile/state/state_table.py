"""The `plugin_state` table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ductile.strictjson import encode
from ductile.units import utc_text


def get(conn: sqlite3.Connection, plugin: str) -> dict[str, Any]:
    """Return the state of a plugin, empty if it has none."""
    row = conn.execute("SELECT state FROM plugin_state WHERE plugin_name = ?", (plugin,)).fetchone()
    return {} if row is None else json.loads(row[0])


def put(conn: sqlite3.Connection, plugin: str, state: Mapping[str, Any], now: datetime) -> None:
    """Replace the state of a plugin."""
    conn.execute(
        "INSERT INTO plugin_state (plugin_name, state, updated_at) VALUES (?, ?, ?)"
        " ON CONFLICT (plugin_name) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at",
        (plugin, encode(state), utc_text(now)),
    )


def clear(conn: sqlite3.Connection, plugin: str) -> bool:
    """Delete the state of a plugin. Return whether it had any."""
    return conn.execute("DELETE FROM plugin_state WHERE plugin_name = ?", (plugin,)).rowcount == 1


def sizes(conn: sqlite3.Connection) -> dict[str, int]:
    """Return the size of each plugin's state in bytes."""
    return dict(conn.execute("SELECT plugin_name, length(CAST(state AS BLOB)) FROM plugin_state"))
