from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ductile.config.model import BreakerRule, Retry
from ductile.dispatch.conclude import Before, Conclusion, Failures, Init, Rules, conclude
from ductile.dispatch.outcome import (
    Failed,
    Interrupted,
    Outcome,
    Refused,
    Succeeded,
    TimedOut,
    Unrunnable,
    overruled,
)
from ductile.dispatch.result_record import RESULT_LIMIT_BYTES, encode_result
from ductile.pipeline.graph import Node, Pipeline, Position, build
from ductile.protocol import Response, decode_response
from ductile.queue.job import Job, Status, Submitter
from ductile.routing.baggage import Context
from ductile.routing.router import Router
from ductile.scheduler.breaker import CLOSED, Breaker
from ductile.workspace.artifact import Artifact
from support.clock import START
from support.ledger import ids
from support.worlds import NO_ROUTING

RULES = Rules(retry=Retry(max_attempts=4, backoff_base=30), breaker=BreakerRule(threshold=3), fingerprint="f1",
              routing=NO_ROUTING)
JOB = Job(
    seq=1, id="j1", plugin="echo", command="poll", payload=None, status=Status.RUNNING, attempt=1, max_attempts=4,
    submitted_by=Submitter.CLI, dedupe_key=None, created_at=START, started_at=START, completed_at=None,
    next_retry_at=None, last_error=None, parent_job_id=None, root_job_id="j1", source_event_id=None,
    event_context_id=None, pipeline_name=None, pipeline_hash=None, step_id=None, replay_of=None, core_event=None,
)
STOP = Interrupted(by="stop", error="interrupted by a stop of the daemon")
CRASH = Interrupted(by="crash", error="orphaned: ductiled ended while it ran")
OUTCOMES: dict[str, tuple[Outcome, str]] = {
    "succeeded": (Succeeded(), "succeeded"),
    "failed": (Failed(error="down"), "failed"),
    "refused": (Refused(error="gone"), "failed"),
    "timed out": (TimedOut(error="timed out after 60s"), "timed_out"),
    "unrunnable": (Unrunnable(error="could not be started: x"), "failed"),
    "stop": (STOP, "interrupted"),
    "crash": (CRASH, "orphaned"),
}
LARGE = "x" * 1024**2


class Half:
    """Chance that always falls in the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def concluded(outcome: Outcome, *, state: dict[str, Any] | None = None, breaker: Breaker = CLOSED,
              interruptions: int = 0, cancel_requested: bool = False,
              rules: Rules = RULES, context: Context | None = None, position: Position | None = None,
              failures: Failures = Failures(), **job: Any) -> Conclusion:
    before = Before(state=state or {}, breaker=breaker, interruptions=interruptions, cancel_requested=cancel_requested,
                    context=context, position=position,
                    failures=failures)
    return conclude(replace(JOB, **job), outcome, before, rules, now=START, rng=Half(), new_id=ids())


def result_of(found: Conclusion) -> str:
    """What the ledger keeps of a response whose events went nowhere to be told of."""
    return encode_result(found.response, None, found.warnings)


def response(**answer: Any) -> Response:
    return decode_response(json.dumps({"status": "ok", **answer}).encode())


def breaker(state: str, failures: int) -> Breaker:
    return Breaker(state=state, failure_count=failures, opened_at=None if state == "closed" else START)


@pytest.mark.parametrize(("name", "attempt", "expected"), [
    # The outcome, the attempt of four: the status, the row's attempt from now on, the seconds until it is tried again.
    ("succeeded", 1, (Status.SUCCEEDED, 1, None)),
    ("succeeded", 4, (Status.SUCCEEDED, 4, None)),
    ("failed", 1, (Status.QUEUED, 2, 45)),
    ("failed", 2, (Status.QUEUED, 3, 75)),
    ("failed", 3, (Status.QUEUED, 4, 135)),
    ("failed", 4, (Status.DEAD, 4, None)),
    ("failed", 5, (Status.DEAD, 5, None)),
    ("refused", 1, (Status.DEAD, 1, None)),
    ("refused", 4, (Status.DEAD, 4, None)),
    ("timed out", 1, (Status.QUEUED, 2, 45)),
    ("timed out", 4, (Status.DEAD, 4, None)),
    ("unrunnable", 1, (Status.QUEUED, 2, 45)),
    ("unrunnable", 4, (Status.DEAD, 4, None)),
    ("stop", 1, (Status.QUEUED, 1, None)),
    ("stop", 4, (Status.QUEUED, 4, None)),
    ("crash", 1, (Status.QUEUED, 2, None)),
    ("crash", 3, (Status.QUEUED, 4, None)),
    ("crash", 4, (Status.DEAD, 4, None)),
])
def test_the_outcome_and_the_attempts_left_decide(name: str, attempt: int, expected: tuple) -> None:
    outcome, logged = OUTCOMES[name]
    found = concluded(outcome, attempt=attempt)
    delay = None if found.retry_at is None else (found.retry_at - START).total_seconds()
    assert (found.status, found.attempt, delay) == expected
    assert (found.max_attempts, found.error, found.log.error) == (4, outcome.error, outcome.error)
    assert (found.log.status, found.log.completed_at) == (logged, START)
    assert (found.state, found.breaker, found.init) == (None, None, None)


@pytest.mark.parametrize("name", set(OUTCOMES) - {"succeeded"})
@pytest.mark.parametrize("submitted_by", list(Submitter))
def test_a_cancelled_job_is_dead_and_raises_no_event_and_counts_for_no_breaker(name: str,
                                                                               submitted_by: Submitter) -> None:
    found = concluded(OUTCOMES[name][0], cancel_requested=True, submitted_by=submitted_by)
    assert (found.status, found.attempt, found.retry_at) == (Status.DEAD, 1, None)
    assert (found.error, found.log.status) == ("cancelled by operator", "failed")
    assert (found.jobs, found.breaker) == ((), None)


def test_a_success_comes_before_its_cancelling() -> None:
    outcome = OUTCOMES["succeeded"][0]
    assert concluded(outcome, cancel_requested=True) == concluded(outcome)


def test_a_cancelled_attempt_keeps_what_a_failed_one_keeps() -> None:
    outcome = Failed(error="it failed", response=response(state_updates={"token": "new"}), exit_code=1, stderr="why")
    found = concluded(outcome, cancel_requested=True)
    assert (found.state, found.log.exit_code, found.log.stderr) == ({"token": "new"}, 1, "why")


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("interruptions", [0, 3, 1000])
def test_how_often_a_job_was_cut_short_matters_to_init_alone(name: str, interruptions: int) -> None:
    assert concluded(OUTCOMES[name][0], interruptions=interruptions) == concluded(OUTCOMES[name][0])


def test_the_retry_follows_the_configuration_that_the_job_was_claimed_under() -> None:
    rules = replace(RULES, retry=Retry(max_attempts=2, backoff_base=10, backoff_max=12))
    found = concluded(Failed(error="down"), rules=rules)
    assert (found.retry_at, found.max_attempts) == (START + timedelta(seconds=12), 4)


@pytest.mark.parametrize("submitted_by", Submitter)
@pytest.mark.parametrize("name", OUTCOMES)
def test_a_breaker_counts_the_ends_of_scheduled_jobs_alone(name: str, submitted_by: Submitter) -> None:
    found = concluded(OUTCOMES[name][0], submitted_by=submitted_by, attempt=4, breaker=breaker("closed", 1))
    if submitted_by is not Submitter.SCHEDULER or name == "stop":
        assert found.breaker is None
    elif name == "succeeded":
        assert found.breaker == CLOSED
    else:
        assert found.breaker == breaker("closed", 2)


@pytest.mark.parametrize(("before", "outcome", "after"), [
    (CLOSED, Succeeded(), None),
    (breaker("closed", 2), Refused(error="gone"), breaker("open", 3)),
    (breaker("half_open", 3), Refused(error="gone"), breaker("open", 4)),
    (breaker("half_open", 3), Succeeded(), CLOSED),
    (breaker("half_open", 3), Failed(error="down"), None),
    (breaker("half_open", 3), STOP, None),
])
def test_a_breaker_changes_only_when_a_job_has_ended(before: Breaker, outcome: Outcome, after: Breaker | None) -> None:
    assert concluded(outcome, breaker=before, submitted_by=Submitter.SCHEDULER).breaker == after


@pytest.mark.parametrize(("outcome", "status", "init"), [
    (Succeeded(), Status.SUCCEEDED, Init(fingerprint="f1", ok=True)),
    (Failed(error="down"), Status.DEAD, Init(fingerprint="f1", ok=False)),
    (Refused(error="gone"), Status.DEAD, Init(fingerprint="f1", ok=False)),
    (TimedOut(error="slow"), Status.DEAD, Init(fingerprint="f1", ok=False)),
    (Unrunnable(error="not"), Status.DEAD, Init(fingerprint="f1", ok=False)),
    (STOP, Status.QUEUED, None),
    (CRASH, Status.QUEUED, None),
])
def test_init_has_one_attempt_and_its_end_is_noted(outcome: Outcome, status: Status, init: Init | None) -> None:
    found = concluded(outcome, command="init", submitted_by=Submitter.INIT, max_attempts=1)
    assert (found.status, found.init, found.retry_at) == (status, init, None)


@pytest.mark.parametrize("outcome", [STOP, CRASH], ids=["stop", "crash"])
@pytest.mark.parametrize(("interruptions", "status"), [
    (0, Status.QUEUED), (1, Status.QUEUED), (2, Status.QUEUED), (3, Status.DEAD), (4, Status.DEAD),
])
def test_an_init_that_was_cut_short_is_queued_again_three_times(
    outcome: Interrupted, interruptions: int, status: Status,
) -> None:
    attempt = 1 + (interruptions if outcome.by == "crash" else 0)
    found = concluded(outcome, command="init", interruptions=interruptions, attempt=attempt, max_attempts=attempt)
    assert found.status is status
    assert found.init == (Init(fingerprint="f1", ok=False) if status is Status.DEAD else None)
    assert found.attempt == attempt + (outcome.by == "crash" and status is Status.QUEUED)
    assert found.max_attempts >= found.attempt


def test_the_init_of_a_plugin_that_is_not_loaded_notes_nothing() -> None:
    assert concluded(Refused(error="gone"), command="init", rules=replace(RULES, fingerprint=None)).init is None


@pytest.mark.parametrize("kind", [Succeeded, Failed, Refused, TimedOut, Unrunnable])
def test_state_is_merged_whatever_became_of_the_attempt(kind: type) -> None:
    found = concluded(kind(response=response(state_updates={"token": "new", "none": None})),
                      state={"token": "old", "kept": 1})
    assert found.state == {"token": "new", "kept": 1, "none": None}


@pytest.mark.parametrize("outcome", [STOP, CRASH], ids=["stop", "crash"])
def test_state_is_merged_by_an_attempt_that_was_cut_short(outcome: Interrupted) -> None:
    assert concluded(replace(outcome, response=response(state_updates={"a": 1}))).state == {"a": 1}


@pytest.mark.parametrize("answer", [{}, {"state_updates": {}}, {"state_updates": None}])
def test_an_answer_without_updates_writes_no_state(answer: dict[str, Any]) -> None:
    assert concluded(Succeeded(response=response(**answer)), state={"a": 1}).state is None


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_state_that_would_be_too_large_is_a_death_and_the_rest_is_kept(name: str) -> None:
    answer = response(state_updates={"b": LARGE}, logs=[{"message": "said"}])
    outcome = replace(OUTCOMES[name][0], response=answer, stderr="complained", exit_code=3, printed="p")
    found = concluded(outcome, state={"a": 1}, submitted_by=Submitter.SCHEDULER, breaker=breaker("closed", 2))
    text = "its state would be 1,048,590 bytes, at most 1,048,576 are allowed"
    assert (found.status, found.state, found.retry_at) == (Status.DEAD, None, None)
    assert (found.error, found.log.error, found.log.status) == (text, text, "failed")
    assert (found.log.stderr, found.log.exit_code, found.log.printed) == ("complained", 3, "p")
    assert json.loads(result_of(found))["logs"] == [{"level": "info", "message": "said"}]
    assert found.breaker == breaker("open", 3)


def test_a_cancelled_job_stays_a_cancelled_one_whatever_its_state_would_be() -> None:
    answer = response(state_updates={"b": LARGE, "access_token": "new"})
    found = concluded(Failed(error="it failed", response=answer), cancel_requested=True, state={"a": 1},
                      submitted_by=Submitter.SCHEDULER, breaker=breaker("closed", 2))
    assert (found.status, found.error) == (Status.DEAD, "cancelled by operator")
    assert (found.jobs, found.breaker, found.state) == ((), None, {"a": 1, "access_token": "new"})


def test_a_state_of_exactly_the_limit_is_kept() -> None:
    found = concluded(Succeeded(response=response(state_updates={"b": "x" * (1024**2 - len('{"b":""}'))})))
    assert (found.status, len(found.state["b"])) == (Status.SUCCEEDED, 1_048_568)


MIXED = {"cursor": 9, "session": {"id": 1}, "access_token": "new", "oauth": {"refreshToken": "r", "scope": "all"},
         "accounts": [{"name": "a", "api-key": "k"}], "tokens_used": 3}


@pytest.mark.parametrize("updates", [MIXED, {**MIXED, "large": LARGE}], ids=["no place", "too large"])
def test_of_an_answer_that_the_core_refuses_only_credentials_and_private_keys_are_kept_whole(
        updates: dict[str, Any]) -> None:
    rules = replace(HEARD, routing=replace(HEARD.routing, private_state=frozenset({"session", "absent"})))
    found = concluded(Succeeded(response=response(state_updates=updates)), rules=rules, state={"cursor": 1, "a": 1},
                      **IN_WISDOM)
    assert (found.status, found.jobs[0].job.core_event) == (Status.DEAD, "ductile.job.dead")
    assert found.state == {"cursor": 1, "a": 1, "session": {"id": 1}, "access_token": "new",
                           "oauth": MIXED["oauth"], "accounts": MIXED["accounts"]}


@pytest.mark.parametrize("kind", [Failed, Refused])
def test_a_cursor_stays_where_the_core_could_not_keep_what_a_success_made(kind: type) -> None:
    done = Succeeded(response=response(state_updates={"cursor": 9, "token": "new"}), exit_code=0)
    assert concluded(overruled(done, kind, "no room"), state={"cursor": 1}).state == {"cursor": 1, "token": "new"}


def test_an_answer_that_is_refused_and_has_no_credentials_writes_no_state() -> None:
    done = Succeeded(response=response(state_updates={"cursor": 9}), exit_code=0)
    assert concluded(overruled(done, Refused, "too many events"), state={"cursor": 1}).state is None


def test_credentials_that_would_make_the_state_too_large_are_not_kept() -> None:
    assert concluded(Succeeded(response=response(state_updates={"token": LARGE}))).state is None


def test_the_ledger_has_the_answer_as_it_was_given_with_keys_that_nobody_knows() -> None:
    given = {"status": "ok", "unknown": [1, {"é": "\x07"}], "events": [{"type": "t", "payload": 1}]}
    found = concluded(Succeeded(response=decode_response(json.dumps(given).encode())))
    assert json.loads(result_of(found)) == given
    assert result_of(found).isascii()


@pytest.mark.parametrize(("length", "whole"), [(RESULT_LIMIT_BYTES, True), (RESULT_LIMIT_BYTES + 1, False)])
def test_a_result_over_256_kib_is_cut_and_marked(length: int, whole: bool) -> None:
    answer = {"status": "error", "error": "why\nit failed", "result": "",
              "events": [{"type": "a", "payload": {"x": 1}}, {"type": "b\n" + "c" * 300}],
              "logs": [{"level": "warning", "message": "first"}, {"message": "second"}], "state_updates": {"a": 1}}
    answer["result"] = "x" * (length - len(json.dumps(answer, separators=(",", ":"))))
    found = concluded(Failed(error="why", response=decode_response(json.dumps(answer).encode())))
    assert RESULT_LIMIT_BYTES == 256 * 1024
    assert found.state == {"a": 1}
    assert json.loads(result_of(found)) == (answer if whole else {
        "status": "error", "error": "why\\nit failed", "truncated": True,
        "events": [{"type": "a"}, {"type": "b\\n" + "c" * 196 + "…"}],
        "logs": [{"level": "warn", "message": "first"}, {"level": "info", "message": "second"}],
    })


def test_of_logs_without_end_the_first_are_kept() -> None:
    logs = [{"level": "info", "message": f"{number} " + "x" * 1000} for number in range(1000)]
    text = result_of(concluded(Succeeded(response=response(logs=logs))))
    kept = json.loads(text)["logs"]
    assert kept == logs[:len(kept)]
    assert 250 < len(kept) < 260
    assert len(text) < RESULT_LIMIT_BYTES + 1000


@pytest.mark.parametrize(("context", "of_the_trigger"), [
    (None, ["the key 'job_id' of the payload has a name of the core's own, rename it"]),
    (Context(id="c", hop=1, accumulated={}), []),
])
@pytest.mark.parametrize("kind", [Succeeded, Failed])
def test_names_of_the_cores_own_are_told_whoever_takes_them(
    kind: type, context: Context | None, of_the_trigger: list[str],
) -> None:
    said = response(state_updates={"config": 1, "mine": 2}, events=[
        {"type": "a", "payload": {"ductile_x": 1}}, {"type": "b", "payload": {"ductile_x": 2, "event": 3}}])
    found = concluded(kind(response=said), context=context,
                      payload=json.dumps({"type": "webhook", "payload": {"job_id": 1, "a": 2}}))
    assert list(found.warnings) == of_the_trigger + [
        f"the key '{key}' of the {whose} has a name of the core's own, rename it"
        for key, whose in (("config", "state"), ("ductile_x", "payload"), ("event", "payload"))]


@pytest.mark.parametrize("kind", [Succeeded, Failed, TimedOut])
def test_what_was_printed_and_complained_stands_in_the_ledger(kind: type) -> None:
    log = concluded(kind(printed="garbage", stderr="complained", exit_code=0)).log
    assert (log.printed, log.stderr, log.exit_code) == ("garbage", "complained", 0)
    assert concluded(kind()).log.stderr is None


# What the core tells of an end


def pipeline(name: str, on: str | None, *ids: str) -> Pipeline:
    """A pipeline of these steps in a row."""
    nodes = [Node(id=each, plugin=each, command="handle", deep_copy=False, next=ids[number + 1:number + 2])
             for number, each in enumerate(ids)]
    return build(name=name, on=on, entry=ids[:1], nodes=nodes)


CORE_EVENTS = ("ductile.job.dead", "ductile.job.recovered", "ductile.job.succeeded", "ductile.breaker.opened",
               "ductile.breaker.closed")
TAKERS = {each: pipeline(each.replace(".", "-"), each, "notify") for each in CORE_EVENTS}
WISDOM = pipeline("wisdom", "asked", "echo", "mail")
HEARD = replace(RULES, routing=replace(NO_ROUTING, router=Router((), {**TAKERS, "wisdom": WISDOM})))
IN_WISDOM = {"pipeline_name": "wisdom", "pipeline_hash": WISDOM.hash, "step_id": "echo"}
# Every outcome whose job may end dead, and the text that says why.
DEADLY = {name: outcome.error for name, (outcome, _) in OUTCOMES.items() if name not in ("succeeded", "stop")}
GONE = f"version {WISDOM.hash[:12]} of pipeline wisdom, which it began with, is gone from the database or damaged"
FILES = (Artifact(path="a", size=1, mtime_ns=2, digest="d"),)


def told(found: Conclusion) -> list[tuple[str, dict[str, Any]]]:
    """The core's events that the jobs carry which follow."""
    carried = [json.loads(each.job.payload) for each in found.jobs if each.job.core_event is not None]
    return [(event["type"], event["payload"]) for event in carried]


@pytest.mark.parametrize("name", DEADLY)
def test_every_death_is_told_whole(name: str) -> None:
    found = concluded(OUTCOMES[name][0], rules=HEARD, attempt=4, position=Position(pipeline=WISDOM, step_id="echo"),
                      **IN_WISDOM)
    assert found.status is Status.DEAD
    assert told(found) == [("ductile.job.dead", {
        "job_id": "j1", "plugin": "echo", "command": "poll", "step_id": "echo", "pipeline": "wisdom",
        "error": DEADLY[name], "attempts": 4, "failures_in_row": 1})]
    (follows,) = found.jobs
    assert (follows.event, follows.job.plugin, follows.job.parent_job_id, follows.job.core_event) == (
        None, "notify", "j1", "ductile.job.dead")


def test_a_death_outside_a_pipeline_has_no_step() -> None:
    assert told(concluded(Refused(error="gone"), rules=HEARD)) == [("ductile.job.dead", {
        "job_id": "j1", "plugin": "echo", "command": "poll", "step_id": None, "pipeline": None, "error": "gone",
        "attempts": 1, "failures_in_row": 1})]


FAILURES = Failures(count=3, since="2026-02-07T10:00:00.000Z")


def test_a_death_says_how_many_there_were_before_it() -> None:
    ((_, payload),) = told(concluded(Refused(error="gone"), rules=HEARD, failures=FAILURES))
    assert payload["failures_in_row"] == 4


@pytest.mark.parametrize(("failures", "announces", "expected"), [
    (Failures(), False, []),
    (FAILURES, False, [("ductile.job.recovered", {
        "job_id": "j1", "plugin": "echo", "command": "poll", "failures": 3,
        "dead_since": "2026-02-07T10:00:00.000Z"})]),
    (Failures(), True, [("ductile.job.succeeded", {
        "job_id": "j1", "plugin": "echo", "command": "poll", "result": "x" * 4096, "seconds": 0.0})]),
])
def test_a_success_is_told_after_a_death_and_where_it_is_announced(
        failures: Failures, announces: bool, expected: list) -> None:
    outcome = Succeeded(response=response(result="x" * 5000), exit_code=0)
    rules = replace(HEARD, announces_success=announces)
    assert told(concluded(outcome, rules=rules, failures=failures)) == expected
    assert told(concluded(outcome, rules=rules, failures=failures, core_event="ductile.job.dead")) == []


def test_a_success_of_a_schedules_job_is_noted_with_the_schedule() -> None:
    assert concluded(Succeeded(), schedule_id="nightly").succeeded_schedule == "nightly"
    assert concluded(Failed(error="down"), schedule_id="nightly").succeeded_schedule is None


def test_a_death_tells_the_pipelines_what_the_chain_knew() -> None:
    context = Context(id="c7", hop=7, accumulated={
        "origin_plugin": "cli", "origin_event_type": "asked", "origin_job_id": "j0", "city": "Perth"})
    (follows,) = concluded(Refused(error="gone"), rules=HEARD, context=context).jobs
    assert (follows.context.parent_id, follows.context.hop) == ("c7", 1)
    assert (follows.context.accumulated["city"], follows.context.accumulated["error"]) == ("Perth", "gone")


@pytest.mark.parametrize("name", [name for name in OUTCOMES if name != "refused"])
def test_an_attempt_that_is_tried_again_or_has_succeeded_is_no_death(name: str) -> None:
    found = concluded(OUTCOMES[name][0], rules=HEARD, attempt=3)
    assert (found.status in (Status.QUEUED, Status.SUCCEEDED), found.jobs) == (True, ())


def test_an_init_that_is_cut_short_too_often_is_a_death() -> None:
    assert [kind for kind, _ in told(concluded(STOP, rules=HEARD, command="init",
                                               interruptions=3))] == ["ductile.job.dead"]


@pytest.mark.parametrize("name", DEADLY)
@pytest.mark.parametrize("core_event", CORE_EVENTS)
def test_a_job_that_tells_of_a_death_raises_none(name: str, core_event: str) -> None:
    found = concluded(OUTCOMES[name][0], rules=HEARD, attempt=4, core_event=core_event)
    assert (found.status, found.jobs) == (Status.DEAD, ())


def test_a_limit_overstepped_is_a_death_that_is_told() -> None:
    large = concluded(Succeeded(response=response(state_updates={"b": LARGE})), rules=HEARD)
    assert [(kind, payload["error"]) for kind, payload in told(large)] == [
        ("ductile.job.dead", "its state would be 1,048,584 bytes, at most 1,048,576 are allowed")]
    short = replace(HEARD, routing=replace(HEARD.routing, max_hops=1))
    context = Context(id="c", hop=1, accumulated={
        "origin_plugin": "cli", "origin_event_type": "asked", "origin_job_id": "j0"})
    looped = concluded(Succeeded(response=response()), rules=short, context=context,
                       position=Position(pipeline=WISDOM, step_id="echo"), **IN_WISDOM)
    assert looped.status is Status.DEAD
    assert [(kind, payload["error"]) for kind, payload in told(looped)] == [("ductile.job.dead", looped.error)]


BREAKER_TURNS = [
    # What the breaker was, the outcome: the events, and the failures that the one of the breaker has.
    (breaker("closed", 1), Refused(error="gone"), ["ductile.job.dead"], None),
    (breaker("closed", 2), Refused(error="gone"), ["ductile.job.dead", "ductile.breaker.opened"], 3),
    (breaker("half_open", 3), Refused(error="gone"), ["ductile.job.dead", "ductile.breaker.opened"], 4),
    (breaker("open", 3), Refused(error="gone"), ["ductile.job.dead"], None),
    (breaker("closed", 2), Succeeded(), [], None),
    (breaker("half_open", 3), Succeeded(), ["ductile.breaker.closed"], 0),
    (breaker("open", 3), Succeeded(), ["ductile.breaker.closed"], 0),
    (breaker("half_open", 3), Failed(error="down"), [], None),
]


@pytest.mark.parametrize(("before", "outcome", "events", "failures"), BREAKER_TURNS)
def test_a_breaker_that_opens_or_closes_is_told_of(before: Breaker, outcome: Outcome, events: list[str],
                                                   failures: int | None) -> None:
    found = told(concluded(outcome, rules=HEARD, breaker=before, submitted_by=Submitter.SCHEDULER))
    assert [kind for kind, _ in found] == events
    assert [payload for kind, payload in found if "breaker" in kind] == [
        {"plugin": "echo", "command": "poll", "failures": failures, "job_id": "j1", "error": outcome.error}
        for _ in range(failures is not None)]


def test_of_a_job_that_nobody_scheduled_no_breaker_is_told() -> None:
    found = concluded(Refused(error="gone"), rules=HEARD, breaker=breaker("closed", 2))
    assert [kind for kind, _ in told(found)] == ["ductile.job.dead"]


# A step's way on


@pytest.mark.parametrize("answer", [{}, {"events": [{"type": "odd"}]}])
def test_a_success_in_a_version_that_is_gone_is_a_failure_for_good(answer: dict[str, Any]) -> None:
    outcome = Succeeded(response=response(state_updates={"token": "new"}, **answer), exit_code=0, artifacts=FILES)
    found = concluded(outcome, rules=HEARD, **IN_WISDOM)
    assert (found.status, found.error, found.log.status, found.log.error) == (Status.DEAD, GONE, "failed", GONE)
    assert (found.state, found.artifacts) == ({"token": "new"}, ())
    assert [kind for kind, _ in told(found)] == ["ductile.job.dead"]


@pytest.mark.parametrize("name", [name for name in OUTCOMES if name != "succeeded"])
def test_a_failure_in_a_version_that_is_gone_keeps_its_own_reason(name: str) -> None:
    assert concluded(OUTCOMES[name][0], **IN_WISDOM).error == OUTCOMES[name][0].error


def test_what_a_step_leads_to_and_what_the_core_tells_both_follow() -> None:
    found = concluded(Succeeded(response=response()), rules=HEARD, breaker=breaker("half_open", 3),
                      submitted_by=Submitter.SCHEDULER, position=Position(pipeline=WISDOM, step_id="echo"), **IN_WISDOM)
    assert [(each.job.plugin, each.job.core_event) for each in found.jobs] == [
        ("mail", None), ("notify", "ductile.breaker.closed")]


@pytest.mark.parametrize("name", OUTCOMES)
def test_files_count_with_a_success_alone(name: str) -> None:
    outcome = OUTCOMES[name][0]
    if isinstance(outcome, Succeeded):
        assert concluded(replace(outcome, artifacts=FILES)).artifacts == FILES
    else:
        assert concluded(outcome).artifacts == ()


def test_the_files_of_a_success_that_is_refused_do_not_count() -> None:
    found = concluded(Succeeded(response=response(state_updates={"b": LARGE}), artifacts=FILES))
    assert (found.status, found.artifacts) == (Status.DEAD, ())
