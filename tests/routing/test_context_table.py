from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ductile.db import NotWritten, transaction
from ductile.routing import context_table
from ductile.routing.baggage import Context, NewContext
from support.clock import START
from support.ledger import opened, put_job


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened(tmp_path) as made:
        yield made


def put(conn: sqlite3.Connection, context_id: str, parent_id: str | None = None, **fields: Any) -> None:
    context = NewContext(**{"id": context_id, "parent_id": parent_id, "hop": 1, "accumulated": {}} | fields)
    with transaction(conn):
        context_table.add(conn, context, START)


def remaining(conn: sqlite3.Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT id FROM event_context ORDER BY id")]


@pytest.mark.parametrize("accumulated", [
    {}, {"origin_plugin": "scale", "kg": 1.5, "none": None, "deep": [{"é😀": "\u2028\x07"}]},
])
def test_a_row_is_read_as_it_was_added(conn: sqlite3.Connection, accumulated: dict[str, Any]) -> None:
    put(conn, "a")
    put(conn, "b", "a", hop=2, accumulated=accumulated)
    assert context_table.get(conn, "b") == Context(id="b", hop=2, accumulated=accumulated)


def test_the_table_is_as_operators_read_it(conn: sqlite3.Connection) -> None:
    put(conn, "a")
    put(conn, "b", "a", hop=2, accumulated={"a": [1, "é"]}, pipeline_name="wisdom", step_id="note")
    assert conn.execute("SELECT id, parent_id, pipeline_name, step_id, hop, accumulated_json, created_at"
                        " FROM event_context ORDER BY id").fetchall() == [
        ("a", None, None, None, 1, "{}", "2026-02-08T10:00:00.000Z"),
        ("b", "a", "wisdom", "note", 2, '{"a":[1,"\\u00e9"]}', "2026-02-08T10:00:00.000Z"),
    ]


def test_a_row_that_is_not_there_cannot_be_read(conn: sqlite3.Connection) -> None:
    with pytest.raises(LookupError) as caught:
        context_table.get(conn, "a")
    assert str(caught.value) == "no event context a"


def test_a_parent_must_be_there(conn: sqlite3.Connection) -> None:
    with pytest.raises(NotWritten):
        put(conn, "b", "a")
    assert remaining(conn) == []


@pytest.mark.parametrize(("ids", "left"), [
    ([], ["a", "b", "c", "d"]), (["d"], ["a", "b", "c"]), (["c", "b", "a"], ["d"]), (["a", "b", "c"], ["d"]),
    (["d", "absent"], ["a", "b", "c"]),
])
def test_rows_that_refer_to_each_other_go_together(conn: sqlite3.Connection, ids: list[str], left: list[str]) -> None:
    for context_id, parent in (("a", None), ("b", "a"), ("c", "b"), ("d", None)):
        put(conn, context_id, parent)
    with transaction(conn):
        context_table.remove(conn, iter(ids))
    assert remaining(conn) == left


def test_a_row_that_another_refers_to_stays(conn: sqlite3.Connection) -> None:
    put(conn, "a")
    put(conn, "b", "a")
    with pytest.raises(NotWritten), transaction(conn):
        context_table.remove(conn, ["a"])
    assert remaining(conn) == ["a", "b"]


def test_a_row_that_a_job_carries_stays(conn: sqlite3.Connection) -> None:
    put(conn, "a")
    put_job(conn, "j", event_context_id="a")
    with pytest.raises(NotWritten), transaction(conn):
        context_table.remove(conn, ["a"])
    assert remaining(conn) == ["a"]
