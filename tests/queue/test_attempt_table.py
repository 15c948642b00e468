from __future__ import annotations

import sqlite3
from datetime import timedelta

import pytest

from ductile.queue import attempt_table
from ductile.queue.job import LogEntry, Status
from support.clock import START
from support.ledger import opened, put_job

T0, T1 = "2026-02-08T10:00:00.000Z", "2026-02-08T10:00:02.500Z"


@pytest.fixture
def conn(tmp_path):
    with opened(tmp_path) as conn:
        yield conn


def append(conn, job, entry_id, status="succeeded", result=None, **fields):
    attempt_table.append(conn, job, LogEntry(
        id=entry_id, status=status, completed_at=START + timedelta(seconds=2.5), **fields), result)


def named(attempts) -> list[str]:
    return [attempt.id for attempt in attempts]


def test_an_attempt_is_stored_with_all_that_it_left(conn):
    job = put_job(conn, "a", Status.RUNNING, source_event_id="event")
    append(conn, job, "one", "failed", exit_code=3, error="said error", stderr="oops", result="{}", printed="noise")
    (attempt,) = attempt_table.of_job(conn, "a")
    assert attempt == attempt_table.Attempt(
        seq=1, id="one", job_id="a", attempt=1, plugin="echo", command="poll", status="failed", submitted_by="cli",
        created_at=T0, started_at=T0, completed_at=T1, exit_code=3, last_error="said error", stderr="oops",
        result="{}", printed="noise", parent_job_id=None, source_event_id="event")
    assert attempt.seconds == 2.5


def test_an_attempt_that_never_started_took_no_known_time(conn):
    append(conn, put_job(conn, "a"), "one", "failed")
    assert attempt_table.of_job(conn, "a")[0].seconds is None


def test_an_attempt_of_no_job_is_refused(conn):
    job = put_job(conn, "a")
    conn.execute("DELETE FROM job_queue")
    with pytest.raises(sqlite3.IntegrityError, match="^FOREIGN KEY constraint failed$"):
        append(conn, job, "one")


@pytest.fixture
def several(conn):
    """Five attempts of two plugins, one after the other."""
    one, two = put_job(conn, "a"), put_job(conn, "b", plugin="other")
    for number, job in enumerate((one, two, one, two, one), start=1):
        append(conn, job, f"log-{number}")
    return conn


def test_the_attempts_of_a_job_are_in_the_order_in_which_they_ended(several):
    assert named(attempt_table.of_job(several, "a")) == ["log-1", "log-3", "log-5"]


@pytest.mark.parametrize("status, counts", [
    ("succeeded", 0), ("failed", 0), ("timed_out", 0), ("orphaned", 2), ("interrupted", 2),
])
def test_only_attempts_that_were_cut_short_are_counted_as_such(conn, status, counts):
    job = put_job(conn, "a")
    append(conn, job, "one", status)
    append(conn, job, "two", status)
    assert (attempt_table.count_interruptions(conn, "a"), attempt_table.count_interruptions(conn, "b")) == (counts, 0)


@pytest.mark.parametrize("status, used", [
    ("succeeded", True), ("failed", True), ("timed_out", True), ("orphaned", True), ("interrupted", False),
])
def test_a_number_is_used_up_unless_a_stop_cut_the_attempt_short(conn, status, used):
    append(conn, put_job(conn, "a"), "one", status)
    assert attempt_table.has_attempt(conn, "a", 1) is used
    assert attempt_table.has_attempt(conn, "a", 2) is False


def test_a_status_that_no_attempt_has_is_refused(conn):
    with pytest.raises(sqlite3.IntegrityError):
        append(conn, put_job(conn, "a"), "one", "dead")


def test_the_rows_of_jobs_are_removed_and_no_others(several):
    attempt_table.remove(several, ["a", "unknown"])
    assert (attempt_table.of_job(several, "a"), named(attempt_table.of_job(several, "b"))) == ([], ["log-2", "log-4"])
