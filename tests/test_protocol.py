from __future__ import annotations

import json
from typing import Any

import pytest

from ductile.protocol import Event, LogLine, ProtocolError, Response, decode_response, encode_request

REQUEST: dict[str, Any] = {
    "protocol": 2,
    "job_id": "j-1",
    "command": "handle",
    "config": {"b": 1, "a": "caf\u00e9"},
    "state": {"n": None},
    "event": {"type": "t", "payload": {}},
    "deadline_at": "2026-02-08T10:00:00.000Z",
    "context": {"origin_plugin": "cli"},
    "workspace_dir": "/ws/j-1",
}


def refusal(stdout: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode_response(stdout)
    return str(caught.value)


def test_a_request_is_one_line_of_ascii_with_its_keys_in_order() -> None:
    assert encode_request(**REQUEST) == (
        b'{"protocol":2,"job_id":"j-1","command":"handle","config":{"b":1,"a":"caf\\u00e9"},"state":{"n":null},'
        b'"event":{"type":"t","payload":{}},"deadline_at":"2026-02-08T10:00:00.000Z",'
        b'"context":{"origin_plugin":"cli"},"workspace_dir":"/ws/j-1"}\n')


def test_protocol_1_is_told_neither_context_nor_workspace() -> None:
    request = json.loads(encode_request(**{**REQUEST, "protocol": 1}))
    assert list(request) == ["protocol", "job_id", "command", "config", "state", "event", "deadline_at"]


def test_a_job_without_an_event_has_no_such_key() -> None:
    request = json.loads(encode_request(**{**REQUEST, "event": None}))
    assert list(request) == [
        "protocol", "job_id", "command", "config", "state", "deadline_at", "context", "workspace_dir"]


@pytest.mark.parametrize(("protocol", "command", "event", "has_payload"), [
    (2, "poll", {"type": "t", "payload": {"a": 1}}, True), (2, "health", {"type": "t", "payload": []}, True),
    (2, "handle", {"type": "t", "payload": {"a": 1}}, False), (1, "poll", {"type": "t", "payload": {"a": 1}}, False),
    (2, "poll", {"type": "t"}, False), (2, "poll", None, False),
])
def test_every_command_gets_the_event_and_all_but_handle_its_payload_besides(
        protocol: int, command: str, event: dict | None, has_payload: bool) -> None:
    request = json.loads(encode_request(**{**REQUEST, "protocol": protocol, "command": command, "event": event}))
    assert request.get("event") == event
    assert ("payload" in request) == has_payload
    if has_payload:
        assert request["payload"] == event["payload"]


def test_an_empty_event_is_sent() -> None:
    assert json.loads(encode_request(**{**REQUEST, "event": {}}))["event"] == {}


def test_a_newline_in_a_value_does_not_break_the_line() -> None:
    assert encode_request(**{**REQUEST, "config": {"a": "x\ny"}}).count(b"\n") == 1


def test_a_status_is_all_that_a_response_needs() -> None:
    assert decode_response(b'{"status":"ok"}') == Response(
        status="ok", result=None, error=None, retry=True, events=(), state_updates={}, logs=(), raw={"status": "ok"})


def test_a_whole_response_is_read() -> None:
    raw = {
        "status": "error", "result": "r", "error": "e", "retry": False,
        "events": [{"type": "a.b", "payload": {"n": 1}, "dedupe_key": "k", "more": 1}, {"type": "c"}],
        "state_updates": {"token": "t", "gone": None},
        "logs": [{"level": "error", "message": "m"}],
        "unknown": [1],
    }
    assert decode_response(json.dumps(raw).encode() + b"\n") == Response(
        status="error", result="r", error="e", retry=False,
        events=(Event(type="a.b", payload={"n": 1}, dedupe_key="k"), Event(type="c", payload={}, dedupe_key=None)),
        state_updates={"token": "t", "gone": None},
        logs=(LogLine(level="error", message="m"),),
        raw=raw)


def test_null_counts_as_absent() -> None:
    response = decode_response(
        b'{"status":"ok","result":null,"error":null,"retry":null,"events":null,"state_updates":null,"logs":null}')
    assert (response.result, response.error, response.retry) == (None, None, True)
    assert (response.events, response.state_updates, response.logs) == ((), {}, ())


@pytest.mark.parametrize(("event", "expected"), [
    ({"type": "t"}, Event(type="t", payload={})),
    ({"type": "t", "payload": None, "dedupe_key": None}, Event(type="t", payload={})),
    ({"type": "t", "payload": [1]}, Event(type="t", payload=[1])),
    ({"type": "t", "payload": ""}, Event(type="t", payload="")),
    ({"type": "t", "payload": 0}, Event(type="t", payload=0)),
    ({"type": "t", "payload": False}, Event(type="t", payload=False)),
    ({"type": "t", "dedupe_key": ""}, Event(type="t", payload={}, dedupe_key=None)),
    ({"type": "ductile"}, Event(type="ductile", payload={})),
    ({"type": "ductiles.x"}, Event(type="ductiles.x", payload={})),
])
def test_an_event_keeps_what_it_says(event: dict[str, Any], expected: Event) -> None:
    assert decode_response(json.dumps({"status": "ok", "events": [event]}).encode()).events == (expected,)


@pytest.mark.parametrize(("level", "expected"), [
    ("debug", "debug"), ("info", "info"), ("warn", "warn"), ("warning", "warn"), ("error", "error"), (None, "info"),
])
def test_a_log_line_has_a_level_of_ours(level: str | None, expected: str) -> None:
    stdout = json.dumps({"status": "ok", "logs": [{"level": level, "message": ""}]}).encode()
    assert decode_response(stdout).logs == (LogLine(level=expected, message=""),)


def test_more_events_than_are_allowed_are_not_a_fault_of_protocol() -> None:
    stdout = json.dumps({"status": "ok", "events": [{"type": "t"}] * 1001}).encode()
    assert len(decode_response(stdout).events) == 1001


def test_a_thousand_log_lines_are_kept_and_the_rest_are_counted() -> None:
    lines = [{"message": str(number)} for number in range(1003)]
    found = decode_response(json.dumps({"status": "ok", "logs": lines}).encode())
    assert ([line.message for line in found.logs], found.logs_dropped) == ([str(number) for number in range(1000)], 3)
    assert found.raw["logs"] == lines[:1000]
    whole = decode_response(json.dumps({"status": "ok", "logs": lines[:1000]}).encode())
    assert (len(whole.logs), whole.logs_dropped) == (1000, 0)


def test_a_log_line_that_is_not_kept_must_be_right_too() -> None:
    lines = [{"message": "m"}] * 1001 + [{"message": 1}]
    assert refusal(json.dumps({"status": "ok", "logs": lines}).encode()).startswith("logs[1001].message: expected")


@pytest.mark.parametrize(("count", "expected"), [(499_997, None), (499_998, "more than 500,000 values")])
def test_a_response_has_half_a_million_values_at_most(count: int, expected: str | None) -> None:
    # The object, the status and the list are values too.
    stdout = b'{"status": "ok", "x": [' + b"[]," * (count - 1) + b"[]]}"
    if expected is None:
        assert len(decode_response(stdout).raw["x"]) == count
    else:
        assert expected in refusal(stdout)


ALONE = "standard output must hold the JSON alone, print to standard error"


@pytest.mark.parametrize(("stdout", "expected"), [
    (b"", "printed nothing"),
    (b" \r\n\t", "printed nothing"),
    (b"hello\n", f"not one strict JSON object: line 1, column 1: expected a value; {ALONE}"),
    (b'[debug] {"status":"ok"}', f"not one strict JSON object: line 1, column 2: expected a value; {ALONE}"),
    (b'{"status":}', "not one strict JSON object: line 1, column 11: expected a value"),
    (b'{"status":"ok"', "not one strict JSON object: line 1, column 15: expected ','"),
    (b'{"status":"ok"}\n{"status":"ok"}',
     f"not one strict JSON object: line 2, column 1: expected the end, got more after the first value; {ALONE}"),
    (b'{"status":"ok","result":"\xff"}', "not one strict JSON object: byte 26: not UTF-8"),
    (b'\xef\xbb\xbf{"status":"ok"}',
     "not one strict JSON object: starts with a byte order mark, expected UTF-8 without one"),
    (b'{"status":"ok","x":NaN}', "not one strict JSON object: NaN is not allowed"),
    (b'{"status":"ok","x":1e999}', "not one strict JSON object: the number 1e999 is too large for a double"),
    (b'{"status":"ok","status":"ok"}', "not one strict JSON object: the key 'status' is repeated"),
    (b'{"status":"ok","x":"\\ud800"}',
     "not one strict JSON object: line 1, column 21: a lone surrogate is not allowed"),
    (b'{"status":"ok","x":"\\u0000"}', "not one strict JSON object: line 1, column 21: a NUL is not allowed"),
    (b"[" * 100_000 + b"]" * 100_000, "not one strict JSON object: nested more than 100 deep"),
    (b'[{"status":"ok"}]', "expected one JSON object, got a list"),
    (b"5", "expected one JSON object, got 5"),
    (b'"ok"', "expected one JSON object, got 'ok'"),
    (b"null", "expected one JSON object, got null"),
])
def test_anything_but_one_object_is_a_protocol_error(stdout: bytes, expected: str) -> None:
    assert refusal(stdout) == expected


@pytest.mark.parametrize(("members", "expected"), [
    ({}, "the key 'status' is missing"),
    ({"status": None}, "the key 'status' is missing"),
    ({"status": "OK"}, "status: expected one of ok, error, got 'OK'"),
    ({"status": True}, "status: expected one of ok, error, got true"),
    ({"status": []}, "status: expected one of ok, error, got a list"),
    ({"result": {"a": 1}}, "result: expected a string, got a mapping"),
    ({"result": 0}, "result: expected a string, got 0"),
    ({"error": ["x"]}, "error: expected a string, got a list"),
    ({"retry": 1}, "retry: expected true or false, got 1"),
    ({"retry": "no\nway"}, "retry: expected true or false, got 'no\\nway'"),
    ({"events": {}}, "events: expected a list, got a mapping"),
    ({"events": [{"type": "t"}, 5]}, "events[1]: expected a mapping, got 5"),
    ({"events": [None]}, "events[0]: expected a mapping, got null"),
    ({"events": [{"payload": {}}]}, "events[0]: the key 'type' is missing"),
    ({"events": [{"type": None}]}, "events[0]: the key 'type' is missing"),
    ({"events": [{"type": "a"}, {"type": "b"}, {"type": 5}]}, "events[2].type: expected a string, got 5"),
    ({"events": [{"type": ""}]}, "events[0].type: expected a string, got an empty string"),
    ({"events": [{"type": "ductile.job.dead"}]},
     "events[0].type: 'ductile.job.dead' is refused, types that start with 'ductile.job.' are reserved"),
    ({"events": [{"type": "t", "dedupe_key": 7}]}, "events[0].dedupe_key: expected a string, got 7"),
    ({"state_updates": []}, "state_updates: expected a mapping, got a list"),
    ({"state_updates": "x" * 100}, "state_updates: expected a mapping, got '" + "x" * 59 + "…'"),
    ({"logs": "x"}, "logs: expected a list, got 'x'"),
    ({"logs": ["x"]}, "logs[0]: expected a mapping, got 'x'"),
    ({"logs": [{"level": "info"}]}, "logs[0]: the key 'message' is missing"),
    ({"logs": [{"level": "info", "message": 1.5}]}, "logs[0].message: expected a string, got 1.5"),
    ({"logs": [{"level": "loud", "message": "m"}]},
     "logs[0].level: expected one of debug, info, warn, error, got 'loud'"),
    ({"logs": [{"level": 3, "message": "m"}]}, "logs[0].level: expected a string, got 3"),
])
def test_a_wrong_type_names_its_place(members: dict[str, Any], expected: str) -> None:
    given = members if "status" in members or not members else {"status": "ok", **members}
    assert refusal(json.dumps(given).encode()) == expected


@pytest.mark.parametrize("event_type", ["ductile.health.x", "ductile.x", "ductile", "ductile.jobs.x", "ductile.job"])
def test_only_the_prefixes_of_the_core_are_reserved(event_type):
    [event] = decode_response(json.dumps({"status": "ok", "events": [{"type": event_type}]}).encode()).events
    assert event.type == event_type
