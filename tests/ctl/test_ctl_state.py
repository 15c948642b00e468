"""`state`: what a plugin remembers, shown and changed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl.desk import Desk, Said
from ductile import db
from ductile.state import state_table
from support.clock import START


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.configure(plugins={"echo": {}})
    with desk.ledger() as conn, db.transaction(conn):
        state_table.put(conn, "echo", {"a": "é\x1b"}, START)
        state_table.put(conn, "gone", {"b": 1}, START)
    with desk.ledger() as conn:
        yield conn


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_the_state_is_one_document(conn: sqlite3.Connection, desk: Desk, option: list[str]) -> None:
    assert desk.call("state", "echo", *option) == Said(code=0, out='{\n  "a": "\\u00e9\\u001b"\n}\n', err="")


def test_a_plugin_that_is_configured_no_more_still_has_its_state(conn: sqlite3.Connection, desk: Desk) -> None:
    assert desk.call("state", "gone").json == {"b": 1}
    assert desk.call("state", "gone", "--clear").out == "state of plugin gone is cleared\n"
    assert desk.call("state", "gone").code == 66


def test_a_plugin_without_state_has_an_empty_one(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.configure(plugins={"fresh": {}})
    assert desk.call("state", "fresh").json == {}
    assert desk.call("state", "fresh", "--clear") == Said(code=0, out="plugin fresh had no state\n", err="")


def test_a_file_becomes_the_state(conn: sqlite3.Connection, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text(' {"c": [1]} ')
    assert desk.call("state", "echo", "--set", str(tmp_path / "new.json")) == Said(
        code=0, out="state of plugin echo is set\n", err="")
    assert state_table.get(conn, "echo") == {"c": [1]}


def test_standard_input_becomes_the_state(conn: sqlite3.Connection, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text("{}")
    with open(tmp_path / "new.json") as stdin:
        assert desk.process("state", "echo", "--set", "-", stdin=stdin).code == 0
    assert state_table.get(conn, "echo") == {}


@pytest.mark.parametrize(("content", "expected"), [
    (b"[1]", "expected one JSON object, got a list"),
    (b"null", "expected one JSON object, got null"),
    (b'{"a": 1, "a": 2}', "not strict JSON: the key 'a' is repeated"),
    (b"\xff", "not strict JSON: byte 1: not UTF-8"),
    (json.dumps({"a": "x" * 1024 * 1024}).encode(),
     "its state would be 1,048,584 bytes, at most 1,048,576 are allowed"),
])
def test_what_cannot_be_a_state_is_refused(conn: sqlite3.Connection, desk: Desk, tmp_path: Path, content: bytes,
                                           expected: str) -> None:
    (tmp_path / "new.json").write_bytes(content)
    said = desk.call("state", "echo", "--set", str(tmp_path / "new.json"))
    assert said == Said(code=65, out="", err=f"{tmp_path}/new.json: {expected}\n")
    assert state_table.get(conn, "echo") == {"a": "é\x1b"}


def test_a_state_of_exactly_1_mib_is_taken(conn: sqlite3.Connection, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text(json.dumps({"a": "x" * (1024 * 1024 - 8)}))
    assert desk.call("state", "echo", "--set", str(tmp_path / "new.json")).code == 0


def test_a_file_that_cannot_be_read_is_74(conn: sqlite3.Connection, desk: Desk, tmp_path: Path) -> None:
    said = desk.call("state", "echo", "--set", str(tmp_path / "none"))
    assert said == Said(code=74, out="", err=f"{tmp_path}/none: cannot be read: No such file or directory\n")


@pytest.mark.parametrize("options", [[], ["--clear"], ["--set", "/dev/stdin"]])
def test_a_plugin_that_nobody_knows_is_66(conn: sqlite3.Connection, desk: Desk, tmp_path: Path,
                                          options: list[str]) -> None:
    (tmp_path / "new.json").write_text("{}")
    before = desk.dump()
    with open(tmp_path / "new.json") as stdin:
        said = desk.process("state", "ecko", *options, stdin=stdin)
    assert said == Said(code=66, out="", err="no plugin 'ecko' is configured or has state (did you mean 'echo'?)\n")
    assert desk.dump() == before


@pytest.mark.parametrize("kind", ["device", "FIFO", "directory"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    conn: sqlite3.Connection, desk: Desk, tmp_path: Path, kind: str,
) -> None:
    path = tmp_path / "given"
    {"device": lambda: path.symlink_to("/dev/zero"), "FIFO": lambda: os.mkfifo(path), "directory": path.mkdir}[kind]()
    refused = Said(code=74, out="",
                   err=f"{path}: cannot be read: not a regular file; use - to read from standard input\n")
    assert desk.call("state", "echo", "--set", str(path)) == refused
    desk.plugin("echo")
    assert desk.call("test", "echo", "--event", str(path)) == refused


def test_a_file_larger_than_any_state_is_refused(conn: sqlite3.Connection, desk: Desk, tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(16 * 1024**2 + 1)
    assert desk.call("state", "echo", "--set", str(tmp_path / "large")) == Said(
        code=65, out="", err=f"{tmp_path}/large: cannot be read: larger than 16.0 MB\n")
