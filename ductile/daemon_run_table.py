"""The `daemon_run` table: one row about the latest run of the daemon, by which `ductilectl wait` sees that it is ready."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from ductile.units import utc_text


def start(conn: sqlite3.Connection, *, pid: int, version: str, now: datetime) -> None:
    """Record that a daemon is starting, in place of the run before."""
    conn.execute("INSERT OR REPLACE INTO daemon_run (id, pid, version, started_at, ready_at) VALUES (1, ?, ?, ?, NULL)",
                 (pid, version, utc_text(now)))


def ready(conn: sqlite3.Connection, now: datetime) -> None:
    """Record that the daemon is ready."""
    conn.execute("UPDATE daemon_run SET ready_at = ?", (utc_text(now),))


def latest(conn: sqlite3.Connection) -> dict | None:
    """Return the row by the names of its columns; None before the first run."""
    row = conn.execute("SELECT pid, version, started_at, ready_at FROM daemon_run").fetchone()
    return row and dict(zip(("pid", "version", "started_at", "ready_at"), row))
