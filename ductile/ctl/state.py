"""`ductilectl state`: what a plugin remembers, shown or changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from io import TextIOBase
from pathlib import Path
from typing import Any, BinaryIO

from ductile.check import kind_of, nearest
from ductile.ctl import table
from ductile.ctl.configured import shown
from ductile.ctl.document import document
from ductile.db import transaction
from ductile.errors import EXIT_DATA, EXIT_IO, EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.state import rows as state_rows
from ductile.state.merge import check_size
from ductile.strictjson import JSONRefused, decode

_STDIN = "-"


def show(conn: sqlite3.Connection, *, plugin: str, known: Mapping[str, object], out: TextIOBase) -> int:
    """Show what a plugin remembers as one JSON object. Raises DuctileError (66) for a plugin nobody knows."""
    _require(conn, plugin, known)
    out.write(document(state_rows.get(conn, plugin)))
    return EXIT_OK


def put(conn: sqlite3.Connection, *, plugin: str, state: Mapping[str, Any], known: Mapping[str, object], now: datetime,
        out: TextIOBase) -> int:
    """Put an object in the place of what a plugin remembers. Raises DuctileError (66) for a plugin nobody knows."""
    with transaction(conn):
        _require(conn, plugin, known)
        state_rows.put(conn, plugin, state, now)
    out.write(f"state of plugin {plugin} is set\n")
    return EXIT_OK


def clear(conn: sqlite3.Connection, *, plugin: str, known: Mapping[str, object], out: TextIOBase) -> int:
    """Forget what a plugin remembers. Raises DuctileError (66) for a plugin nobody knows."""
    with transaction(conn):
        _require(conn, plugin, known)
        had_any = state_rows.clear(conn, plugin)
    out.write(f"state of plugin {plugin} is cleared\n" if had_any else f"plugin {plugin} had no state\n")
    return EXIT_OK


def read(name: str, stdin: BinaryIO) -> dict[str, Any]:
    """Return the object in a file, or on standard input where `name` is `-`.

    Raises DuctileError: 74 where it cannot be read, 65 where it is not one strict JSON object or over 1 MiB.
    """
    place = "standard input" if name == _STDIN else name
    try:
        content = stdin.read() if name == _STDIN else Path(name).read_bytes()
    except OSError as error:
        raise DuctileError(f"{place}: cannot be read: {error.strerror}", exit_code=EXIT_IO) from error
    try:
        state = decode(content)
    except JSONRefused as error:
        raise DuctileError(f"{place}: not strict JSON: {error}", exit_code=EXIT_DATA) from error
    if not isinstance(state, dict):
        raise DuctileError(f"{place}: expected one JSON object, got {table.cell(kind_of(state))}", exit_code=EXIT_DATA)
    fault = check_size(state)
    if fault is not None:
        raise DuctileError(f"{place}: {fault}", exit_code=EXIT_DATA)
    return state


def _require(conn: sqlite3.Connection, plugin: str, known: Mapping[str, object]) -> None:
    stored = state_rows.sizes(conn)
    if plugin not in known and plugin not in stored:
        hint = nearest(plugin, {*known, *stored})
        raise DuctileError(f"no plugin {shown(plugin)} is configured or has state{hint}", exit_code=EXIT_NOT_FOUND)
