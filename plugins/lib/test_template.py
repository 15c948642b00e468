"""The template language, by the cases that every reader of it is held to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.in_process import library

lib = library()
KNOWN = json.loads((Path(__file__).resolve().parents[2] / "tests" / "template_cases.json").read_text(encoding="utf-8"))
CASES = KNOWN["cases"]
PAYLOAD, CONTEXT = KNOWN["payload"], KNOWN["context"]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_a_template_gives_its_value_or_says_what_is_wrong(case):
    if "value" in case:
        found = lib.text(case["template"], PAYLOAD, CONTEXT)
        assert (found, type(found)) == (case["value"], type(case["value"]))
        return
    with pytest.raises(lib.Permanent) as caught:
        lib.text(case["template"], PAYLOAD, CONTEXT, name="with.x")
    if "missing" in case:
        assert str(caught.value) == f"with.x: no {case['missing']!r} in the payload or the context"
    else:
        assert str(caught.value).startswith("with.x: a ")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_where_missing_names_are_noted_every_template_has_a_value(case):
    noted = []
    found = lib.text(case["template"], PAYLOAD, CONTEXT, missing=noted.append)
    assert found == case.get("lenient", case.get("value"))
    if "missing" in case:
        assert noted == [case["missing"]]


def test_the_place_of_a_lone_brace_is_told():
    with pytest.raises(lib.Permanent) as caught:
        lib.text("{{ and {", {}, name="url")
    assert str(caught.value) == "url: a lone { at character 8; write {{ for a brace"


def test_a_name_is_missed_at_its_place_in_lists_and_mappings():
    with pytest.raises(lib.Permanent) as caught:
        lib.text({"a": ["x", {"b": "{no}"}]}, {}, name="json")
    assert str(caught.value) == "json.a.1.b: no 'no' in the payload or the context"


@pytest.mark.parametrize("payload", [None, [1], "words", 5])
def test_any_payload_can_be_looked_into(payload):
    assert lib.text("{a?}", payload, {"a": 1}) == 1
    assert lib.text("{0?}", payload) == (1 if payload == [1] else "")


def test_each_value_is_escaped_and_the_template_is_not():
    escaped = lib.text("<{a}{b}{c}>", {"a": "<x>", "b": ["<"], "c": 5}, escape=lambda value: value.replace("<", "&lt;"))
    assert escaped == '<&lt;x>["&lt;"]5>'
    assert lib.text("{c}", {"c": 5}, escape=str) == "5"


def test_a_name_is_looked_up_in_one_source_after_the_other():
    sources = ({"a": [{"b": 0}], "n": None}, {"a": 5, "c": "x"})
    assert [lib.lookup(path, *sources, default="-") for path in ("a.0.b", "a", "c", "n", "a.1", "d", "c.x")] == [
        0, [{"b": 0}], "x", None, "-", "-", "-"]
