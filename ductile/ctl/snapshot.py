"""What the database says of the daemon, the queue and the plugins at one moment, as plain rows.

It reads the tables of many rooms by itself: their modules make values of rows, and importing what those need
takes longer than all that `ductilectl status` may take.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ductile.units import utc_text

_RECENT = timedelta(hours=24)


def take(conn: sqlite3.Connection, now: datetime) -> dict:
    """Return everything that `status` shows and the database knows; times are UTC text.

    `plugins` are the configured ones as the daemon last read them, by name.
    """
    running = rows(conn, "SELECT id AS job_id, plugin, command, attempt, started_at FROM job_queue"
                         " WHERE status = 'running' ORDER BY seq")
    load = _first(conn, "SELECT loaded_at, ok, errors FROM config_loads ORDER BY id DESC LIMIT 1")
    return {
        "config_load": load and {**load, "ok": bool(load["ok"])},
        "listen": _listen(conn),
        "queue": _depth(conn, len(running)),
        "oldest_waiting": _oldest_waiting(conn),
        "ended_24h": _ended(conn, now - _RECENT),
        "running": running,
        "plugins": _plugins(conn),
    }


def _listen(conn: sqlite3.Connection) -> str | None:
    """Return where the daemon takes webhooks while it runs: what was refused has changed nothing."""
    row = conn.execute("SELECT listen FROM config_loads WHERE ok = 1 ORDER BY id DESC LIMIT 1").fetchone()
    return row and row[0]


def _depth(conn: sqlite3.Connection, running: int) -> dict:
    """Return how many jobs have not ended, by status."""
    count = conn.execute("SELECT count(*) FROM job_queue WHERE completed_at IS NULL").fetchone()[0]
    waiting = conn.execute(
        "SELECT count(*) FROM job_queue WHERE status = 'queued' AND next_retry_at IS NOT NULL").fetchone()[0]
    return {"queued": max(0, count - waiting - running), "waiting": waiting, "running": running}


def unfinished(conn: sqlite3.Connection) -> tuple[int, int]:
    """Return how many jobs are queued and how many are running, in a database of any version."""
    return conn.execute("SELECT count(*) FILTER (WHERE status = 'queued'), count(*) FILTER (WHERE status = 'running')"
                        " FROM job_queue WHERE status IN ('queued', 'running')").fetchone()


def _oldest_waiting(conn: sqlite3.Connection) -> str | None:
    """Return since when the queued job waits that was enqueued first."""
    # From plugin to plugin in the index, and of each the first: a plain min(seq) would read every waiting row.
    row = conn.execute(
        "WITH RECURSIVE p (name) AS (SELECT min(plugin) FROM job_queue WHERE completed_at IS NULL"
        " UNION ALL SELECT (SELECT min(plugin) FROM job_queue WHERE completed_at IS NULL AND plugin > name)"
        " FROM p WHERE name IS NOT NULL)"
        " SELECT created_at FROM job_queue WHERE seq = (SELECT min(seq) FROM"
        " (SELECT (SELECT q.seq FROM job_queue q INDEXED BY job_queue_ready WHERE q.plugin = name"
        "   AND q.status = 'queued' AND q.next_retry_at IS NULL ORDER BY q.seq LIMIT 1) AS seq"
        "  FROM p WHERE name IS NOT NULL"
        "  UNION ALL SELECT min(seq) FROM job_queue INDEXED BY job_queue_retry"
        "  WHERE status = 'queued' AND next_retry_at IS NOT NULL))"
    ).fetchone()
    return row and row[0]


def _ended(conn: sqlite3.Connection, since: datetime) -> dict:
    """Return how many jobs have ended since then, by how; a total would have to walk over every job there is."""
    return _first(
        conn, "SELECT count(*) FILTER (WHERE status = 'succeeded') AS succeeded,"
        " count(*) FILTER (WHERE status = 'dead') AS dead, count(*) FILTER (WHERE status = 'deduped') AS deduped"
        " FROM job_queue WHERE completed_at >= ?", utc_text(since))


def _plugins(conn: sqlite3.Connection) -> list[dict]:
    plugins = rows(conn, "SELECT plugin, version, enabled, reason, needs_init FROM plugin_loads ORDER BY plugin")
    initialised = set(conn.execute("SELECT plugin, fingerprint FROM plugin_inits WHERE ok = 1"))
    sizes = dict(conn.execute("SELECT plugin_name, length(CAST(state AS BLOB)) FROM plugin_state"))
    for row in plugins:
        name, needs = row["plugin"], row.pop("needs_init")
        row["enabled"] = bool(row["enabled"])
        row["healthy"] = needs is None or (name, needs) in initialised
        row["state_bytes"] = sizes.get(name, 0)
        row["last"] = _first(conn, "SELECT job_id, command, status, completed_at, last_error FROM job_log"
                                   " WHERE plugin = ? ORDER BY seq DESC LIMIT 1", name)
        row["breakers"] = rows(conn, "SELECT command, state, failure_count, opened_at FROM circuit_breakers"
                                     " WHERE plugin = ? ORDER BY command", name)
        row["schedules"] = rows(conn, "SELECT schedule_id, next_run_at, last_run_at, held_reason FROM schedule_entries"
                                      " WHERE plugin = ? ORDER BY schedule_id", name)
    return plugins


def rows(conn: sqlite3.Connection, sql: str, *parameters: object) -> list[dict]:
    """Return the rows of a query, each by the names of its columns."""
    cursor = conn.execute(sql, parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row)) for row in cursor]


def _first(conn: sqlite3.Connection, sql: str, *parameters: object) -> dict | None:
    return next(iter(rows(conn, sql, *parameters)), None)
