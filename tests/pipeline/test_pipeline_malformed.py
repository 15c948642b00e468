"""What is said about each thing that can be wrong with a pipeline, and where."""

from __future__ import annotations

import pytest

from ductile.pipeline import compiler
from pipeline.pipeline_files import compile_files, links

HEAD = "name: a\non: go\nsteps:\n"
EVENTS = ("ductile.job.dead, ductile.job.recovered, ductile.job.succeeded, ductile.breaker.opened,"
          " ductile.breaker.closed, ductile.schedule.overdue, ductile.schedule.recovered,"
          " ductile.plugin.unavailable, ductile.plugin.available")
NAME = "expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit"
MALFORMED = [
    # The file.
    ("", ["1:1: expected a pipeline, or a list of them under 'pipelines', got an empty file"]),
    ("# nothing but this\n", ["1:1: expected a pipeline, or a list of them under 'pipelines', got an empty file"]),
    ("{}\n", ["1:1: expected a pipeline, or a list of them under 'pipelines', got an empty file"]),
    ("~\n", ["1:1: expected a pipeline, or a list of them under 'pipelines', got an empty file"]),
    (
        "1: a\n",
        ["1:1: 1: expected a string as key, got 1", "1:1: the key 'name' is missing",
         "1:1: the key 'steps' is missing"],
    ),
    ("[]\n", ["1:1: expected a mapping, got a list"]),
    ("echo\n", ["1:1: expected a mapping, got 'echo'"]),
    ("name: [a\n", ["1:7: the '[' that opens here is not closed: expected ',' or ']' at line 2, column 1"]),
    ("name: a\n---\nname: b\n", ["2:1: expected one document, got another after it"]),
    ("pipelines:\n", ["1:11: pipelines: expected a list, got null"]),
    ("pipelines: {name: a}\n", ["1:12: pipelines: expected a list, got a mapping"]),
    ("pipelines: []\n", ["1:12: pipelines: expected at least one pipeline, got an empty list"]),
    ("pipelines: [a]\n", ["1:13: pipelines[0]: expected a mapping, got 'a'"]),
    (
        "pipelines:\n  - {name: a, steps: [uses: echo]}\nname: b\n",
        ["3:1: name: unknown key"],
    ),
    (
        "pipeline:\n  - {name: a, steps: [uses: echo]}\n",
        [
            "1:1: pipeline: unknown key (did you mean 'pipelines'?)",
            "1:1: the key 'name' is missing",
            "1:1: the key 'steps' is missing",
        ],
    ),
    # The pipeline.
    ("on: go\nsteps: [uses: echo]\n", ["1:1: the key 'name' is missing"]),
    ("name: a\non: go\n", ["1:1: the key 'steps' is missing"]),
    ("pipelines:\n  - on: go\n    steps: [uses: echo]\n", ["2:5: pipelines[0]: the key 'name' is missing"]),
    ("name: 5\nsteps: [uses: echo]\n", [f"1:7: name: {NAME}, got 5"]),
    (
        "name: a/b\nsteps: [uses: echo]\n",
        [f"1:7: name: {NAME}, got 'a/b'"],
    ),
    (f"name: {'a' * 65}\nsteps: [uses: echo]\n", [f"1:7: name: {NAME}, got '{'a' * 65}'"]),
    ("name: a\non: true\nsteps: [uses: echo]\n", ["2:5: on: expected a string, got true"]),
    ("name: a\non: ''\nsteps: [uses: echo]\n", ["2:5: on: expected a string, got an empty string"]),
    ("name: a\non: [go]\nsteps: [uses: echo]\n", ["2:5: on: expected a string, got a list"]),
    (
        "name: a\non: ductile.job.died\nsteps: [uses: echo]\n",
        [f"2:5: on: expected a plugin's event or one of {EVENTS}, got 'ductile.job.died'"
         " (did you mean 'ductile.job.dead'?)"],
    ),
    (
        "name: a\non: ductile.step.succeeded\nsteps: [uses: echo]\n",
        [f"2:5: on: expected a plugin's event or one of {EVENTS}, got 'ductile.step.succeeded'"
         " (did you mean 'ductile.job.succeeded'?)"
         ""],
    ),
    ("name: a\nno: go\nsteps: [uses: echo]\n", ["2:1: no: unknown key"]),
    (
        "name: a\nsteps: [uses: echo]\nname: b\n",
        ["3:1: name: repeated key, also at line 1, column 1"],
    ),
    ("name: a\nsteps:\n", ["2:7: steps: expected a list, got null"]),
    ("name: a\nsteps: []\n", ["2:8: steps: expected at least one step, got an empty list"]),
    ("name: a\nsteps: {uses: echo}\n", ["2:8: steps: expected a list, got a mapping"]),
    # The step.
    (HEAD + "  - echo\n", ["4:5: steps[0]: expected a mapping, got 'echo'"]),
    (HEAD + "  - {id: x}\n", ["4:5: steps[0]: expected exactly one of uses, call, steps, split, got none"]),
    (
        HEAD + "  - {use: echo, workspace: copy}\n",
        [
            "4:5: steps[0]: expected exactly one of uses, call, steps, split, got none",
            "4:6: steps[0].use: unknown key (did you mean 'uses'?)",
        ],
    ),
    (
        HEAD + "  - {uses: echo, split: [uses: ecko]}\n",
        ["4:5: steps[0]: expected exactly one of uses, call, steps, split, got uses and split"],
    ),
    (HEAD + "  - uses:\n", ["4:10: steps[0].uses: expected a string, got null"]),
    (HEAD + "  - call: 5\n", ["4:11: steps[0].call: expected a string, got 5"]),
    (HEAD + "  - split:\n", ["4:11: steps[0].split: expected a list, got null"]),
    (HEAD + "  - split: []\n", ["4:12: steps[0].split: expected at least one branch, got an empty list"]),
    (HEAD + "  - split: [{steps: []}]\n",
     ["4:21: steps[0].split[0].steps: expected at least one step, got an empty list"]),
    (
        HEAD + "  - {uses: echo, id: a/b}\n",
        [f"4:22: steps[0].id: {NAME}, got 'a/b'"],
    ),
    (HEAD + "  - {uses: echo, id: 1}\n", [f"4:22: steps[0].id: {NAME}, got 1"]),
    (HEAD + "  - {uses: clock, command: 7}\n", ["4:28: steps[0].command: expected a string, got 7"]),
    (
        HEAD + "  - {uses: echo, workspace: links}\n",
        ["4:29: steps[0].workspace: expected copy (leave the key out for hard links), got 'links'"],
    ),
    (
        HEAD + "  - {uses: echo, workspace: [copy]}\n",
        ["4:29: steps[0].workspace: expected copy (leave the key out for hard links), got a list"],
    ),
    (HEAD + "  - {uses: echo, with: '{title}'}\n", ["4:24: steps[0].with: expected a mapping, got '{title}'"]),
    (
        HEAD + "  - {call: b, with: {a: 1}}\n",
        ["4:12: steps[0].call: expected the name of a pipeline, got 'b'",
         "4:15: steps[0].with: belongs to 'uses' only"],
    ),
    (
        HEAD + "  - uses: echo\n    with:\n      a: '{title'\n      b: [x, '}', {c: '{}', d: 5}]\n      e: '{x}'\n",
        ["6:10: steps[0].with.a: a lone { at character 1; write {{ for a brace",
         "7:14: steps[0].with.b[1]: a lone } at character 1; write }} for a brace",
         "7:23: steps[0].with.b[2].c: a placeholder without a name; write {{ and }} for braces"],
    ),
    (
        HEAD + "  - {steps: [uses: echo], workspace: copy, command: poll}\n",
        ["4:27: steps[0].workspace: belongs to 'uses' only", "4:44: steps[0].command: belongs to 'uses' only"],
    ),
    (HEAD + "  - {uses: echo, if: x}\n", ["4:18: steps[0].if: unknown key"]),
    # Plugins and commands.
    (
        HEAD + "  - uses: ecko\n",
        ["4:11: steps[0].uses: expected a configured plugin, got 'ecko' (did you mean 'echo'?)"],
    ),
    (HEAD + "  - uses: xyz\n", ["4:11: steps[0].uses: expected a configured plugin, got 'xyz'"]),
    (HEAD + "  - uses: off\n", ["4:11: steps[0].uses: expected an enabled plugin, got 'off', which is disabled"]),
    (HEAD + "  - uses: clock\n", ["4:11: steps[0].uses: plugin clock has no command 'handle' (it has poll)"]),
    (
        HEAD + "  - {uses: note, command: tidi}\n",
        ["4:27: steps[0].command: plugin note has no command 'tidi' (did you mean 'tidy'?)"],
    ),
    # Calls.
    (
        HEAD + "  - call: b\n  - call: b\n",
        ["4:11: steps[0].call: expected the name of a pipeline, got 'b'",
         "5:11: steps[1].call: expected the name of a pipeline, got 'b'"],
    ),
    (
        "pipelines:\n  - {name: tidy-up, steps: [uses: echo]}\n  - {name: a, steps: [call: tidyup]}\n",
        ["3:29: pipelines[1].steps[0].call: expected the name of a pipeline, got 'tidyup' (did you mean 'tidy-up'?)"],
    ),
    (HEAD + "  - call: a\n", ["4:11: steps[0].call: circular call a -> a; remove one of these calls"]),
    # Ids.
    (
        HEAD + "  - {id: x, uses: echo}\n  - {steps: [{id: x, uses: note}]}\n",
        ["5:19: steps[1].steps[0].id: expected an id of its own, got 'x', which steps[0] has"],
    ),
    (
        HEAD + "  - {id: x, uses: echo}\n" + "  - {id: x, split: [{id: x, uses: note}]}\n",
        [
            "5:10: steps[1].id: expected an id of its own, got 'x', which steps[0] has",
            "5:26: steps[1].split[0].id: expected an id of its own, got 'x', which steps[0] has",
        ],
    ),
    # After a split.
    (
        HEAD + "  - split: [uses: echo]\n  - uses: note\n",
        ["5:5: steps[1]: expected no step after steps[0], which is a split: branches do not join, so move it into each"
         " of them"],
    ),
    (
        HEAD + "  - steps: [{uses: echo}, {split: [uses: note]}]\n  - uses: note\n",
        ["5:5: steps[1]: expected no step after steps[0], which ends in a split: branches do not join, so move it into"
         " each of them"],
    ),
    (
        "pipelines:\n  - {name: a, steps: [{call: b}, {uses: note}]}\n  - {name: b, steps: [call: c]}\n"
        "  - {name: c, steps: [{uses: echo}, {split: [uses: note]}]}\n",
        ["2:34: pipelines[0].steps[1]: expected no step after pipelines[0].steps[0], which ends in a split, as b does:"
         " branches do not join, so move it into each of them"],
    ),
    # Too long.
    (
        HEAD + "  - uses: echo\n" * 6,
        ["4:3: steps: expected a longest path of at most 5 (service.max_hops), got 6 steps"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_each_fault_is_named_at_its_place(tmp_path, text, expected):
    _, lines = compile_files(tmp_path, {"p.yaml": text})
    assert lines == [f"p.yaml:{line}" for line in expected]


def test_every_fault_of_every_file_is_said_at_once_in_the_order_of_places(tmp_path):
    files = {
        "b.yaml": "name: b\nsteps:\n  - uses: ecko\n  - {uses: note, speed: 9}\n  - call: none\n",
        "a.yaml": "name: a\nsteps:\n  - uses: off\n  - split: [{uses: echo}, {call: b, id: 3}]\n"
                  "  - uses: echo\nno: 1\n",
    }
    assert compile_files(tmp_path, files)[1] == [
        "a.yaml:3:11: steps[0].uses: expected an enabled plugin, got 'off', which is disabled",
        f"a.yaml:4:41: steps[1].split[1].id: {NAME}, got 3",
        "a.yaml:5:5: steps[2]: expected no step after steps[1], which is a split: branches do not join, so move it into"
        " each of them",
        "a.yaml:6:1: no: unknown key",
        "b.yaml:3:11: steps[0].uses: expected a configured plugin, got 'ecko' (did you mean 'echo'?)",
        "b.yaml:4:18: steps[1].speed: unknown key",
        "b.yaml:5:11: steps[2].call: expected the name of a pipeline, got 'none'",
    ]


def test_a_name_taken_by_a_pipeline_of_another_file_is_told_with_its_place(tmp_path):
    files = {"a.yaml": "name: x\nsteps: [uses: echo]\n",
             "b.yaml": "pipelines:\n  - {name: y, steps: [uses: echo]}\n  - {steps: [uses: ecko], name: x}\n"}
    result, lines = compile_files(tmp_path, files)
    assert lines == [
        "b.yaml:3:20: pipelines[1].steps[0].uses: expected a configured plugin, got 'ecko' (did you mean 'echo'?)",
        "b.yaml:3:33: pipelines[1].name: expected a name of its own, got 'x', which the pipeline at a.yaml:1:7 has",
    ]
    assert list(result.pipelines) == ["x", "y"]
    assert list(result.pipelines["x"].nodes) == ["echo.1"]


def test_a_name_doubled_in_one_file_is_told_with_its_place(tmp_path):
    text = "pipelines:\n" + "  - {name: x, steps: [uses: echo]}\n" * 3
    assert compile_files(tmp_path, {"p.yaml": text})[1] == [
        "p.yaml:3:12: pipelines[1].name: expected a name of its own, got 'x', which the pipeline at p.yaml:2:12 has",
        "p.yaml:4:12: pipelines[2].name: expected a name of its own, got 'x', which the pipeline at p.yaml:2:12 has",
    ]


CIRCLES = [
    ({"a": "a"}, ["2:30: pipelines[0].steps[0].call: circular call a -> a"]),
    ({"a": "b", "b": "a"}, ["3:30: pipelines[1].steps[0].call: circular call a -> b -> a"]),
    ({"a": "b", "b": "c", "c": "a"}, ["4:30: pipelines[2].steps[0].call: circular call a -> b -> c -> a"]),
    ({"a": "b", "b": "c", "c": "b"}, ["4:30: pipelines[2].steps[0].call: circular call b -> c -> b"]),
    ({"a": "bb", "b": "aa"}, ["3:30: pipelines[1].steps[0].call: circular call a -> b -> a"]),
    ({"a": "bc", "b": "a", "c": "a"}, ["3:30: pipelines[1].steps[0].call: circular call a -> b -> a",
                                       "4:30: pipelines[2].steps[0].call: circular call a -> c -> a"]),
]


@pytest.mark.parametrize(("calls", "expected"), CIRCLES)
def test_each_circle_of_calls_is_named_whole_and_once(tmp_path, calls, expected):
    text = "pipelines:\n"
    for name, called in calls.items():
        text += f"  - {{name: {name}, steps: [{', '.join(f'{{call: {each}}}' for each in called)}]}}\n"
    wanted = [f"p.yaml:{line}; remove one of these calls" for line in expected]
    assert compile_files(tmp_path, {"p.yaml": text})[1] == wanted


def test_a_circle_across_files_is_named(tmp_path):
    files = {f"{name}.yaml": f"name: {name}\nsteps: [call: {called}]\n" for name, called in ("ab", "bc", "ca")}
    assert compile_files(tmp_path, files)[1] == [
        "c.yaml:2:15: steps[0].call: circular call a -> b -> c -> a; remove one of these calls",
    ]


def test_a_circle_of_a_thousand_calls_is_named_whole(tmp_path):
    text = "pipelines:\n" + "".join(f"  - {{name: p{n}, steps: [call: p{(n + 1) % 1000}]}}\n" for n in range(1000))
    circle = " -> ".join(f"p{n % 1000}" for n in range(1001))
    assert compile_files(tmp_path, {"p.yaml": text})[1] == [
        f"p.yaml:1001:32: pipelines[999].steps[0].call: circular call {circle}; remove one of these calls"]


@pytest.mark.parametrize("twice", ["[{split: [{call: %s}, {call: %s}]}]", "[{call: %s}, {call: %s}]"])
def test_calls_that_double_at_every_level_end_in_a_fault_and_not_in_memory(tmp_path, twice):
    text = "pipelines:\n"
    for n in range(40):
        text += f"  - {{name: p{n}, steps: {twice % (f'p{n + 1}', f'p{n + 1}')}}}\n"
    text += "  - {name: p40, steps: [uses: echo]}\n"
    lines = compile_files(tmp_path, {"p.yaml": text}, max_hops=compiler.MOST_NODES)[1]
    assert lines == [
        "p.yaml:28:24: pipelines[26].steps: expected at most 10,000 steps with calls expanded, got 16,384",
    ]


def test_calls_that_meet_again_at_every_level_are_followed_once(tmp_path):
    text = "pipelines:\n"
    for n in range(60):
        text += f"  - {{name: p{n}, steps: [{{call: p{n + 1}}}, {{call: p{n + 2}}}]}}\n"
    text += "  - {name: p60, steps: [uses: echo]}\n  - {name: p61, steps: [uses: echo]}\n"
    lines = compile_files(tmp_path, {"p.yaml": text}, max_hops=compiler.MOST_NODES)[1]
    assert lines == [
        "p.yaml:43:24: pipelines[41].steps: expected at most 10,000 steps with calls expanded, got 10,946",
    ]


def test_a_thousand_calls_in_a_row_compile_without_recursion(tmp_path):
    text = "pipelines:\n" + "".join(f"  - {{name: p{n}, steps: [call: p{n + 1}]}}\n" for n in range(1000))
    text += "  - {name: p1000, steps: [uses: echo]}\n"
    result, lines = compile_files(tmp_path, {"p.yaml": text})
    assert (lines, {len(pipeline.nodes) for pipeline in result.pipelines.values()}) == ([], {1})


@pytest.mark.parametrize("key", ["steps", "split"])
def test_steps_within_steps_without_end_are_a_fault_and_not_a_recursion(tmp_path, key):
    text = "name: a\nsteps: [" + f"{{{key}: [" * 5000 + "uses: echo" + "]}" * 5000 + "]\n"
    assert compile_files(tmp_path, {"p.yaml": text})[1] == ["p.yaml:2:450: expected at most 100 levels, got more"]


def test_the_deepest_steps_within_steps_that_yaml_allows_compile(tmp_path):
    text = "name: a\nsteps: [" + "{steps: [" * 48 + "{uses: echo}" + "]}" * 48 + "]\n"
    result, lines = compile_files(tmp_path, {"p.yaml": text})
    assert lines == []
    assert list(result.pipelines["a"].nodes) == ["echo" + ".1" * 49]


def test_a_pipeline_with_a_fault_keeps_its_name_its_event_and_what_is_right(tmp_path):
    text = HEAD + "  - uses: 5\n  - uses: note\n  - call: none\n  - call: bad\n  - uses: away\n"
    result, _ = compile_files(tmp_path, {"p.yaml": text, "q.yaml": "name: bad\nsteps: [uses: 5]\n"})
    assert result.pipelines["a"].on == "go"
    assert links(result.pipelines["a"]) == {"": ("note.2",), "note.2": ("away.5",), "away.5": ()}
    assert links(result.pipelines["bad"]) == {"": ()}
