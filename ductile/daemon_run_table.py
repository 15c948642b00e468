"""The `daemon_run` table: one row about the latest run of the daemon, which `ductilectl wait` reads."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any

from ductile.units import utc_text


def start(conn: sqlite3.Connection, *, pid: int, version: str, now: datetime) -> None:
    """Record that a daemon is starting. This replaces the previous run."""
    conn.execute("INSERT OR REPLACE INTO daemon_run (id, pid, version, started_at, ready_at) VALUES (1, ?, ?, ?, NULL)",
                 (pid, version, utc_text(now)))


def ready(conn: sqlite3.Connection, now: datetime) -> None:
    """Record that the daemon is ready."""
    conn.execute("UPDATE daemon_run SET ready_at = ?", (utc_text(now),))


def latest(conn: sqlite3.Connection) -> dict[str, Any] | None:
    """Return the row by column name, None before the first run."""
    row = conn.execute("SELECT pid, version, started_at, ready_at FROM daemon_run").fetchone()
    return None if row is None else dict(zip(("pid", "version", "started_at", "ready_at"), row, strict=True))
