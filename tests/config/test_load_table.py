"""The loads of a configuration, as they are read back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ductile.config import load_table
from ductile.config.load_table import ConfigLoad
from support.clock import START
from support.ledger import opened


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened(tmp_path) as conn:
        yield conn


def test_of_no_load_there_is_nothing(conn: sqlite3.Connection) -> None:
    assert (load_table.last_id(conn), load_table.after(conn, 0), load_table.digest_in_force(conn)) == (0, None, None)


def test_loads_are_read_one_after_the_other(conn: sqlite3.Connection) -> None:
    load_table.add(conn, digest="a", errors=(), changes=("one", "two"), listen="127.0.0.1:1", now=START)
    first = load_table.last_id(conn)
    load_table.add(conn, digest="", errors=("no", "never"), now=START)
    at = "2026-02-08T10:00:00.000Z"
    assert load_table.after(conn, 0) == ConfigLoad(loaded_at=at, digest="a", ok=True, errors=(), changes=("one", "two"))
    assert load_table.after(conn, first) == ConfigLoad(loaded_at=at, digest="", ok=False, errors=("no", "never"),
                                                       changes=())
    assert load_table.after(conn, load_table.last_id(conn)) is None


def test_what_was_refused_is_not_in_force(conn: sqlite3.Connection) -> None:
    for digest, errors in (("a", ()), ("b", ()), ("c", ("no",))):
        load_table.add(conn, digest=digest, errors=errors, now=START)
    assert load_table.digest_in_force(conn) == "b"
