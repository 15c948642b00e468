from __future__ import annotations

import json
from typing import Any

import pytest

from ductile.routing.baggage import (
    LIMIT_BYTES,
    NO_STATE,
    RESULT_LIMIT_BYTES,
    STATE_LIMIT_BYTES,
    STATE_VALUE_LIMIT_BYTES,
    Extended,
    Origin,
    PassedState,
    check,
    extend,
    passed_state,
    reserved_key_warnings,
    size_bytes,
    visible,
    with_result,
    without_credentials,
)
from ductile.strictjson import MOST_NESTING

ORIGIN = Origin(plugin="webhook:/in", event_type="ping", job_id="root")
CORE = {"origin_plugin": "webhook:/in", "origin_event_type": "ping", "origin_job_id": "root"}
PARENT = {**CORE, "origin_user": "ann", "origin_tags": {"a": 1, "b": [True]}, "city": "Perth"}
LATER = Origin(plugin="other", event_type="other", job_id="other")


def first(payload: Any, *, trigger: Any = None, state: dict[str, Any] | None = None) -> Extended:
    return extend(None, trigger=trigger, state=PassedState(updates=state or {}), payload=payload, origin=ORIGIN)


def later(payload: Any, *, trigger: Any = None, state: dict[str, Any] | None = None) -> Extended:
    return extend(PARENT, trigger=trigger, state=PassedState(updates=state or {}), payload=payload, origin=LATER)


@pytest.mark.parametrize(("trigger", "state", "payload", "expected"), [
    ({}, {}, {}, {}),
    ({"a": 1}, {"b": 2}, {"c": 3}, {"a": 1, "b": 2, "c": 3}),
    ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}),
    ({"a": 1, "b": 1}, {"a": 2}, {}, {"a": 2, "b": 1}),
    ({"a": {"x": 1}}, {}, {"a": {"y": 2}}, {"a": {"y": 2}}),
    ({"a": 1}, {}, {"a": None}, {"a": None}),
    (None, {"a": 1}, {}, {"a": 1}),
    (["a"], {}, {"a": 1}, {"a": 1}),
    ("a", {"b": 2}, "c", {"b": 2}),
])
def test_a_first_row_takes_the_trigger_then_the_state_then_the_payload(
    trigger: Any, state: dict[str, Any], payload: Any, expected: dict[str, Any]
) -> None:
    added = first(payload, trigger=trigger, state=state)
    assert added == Extended(accumulated={**CORE, **expected}, payload=payload, warnings=())


@pytest.mark.parametrize(("state", "payload", "expected"), [
    ({}, {}, {}),
    ({"city": "Hobart"}, {}, {"city": "Hobart"}),
    ({"city": "Hobart"}, {"city": "Darwin", "new": 1}, {"city": "Darwin", "new": 1}),
    ({}, {"city": None}, {"city": None}),
])
def test_a_later_row_takes_its_parent_then_the_state_then_the_payload(
    state: dict[str, Any], payload: dict[str, Any], expected: dict[str, Any]
) -> None:
    added = later(payload, trigger={"city": "Sydney", "more": 1}, state=state)
    assert added == Extended(accumulated={**PARENT, **expected}, payload=payload, warnings=())


@pytest.mark.parametrize("payload", [None, True, 0, 1.5, "text", [], [{"a": 1, "origin_plugin": "x"}]])
def test_a_payload_that_is_no_object_is_handed_on_and_adds_nothing(payload: Any) -> None:
    added = later(payload, state={"a": 2})
    assert added == Extended(accumulated={**PARENT, "a": 2}, payload=payload, warnings=())


def test_what_was_given_is_left_alone() -> None:
    parent, state, payload = {"origin_user": "ann"}, {"origin_x": 1}, {"origin_user": "bob", "a": 1}
    added = extend(parent, trigger=None, state=PassedState(updates=state), payload=payload, origin=LATER)
    added.accumulated["more"] = added.payload["more"] = 1
    assert (parent, state, payload) == ({"origin_user": "ann"}, {"origin_x": 1}, {"origin_user": "bob", "a": 1})


ONLY_FIRST = "is refused: only the first event of a chain may set keys that start 'origin_'"


def test_a_first_row_may_set_keys_of_the_origin() -> None:
    added = first({"origin_user": "bob"}, trigger={"origin_user": "ann", "origin_ip": "::1"}, state={"origin_a": 1})
    assert added == Extended(
        accumulated={**CORE, "origin_user": "bob", "origin_ip": "::1", "origin_a": 1},
        payload={"origin_user": "bob"}, warnings=())


def test_a_later_row_can_neither_change_nor_add_nor_empty_a_key_of_the_origin() -> None:
    added = later({
        "origin_user": "bob", "origin_new": 1, "origin_tags": None, "origin_": 1, "origin_plugin": "x", "a": 1})
    assert added == Extended(
        accumulated={**PARENT, "a": 1}, payload={"a": 1},
        warnings=(
            f"the key 'origin_user' {ONLY_FIRST}", f"the key 'origin_new' {ONLY_FIRST}",
            f"the key 'origin_tags' {ONLY_FIRST}", f"the key 'origin_' {ONLY_FIRST}",
            "the key 'origin_plugin' is refused: it is the core's own, rename it",
        ))


def test_state_updates_are_held_to_the_anchor_too_and_a_key_is_named_once() -> None:
    added = later({"origin_user": "eve"}, state={"origin_user": "bob", "b": 2})
    assert added == Extended(accumulated={**PARENT, "b": 2}, payload={},
                             warnings=(f"the key 'origin_user' {ONLY_FIRST}",))


@pytest.mark.parametrize("key", ["origin", "Origin_user", "my_origin_user", "ORIGIN_USER", "origin-user"])
def test_a_key_that_only_resembles_the_anchor_is_free(key: str) -> None:
    assert later({key: 1}) == Extended(accumulated={**PARENT, key: 1}, payload={key: 1}, warnings=())


@pytest.mark.parametrize("payload", [
    {"origin_user": "ann"}, {"origin_tags": {"b": [True], "a": 1}},
    {"origin_job_id": "root", "origin_plugin": "webhook:/in"},
])
def test_the_same_value_again_is_no_offence(payload: dict[str, Any]) -> None:
    added = later(payload, state=payload)
    assert added == Extended(accumulated=PARENT, payload=payload, warnings=())


@pytest.mark.parametrize(("value", "other"), [
    (1, True), (0, False), (1, 1.0), (1, "1"), ([1], [True]), ({"a": 0}, {"a": False}), (None, False), ("", None),
    ([], {}), ([1, 2], [2, 1]), ("é", "e\u0301"), (0.0, -0.0), ({"a": None}, {}),
])
def test_values_are_the_same_only_as_json(value: Any, other: Any) -> None:
    def row(parent: Any, new: Any) -> Extended:
        return extend({"origin_x": parent}, trigger=None, state=NO_STATE, payload={"origin_x": new}, origin=LATER)

    for parent, new in ((value, other), (other, value)):
        assert len(row(parent, new).warnings) == 1
        assert repr(row(parent, new).accumulated) == repr({"origin_x": parent})
        assert row(parent, parent).warnings == ()


@pytest.mark.parametrize("key", list(CORE))
@pytest.mark.parametrize("place", ["trigger", "state", "payload"])
def test_the_three_keys_are_the_cores_alone_from_the_first_row_on(key: str, place: str) -> None:
    layers: dict[str, Any] = {"trigger": {}, "state": {}, "payload": {}}
    layers[place] = {key: "forged", "a": 1}
    added = first(layers["payload"], trigger=layers["trigger"], state=layers["state"])
    assert added == Extended(
        accumulated={**CORE, "a": 1}, payload={"a": 1} if place == "payload" else {},
        warnings=(f"the key '{key}' is refused: it is the core's own, rename it",))


def test_the_cores_own_values_said_again_in_a_first_row_are_no_offence() -> None:
    assert first(CORE) == Extended(accumulated=CORE, payload=CORE, warnings=())


def test_a_refused_key_is_shown_on_one_short_line_and_kept_as_it_is() -> None:
    key = "origin_\n\x1b[31m" + "x" * 100_000
    added = later({key: 1})
    assert added.warnings == (f"the key 'origin_\\n\\x1b[31m{'x' * 42}…' {ONLY_FIRST}",)


def test_a_name_of_the_cores_own_is_kept_with_a_warning() -> None:
    added = first({"config": 1, "a": 2}, trigger={"event": 1}, state={"ductile_mode": 1, "config": 2})
    assert added == Extended(
        accumulated={**CORE, "event": 1, "ductile_mode": 1, "config": 1, "a": 2}, payload={"config": 1, "a": 2},
        warnings=())
    assert reserved_key_warnings({"config": 1, "a": 2}, "payload") == (
        "the key 'config' of the payload has a name of the core's own, rename it",)


FIELDS = ("protocol", "job_id", "command", "config", "state", "event", "deadline_at", "context", "workspace_dir")


@pytest.mark.parametrize("key", [*FIELDS, "ductile_", "ductile_job_id"])
def test_a_field_of_the_request_and_what_starts_ductile_are_system_names(key: str) -> None:
    assert reserved_key_warnings({"a": 1, key: 2, "b": {key: 3}}, "state") == (
        f"the key '{key}' of the state has a name of the core's own, rename it",)


@pytest.mark.parametrize("key", [
    "", "Event", "events", "payload", "type", "ductile", "Ductile_x", "my_ductile_x", "jobId",
])
def test_other_names_are_free(key: str) -> None:
    assert reserved_key_warnings({key: 1}, "state") == ()


CREDENTIALS = """
    token secret password passwd authorization cookie credentials api_key apikey access_token refresh_token
    client_secret db_password my_api_key aws_access_key ssh_private_key stripe_secret_key access_key private_key
    secret_key Token SECRET PassWord passWord Authorization Cookie Credentials API_KEY Api_Key ApiKey APIKey apiKey
    APIkey APIKEY api-key Api-Key X-Api-Key x-api-key X-API-KEY xApiKey XApiKey myAPIKey accessToken AccessToken
    access-token Access-Token ACCESS_TOKEN access_Token refreshToken oauth2Token OAuthToken idToken IDToken
    clientSecret ClientSecret client-secret dbPassword awsAccessKey AWSAccessKey awsSecretAccessKey sshPrivateKey
    stripeSecretKey S3SecretKey _token
""".split()


@pytest.mark.parametrize("key", CREDENTIALS)
def test_a_key_that_names_a_credential_stays_home(key: str) -> None:
    state = {"a": 1, key: "s", "deep": [{"b": {key: {"c": 1}, "d": 2}}, [{key: None}, 3]]}
    assert without_credentials(state, ()) == {"a": 1, "deep": [{"b": {"d": 2}}, [{}, 3]]}


@pytest.mark.parametrize("key", [
    "tokens", "token_count", "tokenizer", "broken", "secretary", "secret_santa", "cookies", "cookie_jar", "set_cookie",
    "authorized", "key", "public_key", "monkey", "mytoken", "passwords", "api", "keynote", "token ", "", "a.token",
])
def test_a_key_that_names_no_credential_goes_along(key: str) -> None:
    state = {key: "s", "deep": [{key: 1}]}
    assert without_credentials(state, ()) == state


def test_values_are_no_names() -> None:
    state = {"note": "token", "list": ["password", {"kind": "api_key"}]}
    assert without_credentials(state, ()) == state


def test_private_keys_of_the_state_stay_home_at_the_top_and_by_their_exact_names() -> None:
    state = {"session": 1, "Session": 2, "sessions": 3, "deep": {"session": 4}}
    assert without_credentials(state, ("session", "absent")) == {"Session": 2, "sessions": 3, "deep": {"session": 4}}


def test_the_state_itself_keeps_its_credentials() -> None:
    state = {"token": 1, "session": 2, "deep": [{"token": 3}]}
    without_credentials(state, ("session",))
    assert state == {"token": 1, "session": 2, "deep": [{"token": 3}]}


def test_the_deepest_state_that_can_come_in_is_cleaned_to_its_bottom() -> None:
    def nested(bottom: Any) -> dict[str, Any]:
        for level in range(MOST_NESTING - 2):
            bottom = [bottom] if level % 2 else {"a": bottom}
        return {"a": bottom}

    assert without_credentials(nested({"token": 1, "b": 2}), ()) == nested({"b": 2})


@pytest.mark.parametrize(("payload", "expected"), [
    ({}, {"a": 1, "b": 2}),
    ({"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
    ({"a": None}, {"a": None, "b": 2}),
    (None, None),
    ([{"a": 2}], [{"a": 2}]),
    ("text", "text"),
    (0, 0),
])
def test_a_plugin_sees_what_the_chain_was_told_under_its_payload(payload: Any, expected: Any) -> None:
    accumulated = {"a": 1, "b": 2}
    assert visible(accumulated, payload) == expected
    assert accumulated == {"a": 1, "b": 2}


def test_a_forged_origin_is_seen_by_nobody() -> None:
    added = later({"origin_user": "eve", "a": 1})
    assert visible(added.accumulated, added.payload) == {**PARENT, "a": 1}


def as_json(length: int) -> str:
    """Return a string that is so long as JSON."""
    return "x" * (length - 2)


@pytest.mark.parametrize(("value", "large"), [
    (as_json(STATE_VALUE_LIMIT_BYTES), False), (as_json(STATE_VALUE_LIMIT_BYTES + 1), True),
    ("é" * 683, True), ([1] * 2047, False), ([1] * 2048, True), ({"a": as_json(STATE_VALUE_LIMIT_BYTES)}, True),
])
def test_a_large_value_of_the_state_is_not_passed_on(value: Any, large: bool) -> None:
    state = passed_state({"seen": value, "last": 3, "token": "t"}, ())
    if not large:
        assert state == PassedState(updates={"seen": value, "last": 3})
        return
    assert state == PassedState(updates={"last": 3}, left_out=("seen",), notes=(
        "the state key 'seen' is not passed on: longer than 4,096 bytes as JSON",))


def test_of_a_state_that_is_large_together_nothing_is_passed_on() -> None:
    member = as_json(STATE_VALUE_LIMIT_BYTES - len('"00":,'))
    state = {f"{number:02}": member for number in range(16)}
    state["00"] = member[:-1]
    assert passed_state(state, ()) == PassedState(updates=state)
    state["00"] = member
    assert len(json.dumps(state, separators=(",", ":"))) == STATE_LIMIT_BYTES + 1
    assert passed_state({**state, "s": 1}, ("s",)) == PassedState(updates={}, left_out=tuple(state), notes=(
        "the state keys '00', '01', '02', '03', '04' and 11 more keys are not passed on: longer than 65,536 bytes as"
        " JSON together",))


def test_credentials_and_private_keys_do_not_count_as_large_state() -> None:
    state = {"seen": {"token": as_json(9999), "a": 1}, "session": as_json(9999)}
    assert passed_state(state, ("session",)) == PassedState(updates={"seen": {"a": 1}})


def test_the_older_value_of_a_large_key_leaves_the_baggage() -> None:
    state = PassedState(updates={"last": 3}, left_out=("city", "seen", "origin_user"))
    added = extend(PARENT, trigger=None, state=state, payload={"seen": 1}, origin=LATER)
    assert added.accumulated == {**{key: PARENT[key] for key in PARENT if key != "city"}, "last": 3, "seen": 1}
    added = extend(None, trigger={"city": "Perth", "a": 1}, state=state, payload={}, origin=ORIGIN)
    assert added.accumulated == {**CORE, "a": 1, "last": 3}


@pytest.mark.parametrize(("payload", "result", "expected"), [
    ({"a": 1}, "done", {"a": 1, "result": "done"}),
    ({"a": 1}, "", {"a": 1, "result": ""}),
    ({"a": 1}, None, {"a": 1}),
    ({"result": "of an earlier job"}, "done", {"result": "done"}),
    ({"result": "of an earlier job"}, None, {}),
    ([1], "done", [1]),
    ("text", "done", "text"),
    (None, "done", None),
])
def test_the_result_of_a_job_is_in_the_payload_of_those_that_follow(payload: Any, result: Any, expected: Any) -> None:
    assert with_result({"a": 1}, payload, result) == (expected, ())


@pytest.mark.parametrize("result", ["done", None, "x" * 5000])
def test_a_result_that_a_payload_of_the_chain_has_set_is_left_alone(result: str | None) -> None:
    assert with_result({"result": "set"}, {"result": "set"}, result) == ({"result": "set"}, ())
    assert with_result({"result": "set"}, {"a": 1}, result) == ({"a": 1}, ())


@pytest.mark.parametrize(("letter", "size"), [("x", 1), ("é", 2)])
def test_a_long_result_is_not_passed_on(letter: str, size: int) -> None:
    longest = letter * (RESULT_LIMIT_BYTES // size)
    assert with_result({}, {}, longest) == ({"result": longest}, ())
    assert with_result({}, {"result": "old"}, longest + "x") == ({}, (
        "the result is not passed on: longer than 4,096 bytes",))


@pytest.mark.parametrize(("hop", "max_hops"), [(1, 1), (1, 20), (20, 20)])
def test_a_chain_may_be_as_long_as_is_allowed(hop: int, max_hops: int) -> None:
    assert check(2, hop, max_hops) is None


def test_a_longer_chain_is_refused() -> None:
    assert check(2, 21, 20) == (
        "its event would make a chain of 21 hops, at most 20 are allowed: "
        "look for a loop of routes or pipelines, or raise service.max_hops")


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_a_context_of_one_mebibyte_is_allowed_and_one_byte_more_is_not(letter: str) -> None:
    size = {"x": 1, "é": 6, "😀": 12}[letter]
    count, rest = divmod(LIMIT_BYTES - len('{"a":""}'), size)
    largest = letter * count + "x" * rest
    assert check(size_bytes({"a": largest}), 1, 20) is None
    assert check(size_bytes({"a": largest + "x"}), 1, 20) == (
        "the baggage of its event would be 1,048,577 bytes, at most 1,048,576 are allowed: "
        "keep what is large in a file of the workspace")
