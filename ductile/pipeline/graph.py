"""A compiled pipeline: its nodes, its canonical form and the hash of that form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from ductile.strictjson import canonical as canonical_json
from ductile.strictjson import decode
from ductile.validation import Problem, Section, kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One step of a pipeline that becomes a job. `next` are the ids of the nodes that get its events.

    With `deep_copy` its workspace is a copy of its parent's, else a clone with hard links. `template` is the step's
    `with`, None if it has none.
    """

    id: str
    plugin: str
    command: str
    deep_copy: bool
    next: tuple[str, ...]
    template: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A graph that runs: `nodes` by id in the order of the file, every node before its `next`.

    `on` is the event type that starts the nodes of `entry`, None if the pipeline is only called. `hash` is the BLAKE3
    digest of the canonical form, in hex.
    """

    name: str
    on: str | None
    entry: tuple[str, ...]
    nodes: Mapping[str, Node]
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The step of a pipeline that a job runs."""

    pipeline: Pipeline
    step_id: str

    @property
    def node(self) -> Node:
        """Return the node of the step."""
        return self.pipeline.nodes[self.step_id]


def build(*, name: str, on: str | None, entry: tuple[str, ...], nodes: Iterable[Node]) -> Pipeline:
    """Return the pipeline of these nodes with its hash."""
    by_id = {node.id: node for node in nodes}
    text = canonical_json(_form(name, on, entry, by_id))
    return Pipeline(name=name, on=on, entry=entry, nodes=by_id, hash=_digest(text))


def lost(name: str | None, digest: str) -> str:
    """Return why a job cannot go on whose version of a pipeline is not known."""
    return f"version {digest[:12]} of pipeline {name}, which it began with, is gone from the database or damaged"


def canonical(pipeline: Pipeline) -> str:
    """Return the canonical JSON of a pipeline, calls expanded: what runs and nothing else.

    Pipelines with equal forms run alike; whatever changes what runs, also the id of a step, changes the form.
    """
    return canonical_json(_form(pipeline.name, pipeline.on, pipeline.entry, pipeline.nodes))


def from_canonical(text: str) -> Pipeline:
    """Return the pipeline of a canonical form. Its hash is that of `text`, for comparison with the recorded one.

    Raises ValueError with one line if the text is no such form.
    """
    problems: list[Problem] = []
    value = decode(text)
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping, got {kind_of(value)}")
    section = Section(value, (), problems)
    section.require("name", "entry", "nodes")
    nodes = _nodes(section)
    pipeline = Pipeline(
        name=section.text("name"),
        on=section.read("on", None, _as_type),
        entry=section.texts("entry"),
        nodes={node.id: node for node in nodes},
        hash=_digest(text),
    )
    section.finish()
    if not problems:
        problems += _broken_links(pipeline, nodes)
    if problems:
        raise ValueError(str(problems[0]))
    return pipeline


def _form(name: str, on: str | None, entry: tuple[str, ...], nodes: Mapping[str, Node]) -> dict[str, Any]:
    # `asdict` copies every value and takes ten times as long.
    return {
        "name": name, "on": on, "entry": entry,
        "nodes": [
            {"id": node.id, "plugin": node.plugin, "command": node.command, "deep_copy": node.deep_copy,
             "next": node.next, **({} if node.template is None else {"with": node.template})}
            for node in nodes.values()
        ],
    }


def _digest(text: str) -> str:
    return blake3(text.encode()).hexdigest()


def _as_type(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected an event type, got {kind_of(value)}")
    return value


def _as_template(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping, got {kind_of(value)}")
    return value


def _nodes(section: Section) -> list[Node]:
    value = section.raw("nodes", [])
    if not isinstance(value, list):
        section.wrong("nodes", f"expected a list, got {kind_of(value)}")
        return []
    nodes = []
    for index, item in enumerate(value):
        path = ("nodes", index)
        if not isinstance(item, Mapping):
            section.problems.append(Problem(path, f"expected a mapping, got {kind_of(item)}"))
            continue
        each = Section(item, path, section.problems)
        each.require("id", "plugin", "command", "deep_copy", "next")
        nodes.append(Node(
            id=each.text("id"), plugin=each.text("plugin"), command=each.text("command"),
            deep_copy=each.boolean("deep_copy", False), next=each.texts("next"),
            template=each.read("with", None, _as_template),
        ))
        each.finish()
    return nodes


def _broken_links(pipeline: Pipeline, nodes: list[Node]) -> Iterable[Problem]:
    """Yield what is wrong with the links. As each leads forward, there can be no cycle."""
    if not pipeline.entry:
        yield Problem(("entry",), "expected at least one node, got an empty list")
    for name in pipeline.entry:
        if name not in pipeline.nodes:
            yield Problem(("entry",), f"expected the id of a node, got {name!r}")
    places = {node.id: index for index, node in enumerate(nodes)}
    for index, node in enumerate(nodes):
        if places[node.id] != index:
            yield Problem(("nodes", index, "id"), f"expected each id once, got {node.id!r} again")
        for name in node.next:
            if places.get(name, -1) <= index:
                yield Problem(("nodes", index, "next"), f"expected the id of a later node, got {name!r}")
