"""The answer of `/healthz`: how the daemon is."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from ductile.plugin import plugin_table
from ductile.queue import job_table
from ductile.scheduler import schedule_table

# Waiting jobs are counted up to here: to count a million takes 50 ms.
_COUNT_LIMIT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the loop knows of itself. `reasons` say why the daemon is degraded; empty if it is not."""

    uptime_seconds: int
    reasons: tuple[str, ...]
    plugins_loaded: int


def document(health: Health, conn: sqlite3.Connection, max_queue_depth: int) -> dict[str, Any]:
    """Return the JSON object of `/healthz`."""
    reasons = list(health.reasons)
    depth: int | None = None
    breakers: int | None = None
    try:
        depth = job_table.count_waiting(conn, max(max_queue_depth + 1, _COUNT_LIMIT))
        breakers = schedule_table.count_open_breakers(conn)
        if depth > max_queue_depth:
            reasons.append(f"{depth} jobs are waiting, more than service.max_queue_depth ({max_queue_depth})")
        if depth >= max_queue_depth:
            # Webhooks are refused now, and that does not pass by itself.
            reasons += [f"plugin {name} is paused, and jobs of it are waiting" for name in plugin_table.paused(conn)
                        if job_table.next_ready(conn, [name], ()) is not None]
    except sqlite3.Error as error:
        reasons.append(f"the database cannot be read: {error}")
    return {
        "status": "degraded" if reasons else "ok", "reasons": reasons, "uptime_seconds": health.uptime_seconds,
        "queue_depth": depth, "plugins_loaded": health.plugins_loaded, "plugins_circuit_open": breakers,
    }
