"""The template language, by the cases that the plugins' library is held to as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ductile.pipeline.templates import RENDERED_LIMIT, Unrenderable, faults, render

KNOWN = json.loads((Path(__file__).resolve().parents[1] / "template_cases.json").read_text(encoding="utf-8"))
CASES = KNOWN["cases"]


def rendered(template, payload=KNOWN["payload"], context=KNOWN["context"]):
    return render({"x": template}, payload, context, ("with",))["x"]


def faults_of(template):
    return [str(each) for each in faults({"x": template}, ("with",))]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_a_template_gives_its_value_or_says_what_is_wrong(case):
    assert bool(faults_of(case["template"])) == ("malformed" in case)
    if "value" in case:
        found = rendered(case["template"])
        assert (found, type(found)) == (case["value"], type(case["value"]))
    elif "missing" in case:
        with pytest.raises(Unrenderable) as caught:
            rendered(case["template"])
        assert str(caught.value) == f"with.x: no '{case['missing']}' in the payload or the context"


@pytest.mark.parametrize(("template", "expected"), [
    ("a { b", ["with.x: a lone { at character 3; write {{ for a brace"]),
    ("}{", ["with.x: a lone } at character 1; write }} for a brace",
            "with.x: a lone { at character 2; write {{ for a brace"]),
    ("{?}", ["with.x: a placeholder without a name; write {{ and }} for braces"]),
    ({"a": ["ok", {"b": "{"}]}, ["with.x.a[1].b: a lone { at character 1; write {{ for a brace"]),
])
def test_each_fault_has_its_place(template, expected):
    assert faults_of(template) == expected


def test_a_name_is_missed_at_its_place_in_lists_and_mappings():
    with pytest.raises(Unrenderable, match=r"^with\.x\.a\[1\]\.b: no 'no' in the payload or the context$"):
        rendered({"a": ["x", {"b": "{no}"}]})


@pytest.mark.parametrize("payload", [None, [1], "words", 5])
def test_any_payload_can_be_looked_into(payload):
    assert rendered("{a?}", payload, {"a": 1}) == 1
    assert rendered("{0?}", payload, {}) == (1 if payload == [1] else "")


@pytest.mark.parametrize("template", ["{a}" * 3, ["{a}"] * 3, ["x{a}"] * 3, {"b": "{a}{a}{a}"}])
def test_no_template_can_ask_for_more_than_a_mebibyte(template):
    third = RENDERED_LIMIT // 3
    assert rendered(template, {"a": "y" * (third - 100)}, {}) is not None
    with pytest.raises(Unrenderable, match=": more than 1,048,576 bytes$"):
        rendered(template, {"a": "y" * (third + 1)}, {})
