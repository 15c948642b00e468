"""The `config_loads` table: each configuration that the daemon was given, and what was wrong with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from ductile.units import utc_text

_KEPT = 100


def add(conn: sqlite3.Connection, *, digest: str, errors: Sequence[str], now: datetime) -> None:
    """Record one load; only the last hundred are kept."""
    conn.execute(
        "INSERT INTO config_loads (loaded_at, hash, ok, errors) VALUES (?, ?, ?, ?)",
        (utc_text(now), digest, not errors, "\n".join(errors) or None),
    )
    conn.execute("DELETE FROM config_loads WHERE id <= (SELECT max(id) FROM config_loads) - ?", (_KEPT,))


def last(conn: sqlite3.Connection) -> tuple[str, bool, str | None] | None:
    """Return when the last load was, whether it was taken, and its errors."""
    row = conn.execute("SELECT loaded_at, ok, errors FROM config_loads ORDER BY id DESC LIMIT 1").fetchone()
    return row and (row[0], bool(row[1]), row[2])
