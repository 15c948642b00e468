"""`retry` and `cancel`: one job at a time, by the beginning of its id."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from datetime import timedelta

import pytest

from ctl.desk import Desk, Said, job_id
from ductile import db
from ductile.ctl import job as jobs
from ductile.dispatch.outcome import CANCELLED
from ductile.errors import DuctileError
from ductile.queue import attempt_table, job_table
from ductile.queue.job import LogEntry, Status
from support.clock import START
from support.ledger import put_job

DOWN = "; it runs when ductiled does"


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.plugin("echo", commands=("poll", "init"))
    with desk.ledger() as conn:
        yield conn


def log(conn: sqlite3.Connection, job: str, result: str | None = None, **fields: object) -> None:
    found = job_table.get(conn, job)
    entry = {"id": f"log-{job}-{found.attempt}", "status": "failed",
             "completed_at": START + timedelta(seconds=2), **fields}
    with db.transaction(conn):
        attempt_table.append(conn, found, LogEntry(**entry), result)


@pytest.mark.parametrize(("text", "code", "expected"), [
    ("abc", 64, "'abc' is too short for a job: give 4 characters of its id\n"),
    ("0000", 64, f"'0000' could be any of {job_id(1)}, {job_id(2)}\n"),
    ("%%%%", 66, "no job '%%%%'\n"),
    ("0000000_", 66, "no job '0000000_'\n"),
    (job_id(3), 66, f"no job '{job_id(3)}'\n"),
])
@pytest.mark.parametrize("command", ["inspect", "cancel", "retry"])
def test_what_names_no_single_job_is_refused(conn: sqlite3.Connection, desk: Desk, command: str, text: str, code: int,
                                             expected: str) -> None:
    for number in (1, 2):
        put_job(conn, job_id(number))
    assert desk.call(command, text) == Said(code=code, out="", err=expected)


def test_an_id_in_capitals_is_the_same(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(0xABCDEF))
    assert desk.call("inspect", "00ABCD", "--json").json["id"] == job_id(0xABCDEF)


def test_of_many_candidates_ten_are_named(conn: sqlite3.Connection, desk: Desk) -> None:
    for number in range(12):
        put_job(conn, job_id(number))
    said = desk.call("inspect", "0000")
    assert said.err.endswith(f"{job_id(9)}, …\n") and said.err.count("-4000-") == 10


def test_a_dead_job_is_retried_in_its_place_and_its_attempts_count_on(conn: sqlite3.Connection, desk: Desk) -> None:
    seq = put_job(conn, job_id(1)).seq
    put_job(conn, job_id(2))
    conn.execute("UPDATE job_queue SET status = 'dead', attempt = 4, completed_at = created_at, last_error = 'why'"
                 " WHERE id = ?", (job_id(1),))
    log(conn, job_id(1))
    expected = f"job {job_id(1)} is queued again, attempt 5 of 8{DOWN}\n"
    assert desk.call("retry", job_id(1)) == Said(code=0, out=expected, err="")
    job = job_table.get(conn, job_id(1))
    assert (job.seq, job.status, job.attempt, job.max_attempts) == (seq, "queued", 5, 8)
    assert (job.last_error, job.completed_at, job.next_retry_at) == ("why", None, None)


@pytest.mark.parametrize(("logged", "attempt"), [(None, 1), ("interrupted", 1), ("failed", 2), ("orphaned", 2)])
def test_an_attempt_that_was_not_used_up_keeps_its_number(conn: sqlite3.Connection, desk: Desk, logged: str | None,
                                                          attempt: int) -> None:
    put_job(conn, job_id(1), Status.DEAD)
    if logged is not None:
        log(conn, job_id(1), status=logged)
    assert desk.call("retry", "00000001", "--json").json == {
        "job_id": job_id(1), "status": "queued", "attempt": attempt, "max_attempts": attempt + 3}


def test_a_job_that_failed_early_gets_as_many_attempts_more_as_one_that_used_all_of_its_own(
        conn: sqlite3.Connection, desk: Desk) -> None:
    for number, attempt in ((1, 1), (2, 4), (3, 8)):
        put_job(conn, job_id(number), Status.DEAD, max_attempts=8)
        conn.execute("UPDATE job_queue SET attempt = ? WHERE id = ?", (attempt, job_id(number)))
        log(conn, job_id(number))
    found = [desk.call("retry", f"0000000{number}", "--json").json for number in (1, 2, 3)]
    assert [(each["attempt"], each["max_attempts"]) for each in found] == [(2, 5), (5, 8), (9, 12)]


def test_init_gets_one_attempt_more_and_others_what_is_configured(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.configure(plugins={"echo": {"retry": {"max_attempts": 9}}})
    put_job(conn, job_id(1), Status.DEAD, command="init", max_attempts=1)
    put_job(conn, job_id(2), Status.DEAD)
    assert desk.call("retry", "00000001", "--json").json["max_attempts"] == 1
    assert desk.call("retry", "00000002", "--json").json["max_attempts"] == 9


@pytest.mark.parametrize(("command", "status", "rule"), [
    ("retry", "queued", "only a dead job can be retried"),
    ("retry", "running", "only a dead job can be retried"),
    ("retry", "succeeded", "only a dead job can be retried"),
    ("retry", "deduped", "only a dead job can be retried"),
    ("cancel", "succeeded", "only a queued or running job can be cancelled"),
    ("cancel", "dead", "only a queued or running job can be cancelled"),
    ("cancel", "deduped", "only a queued or running job can be cancelled"),
])
def test_a_job_in_another_status_is_left_as_it_is(conn: sqlite3.Connection, desk: Desk, command: str, status: str,
                                                  rule: str) -> None:
    put_job(conn, job_id(1), Status(status))
    before = desk.dump()
    expected = f"job {job_id(1)} is {status}: {rule}\n"
    assert desk.call(command, "00000001") == Said(code=1, out="", err=expected)
    assert desk.dump() == before


@pytest.mark.parametrize(("plugins", "expected"), [
    ({}, "no plugin 'echo' is configured\n"),
    ({"echo": {"enabled": False}}, "plugin echo is disabled; set plugins.echo.enabled to true\n"),
])
def test_a_job_that_would_be_ended_at_once_is_not_retried(conn: sqlite3.Connection, desk: Desk, plugins: dict,
                                                          expected: str) -> None:
    put_job(conn, job_id(1), Status.DEAD)
    desk.configure(plugins=plugins)
    before = desk.dump()
    assert desk.call("retry", "00000001") == Said(code=66, out="", err=expected)
    assert desk.dump() == before


def dead(conn: sqlite3.Connection, number: int, plugin: str = "echo", error: str = "why", minutes: int = 0) -> None:
    job = put_job(conn, job_id(number), Status.RUNNING, plugin=plugin)
    with db.transaction(conn):
        job_table.move(conn, job, Status.DEAD, START + timedelta(minutes=minutes), error=error)


def put_failures(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.plugin("other")
    for number, plugin, error, minutes in ((1, "echo", "why", 0), (2, "other", "why", 1), (3, "echo", CANCELLED, 2),
                                           (4, "gone", "why", 3), (5, "echo", "why", 4)):
        dead(conn, number, plugin, error, minutes)
    put_job(conn, job_id(6), Status.SUCCEEDED)


@pytest.mark.parametrize(("options", "expected"), [
    ((), [5, 2, 1]), (("--plugin", "echo"), [5, 1]), (("--since", "2026-02-08T10:01Z"), [5, 2]),
    (("--plugin", "other", "--since", "2026-02-08T10:02Z"), []),
])
def test_all_failed_jobs_are_retried_at_once(conn: sqlite3.Connection, desk: Desk, options: tuple[str, ...],
                                             expected: list[int]) -> None:
    put_failures(conn, desk)
    said = desk.call("retry", "--all-failed", "--yes", "--json", *options)
    assert (said.code, said.json["retried"]) == (0, [job_id(number) for number in expected])
    assert {job_id(number) for number in expected} == {
        name for name, in conn.execute("SELECT id FROM job_queue WHERE status = 'queued'")}
    if not options:
        assert (said.json["skipped"], said.err) == (1, "warning: 1 job of plugin gone cannot be retried: the plugin is"
                                                       " disabled or not configured\n")


def test_without_a_terminal_it_asks_for_yes(conn: sqlite3.Connection, desk: Desk) -> None:
    dead(conn, 1)
    before = desk.dump()
    with pytest.raises(DuctileError) as caught:
        jobs.retry_all_failed(desk.session(), plugin=None, since=None, ask=True)
    assert (caught.value.exit_code, str(caught.value)) == (
        64, "this would retry 1 job; give --yes to do it without a terminal")
    assert desk.dump() == before


class OnTerminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


class Shown(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "queued"), [(b"y\n", 1), (b"n\n", 0), (b"", 0)])
def test_on_a_terminal_it_says_how_many_and_asks(conn: sqlite3.Connection, desk: Desk, answer: bytes,
                                                 queued: int) -> None:
    dead(conn, 1)
    session = desk.session(stdin=OnTerminal(answer), err=Shown())
    if queued:
        assert jobs.retry_all_failed(session, plugin="echo", since=None, ask=True) == 0
    else:
        with pytest.raises(DuctileError, match="^nothing was changed$"):
            jobs.retry_all_failed(session, plugin="echo", since=None, ask=True)
    assert session.err.getvalue().startswith("Retry 1 failed job (1 of echo)? [y/N] ")
    assert conn.execute("SELECT count(*) FROM job_queue WHERE status = 'queued'").fetchone() == (queued,)


@pytest.mark.parametrize("arguments", [(), ("1a2b3c4d", "--all-failed"), ("1a2b3c4d", "--plugin", "echo")])
def test_retry_takes_a_job_or_all(conn: sqlite3.Connection, desk: Desk, arguments: tuple[str, ...]) -> None:
    assert desk.call("retry", *arguments).code == 64


def test_a_queued_job_is_cancelled(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(1))
    assert desk.call("cancel", "00000001") == Said(code=0, out=f"job {job_id(1)} is cancelled\n", err="")
    job = job_table.get(conn, job_id(1))
    assert (job.status, job.last_error, job.completed_at is None) == ("dead", "cancelled by operator", False)


def test_a_job_that_ran_when_the_daemon_ended_is_cancelled_at_the_next_start(conn: sqlite3.Connection,
                                                                             desk: Desk) -> None:
    put_job(conn, job_id(1), Status.RUNNING)
    assert desk.call("cancel", "00000001") == Said(
        code=0, out=f"job {job_id(1)} will be cancelled when ductiled starts\n", err="")
    assert (job_table.get(conn, job_id(1)).status, job_table.is_cancel_requested(conn, job_id(1))) == ("running", True)


def test_a_cancelled_job_that_waited_for_its_retry_waits_no_more(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(1))
    conn.execute("UPDATE job_queue SET next_retry_at = '2026-02-08T12:00:00.000Z'")
    assert desk.call("cancel", "00000001", "--json").json == {
        "job_id": job_id(1), "status": "dead", "last_error": "cancelled by operator"}
    assert job_table.get(conn, job_id(1)).next_retry_at is None
