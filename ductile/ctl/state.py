"""`ductilectl state`: show or change a plugin's state."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, BinaryIO

from ductile.ctl.inputs import as_object, label, read_json
from ductile.ctl.lookup import quoted
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.errors import EXIT_DATA, EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.state import state_table
from ductile.state.merge import check_size, size_bytes
from ductile.validation import nearest


def state(session: Session, *, plugin: str, file: str | None, clear: bool) -> int:
    """Show the state of a plugin as one JSON object, replace it with that in `file`, or remove it.

    Raises DuctileError: 66 for a plugin that is neither configured nor has a state, and as `read_state` does.
    """
    known = session.config.plugins
    if file is not None:
        return _put(session, plugin, known, read_state(file, session.stdin))
    if clear:
        return _clear(session, plugin, known)
    with session.reading() as conn:
        _require(conn, plugin, known)
        found = state_table.get(conn, plugin)
    session.show(found)
    return EXIT_OK


def _put(session: Session, plugin: str, known: Collection[str], state: Mapping[str, Any]) -> int:
    with session.changing() as conn, transaction(conn):
        _require(conn, plugin, known)
        state_table.put(conn, plugin, state, session.now())
    session.emit({"plugin": plugin, "state_bytes": size_bytes(state)}, f"state of plugin {plugin} is set\n")
    return EXIT_OK


def _clear(session: Session, plugin: str, known: Collection[str]) -> int:
    with session.changing() as conn, transaction(conn):
        _require(conn, plugin, known)
        had_any = state_table.clear(conn, plugin)
    session.emit({"plugin": plugin, "had_state": had_any},
                 f"state of plugin {plugin} is cleared\n" if had_any else f"plugin {plugin} had no state\n")
    return EXIT_OK


def read_state(name: str, stdin: BinaryIO) -> Mapping[str, Any]:
    """Return the object in a file, or on standard input if `name` is `-`.

    Raises DuctileError as `read_json` does, 65 if it is not an object or larger than a state may be.
    """
    found = as_object(read_json(name, stdin), label(name))
    fault = check_size(found)
    if fault is not None:
        raise DuctileError(f"{label(name)}: {fault}", exit_code=EXIT_DATA)
    return found


def _require(conn: sqlite3.Connection, plugin: str, known: Collection[str]) -> None:
    stored = state_table.sizes(conn)
    if plugin not in known and plugin not in stored:
        hint = nearest(plugin, {*known, *stored})
        raise DuctileError(f"no plugin {quoted(plugin)} is configured or has state{hint}", exit_code=EXIT_NOT_FOUND)
