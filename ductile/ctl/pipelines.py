"""`ductilectl pipelines`: the pipelines on disk, and the steps of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ductile.ctl import table
from ductile.ctl.lookup import quoted
from ductile.ctl.on_disk import runtime
from ductile.ctl.session import Session
from ductile.errors import EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE, DuctileError
from ductile.pipeline.graph import Node, Pipeline
from ductile.validation import nearest

_SHORT_HASH = 12
_STEP = "  "
# Characters that have a meaning in a label of a Mermaid diagram, as the entities that it knows.
_MERMAID_ENTITIES = str.maketrans({'"': "#quot;", "#": "#35;", "<": "#lt;", ">": "#gt;"})


def pipelines(session: Session, *, name: str | None, mermaid: bool) -> int:
    """Show every pipeline, or with `name` the steps of one as a tree or as a Mermaid diagram.

    Raises DuctileError: 66 for an unknown name, 64 for `mermaid` without a name.
    """
    if name is not None:
        return _show_one(session, name, mermaid)
    if mermaid:
        raise DuctileError("ductilectl pipelines: --mermaid is for one pipeline: give its NAME", exit_code=EXIT_USAGE)
    known = runtime(session)
    found = list(known.router.pipelines.values())
    session.emit([_row(pipeline) for pipeline in found], table.lines(("pipeline", "on", "steps", "hash"), [
        (each.name, each.on or "(called only)", len(each.nodes), each.hash[:_SHORT_HASH]) for each in found
    ], page=session.page) if found else f"no pipeline was found in {known.config.pipelines_dir}\n")
    return EXIT_OK


def _show_one(session: Session, name: str, mermaid: bool) -> int:
    loaded = runtime(session)
    known = loaded.router.pipelines
    if name not in known:
        raise DuctileError(f"no pipeline {quoted(name)} in {loaded.config.pipelines_dir}{nearest(name, known)}",
                           exit_code=EXIT_NOT_FOUND)
    found = known[name]
    lines = _mermaid(found) if mermaid else _tree(found)
    session.emit({**_row(found), "entry": list(found.entry), "nodes": [_node(each) for each in found.nodes.values()]},
                 "".join(f"{line}\n" for line in lines))
    return EXIT_OK


def _row(found: Pipeline) -> dict[str, Any]:
    return {"pipeline": found.name, "on": found.on, "hash": found.hash, "steps": len(found.nodes)}


def _node(node: Node) -> dict[str, Any]:
    return {"step_id": node.id, "plugin": node.plugin, "command": node.command,
            "workspace": "copy" if node.deep_copy else "links", "with": node.template, "next": list(node.next)}


def _tree(found: Pipeline) -> Iterator[str]:
    """Yield the lines of a pipeline: each step is below the one before it, and branches are indented."""
    yield f"{found.name}  on {table.cell(found.on)}" if found.on else f"{found.name}  (called only)"
    yield f"hash {found.hash}"
    left = [(_depth_below(0, found.entry), step_id) for step_id in reversed(found.entry)]
    while left:
        depth, step_id = left.pop()
        node = found.nodes[step_id]
        mark = "-" if depth else "*"
        yield f"{_STEP * depth}{mark} {_label(node)}"
        below = _depth_below(depth, node.next)
        left += [(below, each) for each in reversed(node.next)]


def _depth_below(depth: int, following: tuple[str, ...]) -> int:
    return depth + 1 if len(following) > 1 else depth


def _label(node: Node) -> str:
    copied = ", workspace: copy" if node.deep_copy else ""
    given = f", with {', '.join(map(table.cell, node.template))}" if node.template else ""
    # The command of a plugin that is not loaded has not been checked.
    return f"{node.id}: {node.plugin} {table.cell(node.command)}{copied}{given}"


def _mermaid(found: Pipeline) -> Iterator[str]:
    names = {step_id: f"s{number}" for number, step_id in enumerate(found.nodes)}
    start = "called" if found.on is None else table.cell(found.on)
    yield "flowchart TD"
    yield f'  start(["{start.translate(_MERMAID_ENTITIES)}"])'
    for step_id, node in found.nodes.items():
        yield f'  {names[step_id]}["{_label(node).translate(_MERMAID_ENTITIES)}"]'
    for step_id in found.entry:
        yield f"  start --> {names[step_id]}"
    for step_id, node in found.nodes.items():
        for following in node.next:
            yield f"  {names[step_id]} --> {names[following]}"
