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
    """Return what a plugin remembers; an empty object where it has nothing yet."""
    row = conn.execute("SELECT state FROM plugin_state WHERE plugin_name = ?", (plugin,)).fetchone()
    return {} if row is None else json.loads(row[0])


def put(conn: sqlite3.Connection, plugin: str, state: Mapping[str, Any], now: datetime) -> None:
    """Store the whole state of a plugin."""
    conn.execute(
        "INSERT INTO plugin_state (plugin_name, state, updated_at) VALUES (?, ?, ?)"
        " ON CONFLICT (plugin_name) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at",
        (plugin, encode(state), utc_text(now)),
    )


def clear(conn: sqlite3.Connection, plugin: str) -> bool:
    """Forget the state of a plugin. Return whether there was any."""
    return conn.execute("DELETE FROM plugin_state WHERE plugin_name = ?", (plugin,)).rowcount == 1


def sizes(conn: sqlite3.Connection) -> dict[str, int]:
    """Return the bytes of each plugin's state."""
    return dict(conn.execute("SELECT plugin_name, length(CAST(state AS BLOB)) FROM plugin_state"))
