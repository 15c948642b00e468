"""The `event_context` table: the baggage of chains, one row for each routed job."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from ductile.routing.baggage import Context, NewContext
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
    """Return one row. Raises LookupError if there is none."""
    row = conn.execute("SELECT hop, accumulated_json FROM event_context WHERE id = ?", (context_id,)).fetchone()
    if row is None:
        raise LookupError(f"no event context {context_id}")
    return Context(id=context_id, hop=row[0], accumulated=json.loads(row[1]))


def with_parents(conn: sqlite3.Connection,
                 ids: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any] | None]]:
    """Yield the id of each row, its baggage, and the baggage of its parent row, None for the first of a chain.

    They come one at a time because each may be large.
    """
    rows = conn.execute(
        "SELECT c.id, c.accumulated_json, p.accumulated_json FROM event_context c"
        " LEFT JOIN event_context p ON p.id = c.parent_id WHERE c.id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),))
    for row_id, accumulated, parent in rows:
        yield row_id, json.loads(accumulated), None if parent is None else json.loads(parent)


def remove(conn: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Delete rows by id. Rows that refer to each other must be deleted in one call."""
    conn.execute("DELETE FROM event_context WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),))
