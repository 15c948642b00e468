"""What good pipelines compile to: the nodes, their ids and what follows each."""

from __future__ import annotations

from ductile.pipeline.graph import Node
from pipeline.pipeline_files import compile_files, compiled, links


def node(name: str, *following: str, plugin: str = "echo", command: str = "handle", deep_copy: bool = False) -> Node:
    return Node(id=name, plugin=plugin, command=command, deep_copy=deep_copy, next=following)


def test_the_pipeline_of_the_manual_is_a_graph(tmp_path):
    pipelines = compiled(tmp_path, """
        pipelines:
          - name: video-wisdom
            on: discord.link
            steps:
              - id: transcript
                uses: away                     # a plugin; its handle command
              - call: standard-summary         # another pipeline's steps, in place
              - split:                         # branches
                  - uses: echo
                  - steps:
                      - {uses: note, command: tidy}
                      - uses: away
                        workspace: copy
          - name: standard-summary
            steps:
              - {id: short, uses: echo}
              - uses: note
    """)
    video = pipelines["video-wisdom"]
    assert (video.name, video.on, video.entry) == ("video-wisdom", "discord.link", ("transcript",))
    assert list(video.nodes.values()) == [
        node("transcript", "standard-summary.2/short", plugin="away"),
        node("standard-summary.2/short", "standard-summary.2/note.2"),
        node("standard-summary.2/note.2", "echo.3.1", "note.3.2.1", plugin="note"),
        node("echo.3.1"),
        node("note.3.2.1", "away.3.2.2", plugin="note", command="tidy"),
        node("away.3.2.2", plugin="away", deep_copy=True),
    ]
    assert list(video.nodes) == [each.id for each in video.nodes.values()]
    assert pipelines["standard-summary"].on is None
    assert links(pipelines["standard-summary"]) == {"": ("short",), "short": ("note.2",), "note.2": ()}


def test_a_call_in_a_branch_and_a_call_of_a_call_are_expanded_in_place(tmp_path):
    pipelines = compiled(tmp_path, """
        pipelines:
          - name: a
            steps: [{split: [{call: b, id: left}, {uses: echo, id: right}]}]
          - name: b
            steps: [{call: c, id: inner}, {uses: note, id: last}]
          - name: c
            steps: [{uses: echo, id: one}, {uses: echo, id: two}]
    """)
    assert links(pipelines["a"]) == {
        "": ("left/inner/one", "right"),
        "left/inner/one": ("left/inner/two",),
        "left/inner/two": ("left/last",),
        "left/last": (),
        "right": (),
    }


def test_a_split_in_a_split_and_a_call_that_ends_in_one_start_side_by_side(tmp_path):
    pipelines = compiled(tmp_path, """
        pipelines:
          - name: a
            steps:
              - uses: echo
              - split:
                  - {uses: note, id: x}
                  - split: [{uses: note, id: y}, {call: b, id: z}]
          - name: b
            steps: [{split: [{uses: echo, id: p}, {uses: echo, id: q}]}]
    """)
    assert links(pipelines["a"]) == {"": ("echo.1",), "echo.1": ("x", "y", "z/p", "z/q"), "x": (), "y": (), "z/p": (),
                                     "z/q": ()}


def test_nested_steps_are_a_sequence_like_any_other(tmp_path):
    pipelines = compiled(tmp_path, """
        name: a
        steps:
          - steps: [{uses: echo}, {steps: [{uses: echo}]}]
            id: group
          - uses: note
    """)
    assert links(pipelines["a"]) == {"": ("echo.1.1",), "echo.1.1": ("echo.1.2.1",), "echo.1.2.1": ("note.2",),
                                     "note.2": ()}


def test_a_split_may_have_one_branch(tmp_path):
    assert links(compiled(tmp_path, "name: a\nsteps: [{split: [{uses: echo}]}]\n")["a"]) == {
        "": ("echo.1.1",), "echo.1.1": ()}


def test_one_pipeline_may_be_called_twice_in_another(tmp_path):
    pipelines = compiled(tmp_path, """
        pipelines:
          - {name: a, steps: [{call: b}, {call: b}]}
          - {name: b, steps: [uses: echo]}
    """)
    assert links(pipelines["a"]) == {"": ("b.1/echo.1",), "b.1/echo.1": ("b.2/echo.1",), "b.2/echo.1": ()}


def test_no_made_up_id_meets_an_authored_one(tmp_path):
    # As near as the grammar of ids lets an author come.
    text = "name: a\nsteps: [{uses: echo, id: echo-2}, {uses: echo}, {uses: echo, id: echo2}, {uses: echo, id: '2'}]\n"
    assert list(compiled(tmp_path, text)["a"].nodes) == ["echo-2", "echo.2", "echo2", "2"]


def test_a_pipeline_may_be_called_before_it_is_written_and_from_another_file(tmp_path):
    files = {"a.yaml": "name: a\non: go\nsteps: [call: z]\n", "z.yaml": "name: z\nsteps: [uses: echo]\n"}
    result, lines = compile_files(tmp_path, files)
    assert lines == []
    assert list(result.pipelines) == ["a", "z"]
    assert links(result.pipelines["a"]) == {"": ("z.1/echo.1",), "z.1/echo.1": ()}


def test_the_pipelines_stand_in_the_order_of_the_files(tmp_path):
    text = "pipelines:\n  - {name: %s, steps: [call: y]}\n  - {name: %s, steps: [uses: echo]}\n"
    result, lines = compile_files(tmp_path, {"2.yaml": text % ("x", "y"), "1.yaml": text % ("z", "w")})
    assert lines == []
    assert list(result.pipelines) == ["z", "w", "x", "y"]


def test_on_is_a_word_and_no_boolean(tmp_path):
    pipelines = compiled(tmp_path, "pipelines:\n  - {name: a, on: on, steps: [uses: echo]}\n"
                                   "  - {name: off, on: yes, steps: [uses: echo]}\n")
    assert {name: pipeline.on for name, pipeline in pipelines.items()} == {"a": "on", "off": "yes"}


def test_the_events_of_the_core_may_be_waited_for(tmp_path):
    events = ("ductile.job.dead", "ductile.breaker.opened", "ductile.breaker.closed")
    text = "pipelines:\n" + "".join(
        f"  - {{name: p{index}, on: {event}, steps: [uses: echo]}}\n" for index, event in enumerate(events))
    assert tuple(pipeline.on for pipeline in compiled(tmp_path, text).values()) == events


def test_a_plugin_that_is_not_loaded_may_be_asked_for_any_command(tmp_path):
    pipelines = compiled(tmp_path, "name: a\nsteps: [{uses: away, command: whatever}]\n")
    assert pipelines["a"].nodes["away.1"].command == "whatever"


def test_a_path_may_be_as_long_as_max_hops(tmp_path):
    text = ("pipelines:\n  - {name: a, steps: [{uses: echo}, {call: b}, {split: [{uses: echo}, {call: b}]}]}\n"
            "  - {name: b, steps: [{uses: echo}, {uses: echo}]}\n")
    assert len(compiled(tmp_path, text, max_hops=5)["a"].nodes) == 6
    assert compile_files(tmp_path, {"p.yaml": text}, max_hops=4)[1] == [
        "p.yaml:2:22: pipelines[0].steps: expected a longest path of at most 4 (service.max_hops), got 5 steps",
    ]


def test_calls_may_lie_twenty_deep(tmp_path):
    text = "pipelines:\n" + "".join(f"  - {{name: p{n}, steps: [call: p{n + 1}]}}\n" for n in range(20))
    pipelines = compiled(tmp_path, text + "  - {name: p20, steps: [uses: echo]}\n")
    assert list(pipelines["p0"].nodes) == ["/".join([*(f"p{n}.1" for n in range(1, 21)), "echo.1"])]


def test_many_pipelines_that_call_one_another_compile(tmp_path):
    steps = ", ".join(["{uses: echo}"] * 18)
    text = "pipelines:\n" + "".join(f"  - {{name: p{n}, steps: [{steps}, {{call: q}}]}}\n" for n in range(300))
    pipelines = compiled(tmp_path, text + "  - {name: q, steps: [uses: note]}\n", max_hops=20)
    assert sum(len(pipeline.nodes) for pipeline in pipelines.values()) == 5_701
