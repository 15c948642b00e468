"""Decides which jobs an event becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ductile.config.model import Route
from ductile.pipeline.graph import Pipeline, Position
from ductile.protocol import HANDLE
from ductile.queue.job import Submitter


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A job that an event becomes. The last three fields name its step in a pipeline, None for a route."""

    plugin: str
    command: str
    submitted_by: Submitter
    pipeline_name: str | None = None
    pipeline_hash: str | None = None
    step_id: str | None = None


@dataclass(frozen=True, slots=True)
class Router:
    """The routes and pipelines of a configuration, indexed for lookups. `pipelines` are by name."""

    routes: tuple[Route, ...]
    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)
    _by_route: Mapping[tuple[str, str], tuple[Target, ...]] = field(init=False, repr=False, compare=False)
    _by_type: Mapping[str, tuple[Target, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_route: dict[tuple[str, str], tuple[Target, ...]] = {}
        for route in self.routes:
            target = Target(plugin=route.target, command=HANDLE, submitted_by=Submitter.ROUTE)
            key = (route.source, route.event_type)
            by_route[key] = (*by_route.get(key, ()), target)
        by_type: dict[str, tuple[Target, ...]] = {}
        for pipeline in self.pipelines.values():
            if pipeline.on is not None:
                entry = tuple(_step(pipeline, step_id) for step_id in pipeline.entry)
                by_type[pipeline.on] = (*by_type.get(pipeline.on, ()), *entry)
        object.__setattr__(self, "_by_route", by_route)
        object.__setattr__(self, "_by_type", by_type)

    def next(self, event_type: str, source_plugin: str | None, position: Position | None = None) -> tuple[Target, ...]:
        """Return the jobs that an event becomes. Types match exactly.

        First come the next steps of `position`, the emitting job's step in a pipeline; then the entry steps of every
        pipeline on that type; then every route, in the order of the configuration. `source_plugin` is the plugin that
        emitted the event, None for an external or core event, which has no routes.
        """
        steps = () if position is None else following(position)
        routes = () if source_plugin is None else self._by_route.get((source_plugin, event_type), ())
        return (*steps, *self._by_type.get(event_type, ()), *routes)


def following(position: Position) -> tuple[Target, ...]:
    """Return the next steps, in the order of the file."""
    return tuple(_step(position.pipeline, step_id) for step_id in position.node.next)


def _step(pipeline: Pipeline, step_id: str) -> Target:
    node = pipeline.nodes[step_id]
    return Target(plugin=node.plugin, command=node.command, submitted_by=Submitter.PIPELINE,
                  pipeline_name=pipeline.name, pipeline_hash=pipeline.hash, step_id=step_id)
