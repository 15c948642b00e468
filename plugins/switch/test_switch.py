"""The switch plugin: which rule applies, what is emitted, and which rules are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.notified import failure
from support.plugin_runs import Plugin, readme_config, told

HERE = Path(__file__).resolve().parent
PAYLOAD = {
    "n": 5, "f": 0.1, "zero": 0, "yes": True, "null": None, "text": "Straße", "number": " 12.5 ",
    "list": ["a", 1, None], "deep": {"er": [{"x": "y"}]}, "at": "2026-05-01T10:00:00Z",
    "local": "2026-05-01 12:00", "seconds": 1777629600, "millis": 1777629600000, "empty": "",
    "cafe": "cafe\u0301", "lower": "2026-05-01t10:00:00z",
}


def plugin(tmp_path: Path, *rules: dict, **config: object) -> Plugin:
    return Plugin(HERE, tmp_path, {"rules": list(rules), **config})


def holds(tmp_path: Path, when: object, payload: object = PAYLOAD, **config: object) -> bool:
    found = plugin(tmp_path, {"when": when, "emit": "yes"}, otherwise="no", **config).handle(payload)
    ((kind, _),) = told(found)
    return kind == "yes"


# Which rule applies

def test_the_first_rule_that_applies_wins_and_the_payload_goes_on(tmp_path):
    rules = ({"when": {"path": "n", "equals": 4}, "emit": "four"}, {"when": {"path": "n", "equals": 5}, "emit": "five"},
             {"when": {"path": "n", "gt": 0}, "emit": "positive"})
    response = plugin(tmp_path, *rules).handle({"n": 5, "x": [None]}, dedupe_key="k")
    assert (told(response), response.events[0].dedupe_key) == ([("five", {"n": 5, "x": [None]})], "k")
    assert response.result == "rule 2 applies: five"


def test_without_a_rule_that_applies_nothing_is_emitted_or_otherwise(tmp_path):
    rule = {"when": {"path": "n", "equals": 4}, "emit": "four"}
    response = plugin(tmp_path, rule).handle({"n": 5})
    assert (told(response), response.result) == ([], "no rule applies")
    response = plugin(tmp_path, rule, otherwise="other").handle({"n": 5})
    assert (told(response), response.events[0].dedupe_key) == ([("other", {"n": 5})], None)


def test_what_is_not_in_the_payload_is_looked_up_in_the_context(tmp_path):
    switch = plugin(tmp_path, {"when": {"path": "a.b", "equals": 1}, "emit": "x"})
    assert told(switch.handle({}, context={"a": {"b": 1}})) == [("x", {})]
    assert told(switch.handle({"a": {"b": 2}}, context={"a": {"b": 1}})) == []


@pytest.mark.parametrize(("test", "expected"), [
    ({"path": "n", "equals": 5}, True), ({"path": "n", "equals": 5.0}, True), ({"path": "n", "equals": "5"}, False),
    ({"path": "f", "equals": 0.1 + 1e-17}, True), ({"path": "yes", "equals": 1}, False),
    ({"path": "yes", "equals": True}, True), ({"path": "zero", "equals": False}, False),
    ({"path": "null", "equals": None}, True), ({"path": "gone", "equals": None}, False),
    ({"path": "empty", "equals": None}, False), ({"path": "empty", "equals": ""}, True),
    ({"path": "cafe", "equals": "café"}, True), ({"path": "list", "equals": ["a", 1.0, None]}, True),
    ({"path": "list", "equals": ["a", 1]}, False), ({"path": "deep.er.0.x", "equals": "y"}, True),
    ({"path": "text", "equals": "STRASSE"}, False), ({"path": "text", "equals": "STRASSE", "ignore_case": True}, True),
    ({"path": "n", "not": 5}, False), ({"path": "n", "not": 4}, True), ({"path": "gone", "not": 5}, True),
    ({"path": "n", "in": [1, 5]}, True), ({"path": "n", "in": []}, False), ({"path": "gone", "in": [None]}, False),
    ({"path": "text", "contains": "raß"}, True), ({"path": "text", "contains": "RASS"}, False),
    ({"path": "text", "contains": "RASS", "ignore_case": True}, True), ({"path": "number", "contains": 12}, True),
    ({"path": "list", "contains": 1}, True), ({"path": "list", "contains": True}, False),
    ({"path": "deep", "contains": "er"}, True), ({"path": "deep", "contains": "x"}, False),
    ({"path": "text", "matches": "^S.*e$"}, True), ({"path": "text", "matches": "tra"}, True),
    ({"path": "text", "matches": "^s"}, False), ({"path": "text", "matches": "^s", "ignore_case": True}, True),
    ({"path": "gone", "matches": ""}, False), ({"path": "n", "gt": 4}, True), ({"path": "n", "gt": 5}, False),
    ({"path": "n", "gt": 4, "lt": 6}, True), ({"path": "n", "gt": 4, "lt": "5"}, False),
    ({"path": "number", "gt": 9}, True), ({"path": "number", "lt": "12.51"}, True), ({"path": "gone", "lt": 1}, False),
    ({"path": "null", "exists": True}, True), ({"path": "gone", "exists": True}, False),
    ({"path": "gone", "exists": False}, True), ({"path": "list.2", "exists": True}, True),
    ({"path": "list.3", "exists": True}, False),
    ({"path": "at", "before": "2026-05-02"}, True), ({"path": "at", "after": "2026-05-01T10:00:00+00:00"}, False),
    ({"path": "lower", "after": "2026-05-01T09:59:59Z"}, True),
    ({"path": "seconds", "after": "2026-05-01T09:59Z"}, True),
    ({"path": "millis", "before": "2026-05-01T10:01Z"}, True), ({"path": "at", "after": "now"}, False),
    ({"path": "gone", "before": "now"}, False),
])
def test_a_test_passes_or_not(tmp_path, test, expected):
    assert holds(tmp_path, test) is expected


@pytest.mark.parametrize(("when", "expected"), [
    ([{"path": "n", "equals": 5}, {"path": "yes", "equals": True}], True),
    ([{"path": "n", "equals": 5}, {"path": "yes", "equals": False}], False),
    ({"all": [{"path": "n", "equals": 5}, {"path": "yes", "equals": True}]}, True), ({"all": [
        {"path": "n", "equals": 5}, {"path": "n", "equals": 4}]}, False),
    ({"any": [{"path": "n", "equals": 4}, {"path": "n", "equals": 5}]}, True),
    ({"any": [{"path": "n", "equals": 4}, {"path": "gone", "equals": 5}]}, False),
    ({"not": {"path": "n", "equals": 5}}, False), ({"not": {"any": [{"path": "n", "lt": 5}]}}, True),
    ({"not": [{"path": "n", "lt": 9}, {"path": "n", "gt": 7}]}, True),
    # What has decided already is not asked again: the second would be an error.
    ({"any": [{"path": "n", "equals": 5}, {"path": "list", "gt": 1}]}, True),
])
def test_conditions_combine(tmp_path, when, expected):
    assert holds(tmp_path, when) is expected


@pytest.mark.parametrize(("ago", "expected"), [
    (timedelta(hours=23), True), (timedelta(hours=25), False), (timedelta(hours=-1), True)])
def test_a_time_is_compared_with_now(tmp_path, ago, expected):
    payload = {"at": (datetime.now(UTC) - ago).isoformat()}
    assert holds(tmp_path, {"path": "at", "after": "now-24h"}, payload) is expected
    assert holds(tmp_path, {"path": "at", "before": "now - 1d"}, payload) is not expected


@pytest.mark.parametrize(("zone", "expected"), [("UTC", False), ("Europe/Berlin", True), ("Asia/Tokyo", True)])
def test_a_time_without_a_zone_is_in_the_configured_one(tmp_path, zone, expected):
    assert holds(tmp_path, {"path": "local", "before": "2026-05-01T11:00Z"}, timezone=zone) is expected


@pytest.mark.parametrize(("test", "error"), [
    ({"path": "list", "gt": 1}, "rules[0].when: list is a list, expected a number"),
    ({"path": "text", "lt": 1}, "rules[0].when: text is a string, expected a number"),
    ({"path": "yes", "gt": 0}, "rules[0].when: yes is true or false, expected a number"),
    ({"path": "n", "matches": "5"}, "rules[0].when: n is a number, expected a string"),
    ({"path": "null", "contains": "x"}, "rules[0].when: null is null, expected a string, a list or a mapping"),
    ({"path": "text", "before": "now"}, "rules[0].when: text is a string, expected a date, a date and time, or seconds "
                                        "since 1970"),
    ({"not": [{"path": "n", "gt": 0}, {"path": "deep", "after": "now"}]},
     "rules[0].when.not[1]: deep is a mapping, expected a date, a date and time, or seconds since 1970"),
])
def test_what_a_test_cannot_judge_is_an_error_and_not_a_no(tmp_path, test, error):
    assert failure(plugin(tmp_path, {"when": test, "emit": "x"}, otherwise="no").handle(PAYLOAD)) == (error, False)


def test_the_word_now_in_a_payload_is_no_time(tmp_path):
    assert not plugin(tmp_path, {"when": {"path": "at", "before": "now"}, "emit": "x"}).handle({"at": "now"}).retry


def test_a_regular_expression_that_never_ends_is_given_up(tmp_path):
    rule = {"when": {"path": "x", "matches": "(a+)+$"}, "emit": "x"}
    assert failure(plugin(tmp_path, rule).handle({"x": "a" * 60 + "b"})) == (
        "rules[0].when.matches took more than 0.5 s", False)


@pytest.mark.parametrize("payload", [None, [], 5, "words"])
def test_a_payload_that_is_no_mapping_has_no_names(tmp_path, payload):
    rule = {"when": {"path": "x", "exists": False}, "emit": "none"}
    assert plugin(tmp_path, rule).run("handle", payload).events[0].type == "none"


# What is configured wrongly

CONDITION = "expected a condition such as {path: action, equals: opened}, or a list of them"
WHEN = [
    ("x", f"rules[0].when: {CONDITION}"), ({}, f"rules[0].when: {CONDITION}"),
    ([], "rules[0].when: expected at least one condition"), ([5], f"rules[0].when[0]: {CONDITION}"),
    ({"path": "a"}, "rules[0].when: expected a test beside path, one of equals, not, in, contains, matches, gt, lt, "
                    "exists, before, after"),
    ({"path": "a", "equal": 1}, "rules[0].when: unknown test 'equal', expected one of equals, not, in, contains, "
                                "matches, gt, lt, exists, before, after"),
    ({"path": 5, "equals": 1}, "rules[0].when.path: expected a name in the payload, such as a.b.0"),
    ({"path": "a", "in": "b"}, "rules[0].when.in: expected a list"),
    ({"path": "a", "gt": "x"}, "rules[0].when.gt: expected a number"),
    ({"path": "a", "gt": True}, "rules[0].when.gt: expected a number"),
    ({"path": "a", "matches": "("}, "rules[0].when.matches: expected a regular expression of at most 500 characters"),
    ({"path": "a", "matches": "a" * 501},
     "rules[0].when.matches: expected a regular expression of at most 500 characters"),
    ({"path": "a", "exists": "yes"}, "rules[0].when.exists: expected true or false"),
    ({"path": "a", "before": "soon"},
     "rules[0].when.before: expected a date, a date and time, or now, now-24h, now+7d"),
    ({"path": "a", "equals": 1, "ignore_case": 1}, "rules[0].when.ignore_case: expected true or false"),
    ({"all": {"path": "a", "equals": 1}}, "rules[0].when.all: expected a list of conditions"),
    ({"all": [], "any": []}, "rules[0].when: expected path and a test, or one of all, any, not alone"),
    ({"not": {"path": "a", "gt": []}}, "rules[0].when.not.gt: expected a number"),
    ({"any": [{"path": "a", "equals": 1}, {"equals": 1}]},
     "rules[0].when.any[1]: expected path and a test, or one of all, any, not alone"),
]
TYPE = "the type of an event, in one line and not one of Ductile's own"


@pytest.mark.parametrize(("config", "error"), [
    *(({"rules": [{"when": when, "emit": "x"}]}, error) for when, error in WHEN),
    ({}, "config: rules missing"), ({"rules": []}, "rules: expected a list of rules with when and emit"),
    ({"rules": [{"when": {"path": "a", "equals": 1}}]}, "rules[0]: expected a mapping with when and emit"),
    ({"rules": [{"when": {"path": "a", "equals": 1}, "emit": "ductile.job.dead"}]}, f"rules[0].emit: expected {TYPE}"),
    ({"rules": [5]}, "rules[0]: expected a mapping with when and emit"),
    ({"rules": [{"when": {"path": "a", "equals": 1}, "emit": "x"}], "otherwise": ""}, f"otherwise: expected {TYPE}"),
    ({"rules": [{"when": {"path": "a", "equals": 1}, "emit": "x"}], "timezone": "Mars"},
     "timezone: expected a time zone such as Europe/Berlin"),
])
@pytest.mark.parametrize("command", ["handle", "health"])
def test_a_wrong_configuration_is_named(tmp_path, config, error, command):
    assert failure(Plugin(HERE, tmp_path, config).run(command, {})) == (error, False)


def test_the_configuration_of_the_readme_works(tmp_path):
    switch = Plugin(HERE, tmp_path, readme_config(HERE, tmp_path)["issues"])
    assert switch.health().result == "2 rules"
    old = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    for payload, kind in (
            ({"action": "closed"}, "issue.changed"), ({"action": "opened"}, "issue.opened"),
            ({"action": "opened", "issue": {"labels": [{"name": "Urgent"}], "comments": 11}}, "issue.urgent"),
            ({"action": "opened", "issue": {"labels": [{"name": "security"}], "comments": 1, "created_at": old}},
             "issue.urgent")):
        assert told(switch.handle(payload)) == [(kind, payload)]


def test_another_command_is_refused(tmp_path):
    assert failure(plugin(tmp_path, {"when": {"path": "a", "equals": 1}, "emit": "x"}).poll()) == (
        "switch has no such command", False)


# As a process of its own

def test_it_runs_as_a_process(tmp_path):
    switch = plugin(tmp_path, {"when": {"path": "n", "gt": 1}, "emit": "many"})
    assert told(switch.run_process("handle", {"n": 2, "x": "é"})) == [("many", {"n": 2, "x": "é"})]


def test_a_wrong_configuration_exits_with_78(tmp_path):
    assert failure(plugin(tmp_path).run_process("handle", code=78)) == (
        "rules: expected a list of rules with when and emit", False)
