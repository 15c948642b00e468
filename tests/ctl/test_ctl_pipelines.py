"""`pipelines`: what the files say, as a table, a tree, a diagram and a document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctl.desk import Desk, Said
from ductile import runtime_config

FORK = {"name": "fork", "on": "discord.link", "steps": [
    {"id": "transcript", "uses": "echo"},
    {"call": "rest"},
]}
REST = {"name": "rest", "steps": [
    {"id": "sum", "uses": "note", "command": "poll"},
    {"split": [
        {"id": "one", "uses": "echo"},
        {"steps": [
            {"id": "two", "uses": "note"},
            {"id": "three", "uses": "echo", "workspace": "copy"},
            {"split": [{"id": "x", "uses": "echo"},
                       {"steps": [{"id": "y", "uses": "note"}, {"id": "z", "uses": "note"}]}]},
        ]},
        {"id": "four", "uses": "note"},
    ]},
]}
WIDE = {"name": "wide", "on": "w", "steps": [{"split": [{"id": "a", "uses": "echo"}, {"id": "b", "uses": "note"}]}]}


@pytest.fixture
def files(desk: Desk) -> Desk:
    """A desk with two plugins; `write` is for its pipelines."""
    for name in ("echo", "note"):
        desk.plugin(name)
    return desk


def write(desk: Desk, *pipelines: dict[str, Any]) -> dict[str, str]:
    """Write the pipelines; return their hashes."""
    (desk.home / "pipelines").mkdir(exist_ok=True)
    (desk.home / "pipelines" / "all.yaml").write_text(json.dumps({"pipelines": pipelines}))
    reading = runtime_config.read(desk.home / "config.yaml", {})
    assert reading.problems == ()
    return {name: each.hash for name, each in reading.runtime.router.pipelines.items()}


def test_pipelines_are_shown_in_the_order_of_the_files(files: Desk) -> None:
    hashes = write(files, FORK, REST, WIDE)
    assert files.call("pipelines") == Said(code=0, out=f"""\
PIPELINE  ON             STEPS  HASH
fork      discord.link   9      {hashes['fork'][:12]}
rest      (called only)  8      {hashes['rest'][:12]}
wide      w              2      {hashes['wide'][:12]}
""", err="")


def test_the_document_has_the_same_rows_with_whole_hashes(files: Desk) -> None:
    hashes = write(files, FORK, REST)
    assert files.call("pipelines", "--json").json == [
        {"pipeline": "fork", "on": "discord.link", "hash": hashes["fork"], "steps": 9},
        {"pipeline": "rest", "on": None, "hash": hashes["rest"], "steps": 8}]
    assert {len(each) for each in hashes.values()} == {64}


def test_without_pipelines_there_is_a_sentence_and_an_empty_list(files: Desk) -> None:
    assert files.call("pipelines") == Said(
        code=0, out=f"no pipeline was found in {files.home}/pipelines\n", err="")
    assert files.call("pipelines", "--json").json == []


def test_one_is_shown_as_a_tree_with_its_calls_expanded(files: Desk) -> None:
    hashes = write(files, FORK, REST)
    assert files.call("pipelines", "fork") == Said(code=0, out=f"""\
fork  on discord.link
hash {hashes['fork']}
* transcript: echo handle
* rest.2/sum: note poll
  - rest.2/one: echo handle
  - rest.2/two: note handle
  - rest.2/three: echo handle, workspace: copy
    - rest.2/x: echo handle
    - rest.2/y: note handle
    - rest.2/z: note handle
  - rest.2/four: note handle
""", err="")


def test_one_that_begins_with_a_split_has_several_entries(files: Desk) -> None:
    hashes = write(files, WIDE)
    assert files.call("pipelines", "wide").out == f"""\
wide  on w
hash {hashes['wide']}
  - a: echo handle
  - b: note handle
"""


def test_one_that_is_only_called_says_so(files: Desk) -> None:
    hashes = write(files, {"name": "rest", "steps": [{"uses": "echo"}]})
    assert files.call("pipelines", "rest").out == f"rest  (called only)\nhash {hashes['rest']}\n* echo.1: echo handle\n"


def test_the_document_of_one_has_its_graph(files: Desk) -> None:
    hashes = write(files, {"name": "p", "on": "t", "steps": [
        {"id": "a", "uses": "echo", "with": {"x": ["{y}"]}}, {"split": [
        {"id": "b", "uses": "note", "workspace": "copy"}, {"id": "c", "uses": "echo", "command": "poll"}]}]})
    assert files.call("pipelines", "p", "--json").json == {
        "pipeline": "p", "on": "t", "hash": hashes["p"], "steps": 3, "entry": ["a"], "nodes": [
            {"step_id": "a", "plugin": "echo", "command": "handle", "workspace": "links", "with": {"x": ["{y}"]},
             "next": ["b", "c"]},
            {"step_id": "b", "plugin": "note", "command": "handle", "workspace": "copy", "with": None, "next": []},
            {"step_id": "c", "plugin": "echo", "command": "poll", "workspace": "links", "with": None, "next": []}]}


def test_the_diagram_has_every_step_and_every_way(files: Desk) -> None:
    write(files, {"name": "p", "on": "t", "steps": [{"split": [
        {"steps": [{"id": "end", "uses": "echo"}, {"id": "b", "uses": "note", "workspace": "copy"}]},
        {"id": "c", "uses": "echo"}]}]})
    assert files.call("pipelines", "p", "--mermaid") == Said(code=0, out="""\
flowchart TD
  start(["t"])
  s0["end: echo handle"]
  s1["b: note handle, workspace: copy"]
  s2["c: echo handle"]
  start --> s0
  start --> s2
  s0 --> s1
""", err="")


@pytest.mark.parametrize(("event_type", "shown"), [
    ('"]) --> evil["', '#quot;]) --#gt; evil[#quot;'),
    ("<script>#quot;</script>", "#lt;script#gt;#35;quot;#lt;/script#gt;"),
    ("a\nstart --> s0\n%%{init: {}}%%", "a\\nstart --#gt; s0\\n%%{init: {}}%%"),
    ("a\x1b[2J\u2028b", "a\\x1b[2J\\u2028b"),
    ("é end ;", "é end ;"),
])
def test_a_hostile_event_type_stays_within_its_label(files: Desk, event_type: str, shown: str) -> None:
    write(files, {"name": "p", "on": event_type, "steps": [{"uses": "echo"}]})
    assert files.call("pipelines", "p", "--mermaid").out == (
        f'flowchart TD\n  start(["{shown}"])\n  s0["echo.1: echo handle"]\n  start --> s0\n')


def test_hostile_names_do_nothing_to_the_terminal(files: Desk) -> None:
    files.configure(plugins={**files.config["plugins"], "away": {}})
    hashes = write(files, {"name": "p", "on": "a\x1b[2J\nb", "steps": [{"uses": "away", "command": "c\x1b[31m\nd"}]})
    assert files.call("pipelines", "p").out == (
        f"p  on a\\x1b[2J\\nb\nhash {hashes['p']}\n* away.1: away c\\x1b[31m\\nd\n")
    assert files.call("pipelines").out.splitlines()[1].startswith("p         a\\x1b[2J\\nb  1")
    assert files.call("pipelines", "p", "--mermaid").out.splitlines()[2] == '  s0["away.1: away c\\x1b[31m\\nd"]'


@pytest.mark.parametrize(("name", "expected"), [
    ("frok", "no pipeline 'frok' in {home}/pipelines (did you mean 'fork'?)\n"),
    ("zzz", "no pipeline 'zzz' in {home}/pipelines\n"),
    ("Fork", "no pipeline 'Fork' in {home}/pipelines (did you mean 'fork'?)\n"),
])
@pytest.mark.parametrize("options", [(), ("--json",), ("--mermaid",)])
def test_an_unknown_name_names_the_nearest(files: Desk, name: str, expected: str, options: tuple[str, ...]) -> None:
    write(files, FORK, REST)
    assert files.call("pipelines", name, *options) == Said(code=66, out="", err=expected.format(home=files.home))


def test_a_diagram_of_all_is_refused(files: Desk) -> None:
    assert files.call("pipelines", "--mermaid") == Said(
        code=64, out="", err="ductilectl pipelines: --mermaid is for one pipeline: give its NAME\n")


def test_what_is_wrong_with_the_files_is_said_instead(files: Desk) -> None:
    (files.home / "pipelines").mkdir()
    (files.home / "pipelines" / "p.yaml").write_text("name: p\nsteps:\n  - uses: ehco\n")
    assert files.call("pipelines", "p") == Said(code=78, out="", err=(
        f"{files.home}/pipelines/p.yaml:3:11: steps[0].uses: expected a configured plugin, got 'ehco'"
        " (did you mean 'echo'?)\n"))


def test_no_database_is_needed_and_none_is_made(files: Desk) -> None:
    write(files, FORK, REST)
    assert files.call("pipelines").code == 0
    assert not files.database.exists()
