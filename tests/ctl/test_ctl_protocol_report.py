"""The faults of a response: all of them, and no other than the protocol's own reader finds."""

from __future__ import annotations

from typing import Any

import pytest

from ductile.ctl.protocol_report import faults, ignored
from ductile.protocol import ProtocolError, read_response

EVENT = {"type": "x"}


@pytest.mark.parametrize("raw", [
    {"status": "ok"}, {"status": "error", "error": "no", "retry": False},
    {"status": "ok", "result": None, "error": None, "retry": None, "events": None, "state_updates": None, "logs": None},
    {"status": "ok", "events": [EVENT, {**EVENT, "payload": 7, "dedupe_key": "k"}], "state_updates": {"a": 1},
     "logs": [{"message": "m"}, {"level": "warning", "message": ""}]},
])
def test_a_good_response_has_none(raw: dict[str, Any]) -> None:
    read_response(raw)
    assert faults(raw) == []


@pytest.mark.parametrize(("raw", "count"), [
    ({}, 1), ({"status": 1}, 1), ({"status": "ok", "result": 1, "error": 1, "retry": 1}, 3),
    ({"status": "ok", "events": {}}, 1), ({"status": "ok", "events": [1, None, {}]}, 3),
    ({"status": "ok", "events": [EVENT, {"type": "", "dedupe_key": 1}]}, 2),
    ({"status": "ok", "events": [{"type": "ductile.step.x"}]}, 1),
    ({"status": "ok", "state_updates": [], "logs": [{}, {"level": 1, "message": 2}]}, 4),
    ({"status": "x", "logs": "x"}, 2),
])
def test_all_are_found_and_the_first_is_the_reader_s(raw: dict[str, Any], count: int) -> None:
    found = faults(raw)
    with pytest.raises(ProtocolError) as refused:
        read_response(raw)
    assert (found[0], len(found)) == (str(refused.value), count)


def test_each_is_told_with_its_place() -> None:
    raw = {"status": "ok", "events": [EVENT, {"type": 1}, {"type": "events[0]", "dedupe_key": []}]}
    assert faults(raw) == ["events[1].type: expected a string, got 1",
                           "events[2].dedupe_key: expected a string, got a list"]


def test_keys_that_mean_nothing_are_named() -> None:
    raw = {"status": "ok", "event": [], "x\ny": 1, "events": [{"type": "x", "playload": {}}, 7], "logs": [{"text": 1}]}
    assert ignored(raw) == [
        "the key 'event' is not known and was ignored (did you mean 'events'?)",
        "the key 'x\\ny' is not known and was ignored",
        "events[0]: the key 'playload' is not known and was ignored (did you mean 'payload'?)",
        "logs[0]: the key 'text' is not known and was ignored",
    ]
