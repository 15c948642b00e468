"""All pipelines together, from what their authors wrote to one checked set of graphs.

What has no id gets one from its place: the name of the plugin or of the called pipeline, a dot, and the numbers, from
1, that lead to the step, one for each level of `steps` and `split`. `note.3.2.1` is the first step within the second
branch of the third step. No authored id holds a dot, so the two never meet. A made-up id changes when its step moves;
an authored one stays, and with it the step's name in `inspect` and in the search for duplicates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ductile.pipeline.graph import Node, Pipeline, build
from ductile.pipeline.spec import Call, PipelineFault, PipelineSpec, Split, Step, Steps, Uses, walk
from ductile.protocol import HANDLE
from ductile.validation import Path, dotted, nearest

# Calls that double at each level ask for billions of nodes in a few lines; nobody means more than these.
MOST_NODES = 10_000
MOST_NODES_IN_ALL = 100_000
# Each call makes the ids inside it longer.
MOST_CALLS_DEEP = 20
# Of a longer circle the names in the middle are left out, so that many circles make no flood.
MOST_NAMES_OF_A_CIRCLE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Every pipeline that has a name, in the order of the files, and all that is wrong, in the order of its places.

    A pipeline with a problem is made of what was right in it, and may be without nodes: only where there is no
    problem does each of them run as its author meant.
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
    """Return all pipelines compiled, with every problem at once.

    `commands` are those of each configured plugin, None where it is not loaded and they are not known; `disabled`
    are the plugins that are configured and may not run. `max_hops` is the longest chain of jobs.
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
    """Return which pipeline is the first of each name, and a fault for every other."""
    named: dict[str, int] = {}
    faults = []
    for index, spec in enumerate(specs):
        if spec.name in named:
            owner = specs[named[spec.name]]
            place = owner.file.place((*owner.path, "name"))
            text = f"expected a name of its own, got {spec.name!r}, which the pipeline at {place} has"
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
        place = (*step.path, "uses")
        if step.plugin in disabled:
            yield spec.fault(place, f"expected an enabled plugin, got {step.plugin!r}, which is disabled")
        elif step.plugin not in commands:
            hint = nearest(step.plugin, commands)
            yield spec.fault(place, f"expected a configured plugin, got {step.plugin!r}{hint}")
        else:
            yield from _wrong_command(spec, step, commands[step.plugin])


def _wrong_command(spec: PipelineSpec, step: Uses, known: Collection[str] | None) -> Iterator[PipelineFault]:
    command = step.command or HANDLE
    if known is not None and command not in known:
        hint = nearest(command, known) or f" (it has {', '.join(known)})"
        place = (*step.path, "uses" if step.command is None else "command")
        yield spec.fault(place, f"plugin {step.plugin} has no command {command!r}{hint}")


def _unknown_calls(spec: PipelineSpec, named: Collection[str]) -> Iterator[PipelineFault]:
    for step in walk(spec.steps):
        if isinstance(step, Call) and step.pipeline not in named:
            hint = nearest(step.pipeline, named)
            yield spec.fault((*step.path, "call"), f"expected the name of a pipeline, got {step.pipeline!r}{hint}")


def _called_first(specs: Sequence[PipelineSpec], named: Mapping[str, int]) -> tuple[list[int], list[PipelineFault]]:
    """Return the pipelines, each after those that it calls, and a fault for each call that closes a circle."""
    finished: dict[int, None] = {}
    faults = []
    for root in range(len(specs)):
        if root in finished:
            continue
        # A stack of its own, as a thousand pipelines may each call the next.
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
    """Yield the first call of each pipeline that there is."""
    seen = set()
    for step in walk(spec.steps):
        if isinstance(step, Call) and step.pipeline in named and step.pipeline not in seen:
            seen.add(step.pipeline)
            yield step


def _circle(specs: Sequence[PipelineSpec], trail: Sequence[int], start: int, step: Call) -> PipelineFault:
    """Return the fault of a call that leads back to where the trail was at `start`."""
    left_out = len(trail) - start - MOST_NAMES_OF_A_CIRCLE
    half = MOST_NAMES_OF_A_CIRCLE // 2
    around = trail[start:] if left_out <= 0 else [*trail[start:start + half], *trail[-half:]]
    names = [specs[index].name for index in around]
    if left_out > 0:
        names.insert(half, f"({left_out:,} more)")
    circle = " -> ".join([*names, step.pipeline])
    return specs[trail[-1]].fault((*step.path, "call"), f"circular call {circle}; take out one of these calls")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A pipeline that is built. `calls_deep` is how many calls lie within one another in it."""

    pipeline: Pipeline
    ends_in_split: bool
    calls_deep: int


class _Assembly:
    """Builds pipelines one after another, each out of those that it calls.

    A call of a pipeline that is not among `parts`, because there is none or it leads round in a circle, adds nothing.
    """

    def __init__(self, max_hops: int) -> None:
        self.parts: dict[str, _Part] = {}
        self.faults: list[PipelineFault] = []
        self._max_hops = max_hops
        self._nodes_in_all = 0

    def build(self, spec: PipelineSpec) -> _Part:
        """Return the pipeline, without nodes where it would have too many."""
        self.faults += self._after_splits(spec)
        called = [self.parts[step.pipeline] for step in walk(spec.steps)
                  if isinstance(step, Call) and step.pipeline in self.parts]
        calls_deep = 1 + max((part.calls_deep for part in called), default=-1)
        expansion = _Expansion(self.parts)
        entry = () if self._too_large(spec, called, calls_deep) else expansion.sequence(spec.steps, "", ())
        pipeline = build(name=spec.name, on=spec.on, entry=entry, nodes=reversed(expansion.backwards))
        longest = _longest_path(pipeline)
        if longest > self._max_hops:
            text = f"expected a longest path of at most {self._max_hops} (service.max_hops), got {longest} steps"
            self.faults.append(spec.fault((*spec.path, "steps"), text))
        return _Part(
            pipeline=pipeline, calls_deep=calls_deep,
            ends_in_split=bool(spec.steps) and self._ends_in_split(spec.steps[-1]),
        )

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

    def _too_large(self, spec: PipelineSpec, called: Sequence[_Part], calls_deep: int) -> bool:
        """Say whether the pipeline goes past a limit; of those that call it each is past the same one, unsaid."""
        count = sum(isinstance(step, Uses) for step in walk(spec.steps))
        count += sum(len(part.pipeline.nodes) for part in called)
        before = self._nodes_in_all
        text = None
        if calls_deep == MOST_CALLS_DEEP + 1:
            text = f"expected at most {MOST_CALLS_DEEP} calls within one another, got {calls_deep}"
        elif count > MOST_NODES:
            text = f"expected at most {MOST_NODES:,} steps with calls expanded, got {count:,}"
        else:
            self._nodes_in_all += count
            if before <= MOST_NODES_IN_ALL < self._nodes_in_all:
                text = f"expected at most {MOST_NODES_IN_ALL:,} steps in all pipelines with calls expanded, got more"
        if text is not None:
            self.faults.append(spec.fault((*spec.path, "steps"), text))
        return text is not None or calls_deep > MOST_CALLS_DEEP or self._nodes_in_all > MOST_NODES_IN_ALL


def _manner(step: Step) -> str:
    if isinstance(step, Call):
        return f"ends in a split, as {step.pipeline} does"
    return "is a split" if isinstance(step, Split) else "ends in a split"


class _Expansion:
    """Turns steps into nodes, the last first, so that each is made when those that follow it have their ids."""

    def __init__(self, parts: Mapping[str, _Part]) -> None:
        self.backwards: list[Node] = []
        self._parts = parts

    def sequence(self, steps: Sequence[Step], place: str, following: tuple[str, ...]) -> tuple[str, ...]:
        """Add the nodes of steps one after another. Return the ids of the first, `following` where there are none."""
        for number in range(len(steps), 0, -1):
            following = self._step(steps[number - 1], f"{place}.{number}", following)
        return following

    def _step(self, step: Step, place: str, following: tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(step, Uses):
            node = Node(
                id=step.id or step.plugin + place, plugin=step.plugin, command=step.command or HANDLE,
                deep_copy=step.deep_copy, next=following,
            )
            self.backwards.append(node)
            return (node.id,)
        if isinstance(step, Call):
            return self._call(step, step.id or step.pipeline + place, following)
        if isinstance(step, Steps):
            return self.sequence(step.steps, place, following)
        entries = [self._step(step.branches[number - 1], f"{place}.{number}", ())
                   for number in range(len(step.branches), 0, -1)]
        return tuple(name for entry in reversed(entries) for name in entry)

    def _call(self, step: Call, prefix: str, following: tuple[str, ...]) -> tuple[str, ...]:
        part = self._parts.get(step.pipeline)
        if part is None or not part.pipeline.nodes:
            return following
        for node in reversed(part.pipeline.nodes.values()):
            self.backwards.append(Node(
                id=f"{prefix}/{node.id}", plugin=node.plugin, command=node.command, deep_copy=node.deep_copy,
                next=tuple(f"{prefix}/{name}" for name in node.next) or following,
            ))
        return tuple(f"{prefix}/{name}" for name in part.pipeline.entry)


def _longest_path(pipeline: Pipeline) -> int:
    lengths: dict[str, int] = {}
    for node in reversed(pipeline.nodes.values()):
        lengths[node.id] = 1 + max((lengths[name] for name in node.next), default=0)
    return max(lengths.values(), default=0)
