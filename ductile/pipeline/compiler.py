"""Compiles all pipelines together: from what their authors wrote to a checked set of graphs.

A step without an id gets one from its position: the name of its plugin or of the called pipeline, a dot, and its
numbers from 1 on each level of `steps` and `split`. `note.3.2.1` is the first step in the second branch of the third
step. A written id contains no dot, so the two kinds never collide. Such an id changes when its step moves, and with it
the name of the step in `inspect` and in the search for duplicates; a written one stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ductile.pipeline.graph import Node, Pipeline, build
from ductile.pipeline.spec import Call, PipelineFault, PipelineSpec, Split, Step, Steps, Uses, walk
from ductile.protocol import HANDLE
from ductile.validation import Path, dotted, nearest

# Calls that double on each level would ask for billions of steps in a few lines.
MOST_NODES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Every named pipeline in the order of the files, and every problem in the order of its location.

    A pipeline with a problem contains only its valid steps, so nothing may run unless `problems` is empty.
    """

    pipelines: Mapping[str, Pipeline]
    problems: tuple[PipelineFault, ...]


def compile_all(
    specs: Sequence[PipelineSpec],
    *,
    commands: Mapping[str, Collection[str] | None],
    disabled: Collection[str],
    max_hops: int,
) -> Compiled:
    """Compile all pipelines and return them with every problem.

    `commands` has the commands of each configured plugin, None for one that is not loaded; `disabled` are the
    disabled plugins. `max_hops` is the longest allowed chain of jobs.
    """
    named, faults = _by_name(specs)
    for spec in specs:
        faults += _double_ids(spec)
        faults += _wrong_plugins(spec, commands, disabled)
        faults += _unknown_calls(spec, named)
    order, circles = _called_first(specs, named)
    faults += circles
    assembly = _Assembly(max_hops)
    for index in order:
        part = assembly.build(specs[index])
        if named.get(part.pipeline.name) == index:
            assembly.parts[part.pipeline.name] = part
    faults += assembly.faults
    return Compiled(
        pipelines={name: assembly.parts[name].pipeline for name in named}, problems=tuple(sorted(faults))
    )


def _by_name(specs: Sequence[PipelineSpec]) -> tuple[dict[str, int], list[PipelineFault]]:
    """Return the index of the first pipeline of each name, and a fault for each further one."""
    named: dict[str, int] = {}
    faults = []
    for index, spec in enumerate(specs):
        if spec.name in named:
            owner = specs[named[spec.name]]
            location = owner.file.location((*owner.path, "name"))
            text = f"expected a name of its own, got {spec.name!r}, which the pipeline at {location} has"
            faults.append(spec.fault((*spec.path, "name"), text))
        elif spec.name:
            named[spec.name] = index
    return named, faults


def _double_ids(spec: PipelineSpec) -> Iterator[PipelineFault]:
    owners: dict[str, Path] = {}
    for step in walk(spec.steps):
        if step.id is None:
            continue
        if step.id in owners:
            text = f"expected an id of its own, got {step.id!r}, which {dotted(owners[step.id])} has"
            yield spec.fault((*step.path, "id"), text)
        owners.setdefault(step.id, step.path)


def _wrong_plugins(
    spec: PipelineSpec, commands: Mapping[str, Collection[str] | None], disabled: Collection[str]
) -> Iterator[PipelineFault]:
    for step in walk(spec.steps):
        if not isinstance(step, Uses):
            continue
        path = (*step.path, "uses")
        if step.plugin in disabled:
            yield spec.fault(path, f"expected an enabled plugin, got {step.plugin!r}, which is disabled")
        elif step.plugin not in commands:
            hint = nearest(step.plugin, commands)
            yield spec.fault(path, f"expected a configured plugin, got {step.plugin!r}{hint}")
        else:
            yield from _wrong_command(spec, step, commands[step.plugin])


def _wrong_command(spec: PipelineSpec, step: Uses, known: Collection[str] | None) -> Iterator[PipelineFault]:
    command = step.command or HANDLE
    if known is not None and command not in known:
        hint = nearest(command, known) or f" (it has {', '.join(known)})"
        path = (*step.path, "uses" if step.command is None else "command")
        yield spec.fault(path, f"plugin {step.plugin} has no command {command!r}{hint}")


def _unknown_calls(spec: PipelineSpec, named: Collection[str]) -> Iterator[PipelineFault]:
    for step in walk(spec.steps):
        if isinstance(step, Call) and step.pipeline not in named:
            hint = nearest(step.pipeline, named)
            yield spec.fault((*step.path, "call"), f"expected the name of a pipeline, got {step.pipeline!r}{hint}")


def _called_first(specs: Sequence[PipelineSpec], named: Mapping[str, int]) -> tuple[list[int], list[PipelineFault]]:
    """Return the indexes of the pipelines, called ones first, and a fault for each circular call."""
    finished: dict[int, None] = {}
    faults = []
    for root in range(len(specs)):
        if root in finished:
            continue
        # No recursion: a thousand pipelines may each call the next.
        trail, depths, left = [root], {root: 0}, [_calls(specs[root], named)]
        while trail:
            step = next(left[-1], None)
            if step is None:
                left.pop()
                index = trail.pop()
                del depths[index]
                finished[index] = None
                continue
            called = named[step.pipeline]
            if called in depths:
                faults.append(_circle(specs, trail, depths[called], step))
            elif called not in finished:
                depths[called] = len(trail)
                trail.append(called)
                left.append(_calls(specs[called], named))
    return list(finished), faults


def _calls(spec: PipelineSpec, named: Collection[str]) -> Iterator[Call]:
    """Yield the first call of each existing pipeline."""
    seen = set()
    for step in walk(spec.steps):
        if isinstance(step, Call) and step.pipeline in named and step.pipeline not in seen:
            seen.add(step.pipeline)
            yield step


def _circle(specs: Sequence[PipelineSpec], trail: Sequence[int], start: int, step: Call) -> PipelineFault:
    """Return the fault of a call that leads back to `trail[start]`."""
    circle = " -> ".join([*(specs[index].name for index in trail[start:]), step.pipeline])
    return specs[trail[-1]].fault((*step.path, "call"), f"circular call {circle}; remove one of these calls")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A compiled pipeline that others may call; without nodes if `size`, their number, is over the limit."""

    pipeline: Pipeline
    ends_in_split: bool
    size: int


class _Assembly:
    """Compiles pipelines one after another, each from those that it calls.

    A call of a pipeline that is not among `parts`, because it is unknown or circular, adds nothing.
    """

    def __init__(self, max_hops: int) -> None:
        self.parts: dict[str, _Part] = {}
        self.faults: list[PipelineFault] = []
        self._max_hops = max_hops

    def build(self, spec: PipelineSpec) -> _Part:
        """Return the compiled pipeline."""
        self.faults += self._after_splits(spec)
        expansion = _Expansion(self.parts)
        sizes = [self._size(step) for step in walk(spec.steps)]
        size = sum(sizes)
        entry = () if size > MOST_NODES else expansion.sequence(spec.steps, "", ())
        # A pipeline that calls one over the limit is over it, too, and is not reported.
        if max(sizes, default=0) <= MOST_NODES < size:
            text = f"expected at most {MOST_NODES:,} steps with calls expanded, got {size:,}"
            self.faults.append(spec.fault((*spec.path, "steps"), text))
        pipeline = build(name=spec.name, on=spec.on, entry=entry, nodes=reversed(expansion.backwards))
        longest = _longest_path(pipeline)
        if longest > self._max_hops:
            text = f"expected a longest path of at most {self._max_hops} (service.max_hops), got {longest} steps"
            self.faults.append(spec.fault((*spec.path, "steps"), text))
        ends_in_split = bool(spec.steps) and self._ends_in_split(spec.steps[-1])
        return _Part(pipeline=pipeline, ends_in_split=ends_in_split, size=size)

    def _size(self, step: Step) -> int:
        """Return how many nodes a step adds by itself."""
        if isinstance(step, Call):
            return self.parts[step.pipeline].size if step.pipeline in self.parts else 0
        return isinstance(step, Uses)

    def _after_splits(self, spec: PipelineSpec) -> Iterator[PipelineFault]:
        inner = [step.steps for step in walk(spec.steps) if isinstance(step, Steps)]
        for sequence in (spec.steps, *inner):
            for before, after in pairwise(sequence):
                if self._ends_in_split(before):
                    which = f"{dotted(before.path)}, which {_manner(before)}"
                    text = f"expected no step after {which}: branches do not join, so move it into each of them"
                    yield spec.fault(after.path, text)

    def _ends_in_split(self, step: Step) -> bool:
        while isinstance(step, Steps) and step.steps:
            step = step.steps[-1]
        if isinstance(step, Call):
            return step.pipeline in self.parts and self.parts[step.pipeline].ends_in_split
        return isinstance(step, Split)


def _manner(step: Step) -> str:
    if isinstance(step, Call):
        return f"ends in a split, as {step.pipeline} does"
    return "is a split" if isinstance(step, Split) else "ends in a split"


class _Expansion:
    """Turns steps into nodes, the last first, because each node names those that follow it."""

    def __init__(self, parts: Mapping[str, _Part]) -> None:
        self.backwards: list[Node] = []
        self._parts = parts

    def sequence(self, steps: Sequence[Step], position: str, following: tuple[str, ...]) -> tuple[str, ...]:
        """Add the nodes of a sequence. Return the ids of its first nodes, or `following` if it has none."""
        for number in range(len(steps), 0, -1):
            following = self._step(steps[number - 1], f"{position}.{number}", following)
        return following

    def _step(self, step: Step, position: str, following: tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(step, Uses):
            node = Node(
                id=step.id or step.plugin + position, plugin=step.plugin, command=step.command or HANDLE,
                deep_copy=step.deep_copy, next=following, template=step.template,
            )
            self.backwards.append(node)
            return (node.id,)
        if isinstance(step, Call):
            return self._call(step, step.id or step.pipeline + position, following)
        if isinstance(step, Steps):
            return self.sequence(step.steps, position, following)
        entries = [self._step(step.branches[number - 1], f"{position}.{number}", ())
                   for number in range(len(step.branches), 0, -1)]
        return tuple(name for entry in reversed(entries) for name in entry)

    def _call(self, step: Call, prefix: str, following: tuple[str, ...]) -> tuple[str, ...]:
        part = self._parts.get(step.pipeline)
        if part is None or not part.pipeline.nodes:
            return following
        for node in reversed(list(part.pipeline.nodes.values())):
            self.backwards.append(replace(
                node, id=f"{prefix}/{node.id}", next=tuple(f"{prefix}/{name}" for name in node.next) or following))
        return tuple(f"{prefix}/{name}" for name in part.pipeline.entry)


def _longest_path(pipeline: Pipeline) -> int:
    lengths: dict[str, int] = {}
    for node in reversed(list(pipeline.nodes.values())):
        lengths[node.id] = 1 + max((lengths[name] for name in node.next), default=0)
    return max(lengths.values(), default=0)
