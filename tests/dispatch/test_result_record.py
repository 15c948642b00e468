from __future__ import annotations

import json
from typing import Any

import pytest

from ductile.dispatch.result_record import RESULT_LIMIT_BYTES, Delivery, encode_result
from ductile.protocol import Response, decode_response

LARGE = "x" * RESULT_LIMIT_BYTES
NOTES = ["the key 'origin_user' is refused: …"]


def response(**answer: Any) -> Response:
    return decode_response(json.dumps({"status": "ok", **answer}).encode())


def way(event: int | None, plugin: str, job_id: str = "new", *, step_id: str | None = None,
        is_new: bool = True) -> Delivery:
    return Delivery(event=event, plugin=plugin, step_id=step_id, dedupe_key="k", job_id=job_id, is_new=is_new)


def kept(answer: Response, ways: list[Delivery] | None = None, notes: list[str] | None = None) -> dict[str, Any]:
    return json.loads(encode_result(answer, ways, notes or []))


THREE = [{"type": "a", "payload": {"x": 1}, "dedupe_key": "k"}, {"type": "b", "unknown": 1}, {"type": "c"}]
WAYS = [way(0, "mail", "m1"), way(0, "notify", "n0", is_new=False), way(0, "zebra", "z1", step_id="last"),
        way(2, "mail", "m2", step_id="first", is_new=False)]
TOLD = [
    [{"plugin": "mail", "job_id": "m1"}, {"plugin": "notify", "duplicate_of": "n0"},
     {"plugin": "zebra", "job_id": "z1", "step_id": "last"}],
    [],
    [{"plugin": "mail", "duplicate_of": "m2", "step_id": "first"}],
]


def test_every_event_has_its_ways_and_is_otherwise_as_it_was_given() -> None:
    answer = response(events=THREE, state_updates={"token": "new"}, odd=[1])
    assert kept(answer, WAYS) == {**answer.raw, "events": [
        {**event, "ways": told} for event, told in zip(THREE, TOLD, strict=False)]}


def test_events_that_went_nowhere_say_so() -> None:
    assert kept(response(events=THREE), [])["events"] == [{**event, "ways": []} for event in THREE]


def test_events_that_did_not_count_have_no_ways() -> None:
    assert kept(response(events=THREE), None)["events"] == THREE


def test_ways_are_the_cores_word_whatever_the_plugin_said() -> None:
    forged = [{"type": "a", "ways": [{"plugin": "bank", "job_id": "forged"}]}]
    assert kept(response(events=forged), [way(0, "mail", "m1")])["events"] == [
        {"type": "a", "ways": [{"plugin": "mail", "job_id": "m1"}]}]


@pytest.mark.parametrize("answer", [{}, {"events": None}, {"events": []}])
@pytest.mark.parametrize("ways", [None, []])
def test_a_response_without_events_is_stored_as_it_was_given(answer: dict[str, Any],
                                                             ways: list[Delivery] | None) -> None:
    assert kept(response(**answer), ways) == {"status": "ok", **answer}


def test_notes_go_with_the_response() -> None:
    assert kept(response(result="done"), [], NOTES) == {"status": "ok", "result": "done", "notes": NOTES}


def test_log_lines_that_were_not_kept_are_noted() -> None:
    answer = response(logs=[{"message": "m"}] * 1200)
    assert kept(answer, notes=NOTES)["notes"] == [*NOTES, "200 more log lines were not kept"]
    assert len(kept(answer)["logs"]) == 1000


def test_what_was_given_is_left_alone() -> None:
    answer = response(events=THREE)
    encode_result(answer, WAYS, NOTES)
    assert answer == response(events=THREE)


def test_a_result_too_large_keeps_what_explains_it() -> None:
    answer = response(result=LARGE, events=THREE, state_updates={"a": 1}, logs=[{"message": "said"}])
    assert kept(answer, WAYS, NOTES) == {
        "status": "ok", "error": None, "truncated": True, "notes": NOTES,
        "logs": [{"level": "info", "message": "said"}],
        "events": [{"type": kind, "ways": told} for kind, told in zip("abc", TOLD, strict=False)],
    }


def test_a_result_too_large_of_a_failure_has_its_error_and_no_ways() -> None:
    answer = response(error="it\nfailed", result=LARGE, events=THREE)
    assert kept(answer, None) == {
        "status": "ok", "error": "it\\nfailed", "truncated": True, "logs": [],
        "events": [{"type": "a"}, {"type": "b"}, {"type": "c"}],
    }


@pytest.mark.parametrize("more", [0, 1])
def test_the_ways_count_too(more: int) -> None:
    room = RESULT_LIMIT_BYTES - len(encode_result(response(result="", events=[{"type": "a"}]), [way(0, "mail")], []))
    answer = response(result="x" * (room + more), events=[{"type": "a"}])
    assert ("truncated" in kept(answer, [way(0, "mail")])) is bool(more)
    assert len(encode_result(answer, None, [])) < RESULT_LIMIT_BYTES


def test_each_of_a_thousand_events_keeps_its_type_and_ways() -> None:
    events = [{"type": f"t{number}", "payload": "x" * 1000} for number in range(1000)]
    ways = [way(number, plugin, f"{plugin}-{number}") for number in range(1000) for plugin in ("mail", "notify")]
    assert kept(response(events=events), ways)["events"] == [
        {"type": f"t{number}", "ways": [{"plugin": plugin, "job_id": f"{plugin}-{number}"}
                                        for plugin in ("mail", "notify")]} for number in range(1000)]


# What the core itself passed on, and its own keys

PASSED_ON = [way(None, "mail", "m1", step_id="post"), way(None, "note", "n1", step_id="keep", is_new=False)]
TOLD_OF_THEM = [{"plugin": "mail", "job_id": "m1", "step_id": "post"},
                {"plugin": "note", "duplicate_of": "n1", "step_id": "keep"}]


def test_what_the_core_passed_on_stands_at_the_top() -> None:
    assert kept(response(result="done"), PASSED_ON, NOTES) == {
        "status": "ok", "result": "done", "ways": TOLD_OF_THEM, "notes": NOTES}


def test_what_the_core_passed_on_and_where_the_events_went_are_told_apart() -> None:
    found = kept(response(events=THREE), [*WAYS, *PASSED_ON])
    assert (found["ways"], [event["ways"] for event in found["events"]]) == (TOLD_OF_THEM, TOLD)


def test_a_result_too_large_keeps_what_the_core_passed_on() -> None:
    assert kept(response(result=LARGE), PASSED_ON) == {
        "status": "ok", "error": None, "logs": [], "events": [], "truncated": True, "ways": TOLD_OF_THEM}


FORGED = {"ways": [{"plugin": "bank", "job_id": "forged"}], "notes": ["all is well"], "truncated": True}


@pytest.mark.parametrize("ways", [None, [], PASSED_ON])
@pytest.mark.parametrize("name", FORGED)
def test_a_key_of_the_cores_own_in_a_response_is_dropped(name: str, ways: list[Delivery] | None) -> None:
    answer = {"result": "done", "odd": 1}
    assert kept(response(**answer, **{name: FORGED[name]}), ways) == kept(response(**answer), ways)


def test_the_cores_keys_take_the_place_of_forged_ones() -> None:
    assert kept(response(**FORGED), PASSED_ON, NOTES) == {"status": "ok", "ways": TOLD_OF_THEM, "notes": NOTES}


@pytest.mark.parametrize("ways", [None, [], [way(0, "mail", "m1")]])
def test_the_ways_that_an_event_claims_to_have_gone_are_dropped(ways: list[Delivery] | None) -> None:
    event = {"type": "a", "payload": {"ways": "kept", "notes": "kept"}}
    assert kept(response(events=[{**event, "ways": FORGED["ways"]}]), ways) == kept(response(events=[event]), ways)


def test_what_is_forged_in_a_result_too_large_is_dropped() -> None:
    found = kept(response(result=LARGE, events=[{"type": "a", "ways": FORGED["ways"]}], **FORGED), None)
    assert found == {"status": "ok", "error": None, "logs": [], "events": [{"type": "a"}], "truncated": True}
