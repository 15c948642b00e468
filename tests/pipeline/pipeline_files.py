"""Pipelines on disk, and what becomes of them."""

from __future__ import annotations

import textwrap
from pathlib import Path

from ductile.pipeline.compiler import Compiled, compile_all
from ductile.pipeline.files import read_pipelines
from ductile.pipeline.graph import Node, Pipeline

# `away` is configured and not loaded, so nobody knows its commands.
COMMANDS = {
    "echo": ("poll", "handle"), "note": ("handle", "tidy"), "clock": ("poll",), "away": None, "off": ("handle",),
}
DISABLED = {"off"}
MAX_HOPS = 5


def compile_files(directory: Path, texts: dict[str, str], *, max_hops: int = MAX_HOPS) -> tuple[Compiled, list[str]]:
    """Write the files, read them back and compile them. Return what came of it, and every line for the operator."""
    for name, text in texts.items():
        (directory / name).write_text(textwrap.dedent(text))
    authored = read_pipelines(directory)
    compiled = compile_all(authored.specs, commands=COMMANDS, disabled=DISABLED, max_hops=max_hops)
    faults = sorted([*authored.problems, *compiled.problems])
    return compiled, [str(fault).replace(f"{directory}/", "") for fault in faults]


def compiled(directory: Path, text: str, *, max_hops: int = MAX_HOPS) -> dict[str, Pipeline]:
    """Return the pipelines of one file that has no fault."""
    result, lines = compile_files(directory, {"p.yaml": text}, max_hops=max_hops)
    assert lines == []
    return dict(result.pipelines)


def links(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    """Return the ids that follow each id, in the order of the nodes; those of the entry follow ''."""
    return {"": pipeline.entry, **{node.id: node.next for node in pipeline.nodes.values()}}


def paths(pipeline: Pipeline) -> list[tuple[Node, ...]]:
    """Return every way from the entry to an end."""
    ways = [(pipeline.nodes[name],) for name in pipeline.entry]
    ended = []
    while ways:
        way = ways.pop(0)
        following = [(*way, pipeline.nodes[name]) for name in way[-1].next]
        ways = following + ways
        if not following:
            ended.append(way)
    return ended
