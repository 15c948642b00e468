"""When the probe of an open circuit breaker runs, by what the configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from ductile.config.model import PluginConfig
from ductile.ctl.status import Probes
from ductile.scheduler.schedule import next_in_window


class Configured(Probes):
    """The breakers and schedules of a configuration."""

    def __init__(self, plugins: Mapping[str, PluginConfig]) -> None:
        self._plugins = plugins

    def open_until(self, plugin: str, opened_at: datetime) -> datetime | None:
        settings = self._plugins.get(plugin)
        return None if settings is None else opened_at + timedelta(seconds=settings.breaker.reset_after)

    def next_run(self, plugin: str, schedule_id: str, due: datetime, open_until: Mapping[str, datetime]) -> datetime:
        schedules = self._plugins[plugin].schedules if plugin in self._plugins else ()
        schedule = next((each for each in schedules if each.id == schedule_id), None)
        if schedule is None or schedule.command not in open_until:
            return due
        # Outside its window it waits for the next one, and is then drawn within the jitter: this is the earliest.
        return next_in_window(schedule, max(due, open_until[schedule.command]), _Earliest())


class _Earliest:
    """Chance that always gives the least."""

    def uniform(self, least: float, most: float) -> float:
        return least
