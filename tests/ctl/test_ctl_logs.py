"""`logs`: what has ended, what it said, and what ends from now on."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ctl.desk import PATIENCE_SECONDS, Desk, Said, job_id, start
from ductile import db
from ductile.ctl import logs, queries
from ductile.ctl.logs import Asked
from ductile.ctl.queries import AttemptFilter
from ductile.queue import attempt_table, job_table
from ductile.queue.job import LogEntry, Status
from support.clock import START
from support.ledger import opened, put_ended, put_job
from support.ledger import steps as steps_of

FIRST = """\
2026-02-08 10:00:01 +0000 00000001 echo poll attempt 1 succeeded in 1.500 s
    info: done\\x1b
    result: x
"""
SECOND = """\
2026-02-08 10:00:02 +0000 00000002 other poll attempt 1 failed in 2.000 s: protocol error
    stderr:
        oh
        no
    printed: garbage\\x07
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
    end(conn, 2, "other", seconds=2, status="failed", error="protocol error", stderr="oh\nno\n", printed="garbage\x07")


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
    assert (found[1]["stderr"], found[1]["printed"], found[1]["result"]) == ("oh\nno\n", "garbage\x07", None)


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
    asked = Asked(target=plugin, limit=limit)
    assert logs.follow(desk.session(out=out, as_json=True), asked=asked, has_reader=steps(*acts)) == 0
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


def shown(desk: Desk, *arguments: str) -> list[int]:
    return [int(row["job_id"][:8], 16) for row in desk.call("logs", *arguments, "--json").json]


@pytest.mark.parametrize(("arguments", "expected"), [
    (("--failed",), [2, 4]), (("--failed", "echo"), [4]), (("--failed", "-n", "1"), [4]),
    (("--since", "2026-02-08T10:00:02Z"), [2, 3, 4]), (("--until", "2026-02-08T10:00:02Z"), [1]),
    (("--since", "2026-02-08T10:00:02Z", "--until", "2026-02-08T10:00:04Z", "echo"), [3]),
    (("--grep", "protocol"), [2]), (("--grep", "Protocol"), []), (("--grep", "done"), [1]),
    (("--grep", "^fine\ntwo$"), [3]), (("--grep", "o", "-n", "1"), [3]), (("00000003",), [3]),
])
def test_filters_combine(conn: sqlite3.Connection, desk: Desk, arguments: tuple[str, ...],
                         expected: list[int]) -> None:
    fill(conn)
    end(conn, 3, "echo", seconds=3, result='{"status": "ok", "result": "fine\\ntwo"}')
    end(conn, 4, "echo", seconds=4, status="timed_out")
    assert shown(desk, *arguments) == expected
    assert desk.call("logs", *arguments).out.count(" attempt 1 ") == len(expected)


def test_a_clock_that_was_set_back_hides_no_attempt(conn: sqlite3.Connection, desk: Desk) -> None:
    for number, seconds in ((1, 600), (2, -1200), (3, 700)):
        end(conn, number, "echo", seconds=seconds)
    assert shown(desk, "--since", "2026-02-08T10:05:00Z") == [1, 3]
    assert shown(desk, "--until", "2026-02-08T10:05:00Z") == [2]


def test_since_a_time_all_attempts_are_shown(conn: sqlite3.Connection, desk: Desk) -> None:
    for number in range(1, 31):
        end(conn, number, "echo")
    assert (len(shown(desk)), len(shown(desk, "--since", "2026-02-08"))) == (20, 30)


def test_a_result_of_several_lines_is_shown_as_lines(conn: sqlite3.Connection, desk: Desk) -> None:
    end(conn, 1, "echo", result='{"status": "ok", "result": "one\\n  two\\u001b", "events": [{"type": "x"}]}')
    assert desk.call("logs").out.splitlines()[1:] == ["    result:", "        one", "          two\\x1b"]


def test_a_pattern_that_is_none_is_64(conn: sqlite3.Connection, desk: Desk) -> None:
    said = desk.call("logs", "--grep", "(")
    assert (said.code, said.err.partition("(")[0]) == (64, "--grep: no regular expression: ")


def test_what_the_running_job_writes_is_shown_as_it_comes(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(7), Status.RUNNING, plugin="echo")
    stderr = desk.database.parent / "running" / f"{job_id(7)}.stderr"
    stderr.parent.mkdir()
    stderr.write_text("one\x1b\nhal")
    head = "2026-02-08 10:00:00 +0000 00000007 echo poll attempt 1 running\n"
    assert desk.call("logs", "0000").out == f"{head}    one\\x1b\n"
    assert desk.call("logs", "--failed").out == "no attempt matches\n"

    def finish() -> None:
        stderr.write_text("one\x1b\nhalf\n")
        with db.transaction(conn):
            job = job_table.get(conn, job_id(7))
            attempt_table.append(conn, job, LogEntry(id="log-7", status="succeeded", completed_at=START,
                                                     stderr="one\x1b\nhalf\n"), None)

    def tidy() -> None:
        with db.transaction(conn):
            job_table.move(conn, job_table.get(conn, job_id(7)), Status.SUCCEEDED, START)

    out = io.StringIO()
    session = desk.session(out=out)
    assert logs.follow(session, asked=Asked(target="0000"), has_reader=steps(lambda: None, finish, tidy,
                                                                            lambda: None)) == 0
    assert out.getvalue() == f"{head}    one\\x1b\n    half\n" + head.replace("running", "succeeded in 0.000 s")


FILTERS = [AttemptFilter(plugin=plugin, failed=failed, since=since) for plugin in (None, "rare")
           for failed in (False, True) for since in (None, START - timedelta(days=1))]


@pytest.mark.parametrize("wanted", FILTERS)
def test_the_last_attempts_cost_the_same_however_many_there_are(tmp_path: Path, wanted: AttemptFilter) -> None:
    with opened(tmp_path) as conn:
        counts = []
        for first, last in ((1000, 1300), (2000, 6000)):
            put_ended(conn, range(first, last), at="2026-02-08T09:00:00.000Z")
            with steps_of(conn) as counted:
                assert len(list(queries.attempts(conn, wanted, last=20))) == (0 if wanted.plugin or wanted.failed
                                                                              else 20)
            counts.append(counted[0])
    assert counts[1] <= counts[0] * 1.2 + 20


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
