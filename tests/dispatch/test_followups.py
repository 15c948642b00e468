from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ductile.config.model import Route
from ductile.dispatch.followups import FollowUp, FollowUps, RoutingContext, core_event_jobs, follow_up_jobs
from ductile.pipeline.graph import Node, Pipeline, Position, build
from ductile.protocol import BREAKER_OPENED, JOB_DEAD, Event, Response, decode_response
from ductile.queue.job import Job, NewJob, Status, Submitter
from ductile.routing.baggage import LIMIT_BYTES, Context, NewContext
from ductile.routing.router import Router
from support.clock import START
from support.ledger import ids

JOB = Job(
    seq=1, id="parent", plugin="scale", command="poll", payload=None, status=Status.RUNNING, attempt=1, max_attempts=4,
    submitted_by=Submitter.CLI, dedupe_key="parent's", created_at=START, started_at=START, completed_at=None,
    next_retry_at=None, last_error=None, parent_job_id=None, root_job_id="root", source_event_id=None,
    event_context_id=None, pipeline_name=None, pipeline_hash=None, step_id=None, replay_of=None, core_event=None,
)
ROUTES = (("weighed", "zebra"), ("failed", "notify"), ("weighed", "analyser"), ("weighed", "mail"))
ROUTING = RoutingContext(
    router=Router(tuple(Route(source="scale", event_type=event, target=target) for event, target in ROUTES)),
    max_hops=20, max_attempts={"zebra": 1, "notify": 2, "analyser": 3, "mail": 4}, private_state=frozenset(),
    passes_state=True, dedupe_ttl=60,
)
CORE = {"origin_plugin": "scale", "origin_event_type": "weighed", "origin_job_id": "root"}
CONTEXT = Context(id="c7", hop=7, accumulated={**CORE, "origin_user": "ann", "city": "Perth"})
ONLY_FIRST = "is refused: only the first event of a chain may set keys that start 'origin_'"


def response(*events: dict[str, Any], **answer: Any) -> Response:
    return decode_response(json.dumps({"status": "ok", "events": events, **answer}).encode())


def weighed(payload: Any, **more: Any) -> dict[str, Any]:
    return {"type": "weighed", "payload": payload, **more}


def planned(answer: Response, *, context: Context | None = None, position: Position | None = None,
            routing: RoutingContext = ROUTING,
            **job: Any) -> FollowUps:
    return follow_up_jobs(replace(JOB, **job), answer, context, position, routing, now=START, new_id=ids())


def envelopes(onward: FollowUps) -> list[dict[str, Any]]:
    """The events that the jobs carry."""
    return [json.loads(each.job.payload) for each in onward.jobs]


def payloads(onward: FollowUps) -> list[Any]:
    return [each["payload"] for each in envelopes(onward)]


def contexts(onward: FollowUps) -> list[Any]:
    return [each.context.accumulated for each in onward.jobs]


def test_events_go_on_in_the_order_given_and_each_to_its_targets_in_the_order_of_the_configuration() -> None:
    onward = planned(response(weighed({"kg": 1}), {"type": "failed"}, {"type": "odd"}, weighed({"kg": 2})))
    assert [(each.event, each.job.plugin) for each in onward.jobs] == [
        (0, "zebra"), (0, "analyser"), (0, "mail"), (1, "notify"), (3, "zebra"), (3, "analyser"), (3, "mail")]
    assert payloads(onward) == [{"kg": 1}] * 3 + [{}] + [{"kg": 2}] * 3


def test_a_job_that_follows_knows_where_it_comes_from() -> None:
    [found] = planned(response({"type": "failed", "payload": {"why": "flat"}, "dedupe_key": "k"})).jobs
    event = {"type": "failed", "payload": {"why": "flat"}, "source": "scale", "timestamp": "2026-02-08T10:00:00.000Z",
             "event_id": found.job.source_event_id, "dedupe_key": "k"}
    assert json.loads(found.job.payload) == event
    assert found == FollowUp(
        event=0,
        job=NewJob(
            id=found.job.id, plugin="notify", command="handle", max_attempts=2, submitted_by=Submitter.ROUTE,
            payload=found.job.payload, dedupe_key="k", parent_job_id="parent", root_job_id="root",
            source_event_id=found.job.source_event_id, event_context_id=found.context.id),
        context=NewContext(id=found.context.id, hop=1, accumulated={
            **CORE, "origin_event_type": "failed", "why": "flat"}),
    )
    assert len({found.job.id, found.context.id, found.job.source_event_id}) == 3


def test_each_event_has_one_id_and_each_target_a_job_and_a_context_of_its_own() -> None:
    onward = planned(response(weighed({}), weighed({})))
    assert [(each.event, each.job.source_event_id) for each in onward.jobs] == [
        (each.event, envelope["event_id"]) for each, envelope in zip(onward.jobs, envelopes(onward), strict=False)]
    assert len({each.job.source_event_id for each in onward.jobs}) == 2
    assert len({each.job.id for each in onward.jobs}) == 6
    assert len({each.context.id for each in onward.jobs}) == 6
    assert [each.job.event_context_id for each in onward.jobs] == [each.context.id for each in onward.jobs]


def test_the_key_is_the_events_own_and_none_comes_from_the_parent() -> None:
    onward = planned(response(weighed({}, dedupe_key="a"), weighed({})))
    assert [each.job.dedupe_key for each in onward.jobs] == ["a"] * 3 + [None] * 3
    assert ["dedupe_key" in envelope for envelope in envelopes(onward)] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("events", [
    [], [{"type": "odd", "payload": {"x": "y" * LIMIT_BYTES}}], [{"type": "Weighed"}, {"type": "*"}],
])
@pytest.mark.parametrize("context", [None, replace(CONTEXT, hop=20)])
def test_an_event_that_nobody_takes_leads_nowhere_and_oversteps_nothing(events: Any, context: Context | None) -> None:
    answer = response(*events, state_updates={"context": 1, "origin_user": "bob"})
    assert planned(answer, context=context) == FollowUps()


def test_a_first_row_takes_from_the_event_that_the_job_began_with() -> None:
    trigger = json.dumps({"type": "asked", "payload": {"origin_user": "ann", "a": 1, "b": 1, "c": 1}, "source": "cli"})
    onward = planned(response(weighed({"c": 3}), state_updates={"b": 2, "c": 2}), payload=trigger)
    assert contexts(onward) == [{**CORE, "origin_user": "ann", "a": 1, "b": 2, "c": 3}] * 3
    assert onward.warnings == ()


@pytest.mark.parametrize("payload", [None, "text", 3, ["a", {"b": 1}]])
def test_a_trigger_that_is_no_object_adds_nothing(payload: Any) -> None:
    trigger = json.dumps({"type": "asked", "payload": payload, "source": "cli"})
    assert contexts(planned(response(weighed({"a": 1})), payload=trigger)) == [{**CORE, "a": 1}] * 3


def test_a_later_row_takes_from_its_parent_and_not_from_the_event_that_the_job_began_with() -> None:
    trigger = json.dumps({"type": "asked", "payload": {"city": "Hobart", "more": 1}, "source": "other"})
    onward = planned(response(weighed({"kg": 1})), context=CONTEXT, payload=trigger)
    assert contexts(onward) == [{**CONTEXT.accumulated, "kg": 1}] * 3
    assert {(each.context.parent_id, each.context.hop) for each in onward.jobs} == {("c7", 8)}


def test_events_of_one_response_know_nothing_of_each_other() -> None:
    onward = planned(response(weighed({"a": 1}), weighed({"b": 2})), context=CONTEXT)
    assert contexts(onward) == [{**CONTEXT.accumulated, "a": 1}] * 3 + [{**CONTEXT.accumulated, "b": 2}] * 3


@pytest.mark.parametrize("payload", [True, 0, 1.5, "text", [], [{"origin_user": "eve", "a": [1]}]])
def test_a_payload_that_is_no_object_is_handed_on_as_it_is(payload: Any) -> None:
    onward = planned(response(weighed(payload)), context=CONTEXT)
    assert (payloads(onward), contexts(onward)) == ([payload] * 3, [CONTEXT.accumulated] * 3)
    assert [type(each) for each in payloads(onward)] == [type(payload)] * 3


def test_credentials_and_private_keys_of_the_state_stay_home() -> None:
    answer = response(weighed({"kg": 1}), state_updates={
        "refresh_token": "s3cret", "session": "s3cret", "last": {"accessToken": "s3cret", "at": 5}})
    onward = planned(answer, routing=replace(ROUTING, private_state=frozenset({"session"})))
    assert contexts(onward) == [{**CORE, "kg": 1, "last": {"at": 5}}] * 3
    assert "s3cret" not in repr(onward)


def test_a_plugin_of_protocol_1_tells_nothing_of_its_state() -> None:
    answer = response(weighed({"kg": 1}), state_updates={"last": 1, "config": 2, "origin_user": "bob"})
    assert contexts(planned(answer, routing=replace(ROUTING, passes_state=False))) == [{**CORE, "kg": 1}] * 3
    assert planned(answer, routing=replace(ROUTING, passes_state=False)).warnings == ()


def test_a_rewritten_origin_is_refused_once_and_the_other_keys_go_on() -> None:
    onward = planned(response(weighed({"origin_user": "eve", "kg": 1}), weighed({"origin_user": "bob", "kg": 2})),
                     context=CONTEXT)
    assert payloads(onward) == [{"kg": 1}] * 3 + [{"kg": 2}] * 3
    assert contexts(onward) == [{**CONTEXT.accumulated, "kg": kg} for kg in (1, 1, 1, 2, 2, 2)]
    assert (onward.fault, onward.warnings) == (None, (f"the key 'origin_user' {ONLY_FIRST}",))


def test_the_same_origin_again_is_no_offence() -> None:
    payload = {"origin_user": "ann", "origin_job_id": "root", "kg": 1}
    onward = planned(response(weighed(payload)), context=CONTEXT)
    assert (payloads(onward), onward.warnings) == ([payload] * 3, ())
    assert contexts(onward) == [{**CONTEXT.accumulated, "kg": 1}] * 3


@pytest.mark.parametrize(("hop", "allowed"), [(18, True), (19, True), (20, False), (25, False)])
def test_a_chain_ends_at_the_hops_that_are_allowed(hop: int, allowed: bool) -> None:
    onward = planned(response(weighed({}), weighed({})), context=replace(CONTEXT, hop=hop))
    if allowed:
        assert (len(onward.jobs), onward.fault) == (6, None)
        return
    assert onward == FollowUps(fault=(
        f"its event would make a chain of {hop + 1} hops, at most 20 are allowed: "
        "look for a loop of routes or pipelines, or raise service.max_hops"))


def test_one_event_that_says_too_much_forbids_the_others_too() -> None:
    large = {"x": "y" * (LIMIT_BYTES - len('{"x":""}'))}
    onward = planned(response(weighed({"origin_user": "eve"}), weighed(large)), context=CONTEXT)
    size = LIMIT_BYTES + len(json.dumps(CONTEXT.accumulated, separators=(",", ":"))) - 1
    assert onward == FollowUps(
        fault=f"the baggage of its event would be {size:,} bytes, at most 1,048,576 are allowed: "
              "keep what is large in a file of the workspace",
        warnings=(f"the key 'origin_user' {ONLY_FIRST}",))


# A response whose events become three jobs each.
LARGE = {"x": "y" * 1_000_000}


@pytest.mark.parametrize(("count", "allowed"), [(11, True), (12, False), (1000, False)])
def test_the_payloads_and_contexts_of_one_response_are_limited_together(count: int, allowed: bool) -> None:
    answer = Response(status="ok", events=(Event(type="weighed", payload=LARGE),) * count)
    onward = planned(answer, context=CONTEXT)
    if allowed:
        assert (len(onward.jobs), onward.fault) == (3 * count, None)
        return
    # Event 12 is the one too many, and those after it are not looked at.
    total = sum(len(each.job.payload) + len(json.dumps(each.context.accumulated, separators=(",", ":")))
                for each in planned(replace(answer, events=answer.events[:1]), context=CONTEXT).jobs) * 12
    assert onward == FollowUps(fault=(
        f"the payloads and contexts of its events would be {total:,} bytes or more, at most 67,108,864 are allowed in "
        "one response: emit fewer events, keep what is large in a file of the workspace"))


def test_what_follows_from_a_replay_is_of_the_replay() -> None:
    assert {each.job.replay_of for each in planned(response(weighed({})), replay_of="old").jobs} == {"old"}
    assert {each.job.replay_of for each in planned(response(weighed({}))).jobs} == {None}


# Steps of a pipeline


def pipeline(name: str, on: str | None, **links: tuple[str, ...]) -> Pipeline:
    """A pipeline of these steps, each of the plugin of its name, and what follows them."""
    nodes = [Node(id=each, plugin=each, command="handle", deep_copy=False, next=following)
             for each, following in links.items()]
    return build(name=name, on=on, entry=(nodes[0].id,), nodes=nodes)


WISDOM = pipeline("wisdom", "asked", scale=("mail", "note"), mail=(), note=())
OTHERS = [WISDOM, pipeline("weights", "weighed", zebra=()), pipeline("deaths", JOB_DEAD, notify=("mail",), mail=()),
          pipeline("more-deaths", JOB_DEAD, note=()), pipeline("breakers", BREAKER_OPENED, notify=())]
PIPED = replace(ROUTING, router=Router(ROUTING.router.routes, {each.name: each for each in OTHERS}))
HERE = Position(pipeline=WISDOM, step_id="scale")
LAST = Position(pipeline=WISDOM, step_id="mail")
GIVEN = json.dumps({"type": "asked", "payload": {"url": "u", "city": "Oslo"}, "source": "cli", "dedupe_key": "mine"})
TOO_LONG = ("its event would make a chain of 21 hops, at most 20 are allowed: "
            "look for a loop of routes or pipelines, or raise service.max_hops")


def stepped(answer: Response, *, position: Position | None = HERE, context: Context | None = CONTEXT,
            routing: RoutingContext = PIPED,
            **job: Any) -> FollowUps:
    return planned(answer, context=context, position=position, routing=routing, **{"payload": GIVEN} | job)


def targets(jobs: Any) -> list[tuple[int | None, str]]:
    """The number of the event, and the step or the plugin of the route that it goes to."""
    return [(each.event, each.job.plugin if each.job.step_id is None else
             f"{each.job.pipeline_name}/{each.job.step_id}") for each in jobs]


def test_each_event_of_a_step_goes_to_each_next_step_and_to_pipelines_and_routes() -> None:
    onward = stepped(response({"type": "odd"}, weighed({"kg": 1}), {"type": "failed"}))
    assert targets(onward.jobs) == [
        (0, "wisdom/mail"), (0, "wisdom/note"),
        (1, "wisdom/mail"), (1, "wisdom/note"), (1, "weights/zebra"), (1, "zebra"), (1, "analyser"), (1, "mail"),
        (2, "wisdom/mail"), (2, "wisdom/note"), (2, "notify")]
    assert [envelope["type"] for envelope in envelopes(onward)] == ["odd"] * 2 + ["weighed"] * 6 + ["failed"] * 3


def test_a_job_of_a_next_step_knows_its_step_and_its_context_does_too() -> None:
    (found, _) = stepped(response({"type": "odd", "payload": {"kg": 1}, "dedupe_key": "k"})).jobs
    assert found == FollowUp(
        event=0,
        job=NewJob(
            id=found.job.id, plugin="mail", command="handle", max_attempts=4, submitted_by=Submitter.PIPELINE,
            payload=found.job.payload, dedupe_key="k", parent_job_id="parent", root_job_id="root",
            source_event_id=found.job.source_event_id, event_context_id=found.context.id, pipeline_name="wisdom",
            pipeline_hash=WISDOM.hash, step_id="mail"),
        context=NewContext(id=found.context.id, parent_id="c7", hop=8, pipeline_name="wisdom", step_id="mail",
                           accumulated={**CONTEXT.accumulated, "kg": 1}),
    )


@pytest.mark.parametrize("updates", [{}, {"city": "Hobart", "token": 1, "more": [1], "origin_user": "eve"}])
def test_a_step_without_events_passes_its_own_payload_on_and_adds_nothing(updates: dict[str, Any]) -> None:
    onward = stepped(response(state_updates=updates))
    assert targets(onward.jobs) == [(None, "wisdom/mail"), (None, "wisdom/note")]
    assert envelopes(onward) == [{
        "type": "ductile.step.succeeded", "payload": {"url": "u", "city": "Oslo"}, "source": "scale",
        "timestamp": "2026-02-08T10:00:00.000Z", "event_id": each.job.source_event_id} for each in onward.jobs]
    assert contexts(onward) == [CONTEXT.accumulated] * 2
    assert [(each.context.parent_id, each.context.hop) for each in onward.jobs] == [("c7", 8)] * 2
    assert [each.job.dedupe_key for each in onward.jobs] == [None] * 2
    assert (onward.fault, onward.warnings) == (None, ())


@pytest.mark.parametrize("payload", [{}, [], "text", 0, None, {"origin_user": "eve", "job_id": "x"}])
def test_a_payload_is_passed_on_as_it_is(payload: Any) -> None:
    onward = stepped(response(), payload=json.dumps({"type": "asked", "payload": payload, "source": "cli"}))
    assert payloads(onward) == [payload] * 2
    assert contexts(onward) == [CONTEXT.accumulated] * 2


def test_the_result_of_a_job_travels_with_its_events_and_never_in_the_baggage() -> None:
    onward = planned(response(weighed({"kg": 1}), weighed({"result": "set"}), weighed([1]), result="done"),
                     context=CONTEXT)
    assert payloads(onward) == [{"kg": 1, "result": "done"}] * 3 + [{"result": "set"}] * 3 + [[1]] * 3
    assert ["result" in each for each in contexts(onward)] == [False] * 3 + [True] * 3 + [False] * 3
    assert onward.notes == ()


def test_a_long_result_is_noted_once_and_left_out() -> None:
    onward = planned(response(weighed({}), weighed({}), result="x" * 4097))
    assert (payloads(onward), onward.notes, onward.warnings) == (
        [{}] * 6, ("the result is not passed on: longer than 4,096 bytes",), ())


@pytest.mark.parametrize(("answer", "expected"), [({"result": "mine"}, {"result": "mine"}), ({}, {})])
def test_a_step_without_events_passes_on_its_own_result_and_not_an_older_one(answer: dict, expected: dict) -> None:
    given = {"type": "asked", "payload": {"url": "u", "result": "old"}}
    onward = stepped(response(**answer), payload=json.dumps(given))
    assert (payloads(onward), contexts(onward)) == ([{"url": "u", **expected}] * 2, [CONTEXT.accumulated] * 2)


def test_a_result_that_the_chain_began_with_is_passed_on_by_a_step_without_events() -> None:
    onward = stepped(response(result="mine"), context=None,
                     payload=json.dumps({"type": "asked", "payload": {"result": "set"}}))
    assert payloads(onward) == [{"result": "set"}] * 2


def test_large_state_is_noted_and_neither_it_nor_its_older_value_is_in_the_baggage() -> None:
    known = replace(CONTEXT, accumulated={**CONTEXT.accumulated, "seen": ["a"]})
    onward = planned(response(weighed({"kg": 1}), weighed({}), state_updates={"seen": ["a" * 5000], "last": 3}),
                     context=known)
    assert contexts(onward) == [{**CONTEXT.accumulated, "last": 3, "kg": 1}] * 3 + [
        {**CONTEXT.accumulated, "last": 3}] * 3
    assert (onward.large_state, onward.warnings) == (
        ("the state key 'seen' is not passed on: longer than 4,096 bytes as JSON",), ())


def test_a_first_step_without_events_tells_what_the_chain_began_with() -> None:
    onward = stepped(response(state_updates={"more": 1}), context=None)
    assert contexts(onward) == [{"origin_plugin": "scale", "origin_event_type": "ductile.step.succeeded",
                                 "origin_job_id": "root", "url": "u", "city": "Oslo"}] * 2
    assert [each.context.hop for each in onward.jobs] == [1, 1]


def test_what_a_step_passes_on_to_many_is_limited_too() -> None:
    branches = tuple(f"s{number}" for number in range(34))
    fan = pipeline("p", "on", one=branches, **dict.fromkeys(branches, ()))
    onward = planned(response(), position=Position(pipeline=fan, step_id="one"),
                     payload=json.dumps({"type": "on", "payload": LARGE}))
    what = "the payloads and contexts of its events would be 68,0"
    assert (onward.jobs, onward.fault[:len(what)]) == ((), what)


def test_what_is_passed_on_goes_to_the_next_step_only() -> None:
    taker = pipeline("taker", "ductile.step.succeeded", zebra=())
    routes = (Route(source="scale", event_type="ductile.step.succeeded", target="mail"),)
    routing = replace(PIPED, router=Router(routes, {"wisdom": WISDOM, "taker": taker}))
    assert targets(stepped(response(), routing=routing).jobs) == [(None, "wisdom/mail"), (None, "wisdom/note")]


@pytest.mark.parametrize("position", [None, LAST])
def test_a_success_without_events_leads_nowhere_outside_a_pipeline_and_at_its_end(position: Position | None) -> None:
    assert stepped(response(), position=position, context=replace(CONTEXT, hop=20)) == FollowUps()


def test_an_event_that_nobody_takes_at_the_end_of_a_pipeline_leads_nowhere() -> None:
    assert stepped(response({"type": "odd"}), position=LAST) == FollowUps()


@pytest.mark.parametrize("events", [[], [{"type": "odd"}]], ids=["passed on", "an event"])
@pytest.mark.parametrize(("hop", "fault"), [(19, None), (20, TOO_LONG)])
def test_steps_count_as_hops_whatever_they_hand_on(events: list, hop: int, fault: str | None) -> None:
    onward = stepped(response(*events), context=replace(CONTEXT, hop=hop))
    assert (len(onward.jobs), onward.fault) == (0 if fault else 2, fault)


def test_what_follows_an_older_version_is_of_that_version() -> None:
    older = pipeline("wisdom", "asked", scale=("gone",), gone=())
    onward = stepped(response(), position=Position(pipeline=older, step_id="scale"))
    assert [(each.job.plugin, each.job.pipeline_hash, each.job.max_attempts) for each in onward.jobs] == [
        ("gone", older.hash, 1)]


@pytest.mark.parametrize("events", [[], [{"type": "odd"}]], ids=["passed on", "an event"])
def test_what_follows_from_a_core_event_or_a_replay_is_marked_so_too(events: list) -> None:
    onward = stepped(response(*events), core_event=JOB_DEAD, replay_of="old")
    assert {(each.job.core_event, each.job.replay_of) for each in onward.jobs} == {(JOB_DEAD, "old")}
    assert {each.job.core_event for each in stepped(response(*events)).jobs} == {None}


# The core's own events

DEATH = Event(type=JOB_DEAD, payload={"job_id": "parent", "error": "it broke", "attempts": 4})


def told(*events: Event, context: Context | None = CONTEXT, routing: RoutingContext = PIPED,
         **job: Any) -> tuple[FollowUp, ...]:
    return core_event_jobs(replace(JOB, **job), events, context, routing, now=START, new_id=ids())


def test_a_death_goes_to_every_pipeline_that_takes_it_and_knows_what_the_chain_knew() -> None:
    (first, second) = told(DEATH)
    assert first == FollowUp(
        event=None,
        job=NewJob(
            id=first.job.id, plugin="notify", command="handle", max_attempts=2, submitted_by=Submitter.PIPELINE,
            payload=first.job.payload, parent_job_id="parent", root_job_id="root",
            source_event_id=first.job.source_event_id, event_context_id=first.context.id, pipeline_name="deaths",
            pipeline_hash=OTHERS[2].hash, step_id="notify", core_event=JOB_DEAD),
        context=NewContext(id=first.context.id, parent_id="c7", hop=1, pipeline_name="deaths", step_id="notify",
                           accumulated={**CONTEXT.accumulated, **DEATH.payload}))
    assert json.loads(first.job.payload) == {
        "type": JOB_DEAD, "payload": DEATH.payload, "source": "ductile", "timestamp": "2026-02-08T10:00:00.000Z",
        "event_id": first.job.source_event_id}
    assert targets([first, second]) == [(None, "deaths/notify"), (None, "more-deaths/note")]
    assert len({first.job.id, first.context.id, first.job.source_event_id, second.job.id, second.context.id}) == 5


def test_a_death_without_a_context_knows_where_its_chain_began() -> None:
    (first, _) = told(DEATH, context=None)
    assert (first.context.parent_id, first.context.hop) == (None, 1)
    assert first.context.accumulated == {
        "origin_plugin": "scale", "origin_event_type": JOB_DEAD, "origin_job_id": "root", **DEATH.payload}


def test_a_death_without_a_context_knows_what_its_chain_began_with_where_that_fits() -> None:
    began = {"city": "Perth", "origin_user": "ann", "error": "of the sender"}
    for payload, known in ((began, {"city": "Perth", "origin_user": "ann"}), (began | {"x": "y" * LIMIT_BYTES}, {})):
        (first, _) = told(DEATH, context=None, payload=json.dumps({"type": "webhook", "payload": payload}))
        assert first.context.accumulated == {
            "origin_plugin": "scale", "origin_event_type": JOB_DEAD, "origin_job_id": "root", **known, **DEATH.payload}


@pytest.mark.parametrize(("room", "whole"), [(0, True), (-1, False)])
def test_where_the_baggage_would_be_too_large_a_death_knows_where_its_chain_began(room: int, whole: bool) -> None:
    small = {**CORE, "origin_user": "ann", "x": "", **DEATH.payload}
    left = LIMIT_BYTES - len(json.dumps(small, separators=(",", ":"))) - room
    known = {**CORE, "origin_user": "ann", "x": "y" * left}
    (first, _) = told(DEATH, context=replace(CONTEXT, accumulated=known))
    assert first.context.accumulated == ({**known, **DEATH.payload} if whole else {**CORE, **DEATH.payload})
    assert first.context.parent_id == "c7"


@pytest.mark.parametrize("hop", [19, 20, 1000])
def test_a_chain_that_ended_for_its_length_is_told_of_too(hop: int) -> None:
    assert [each.context.hop for each in told(DEATH, context=replace(CONTEXT, hop=hop))] == [1, 1]


def test_every_event_goes_its_own_way_in_the_order_given() -> None:
    opened = Event(type=BREAKER_OPENED, payload={"plugin": "scale"})
    found = told(opened, DEATH)
    assert [(each.job.pipeline_name, each.job.core_event) for each in found] == [
        ("breakers", BREAKER_OPENED), ("deaths", JOB_DEAD), ("more-deaths", JOB_DEAD)]
    assert len({each.job.source_event_id for each in found}) == 2


def test_no_route_takes_a_core_event_and_what_nobody_takes_leads_nowhere() -> None:
    routes = tuple(Route(source=source, event_type=JOB_DEAD, target="mail") for source in ("scale", "ductile"))
    assert told(DEATH, routing=replace(PIPED, router=Router(routes))) == ()
    assert told() == ()


def test_the_death_of_a_replay_is_of_the_replay() -> None:
    assert {each.job.replay_of for each in told(DEATH, replay_of="old")} == {"old"}
