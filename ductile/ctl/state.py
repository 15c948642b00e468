"""`ductilectl state`: what a plugin remembers, shown or changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from io import TextIOBase
from typing import Any, BinaryIO

from ductile.ctl.inputs import as_object, place, read_json
from ductile.ctl.lookup import shown
from ductile.ctl.output import document
from ductile.db import transaction
from ductile.errors import EXIT_DATA, EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.state import state_table
from ductile.state.merge import check_size, size_bytes
from ductile.validation import nearest


def show(conn: sqlite3.Connection, *, plugin: str, known: Mapping[str, object], out: TextIOBase) -> int:
    """Show what a plugin remembers as one JSON object. Raises DuctileError (66) for a plugin nobody knows."""
    _require(conn, plugin, known)
    out.write(document(state_table.get(conn, plugin)))
    return EXIT_OK


def put(conn: sqlite3.Connection, *, plugin: str, state: Mapping[str, Any], known: Mapping[str, object], now: datetime,
        as_json: bool, out: TextIOBase) -> int:
    """Put an object in the place of what a plugin remembers. Raises DuctileError (66) for a plugin nobody knows."""
    with transaction(conn):
        _require(conn, plugin, known)
        state_table.put(conn, plugin, state, now)
    out.write(document({"plugin": plugin, "state_bytes": size_bytes(state)}) if as_json
              else f"state of plugin {plugin} is set\n")
    return EXIT_OK


def clear(conn: sqlite3.Connection, *, plugin: str, known: Mapping[str, object], as_json: bool, out: TextIOBase) -> int:
    """Forget what a plugin remembers. Raises DuctileError (66) for a plugin nobody knows."""
    with transaction(conn):
        _require(conn, plugin, known)
        had_any = state_table.clear(conn, plugin)
    text = f"state of plugin {plugin} is cleared\n" if had_any else f"plugin {plugin} had no state\n"
    out.write(document({"plugin": plugin, "had_state": had_any}) if as_json else text)
    return EXIT_OK


def read(name: str, stdin: BinaryIO) -> Mapping[str, Any]:
    """Return the object in a file, or on standard input where `name` is `-`.

    Raises DuctileError: 77 or 74 where it cannot be read, 65 where it is not one strict JSON object or over 1 MiB.
    """
    state = as_object(read_json(name, stdin), place(name))
    fault = check_size(state)
    if fault is not None:
        raise DuctileError(f"{place(name)}: {fault}", exit_code=EXIT_DATA)
    return state


def _require(conn: sqlite3.Connection, plugin: str, known: Mapping[str, object]) -> None:
    stored = state_table.sizes(conn)
    if plugin not in known and plugin not in stored:
        hint = nearest(plugin, {*known, *stored})
        raise DuctileError(f"no plugin {shown(plugin)} is configured or has state{hint}", exit_code=EXIT_NOT_FOUND)
