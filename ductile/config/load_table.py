"""The `config_loads` table: each load of the configuration, and its errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ductile.units import utc_text

_KEPT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigLoad:
    """One row: a loaded configuration with its changes, or a rejected one with its errors."""

    loaded_at: str
    digest: str
    ok: bool
    errors: tuple[str, ...]
    changes: tuple[str, ...]


def add(conn: sqlite3.Connection, *, digest: str, errors: Sequence[str], now: datetime, changes: Sequence[str] = (),
        listen: str | None = None) -> None:
    """Record one load and keep the last hundred. `errors` say why it was rejected, `changes` what it changed."""
    conn.execute(
        "INSERT INTO config_loads (loaded_at, hash, ok, errors, changes, listen) VALUES (?, ?, ?, ?, ?, ?)",
        (utc_text(now), digest, not errors, "\n".join(errors) or None, "\n".join(changes) or None, listen),
    )
    conn.execute("DELETE FROM config_loads WHERE id <= (SELECT max(id) FROM config_loads) - ?", (_KEPT,))


def last_id(conn: sqlite3.Connection) -> int:
    """Return the number of the last row, or 0."""
    return int(conn.execute("SELECT coalesce(max(id), 0) FROM config_loads").fetchone()[0])


def after(conn: sqlite3.Connection, row_id: int) -> ConfigLoad | None:
    """Return the first load after this row, or None."""
    row = conn.execute(
        "SELECT loaded_at, hash, ok, errors, changes FROM config_loads WHERE id > ? ORDER BY id LIMIT 1", (row_id,)
    ).fetchone()
    if row is None:
        return None
    loaded_at, digest, ok, errors, changes = row
    return ConfigLoad(loaded_at=loaded_at, digest=digest, ok=bool(ok), errors=tuple((errors or "").splitlines()),
                changes=tuple((changes or "").splitlines()))


def digest_in_force(conn: sqlite3.Connection) -> str | None:
    """Return the digest of the configuration in force, or of the last one; None if the daemon has never run."""
    row = conn.execute("SELECT hash FROM config_loads WHERE ok = 1 ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else str(row[0])
