"""`ductilectl pipelines`: what the files say runs after what."""

from __future__ import annotations

from collections.abc import Iterator
from io import TextIOBase

from ductile.ctl import table
from ductile.ctl.lookup import shown
from ductile.ctl.output import document
from ductile.ctl.table import Page
from ductile.errors import EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.pipeline.graph import Node, Pipeline
from ductile.runtime_config import RuntimeConfig
from ductile.validation import nearest

_SHORT_HASH = 12
_STEP = "  "
# What ends a label of a Mermaid diagram, or begins something else in it, as the entities that it knows.
_MERMAID_ENTITIES = str.maketrans({'"': "#quot;", "#": "#35;", "<": "#lt;", ">": "#gt;"})


def pipelines(runtime: RuntimeConfig, *, as_json: bool, out: TextIOBase,
              page: Page = table.PLAIN) -> int:
    """Show every pipeline: its name, what starts it, how many steps it has, its hash."""
    found = list(runtime.router.pipelines.values())
    if as_json:
        out.write(document([_row(pipeline) for pipeline in found]))
        return EXIT_OK
    out.write(table.lines(("pipeline", "on", "steps", "hash"), [
        (each.name, each.on or "(called only)", len(each.nodes), each.hash[:_SHORT_HASH]) for each in found
    ], page=page) if found else f"no pipeline was found in {runtime.config.pipelines_dir}\n")
    return EXIT_OK


def pipeline(runtime: RuntimeConfig, *, name: str, mermaid: bool, as_json: bool, out: TextIOBase) -> int:
    """Show one pipeline, calls expanded, as a tree or as a Mermaid diagram. Raises DuctileError (66)."""
    known = runtime.router.pipelines
    if name not in known:
        raise DuctileError(f"no pipeline {shown(name)} in {runtime.config.pipelines_dir}{nearest(name, known)}",
                           exit_code=EXIT_NOT_FOUND)
    found = known[name]
    if as_json:
        out.write(document({**_row(found), "entry": list(found.entry), "nodes": [_node(each)
                                                                                for each in found.nodes.values()]}))
    elif mermaid:
        out.write("".join(f"{line}\n" for line in _mermaid(found)))
    else:
        out.write("".join(f"{line}\n" for line in _tree(found)))
    return EXIT_OK


def _row(found: Pipeline) -> dict:
    return {"pipeline": found.name, "on": found.on, "hash": found.hash, "steps": len(found.nodes)}


def _node(node: Node) -> dict:
    return {"step_id": node.id, "plugin": node.plugin, "command": node.command,
            "workspace": "copy" if node.deep_copy else "links", "next": list(node.next)}


def _tree(found: Pipeline) -> Iterator[str]:
    """Yield the lines of a pipeline: a step stands below the one before it, branches one step further right."""
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
    # Nobody has checked the command of a plugin that is not loaded.
    return f"{node.id}: {node.plugin} {table.cell(node.command)}{copied}"


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
