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
    columns, indexes = expected(conn.execute("PRAGMA user_version").fetchone()[0])
    return ([f"table {table} has no column {column}" for table, column in sorted(columns - _columns(conn))]
            + [f"table {table} has no index {index}" for table, index in sorted(indexes - _indexes(conn))])


@cache
def expected(version: int) -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]:
    """Return the columns and the indexes of a version, each with its table. Takes milliseconds the first time."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for number in range(1, version + 1):
            for statement in statements(number):
                model.execute(statement)
        return _columns(model), _indexes(model)


def _columns(conn: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    return frozenset(conn.execute(
        "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'"
    ))


def _indexes(conn: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    return frozenset(conn.execute("SELECT tbl_name, name FROM sqlite_master WHERE type = 'index'"))
