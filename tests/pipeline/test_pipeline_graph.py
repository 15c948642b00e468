"""The canonical form: what it is blind to, what it sees, and the way back from it."""

from __future__ import annotations

import json

import pytest
from blake3 import blake3

from ductile.pipeline.graph import Node, build, canonical, from_canonical
from pipeline.pipeline_files import compiled

PLAIN = """
pipelines:
  - name: a
    on: go
    steps:
      - {id: x, uses: echo}
      - {id: y, call: b}
      - split:
          - {id: l, uses: note, workspace: copy}
          - {id: r, uses: echo, command: poll}
  - name: b
    steps: [{id: z, uses: echo}]
"""


def hash_of(directory, text: str) -> str:
    pipelines = compiled(directory, text)
    return next(iter(pipelines.values())).hash


SAME = [
    ("# said first\n" + PLAIN.replace("on: go", "on: go    # why")),
    PLAIN.replace("    on: go\n", "").replace("  - name: b", "    on: go\n  - name: b"),
    PLAIN.replace("{id: x, uses: echo}", "{uses: echo, id: x}"),
    PLAIN.replace("{id: x, uses: echo}", "id: x\n        uses: echo"),
    PLAIN.replace("on: go", "'on': \"go\"").replace("uses: echo", "uses: 'echo'"),
    PLAIN.replace("uses: echo}", "uses: echo, command: handle}"),
    PLAIN.replace("\n", "\r\n"),
    PLAIN.replace("uses: echo}", "uses: echo, with: {}}"),
    PLAIN.replace("- split:", "- id: both\n        split:"),
    PLAIN.replace("[{id: z, uses: echo}]", "[{steps: [{id: z, uses: echo}]}]"),
    PLAIN.replace("  - name: b\n", "  - name: b\n    on: another\n"),
    PLAIN + "  - {name: c, steps: [call: a]}\n",
    json.dumps({"pipelines": [
        {"steps": [{"uses": "echo", "id": "x"}, {"call": "b", "id": "y"}, {"split": [
            {"id": "l", "uses": "note", "workspace": "copy"}, {"command": "poll", "id": "r", "uses": "echo"}]}],
         "name": "a", "on": "go"},
        {"name": "b", "steps": [{"id": "z", "uses": "echo"}]},
    ]}),
]

OTHER = [
    ("name: a", "name: d"),
    ("on: go", "on: gone"),
    ("    on: go\n", ""),
    ("{id: x, uses: echo}", "{id: w, uses: echo}"),
    ("{id: x, uses: echo}", "{uses: echo}"),
    ("{id: x, uses: echo}", "{id: x, uses: note}"),
    ("{id: x, uses: echo}", "{id: x, uses: echo, command: poll}"),
    ("{id: x, uses: echo}", "{id: x, uses: echo, workspace: copy}"),
    ("{id: x, uses: echo}", "{id: x, uses: echo, with: {a: '{b}'}}"),
    ("{id: z, uses: echo}", "{id: z, uses: echo, with: {a: 1}}"),
    ("      - {id: x, uses: echo}\n", ""),
    ("{id: y, call: b}", "{id: v, call: b}"),
    ("{id: y, call: b}", "{call: b}"),
    (", workspace: copy", ""),
    ("command: poll", "command: handle"),
    ("{id: z, uses: echo}", "{id: z, uses: note}"),
    ("{id: z, uses: echo}", "{id: z, uses: echo, workspace: copy}"),
    ("[{id: z, uses: echo}]", "[{id: z, uses: echo}, {id: t, uses: note}]"),
    ("[{id: z, uses: echo}]", "[{id: t, uses: note}, {id: z, uses: echo}]"),
    ("      - {id: x, uses: echo}\n      - {id: y, call: b}\n",
     "      - {id: y, call: b}\n      - {id: x, uses: echo}\n"),
    ("          - {id: l, uses: note, workspace: copy}\n          - {id: r, uses: echo, command: poll}\n",
     "          - {id: r, uses: echo, command: poll}\n          - {id: l, uses: note, workspace: copy}\n"),
    ("      - split:\n          - {id: l", "      - steps:\n          - {id: l"),
    ("          - {id: r, uses: echo, command: poll}\n", ""),
]


@pytest.mark.parametrize("text", SAME)
def test_the_hash_does_not_see_how_a_pipeline_is_written(tmp_path, text):
    assert hash_of(tmp_path, text) == hash_of(tmp_path, PLAIN)


@pytest.mark.parametrize(("before", "after"), OTHER)
def test_the_hash_sees_whatever_changes_what_runs(tmp_path, before, after):
    changed = PLAIN.replace(before, after)
    assert changed != PLAIN
    assert hash_of(tmp_path, changed) != hash_of(tmp_path, PLAIN)


def test_the_hash_is_the_blake3_digest_of_the_canonical_form(tmp_path):
    pipeline = compiled(tmp_path, "name: a\non: gö\nsteps: [{uses: echo}, {uses: note, workspace: copy}]\n")["a"]
    text = canonical(pipeline)
    assert text == (
        '{"entry":["echo.1"],"name":"a","nodes":['
        '{"command":"handle","deep_copy":false,"id":"echo.1","next":["note.2"],"plugin":"echo"},'
        '{"command":"handle","deep_copy":true,"id":"note.2","next":[],"plugin":"note"}],"on":"g\\u00f6"}'
    )
    assert pipeline.hash == blake3(text.encode()).hexdigest()


def test_the_canonical_form_has_the_template_of_a_step_that_has_one(tmp_path):
    pipeline = compiled(tmp_path, """
        pipelines:
          - name: a
            on: go
            steps: [{uses: echo, with: {b: ["{x}", 1], a: null}}, uses: note]
          - {name: b, steps: [call: a]}
        """)
    assert canonical(pipeline["a"]) == (
        '{"entry":["echo.1"],"name":"a","nodes":['
        '{"command":"handle","deep_copy":false,"id":"echo.1","next":["note.2"],"plugin":"echo",'
        '"with":{"a":null,"b":["{x}",1]}},'
        '{"command":"handle","deep_copy":false,"id":"note.2","next":[],"plugin":"note"}],"on":"go"}'
    )
    for each in pipeline.values():
        assert from_canonical(canonical(each)) == each
        assert [node.template for node in each.nodes.values()] == [{"b": ["{x}", 1], "a": None}, None]


def test_the_canonical_form_leads_back_to_the_pipeline(tmp_path):
    pipelines = compiled(tmp_path, PLAIN)
    assert [pipeline.on for pipeline in pipelines.values()] == ["go", None]
    for pipeline in pipelines.values():
        again = from_canonical(canonical(pipeline))
        assert again == pipeline
        assert list(again.nodes) == list(pipeline.nodes)


def test_a_text_that_is_not_the_stored_one_has_another_hash(tmp_path):
    pipeline = compiled(tmp_path, PLAIN)["a"]
    assert from_canonical(canonical(pipeline) + " ").hash != pipeline.hash


NODE = {"id": "x", "plugin": "echo", "command": "handle", "deep_copy": False, "next": []}
GOOD = {"name": "a", "on": None, "entry": ["x"], "nodes": [NODE]}

DAMAGED = [
    ("", "line 1, column 1: expected a value"),
    ('{"name"', "line 1, column 8: expected ':'"),
    ("[]", "expected a mapping, got a list"),
    ("{}", "the key 'name' is missing"),
    ({**GOOD, "name": ""}, "name: expected a string, got an empty string"),
    ({**GOOD, "on": ""}, "on: expected an event type, got ''"),
    ({**GOOD, "on": 1}, "on: expected an event type, got 1"),
    ({**GOOD, "entry": "x"}, "entry: expected a list, got 'x'"),
    ({**GOOD, "entry": []}, "entry: expected at least one node, got an empty list"),
    ({**GOOD, "entry": ["y"]}, "entry: expected the id of a node, got 'y'"),
    ({**GOOD, "entry": [None]}, "entry[0]: expected a string, got null"),
    ({**GOOD, "nodes": {}}, "nodes: expected a list, got a mapping"),
    ({**GOOD, "nodes": ["x"]}, "nodes[0]: expected a mapping, got 'x'"),
    ({**GOOD, "nodes": [NODE, NODE]}, "nodes[0].id: expected each id once, got 'x' again"),
    ({**GOOD, "nodes": [{**NODE, "deep_copy": "no"}]}, "nodes[0].deep_copy: expected true or false, got 'no'"),
    ({**GOOD, "nodes": [{**NODE, "with": []}]}, "nodes[0].with: expected a mapping, got a list"),
    ({**GOOD, "nodes": [{**NODE, "next": ["y"]}]}, "nodes[0].next: expected the id of a later node, got 'y'"),
    ({**GOOD, "nodes": [{**NODE, "next": ["x"]}]}, "nodes[0].next: expected the id of a later node, got 'x'"),
    ({**GOOD, "nodes": [{**NODE, "note": "y"}]}, "nodes[0].note: unknown key"),
    ({**GOOD, "nodes": [{key: value for key, value in NODE.items() if key != "plugin"}]},
     "nodes[0]: the key 'plugin' is missing"),
    ({**GOOD, "steps": []}, "steps: unknown key"),
]


@pytest.mark.parametrize(("form", "text"), DAMAGED)
def test_what_is_no_canonical_form_is_refused(form, text):
    with pytest.raises(ValueError) as caught:
        from_canonical(form if isinstance(form, str) else json.dumps(form))
    assert str(caught.value) == text


def test_a_pipeline_made_by_hand_has_the_hash_of_its_nodes():
    one = build(name="a", on=None, entry=("x",), nodes=[Node(**{**NODE, "next": ()})])
    assert from_canonical(json.dumps(GOOD)) != one
    assert from_canonical(canonical(one)) == one
