"""`logs`: what has ended, what it said, and what ends from now on."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from ctl.desk import PATIENCE_SECONDS, Desk, Said, job_id, start
from ductile import db
from ductile.ctl import logs
from ductile.queue import attempt_table, job_table
from ductile.queue.job import LogEntry, Status
from support.clock import START
from support.ledger import put_job

FIRST = """\
2026-02-08 10:00:01 +0000 00000001 echo poll attempt 1 succeeded in 1.500 s
    info: done\\x1b
"""
SECOND = """\
2026-02-08 10:00:02 +0000 00000002 other poll attempt 1 failed in 2.000 s: protocol error
    stderr:
        oh
    printed:
        garbage\\x07
"""


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    with desk.ledger() as conn:
        yield conn


def end(conn: sqlite3.Connection, number: int, plugin: str, *, seconds: float = 1.0, status: str = "succeeded",
        result: str | None = None, **fields: object) -> None:
    put_job(conn, job_id(number), Status.RUNNING, plugin=plugin)
    with db.transaction(conn):
        attempt_table.append(conn, job_table.get(conn, job_id(number)), LogEntry(
            id=f"log-{number}", status=status, completed_at=START + timedelta(seconds=seconds), **fields), result)


def fill(conn: sqlite3.Connection) -> None:
    result = {"status": "ok", "result": "x", "logs": [{"level": "info", "message": "done\x1b"}]}
    end(conn, 1, "echo", seconds=1.5, result=json.dumps(result))
    end(conn, 2, "other", seconds=2, status="failed", error="protocol error", stderr="oh\n", printed="garbage\x07")


def test_attempts_are_shown_oldest_first_with_what_was_said(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    assert desk.call("logs") == Said(code=0, out=FIRST + SECOND, err="")
    assert desk.call("logs", "-n", "1").out == SECOND
    assert desk.call("logs", "echo").out == FIRST


def test_the_document_has_the_same_attempts(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    found = desk.call("logs", "--json").json
    assert [(row["job_id"], row["plugin"], row["status"], row["seconds"], row["last_error"]) for row in found] == [
        (job_id(1), "echo", "succeeded", 1.5, None), (job_id(2), "other", "failed", 2.0, "protocol error")]
    assert found[0]["result"]["logs"] == [{"level": "info", "message": "done\x1b"}]
    assert (found[1]["stderr"], found[1]["printed"], found[1]["result"]) == ("oh\n", "garbage\x07", None)


@pytest.mark.parametrize("result", ["[]", '{"logs": 1, "events": {}}', '{"logs": [1, {}]}', '"x"'])
def test_a_response_of_another_form_ends_nothing(conn: sqlite3.Connection, desk: Desk, result: str) -> None:
    end(conn, 1, "echo", result=result)
    assert desk.call("logs").code == 0
    assert desk.call("inspect", "0000").code == 0


def test_without_attempts_it_says_so(conn: sqlite3.Connection, desk: Desk) -> None:
    assert desk.call("logs") == Said(code=0, out="no attempt has ended yet\n", err="")
    assert desk.call("logs", "--json").json == []


def test_no_attempts_are_none(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    assert desk.call("logs", "-n", "0") == Said(code=0, out="", err="")
    assert desk.call("logs", "-n", "0", "--json").json == []


def test_a_plugin_without_attempts_says_so(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    desk.configure(plugins={"fresh": {}})
    assert desk.call("logs", "fresh") == Said(code=0, out="no attempt of plugin fresh has ended yet\n", err="")


@pytest.mark.parametrize("options", [[], ["-f"], ["--json"], ["-n", "0"]])
def test_a_plugin_that_nobody_knows_is_66(conn: sqlite3.Connection, desk: Desk, options: list[str]) -> None:
    fill(conn)
    desk.configure(plugins={"fresh": {}})
    assert desk.process("logs", "typo", *options) == Said(
        code=66, out="", err="no plugin 'typo' is configured or in the log\n")
    assert desk.process("logs", "ecko", *options).err == (
        "no plugin 'ecko' is configured or in the log (did you mean 'echo'?)\n")
    assert desk.process("logs", "frehs", *options).err == (
        "no plugin 'frehs' is configured or in the log (did you mean 'fresh'?)\n")


def steps(*acts: Callable[[], None]) -> Callable[[], bool]:
    """Between two looks, do one of the acts; after the last, end."""
    left = list(acts)

    def goes_on() -> bool:
        if left:
            left.pop(0)()
            return True
        return False

    return goes_on


def followed(desk: Desk, *acts: Callable[[], None], plugin: str | None = None, limit: int = 20) -> list[str]:
    out = io.StringIO()
    assert logs.follow(desk.session(out=out, as_json=True), plugin=plugin, limit=limit, has_reader=steps(*acts)) == 0
    return [json.loads(line)["job_id"] for line in out.getvalue().splitlines()]


def test_following_shows_each_attempt_once_as_it_ends(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    seen = followed(desk, lambda: end(conn, 3, "echo"), lambda: None,
                    lambda: (end(conn, 4, "other"), end(conn, 5, "echo")))
    assert seen == [job_id(number) for number in (1, 2, 3, 4, 5)]


def test_following_one_plugin_shows_it_alone(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    seen = followed(desk, lambda: end(conn, 3, "echo"), lambda: end(conn, 4, "other"), lambda: end(conn, 5, "echo"),
                    plugin="echo", limit=0)
    assert seen == [job_id(3), job_id(5)]


def test_following_goes_on_after_everything_was_pruned(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)

    def prune() -> None:
        with db.transaction(conn):
            attempt_table.remove(conn, [job_id(1), job_id(2)])

    assert followed(desk, prune, lambda: end(conn, 3, "echo"), limit=0) == [job_id(3)]


def test_nothing_is_held_between_two_looks(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)

    def checkpoint() -> None:
        with desk.ledger() as other:
            end(other, 3, "echo")
            # Busy (1) where a reader still needs the log.
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

    assert followed(desk, checkpoint, limit=0) == [job_id(3)]


def test_following_is_ended_by_ctrl_c(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    process = start("logs", "-f", home=desk.home)
    try:
        assert process.stdout.readline() == FIRST.splitlines(keepends=True)[0]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130
    finally:
        process.kill()
        process.communicate()


def test_following_ends_quietly_when_nobody_reads(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    ours, theirs = os.pipe()
    process = start("logs", "-f", home=desk.home, stdout=theirs)
    os.close(theirs)
    try:
        assert os.read(ours, 1) == b"2"
        os.close(ours)
        assert process.communicate(timeout=PATIENCE_SECONDS) == (None, "")
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
