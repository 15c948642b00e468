from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ductile.db import NotWritten, transaction
from ductile.queue.job import Status
from ductile.workspace import artifact_table
from ductile.workspace.artifact import Artifact
from support.ledger import opened, put_job
from workspace.trees import NOT_UTF8


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened(tmp_path) as made:
        for job_id in ("a", "b"):
            put_job(made, job_id, Status.SUCCEEDED)
        yield made


def artifact(path: str, **fields: object) -> Artifact:
    return Artifact(**{"path": path, "size": 1, "mtime_ns": 2, "digest": "d"} | fields)


def put(conn: sqlite3.Connection, job_id: str, *artifacts: Artifact) -> None:
    with transaction(conn):
        artifact_table.add(conn, job_id, artifacts)


@pytest.mark.parametrize("path", [
    "file", "a/b", "two\nlines", " ", "é", "😀", "n" * 255, NOT_UTF8, f"é/{NOT_UTF8}", "\u2028", "'; --",
    os.fsdecode(b"\xed\xa0\x80"),
])
def test_a_path_is_read_as_it_was_added(conn: sqlite3.Connection, path: str) -> None:
    put(conn, "a", artifact(path, size=2**40, mtime_ns=-1))
    assert artifact_table.of_job(conn, "a") == {path: artifact(path, size=2**40, mtime_ns=-1)}


def test_the_table_is_as_operators_read_it(conn: sqlite3.Connection) -> None:
    put(conn, "a", artifact("é", size=3), artifact(f"x{NOT_UTF8}"))
    assert conn.execute("SELECT job_id, path, size, mtime_ns, digest FROM artifacts ORDER BY path").fetchall() == [
        ("a", "é", 3, 2, "d"), ("a", b"x\xff\xfe", 1, 2, "d")]


def test_each_job_has_its_own_files(conn: sqlite3.Connection) -> None:
    put(conn, "a", artifact("x"), artifact("y"))
    put(conn, "b", artifact("x", digest="other"))
    assert artifact_table.of_job(conn, "b") == {"x": artifact("x", digest="other")}
    assert artifact_table.of_job(conn, "no such") == {}


def test_the_files_of_jobs_are_removed_and_those_of_others_stay(conn: sqlite3.Connection) -> None:
    put(conn, "a", artifact("x"), artifact(NOT_UTF8))
    put(conn, "b", artifact("x"))
    with transaction(conn):
        assert artifact_table.remove(conn, ["a", "no such"], 9) == 2
    assert (artifact_table.of_job(conn, "a"), list(artifact_table.of_job(conn, "b"))) == ({}, ["x"])


def test_the_row_of_the_job_must_be_there(conn: sqlite3.Connection) -> None:
    with pytest.raises(NotWritten):
        put(conn, "no such", artifact("x"))


def test_the_files_of_a_job_are_found_without_a_scan(conn: sqlite3.Connection) -> None:
    plan = conn.execute("EXPLAIN QUERY PLAN SELECT path FROM artifacts WHERE job_id = 'a' ORDER BY path").fetchall()
    assert [row[3] for row in plan] == ["SEARCH artifacts USING PRIMARY KEY (job_id=?)"]
