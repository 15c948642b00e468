from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from ductile.config.model import BreakerRule, Retry, Route
from ductile.db import transaction
from ductile.dispatch import transactions
from ductile.dispatch.conclude import Conclusion, Rules
from ductile.dispatch.outcome import Failed, Interrupted, Outcome, Refused, Succeeded
from ductile.injected import NewId
from ductile.pipeline.graph import Node, build
from ductile.plugin import plugin_table
from ductile.protocol import decode_response
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, StaleJob, Status, Submitter
from ductile.routing.router import Router
from ductile.scheduler import schedule_table
from ductile.scheduler.schedule import Slot
from ductile.scheduler.schedule_table import ScheduleEntry
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


def finish(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules = RULES,
           new_id: NewId | None = None) -> Conclusion:
    return transactions.finish(conn, job, outcome, rules, now=LATER, rng=Random(0), new_id=new_id or ids())


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


def _took_along(conn: sqlite3.Connection, cursor: dict[str, int], names: Iterable[str], job_id: str,
                new_id: NewId | None = None) -> Conclusion:
    """Finish a poll that keeps a large cursor and emits an event for each name."""
    routes = (Route(source="echo", event_type="file", target="filer"),)
    rules = replace(RULES, routing=replace(NO_ROUTING, router=Router(routes), max_attempts={"filer": 4}))
    events = [{"type": "file", "payload": {"path": name}} for name in names]
    answer = {"status": "ok", "result": f"{len(events)} files", "events": events,
              "state_updates": {"files": cursor, "since": "today"}}
    return finish(conn, put_job(conn, job_id, Status.RUNNING), Succeeded(
        response=decode_response(json.dumps(answer).encode()), exit_code=0), rules, new_id)


def test_a_cursor_of_16200_files_stays_at_home_and_loses_no_event(conn: sqlite3.Connection) -> None:
    cursor = {f"photos/2026/IMG_{number:05}.jpg": 1_770_000_000 + number for number in range(16_200)}
    conclusion = _took_along(conn, cursor, list(cursor)[-50:], "a")
    assert conclusion.status is Status.SUCCEEDED
    assert state_table.get(conn, "echo") == {"files": cursor, "since": "today"}
    told = conn.execute("SELECT j.payload, c.accumulated_json FROM job_queue j JOIN event_context c"
                        " ON c.id = j.event_context_id ORDER BY j.seq").fetchall()
    assert [json.loads(payload)["payload"] for payload, _ in told] == [
        {"path": name, "result": "50 files"} for name in list(cursor)[-50:]]
    assert {tuple(json.loads(known)) for _, known in told} == {
        ("origin_plugin", "origin_event_type", "origin_job_id", "since", "path")}
    [attempt] = attempt_table.of_job(conn, "a")
    notes = ["the state key 'files' is not passed on: longer than 4,096 bytes as JSON"]
    assert json.loads(attempt.result)["notes"] == notes


def test_the_database_stays_small_however_large_the_cursor_of_a_busy_poll(
        conn: sqlite3.Connection, tmp_path: Path) -> None:
    cursor = {f"photos/2026/IMG_{number:05}.jpg": 1_770_000_000 + number for number in range(5000)}
    names, new_id = list(cursor), ids()
    for number in range(5):
        _took_along(conn, cursor, names[number * 1000:(number + 1) * 1000], f"poll-{number}", new_id)
    assert conn.execute("SELECT count(*) FROM job_queue WHERE plugin = 'filer'").fetchone() == (5000,)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "state.db").stat().st_size < 10_000_000


def listening() -> Rules:
    """Rules under which a pipeline takes what the core tells of deaths and recoveries."""
    pipelines = {each: build(name=each, on=f"ductile.job.{each}", entry=("a",), nodes=[
        Node(id="a", plugin="notify", command="handle", deep_copy=False, next=())]) for each in ("dead", "recovered")}
    return replace(RULES, routing=replace(NO_ROUTING, router=Router((), pipelines)))


def told(conclusion: Conclusion) -> list[tuple]:
    payloads = [json.loads(each.job.payload)["payload"] for each in conclusion.jobs]
    return [(each["job_id"], each.get("failures_in_row", each.get("failures"))) for each in payloads]


def test_deaths_in_a_row_are_counted_until_a_success_which_is_told_once(conn: sqlite3.Connection) -> None:
    rules, new_id = listening(), ids()

    def end(job_id: str, outcome: Outcome, **fields: object) -> list[tuple]:
        return told(finish(conn, put_job(conn, job_id, Status.RUNNING, **fields), outcome, rules, new_id))

    dead, well = Refused(error="gone"), Succeeded()
    assert end("a", dead) == [("a", 1)]
    assert end("b", dead) == [("b", 2)]
    # Another command, an attempt that is tried again, and a job that was cancelled are none of them.
    assert end("c", dead, command="handle") == [("c", 1)]
    assert end("d", Failed(error="down")) == []
    end("e", dead)
    conn.execute("UPDATE job_queue SET cancel_requested_at = completed_at WHERE id = 'e'")
    assert end("f", well) == [("f", 2)]
    assert end("g", well) == []
    assert end("h", dead) == [("h", 1)]
    assert end("i", well) == [("i", 1)]


def test_a_success_after_an_operators_retry_is_a_recovery(conn: sqlite3.Connection) -> None:
    rules, new_id = listening(), ids()
    finish(conn, put_job(conn, "a", Status.RUNNING, max_attempts=4), Refused(error="gone"), rules, new_id)
    with transaction(conn):
        job_table.move(conn, job_table.get(conn, "a"), Status.QUEUED, LATER, attempt=2, max_attempts=5, error="gone")
        job_table.move(conn, job_table.get(conn, "a"), Status.RUNNING, LATER, error="gone")
    assert told(finish(conn, job_table.get(conn, "a"), Succeeded(), rules, new_id)) == [("a", 1)]


def test_without_a_pipeline_that_takes_it_nobody_looks_back(conn: sqlite3.Connection) -> None:
    finish(conn, put_job(conn, "a", Status.RUNNING), Refused(error="gone"))
    read: list[str] = []
    job = put_job(conn, "b", Status.RUNNING)
    conn.set_trace_callback(lambda sql: read.append(sql) if "LIMIT 10000" in sql else None)
    finish(conn, job, Succeeded())
    conn.set_trace_callback(None)
    assert read == []


def test_a_success_is_noted_with_its_schedule(conn: sqlite3.Connection) -> None:
    slot = Slot(base_at=START, next_run_at=LATER, anchor="")
    for number, outcome in enumerate((Failed(error="down"), Succeeded())):
        with transaction(conn):
            schedule_table.put_entry(conn, ScheduleEntry(plugin="echo", schedule_id="often", slot=slot, rule="r"))
        finish(conn, put_job(conn, f"j{number}", Status.RUNNING, schedule_id="often"), outcome)
        silence = schedule_table.entries(conn)["echo", "often"].silence
        assert silence.last_success_at == (LATER if isinstance(outcome, Succeeded) else None)


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
