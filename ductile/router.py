"""An event and where it came from, to the jobs that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ductile.config.schema import Route
from ductile.plugin.manifest import HANDLE
from ductile.queue.job import Submitter


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """One job that an event becomes. The last three name the pipeline's step that it is, None for a route."""

    plugin: str
    command: str
    submitted_by: Submitter
    pipeline_name: str | None = None
    pipeline_hash: str | None = None
    step_id: str | None = None


@dataclass(frozen=True, slots=True)
class Router:
    """The routes of a configuration, ready to be asked."""

    routes: tuple[Route, ...]
    _by_event: Mapping[tuple[str | None, str], tuple[Dispatch, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_event: dict[tuple[str | None, str], tuple[Dispatch, ...]] = {}
        for route in self.routes:
            dispatch = Dispatch(plugin=route.target, command=HANDLE, submitted_by=Submitter.ROUTE)
            key = (route.source, route.event_type)
            by_event[key] = (*by_event.get(key, ()), dispatch)
        object.__setattr__(self, "_by_event", by_event)

    def next(self, event_type: str, source_plugin: str | None) -> tuple[Dispatch, ...]:
        """Return what an event becomes, in the order of the configuration; nothing where no route matches exactly.

        `source_plugin` is the plugin that emitted it, None for one from outside, which no route takes.
        """
        return self._by_event.get((source_plugin, event_type), ())
