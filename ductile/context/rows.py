"""The `event_context` table: what a chain of events has been told, one row for each routed job."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from datetime import datetime

from ductile.context.row import Context, NewContext
from ductile.strictjson import encode
from ductile.units import utc_text


def add(conn: sqlite3.Connection, context: NewContext, now: datetime) -> None:
    """Add one row."""
    conn.execute(
        "INSERT INTO event_context (id, parent_id, pipeline_name, step_id, hop, accumulated_json, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (context.id, context.parent_id, context.pipeline_name, context.step_id, context.hop,
         encode(context.accumulated), utc_text(now)),
    )


def get(conn: sqlite3.Connection, context_id: str) -> Context:
    """Return one row. Raises LookupError where there is none."""
    row = conn.execute("SELECT hop, accumulated_json FROM event_context WHERE id = ?", (context_id,)).fetchone()
    if row is None:
        raise LookupError(f"no event context {context_id}")
    return Context(id=context_id, hop=row[0], accumulated=json.loads(row[1]))


def remove(conn: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Delete rows by id; those that refer to each other go together."""
    conn.execute("DELETE FROM event_context WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),))
