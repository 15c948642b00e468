from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ductile.db import transaction
from ductile.dispatch import transactions
from ductile.dispatch.transactions import Claimed
from ductile.plugin import plugin_table
from ductile.queue import job_table
from ductile.queue.job import Job, Status
from support.clock import START
from support.ledger import opened, put_job

DAY = 86400


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened(tmp_path) as made:
        yield made


def claim(conn: sqlite3.Connection, *plugins: str, blocked: tuple[str, ...] = (), after: float = 0) -> Claimed:
    return transactions.claim(conn, plugins=plugins or ("echo",), blocked=blocked, dedupe_ttl=DAY,
                              now=START + timedelta(seconds=after))


def retry_later(conn: sqlite3.Connection, job: Job, seconds: float) -> None:
    with transaction(conn):
        job_table.move(conn, job, Status.QUEUED, START, attempt=job.attempt + 1,
                        retry_at=START + timedelta(seconds=seconds), error="down")


def order(conn: sqlite3.Connection, *plugins: str) -> list[str]:
    """Return the ids in the order in which claims give them."""
    found = []
    while (job := claim(conn, *plugins).job) is not None:
        found.append(job.id)
    return found


def test_an_empty_queue_gives_nothing(conn: sqlite3.Connection) -> None:
    assert claim(conn) == Claimed(job=None)


def test_the_job_that_is_given_is_its_row(conn: sqlite3.Connection) -> None:
    put_job(conn, "a", payload='{"type": "x"}', dedupe_key="k", step_id="s")
    job = claim(conn, after=5).job
    assert job == job_table.get(conn, "a")
    assert (job.status, job.attempt, job.started_at, job.completed_at) == (
        Status.RUNNING, 1, START + timedelta(seconds=5), None)


def test_the_order_is_that_of_insertion_whatever_the_clock_said(conn: sqlite3.Connection) -> None:
    put_job(conn, "c", now=START)
    put_job(conn, "a", now=START - timedelta(days=1))
    put_job(conn, "b", now=START + timedelta(days=1))
    assert order(conn) == ["c", "a", "b"]


def test_the_order_goes_across_plugins(conn: sqlite3.Connection) -> None:
    for number, plugin in enumerate(["z", "a", "z", "m", "a"]):
        put_job(conn, str(number), plugin=plugin)
    assert order(conn, "a", "m", "z") == ["0", "1", "2", "3", "4"]


def test_jobs_of_a_plugin_that_may_not_run_are_passed_over_and_wait(conn: sqlite3.Connection) -> None:
    put_job(conn, "waits", plugin="not-loaded")
    put_job(conn, "runs")
    assert claim(conn).job.id == "runs"
    assert claim(conn).job is None
    assert claim(conn, "echo", "not-loaded").job.id == "waits"


def test_no_plugin_that_may_run_gives_nothing(conn: sqlite3.Connection) -> None:
    put_job(conn, "a")
    assert transactions.claim(conn, plugins=(), blocked=(), dedupe_ttl=DAY, now=START) == Claimed(job=None)


def test_held_jobs_are_passed_over_and_hold_back_no_other(conn: sqlite3.Connection) -> None:
    for job_id in ("a", "b", "c"):
        put_job(conn, job_id)
    assert claim(conn, blocked=("a", "b", "unknown")).job.id == "c"
    assert claim(conn, blocked=("a", "b")).job is None
    assert claim(conn, blocked=("b",)).job.id == "a"


def test_jobs_of_a_paused_plugin_are_passed_over_until_it_is_resumed(conn: sqlite3.Connection) -> None:
    put_job(conn, "waits", plugin="other")
    put_job(conn, "runs")
    with transaction(conn):
        plugin_table.pause(conn, "other", START)
    assert order(conn, "echo", "other") == ["runs"]
    assert not transactions.is_any_ready(conn, plugins=["echo", "other"], blocked=(), now=START)
    with transaction(conn):
        assert plugin_table.resume(conn, "other")
    assert order(conn, "echo", "other") == ["waits"]


@pytest.mark.parametrize("status", [Status.RUNNING, Status.SUCCEEDED, Status.DEAD, Status.DEDUPED])
def test_only_queued_jobs_are_given(conn: sqlite3.Connection, status: Status) -> None:
    put_job(conn, "a", status)
    assert claim(conn).job is None


def test_a_retry_waits_until_it_is_due_and_keeps_its_place(conn: sqlite3.Connection) -> None:
    put_job(conn, "first")
    put_job(conn, "second")
    put_job(conn, "third")
    retry_later(conn, claim(conn).job, 60)
    assert claim(conn, after=59.9).job.id == "second"
    job = claim(conn, after=60).job
    assert (job.id, job.attempt, job.next_retry_at, job.last_error) == ("first", 2, None, "down")
    assert job == job_table.get(conn, "first")
    assert claim(conn, after=60).job.id == "third"


def test_a_job_whose_key_has_succeeded_meanwhile_ends_as_a_duplicate_at_its_start(conn: sqlite3.Connection) -> None:
    put_job(conn, "waits", dedupe_key="k")
    put_job(conn, "next")
    put_job(conn, "done", Status.SUCCEEDED, dedupe_key="k")
    claimed = claim(conn, after=DAY - 1)
    assert claimed.job.id == "next"
    assert [(job.id, earlier) for job, earlier in claimed.duplicates] == [("waits", "done")]
    row = job_table.get(conn, "waits")
    assert (row.status, row.last_error, row.completed_at) == (
        Status.DEDUPED, "duplicate of job done", START + timedelta(seconds=DAY - 1))


def test_duplicates_are_ended_even_where_nothing_else_waits(conn: sqlite3.Connection) -> None:
    put_job(conn, "done", Status.SUCCEEDED, dedupe_key="k")
    for job_id in ("a", "b"):
        put_job(conn, job_id, dedupe_key="k")
    claimed = claim(conn)
    assert claimed.job is None
    assert [(job.id, earlier) for job, earlier in claimed.duplicates] == [("a", "done"), ("b", "done")]
    assert {job_table.get(conn, job_id).status for job_id in ("a", "b")} == {Status.DEDUPED}


@pytest.mark.parametrize(("earlier", "after"), [
    ({"dedupe_key": "other"}, 0),
    ({"dedupe_key": None}, 0),
    ({"dedupe_key": "k", "plugin": "other"}, 0),
    ({"dedupe_key": "k", "command": "handle"}, 0),
    ({"dedupe_key": "k", "step_id": "s"}, 0),
    ({"dedupe_key": "k", "pipeline_name": "p"}, 0),
    ({"dedupe_key": "k"}, DAY + 1),
])
def test_what_differs_in_its_scope_or_is_too_old_makes_no_duplicate(
    conn: sqlite3.Connection, earlier: dict, after: float,
) -> None:
    put_job(conn, "done", Status.SUCCEEDED, **earlier)
    put_job(conn, "waits", dedupe_key="k")
    assert claim(conn, after=after).job.id == "waits"


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.DEAD, Status.DEDUPED])
def test_only_a_success_makes_a_duplicate(conn: sqlite3.Connection, status: Status) -> None:
    put_job(conn, "waits", dedupe_key="k")
    put_job(conn, "other", status, dedupe_key="k")
    assert claim(conn).job.id == "waits"


def test_a_replay_is_no_duplicate_of_what_it_repeats(conn: sqlite3.Connection) -> None:
    put_job(conn, "done", Status.SUCCEEDED, dedupe_key="k")
    put_job(conn, "again", dedupe_key="k", replay_of="done", submitted_by="replay")
    claimed = claim(conn)
    assert (claimed.job and claimed.job.id, claimed.duplicates) == ("again", ())
