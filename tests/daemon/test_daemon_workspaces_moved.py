"""The whole of Ductile's files moved elsewhere in mid-chain: the chain goes on there, as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ductile import db
from support.chains import AGAIN, await_rest, contents, emit, ends, job_of, pipeline, step, uses, workspace
from support.daemon import RealDaemon
from support.gate import Gate
from support.warm import Warm


@pytest.fixture
def old(tmp_path: Path, warm: Warm) -> Iterator[RealDaemon]:
    """A daemon in a directory of its own, which can be moved."""
    (tmp_path / "old").mkdir()
    made = RealDaemon(tmp_path / "old", warm=warm)
    yield made
    made.close()


def move(daemon: RealDaemon, place: Path) -> None:
    """Move everything, and put in its place what nobody can use."""
    before = daemon.home
    before.rename(place)
    before.write_text("")
    daemon.home = place
    daemon.moved_to(place / "data")
    daemon.output, daemon.errors = place / daemon.output.name, place / daemon.errors.name


def told(daemon: RealDaemon, text: str) -> list[tuple[str, str, str]]:
    """Return every value of every table that holds a text, with its table and column."""
    found = []
    with closing(db.connect_again(daemon.database)) as conn:
        tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert {"job_queue", "job_log", "event_context", "plugin_state", "artifacts"} <= set(tables)
        for table in tables:
            cursor = conn.execute(f'SELECT * FROM "{table}"')
            columns = [column[0] for column in cursor.description]
            found += [(table, column, value) for row in cursor
                      for column, value in zip(columns, map(str, row), strict=True) if text in value]
    return found


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_a_chain_that_is_moved_goes_on_with_its_files_and_the_ledger_names_no_place(
        old: RealDaemon, gate: Gate, tmp_path: Path, way: str) -> None:
    # Says where it is wherever it can say anything, in a failure and in a success.
    everywhere = {
        "events": [{"type": "made", "dedupe_key": "of {here}", "payload": {
            "file": "{here}/deep/a.txt", "text": "see {here}/deep/a.txt, or all of {here}.", "here": "{here}",
            "{here}/key": ["{here}/deep"]}}],
        "state_updates": {"last": "{here}/deep/a.txt", "{here}": 1}, "error": "no luck in {here}/deep",
        "result": "left {here}/deep/a.txt", "logs": [{"level": "warn", "message": "at {here}"}],
    }
    seen = {name: os.fspath(tmp_path / f"seen-{name}") for name in ("one", "two", "three")}
    step(old, "one", seen=seen["one"], write={"deep/a.txt": "a"}, fails=1, answer=everywhere)
    step(old, "two", seen=seen["two"], write={"b.txt": "b"}, **gate.config)
    step(old, "three", seen=seen["three"], settings={"retry": {**AGAIN, "max_attempts": 1}}, scribble="no/such/file")
    old.pipelines(pipeline("p", *uses("one", "two", "three")))
    old.configure(service={"shutdown_grace": "0s"})
    old.start()
    emit(old, "go")
    gate.arrived()
    if way == "killed":
        old.kill()
    else:
        old.stop()
    # A plugin that outlives its daemon is ended by evidence, not by a place.
    moved = tmp_path / "new" / "place"
    moved.parent.mkdir()
    before = old.data
    move(old, moved)
    old.start()
    gate.arrived()
    gate.let_through()
    await_rest(old)
    old.stop(signal.SIGINT)
    assert [row[:2] for row in ends(old)] == [("one", "succeeded"), ("two", "succeeded"), ("three", "dead")]
    here = workspace(old, job_of(old, "three"))
    [last] = read(Path(seen["three"]))
    assert last["here"] == os.fspath(here)
    payload = {"file": f"{here}/deep/a.txt", "text": f"see {here}/deep/a.txt, or all of {here}/.", "here": f"{here}",
               f"{here}/key": [f"{here}/deep"]}
    assert {key: value for key, value in last["context"].items() if not key.startswith("origin_")} == payload | {
        "last": f"{here}/deep/a.txt", f"{here}": 1}
    assert contents(last) == {"deep/a.txt": "a", "b.txt": "b"}
    assert told(old, os.fspath(before)) == told(old, os.fspath(old.data)) == []
    assert told(old, "workspace://deep/a.txt")


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]
