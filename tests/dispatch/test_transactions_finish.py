from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from ductile.config.model import BreakerRule, Retry
from ductile.db import transaction
from ductile.dispatch import transactions
from ductile.dispatch.conclude import Conclusion, Rules
from ductile.dispatch.outcome import Failed, Interrupted, Outcome, Refused, Succeeded
from ductile.plugin import plugin_table
from ductile.protocol import decode_response
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, StaleJob, Status, Submitter
from ductile.scheduler import schedule_table
from ductile.state import state_table
from support.clock import START
from support.ledger import dump, ids, opened, put_job
from support.worlds import NO_ROUTING

RULES = Rules(retry=Retry(max_attempts=4, backoff_base=30), breaker=BreakerRule(threshold=1), fingerprint="f1",
              routing=NO_ROUTING)
LATER = START + timedelta(seconds=7)
ANSWER = decode_response(b'{"status": "ok", "state_updates": {"token": "new"}}')


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened(tmp_path) as made:
        yield made


def finish(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules = RULES) -> Conclusion:
    return transactions.finish(conn, job, outcome, rules, now=LATER, rng=Random(0), new_id=ids())


def test_a_success_is_in_the_ledger_whole(conn: sqlite3.Connection) -> None:
    job = put_job(conn, "a", Status.RUNNING)
    with transaction(conn):
        state_table.put(conn, "echo", {"token": "old", "kept": 1}, START)
    finish(conn, job, Succeeded(response=ANSWER, exit_code=0, stderr="hm"))
    row = job_table.get(conn, "a")
    assert (row.status, row.completed_at, row.last_error, row.attempt) == (Status.SUCCEEDED, LATER, None, 1)
    assert state_table.get(conn, "echo") == {"token": "new", "kept": 1}
    [attempt] = attempt_table.of_job(conn, "a")
    assert (attempt.attempt, attempt.status, attempt.exit_code, attempt.stderr, attempt.seconds) == (
        1, "succeeded", 0, "hm", 7.0)
    assert json.loads(attempt.result) == ANSWER.raw


def test_a_failure_that_may_be_mended_waits_for_its_retry(conn: sqlite3.Connection) -> None:
    job = put_job(conn, "a", Status.RUNNING)
    conclusion = finish(conn, job, Failed(error="down", response=ANSWER))
    row = job_table.get(conn, "a")
    assert (row.status, row.attempt, row.completed_at, row.last_error) == (Status.QUEUED, 2, None, "down")
    assert row.next_retry_at == job_table.next_retry_at(conn)
    assert abs(row.next_retry_at - conclusion.retry_at) < timedelta(milliseconds=1)
    assert LATER + timedelta(seconds=30) <= row.next_retry_at <= LATER + timedelta(seconds=60)
    assert state_table.get(conn, "echo") == {"token": "new"}


def test_each_attempt_has_its_row_and_a_stop_uses_its_number_again(conn: sqlite3.Connection) -> None:
    job = put_job(conn, "a", Status.RUNNING)
    for outcome in (Interrupted(by="stop", error="s"), Interrupted(by="crash", error="c"), Refused(error="gone")):
        finish(conn, job, outcome)
        if job_table.get(conn, "a").status is Status.QUEUED:
            job = transactions.claim(conn, plugins=["echo"], blocked=[], dedupe_ttl=60, now=LATER).job
    assert [(each.attempt, each.status, each.last_error) for each in attempt_table.of_job(conn, "a")] == [
        (1, "interrupted", "s"), (1, "orphaned", "c"), (2, "failed", "gone")]


def test_a_scheduled_jobs_death_opens_its_breaker(conn: sqlite3.Connection) -> None:
    job = put_job(conn, "a", Status.RUNNING, submitted_by=Submitter.SCHEDULER)
    finish(conn, job, Refused(error="gone"))
    found = schedule_table.breaker(conn, "echo", "poll")
    assert (found.state, found.failure_count, found.opened_at) == ("open", 1, LATER)


@pytest.mark.parametrize(("outcome", "done"), [(Succeeded(), {("echo", "f1")}), (Refused(error="gone"), set())])
def test_the_end_of_init_is_noted(conn: sqlite3.Connection, outcome: Outcome, done: set) -> None:
    job = put_job(conn, "a", Status.RUNNING, command="init", submitted_by=Submitter.INIT, max_attempts=1)
    finish(conn, job, outcome)
    assert plugin_table.initialised(conn) == done


def test_an_init_that_is_always_cut_short_is_dead_after_three_more_attempts(conn: sqlite3.Connection) -> None:
    put_job(conn, "a", command="init", submitted_by=Submitter.INIT, max_attempts=1)
    seen = []
    while (job := transactions.claim(conn, plugins=["echo"], blocked=[], dedupe_ttl=60, now=LATER).job) is not None:
        seen.append(finish(conn, job, Interrupted(by="crash", error="c")).status)
    assert seen == [Status.QUEUED] * 3 + [Status.DEAD]


@pytest.mark.parametrize("meanwhile", ["cancelled", "another attempt", "gone"])
@pytest.mark.parametrize("outcome", [
    Succeeded(response=ANSWER), Failed(error="down", response=ANSWER), Refused(error="gone", response=ANSWER),
    Interrupted(by="crash", error="c"),
], ids=lambda outcome: type(outcome).__name__)
def test_a_row_that_somebody_else_has_changed_is_left_as_it_is(
    conn: sqlite3.Connection, outcome: Outcome, meanwhile: str,
) -> None:
    job = put_job(conn, "a", Status.RUNNING, submitted_by=Submitter.SCHEDULER)
    if meanwhile == "cancelled":
        with transaction(conn):
            job_table.move(conn, job, Status.DEAD, START)
    stale = {"another attempt": replace(job, attempt=2), "gone": replace(job, id="b")}.get(meanwhile, job)
    before = dump(conn)
    with pytest.raises(StaleJob) as caught:
        finish(conn, stale, outcome)
    assert dump(conn) == before
    assert str(caught.value) == f"job {stale.id} is no longer running in attempt {stale.attempt}"


def test_what_is_finished_cannot_be_finished_again(conn: sqlite3.Connection) -> None:
    job = put_job(conn, "a", Status.RUNNING)
    finish(conn, job, Succeeded(response=ANSWER))
    before = dump(conn)
    with pytest.raises(StaleJob):
        finish(conn, job, Succeeded(response=ANSWER))
    assert dump(conn) == before
