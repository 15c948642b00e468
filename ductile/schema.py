"""The schema of the database: the statements of each version, and what a database lacks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

VERSION = 4

_HERE = Path(__file__).parent


def statements(number: int) -> Iterator[str]:
    """Yield the statements that migrate to a version from the previous one.

    One by one, because `executescript` would commit the transaction.
    """
    statement = ""
    for line in _script(number).splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@cache
def _script(number: int) -> str:
    file = _HERE / "schema.sql" if number == 1 else _HERE / "migrations" / f"{number:04d}.sql"
    return file.read_text(encoding="utf-8")


def missing(conn: sqlite3.Connection) -> list[str]:
    """Return the columns and indexes that a database lacks for its version, a line each."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for number in range(1, conn.execute("PRAGMA user_version").fetchone()[0] + 1):
            for statement in statements(number):
                model.execute(statement)
        columns = _columns(model) - _columns(conn)
        indexes = _indexes(model) - _indexes(conn)
    return ([f"table {table} has no column {column}" for table, column in sorted(columns)]
            + [f"table {table} has no index {index}" for table, index in sorted(indexes)])


def _columns(conn: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(conn.execute(
        "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'"
    ))


def _indexes(conn: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(conn.execute("SELECT tbl_name, name FROM sqlite_master WHERE type = 'index'"))
