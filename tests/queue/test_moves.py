from __future__ import annotations

import itertools
import sqlite3
from datetime import timedelta

import pytest

from ductile import db
from ductile.queue import job_table
from ductile.queue.job import MOVES, StaleJob, Status
from support.clock import START
from support.ledger import opened, put_job

LATER = START + timedelta(minutes=5)
LEGAL = {
    ("queued", "running"), ("queued", "dead"), ("queued", "deduped"), ("running", "succeeded"), ("running", "queued"),
    ("running", "dead"), ("dead", "queued"),
}


@pytest.fixture
def conn(tmp_path):
    with opened(tmp_path) as conn:
        yield conn


@pytest.mark.parametrize("before, to", list(itertools.product(Status, Status)))
def test_only_the_legal_moves_are_made(conn, before, to):
    job = put_job(conn, "a", before)
    if (before, to) in LEGAL:
        job_table.move(conn, job, to, LATER)
        assert job_table.get(conn, "a").status is to
    else:
        with pytest.raises(ValueError) as caught:
            job_table.move(conn, job, to, LATER)
        assert str(caught.value) == f"a job cannot go from {before} to {to}"
        assert job_table.get(conn, "a") == job


def test_the_table_of_moves_is_the_specifications():
    assert MOVES == LEGAL


@pytest.mark.parametrize("status, is_last", [
    (Status.QUEUED, False), (Status.RUNNING, False), (Status.SUCCEEDED, True), (Status.DEAD, True),
    (Status.DEDUPED, True),
])
def test_a_job_has_an_end_time_when_its_status_is_a_last_one(conn, status, is_last):
    job = put_job(conn, "a", status)
    assert (job.status.is_last, job.completed_at is not None) == (is_last, is_last)


def test_a_start_is_stamped(conn):
    job_table.move(conn, put_job(conn, "a"), Status.RUNNING, LATER)
    assert (job_table.get(conn, "a").started_at, job_table.get(conn, "a").created_at) == (LATER, START)


def test_a_retry_keeps_its_place_and_its_last_start(conn):
    running = put_job(conn, "a", Status.RUNNING)
    put_job(conn, "b")
    job_table.move(conn, running, Status.QUEUED, LATER, attempt=2, retry_at=LATER, error="failed")
    job = job_table.get(conn, "a")
    assert (job.seq, job.attempt, job.max_attempts, job.next_retry_at, job.last_error, job.started_at) == (
        running.seq, 2, 4, LATER, "failed", START)


def test_a_dead_job_that_the_operator_retries_is_open_again(conn):
    job_table.move(conn, put_job(conn, "a", Status.DEAD), Status.QUEUED, LATER, attempt=5, max_attempts=8)
    job = job_table.get(conn, "a")
    assert (job.attempt, job.max_attempts, job.completed_at, job.next_retry_at) == (5, 8, None, None)


def test_the_later_start_replaces_the_earlier_one(conn):
    job_table.move(conn, put_job(conn, "a", Status.RUNNING), Status.QUEUED, START, attempt=2)
    job_table.move(conn, job_table.get(conn, "a"), Status.RUNNING, LATER)
    assert job_table.get(conn, "a").started_at == LATER


def test_a_job_that_somebody_else_has_moved_is_stale(conn):
    job = put_job(conn, "a")
    job_table.move(conn, job, Status.DEAD, START, error="cancelled by operator")
    cancelled = job_table.get(conn, "a")
    with pytest.raises(StaleJob) as caught:
        job_table.move(conn, job, Status.RUNNING, LATER)
    assert str(caught.value) == "job a is no longer queued in attempt 1"
    assert job_table.get(conn, "a") == cancelled


def test_a_job_in_another_attempt_is_stale(conn):
    job = put_job(conn, "a", Status.RUNNING)
    job_table.move(conn, job, Status.QUEUED, START, attempt=2)
    job_table.move(conn, job_table.get(conn, "a"), Status.RUNNING, START)
    again = job_table.get(conn, "a")
    with pytest.raises(StaleJob) as caught:
        job_table.move(conn, job, Status.SUCCEEDED, LATER)
    assert str(caught.value) == "job a is no longer running in attempt 1"
    assert job_table.get(conn, "a") == again


def test_a_job_that_is_gone_is_stale(conn):
    job = put_job(conn, "a")
    with db.transaction(conn):
        job_table.remove(conn, ["a"])
    with pytest.raises(StaleJob):
        job_table.move(conn, job, Status.RUNNING, LATER)


@pytest.mark.parametrize("change", [
    "status = 'paused'", "status = 'succeeded'", "completed_at = '2026-02-08T10:00:00.000Z'", "attempt = 0",
    "submitted_by = 'nobody'", "root_job_id = NULL", "created_at = NULL",
])
def test_the_database_itself_refuses_what_cannot_be(conn, change):
    put_job(conn, "a")
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute(f"UPDATE job_queue SET {change}")
