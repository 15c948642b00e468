"""Every version of every pipeline is kept once, and read back as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ductile.pipeline import version_table
from ductile.pipeline.graph import Node, Pipeline, Position, build, canonical
from ductile.queue.job import Job
from pipeline.pipeline_files import compiled
from support.clock import START
from support.ledger import opened, put_job

TEXT = """\
pipelines:
  - name: wisdom
    on: é "asked"
    steps:
      - uses: echo
      - call: rest
  - name: rest
    steps:
      - split:
          - {uses: note, workspace: copy}
          - steps: [{id: tidy, uses: note, command: tidy}, {uses: away, command: "odd\\n"}]
"""


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened(tmp_path) as conn:
        yield conn


def pipeline(*ids: str, name: str = "wisdom", on: str | None = "asked") -> Pipeline:
    """A pipeline of these steps in a row."""
    return build(name=name, on=on, entry=ids[:1], nodes=[
        Node(id=each, plugin="echo", command="handle", deep_copy=False, next=ids[number + 1:number + 2])
        for number, each in enumerate(ids)])


def kept(conn: sqlite3.Connection) -> list[tuple]:
    return conn.execute("SELECT name, hash, first_seen_at FROM pipeline_versions ORDER BY name, hash").fetchall()


def test_each_version_is_kept_once_with_the_time_when_it_was_first_seen(conn: sqlite3.Connection) -> None:
    first, second = pipeline("a"), pipeline("a", "b")
    for number, versions in enumerate(([first], [first, second], [second], [first, second])):
        version_table.add(conn, versions, START + timedelta(minutes=number))
    assert kept(conn) == sorted([("wisdom", first.hash, "2026-02-08T10:00:00.000Z"),
                                 ("wisdom", second.hash, "2026-02-08T10:01:00.000Z")])


def test_versions_that_are_kept_already_write_nothing(conn: sqlite3.Connection) -> None:
    version_table.add(conn, [pipeline("a")], START)
    before = conn.total_changes
    version_table.add(conn, [pipeline("a")], START)
    version_table.add(conn, [], START)
    assert conn.total_changes == before


def test_pipelines_of_other_names_are_other_versions(conn: sqlite3.Connection) -> None:
    version_table.add(conn, [pipeline("a", name="one"), pipeline("a", name="two")], START)
    assert [name for name, *_ in kept(conn)] == ["one", "two"]


def test_a_version_is_read_back_equal(conn: sqlite3.Connection, tmp_path: Path) -> None:
    made = compiled(tmp_path, TEXT)
    version_table.add(conn, made.values(), START)
    assert len(made) == 2
    for each in made.values():
        found = version_table.get(conn, each.hash)
        assert found == each
        assert list(found.nodes) == list(each.nodes)


def test_a_version_that_is_not_kept_is_none(conn: sqlite3.Connection) -> None:
    version_table.add(conn, [pipeline("a")], START)
    assert version_table.get(conn, pipeline("b").hash) is None
    assert version_table.get(conn, "") is None


WHOLE = canonical(pipeline("a", "b"))


@pytest.mark.parametrize("damaged", [
    "", "{}", "null", "[]", "not JSON", "\x00", WHOLE[:-1], WHOLE + " ", WHOLE.replace('"a"', '"c"'),
    WHOLE.replace("wisdom", "wisdoM"), canonical(pipeline("a")), WHOLE.replace('"next":["b"]', '"next":["gone"]'),
])
def test_a_version_that_is_not_what_was_kept_is_none(conn: sqlite3.Connection, damaged: str) -> None:
    version = pipeline("a", "b")
    version_table.add(conn, [version], START)
    conn.execute("UPDATE pipeline_versions SET definition = ?", (damaged,))
    assert version_table.get(conn, version.hash) is None


# As the program wrote it that knew no `with`.
OLDER = r"""
{"entry":["echo.1"],"name":"wisdom","nodes":[
{"command":"handle","deep_copy":false,"id":"echo.1","next":["rest.2/note.1.1","rest.2/tidy"],"plugin":"echo"},
{"command":"handle","deep_copy":true,"id":"rest.2/note.1.1","next":[],"plugin":"note"},
{"command":"tidy","deep_copy":false,"id":"rest.2/tidy","next":["rest.2/away.1.2.2"],"plugin":"note"},
{"command":"odd\n","deep_copy":false,"id":"rest.2/away.1.2.2","next":[],"plugin":"away"}],
"on":"\u00e9 \"asked\""}
""".replace("\n", "")
OLDER_HASH = "edccbf0c9fc917b66c51d6b7ce6e709cef7902dc138496ac7b79e30e3eadd34f"


def test_a_version_that_was_stored_before_steps_had_templates_is_still_the_same(
        conn: sqlite3.Connection, tmp_path: Path) -> None:
    conn.execute("INSERT INTO pipeline_versions VALUES (?, 'wisdom', ?, '2026-01-01T00:00:00.000Z')",
                 (OLDER_HASH, OLDER))
    today = compiled(tmp_path, TEXT)["wisdom"]
    assert (today.hash, canonical(today)) == (OLDER_HASH, OLDER)
    waiting = job(conn, today, "rest.2/tidy")
    for in_force in ({"wisdom": today}, {"wisdom": pipeline("a")}, {}):
        assert version_table.position_of(conn, waiting, in_force) == Position(pipeline=today, step_id="rest.2/tidy")
    version_table.add(conn, [today], START)
    assert kept(conn) == [("wisdom", OLDER_HASH, "2026-01-01T00:00:00.000Z")]


# Where a job stands


def job(conn: sqlite3.Connection, version: Pipeline | None, step_id: str | None) -> Job:
    name, digest = (None, None) if version is None else (version.name, version.hash)
    return put_job(conn, "j", pipeline_name=name, pipeline_hash=digest, step_id=step_id)


def test_a_job_outside_a_pipeline_has_no_place(conn: sqlite3.Connection) -> None:
    assert version_table.position_of(conn, job(conn, None, None), {"wisdom": pipeline("a")}) is None


def test_a_job_of_the_version_in_force_has_its_place_there_without_a_look_at_the_table(
    conn: sqlite3.Connection,
) -> None:
    version = pipeline("a", "b")
    found = job(conn, version, "b")
    asked: list[str] = []
    conn.set_trace_callback(asked.append)
    place = version_table.position_of(conn, found, {"wisdom": version})
    conn.set_trace_callback(None)
    assert (place, asked) == (Position(pipeline=version, step_id="b"), [])


@pytest.mark.parametrize("in_force", [{}, {"wisdom": pipeline("a", "b", "c")}, {"other": pipeline("x", name="other")}])
def test_a_job_of_an_older_version_has_its_place_in_that(conn: sqlite3.Connection, in_force: dict) -> None:
    version = pipeline("a", "b")
    version_table.add(conn, [version], START)
    found = job(conn, version, "a")
    place = version_table.position_of(conn, found, in_force)
    assert place == Position(pipeline=version, step_id="a")
    assert place.node.next == ("b",)


@pytest.mark.parametrize("in_force", [True, False])
@pytest.mark.parametrize("step_id", ["gone", "", "A", None])
def test_a_step_that_its_version_does_not_have_is_no_place(conn: sqlite3.Connection, in_force: bool,
                                                           step_id: str | None) -> None:
    version = pipeline("a")
    version_table.add(conn, [version], START)
    assert version_table.position_of(conn, job(conn, version, step_id), {"wisdom": version} if in_force else {}) is None


def test_a_job_of_a_version_that_is_gone_has_no_place(conn: sqlite3.Connection) -> None:
    assert version_table.position_of(conn, job(conn, pipeline("a"), "a"), {"wisdom": pipeline("a", "b")}) is None
