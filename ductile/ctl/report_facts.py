"""What `report` says about a period, counted from rows that are read once and not kept."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import TypeAlias

from ductile.config.model import PluginConfig, Schedule
from ductile.ctl.times import interval
from ductile.injected import NoChance
from ductile.scheduler.schedule import Slot, advance, first, in_window
from ductile.units import DAY, HOUR, format_duration

_MOST_BUCKETS = 62
_ONE_MICROSECOND = timedelta(microseconds=1)
_HOURLY_UP_TO = timedelta(days=2)
_MOST_FAILURES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The time from `since` to `until`, divided into hours, days or several days, which begin at `starts`.

    `starts` are seconds since 1970; `step` is how a caption names one part.
    """

    since: datetime
    until: datetime
    starts: tuple[float, ...]
    step: str

    def bounds(self, part: int) -> tuple[float, float]:
        """Return the beginning and the end of a part, within the period."""
        end = self.starts[part + 1] if part + 1 < len(self.starts) else self.until.timestamp()
        return max(self.starts[part], self.since.timestamp()), end


def divide(since: datetime, until: datetime, zone: tzinfo | None) -> Period:
    """Return a period in parts that begin at whole hours or local midnights, at most 62 of them."""
    here = since.astimezone(zone)
    if until - since <= _HOURLY_UP_TO:
        hour = since.timestamp() - (here.minute * 60 + here.second + here.microsecond / 1e6)
        hours = math.ceil((until.timestamp() - hour) / HOUR)
        return Period(since=since, until=until, starts=tuple(hour + HOUR * n for n in range(hours)), step="hour")
    # A period that ends at midnight has no part in the day that begins then.
    days = ((until - _ONE_MICROSECOND).astimezone(zone).date() - here.date()).days + 1
    each = -(-days // _MOST_BUCKETS)
    midnights = (datetime(here.year, here.month, here.day, tzinfo=zone) + timedelta(days=n)
                 for n in range(0, days, each))
    return Period(since=since, until=until, starts=tuple(moment.timestamp() for moment in midnights),
                  step="day" if each == 1 else f"{each} days")


@dataclass(slots=True, kw_only=True)
class Counts:
    """How many jobs ended how. `retried` have succeeded, but not at their first attempt."""

    succeeded: int = 0
    retried: int = 0
    dead: int = 0
    cancelled: int = 0
    deduped: int = 0

    @property
    def ran(self) -> int:
        """All but duplicates, which never ran."""
        return self.succeeded + self.retried + self.dead + self.cancelled


@dataclass(slots=True, kw_only=True)
class Failure:
    """Jobs of a command that failed permanently with the same error. `job_id` is the latest of them."""

    plugin: str
    command: str
    error: str | None
    pipeline: str | None
    step: str | None
    job_id: str
    latest: str
    earliest: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a number of seconds was distributed."""

    count: int
    median: float
    high: float        # the 95th percentile
    longest: float


@dataclass(slots=True, kw_only=True)
class Facts:
    """A period in numbers: jobs by part and by plugin, attempts by plugin and command, seconds of work by part."""

    period: Period
    jobs: list[Counts] = field(default_factory=list)
    plugins: dict[str, list[Counts]] = field(default_factory=dict)
    busy: list[float] = field(default_factory=list)
    durations: dict[tuple[str, str], array[float]] = field(default_factory=dict)
    waits: dict[tuple[str, str], array[float]] = field(default_factory=dict)
    failed_attempts: int = 0
    attempts: int = 0        # those that durations and waits are of
    failures: list[Failure] = field(default_factory=list)
    other_failures: int = 0

    @property
    def total(self) -> Counts:
        """All jobs of the period."""
        return total(self.jobs)

    @property
    def busy_seconds(self) -> float:
        """How long attempts have run. They run one after the other, so this is never more than the period."""
        return sum(self.busy)


def total(parts: Iterable[Counts]) -> Counts:
    """Return several counts as one."""
    found = Counts()
    for each in parts:
        found.succeeded += each.succeeded
        found.retried += each.retried
        found.dead += each.dead
        found.cancelled += each.cancelled
        found.deduped += each.deduped
    return found


_Attempt: TypeAlias = tuple[str, str, str, float | None, float | None]
_Jobs: TypeAlias = tuple[str, str, bool, bool, int]


def count(period: Period, *, jobs: Sequence[Iterable[_Jobs]], work: Sequence[tuple[int, float]],
          attempts: Iterable[_Attempt],
          dead: Iterable[tuple[str, str, str, str | None, str | None, str | None, str]]) -> Facts:
    """Return the facts of a period, from rows as `queries.ended_in` and `work_in` return them for each part of it, and
    as `attempts_in` and `dead_in` yield them.
    """
    facts = Facts(period=period, jobs=[Counts() for _ in period.starts], busy=[seconds for _, seconds in work],
                  failed_attempts=sum(failed for failed, _ in work))
    for part, groups in enumerate(jobs):
        for group in groups:
            _count_jobs(facts, part, *group)
    _count_attempts(facts, attempts)
    _group(facts, dead)
    return facts


def _count_jobs(facts: Facts, part: int, plugin: str, status: str, retried: bool, cancelled: bool,
                number: int) -> None:
    if plugin not in facts.plugins:
        facts.plugins[plugin] = [Counts() for _ in facts.jobs]
    for counts in (facts.jobs[part], facts.plugins[plugin][part]):
        if status == "deduped":
            counts.deduped += number
        elif status != "dead":
            counts.retried += number if retried else 0
            counts.succeeded += 0 if retried else number
        elif cancelled:
            counts.cancelled += number
        else:
            counts.dead += number


# An attempt that was cut short says nothing about how long its command takes.
_WHOLE = frozenset({"succeeded", "failed", "timed_out"})


def _count_attempts(facts: Facts, attempts: Iterable[_Attempt]) -> None:
    for plugin, command, status, seconds, waited in attempts:
        facts.attempts += 1
        if seconds is not None and status in _WHOLE:
            facts.durations.setdefault((plugin, command), array("d")).append(max(0.0, seconds))
        if waited is not None:
            facts.waits.setdefault((plugin, command), array("d")).append(max(0.0, waited))


def _group(facts: Facts, dead: Iterable[tuple[str, str, str, str | None, str | None, str | None, str]]) -> None:
    """Group jobs that failed permanently by their error; they come the latest first."""
    groups: dict[tuple[str, str, str | None], Failure] = {}
    for job_id, plugin, command, error, pipeline, step, ended in dead:
        known = groups.get((plugin, command, error))
        if known is not None:
            known.count += 1
            known.earliest = ended
        elif len(groups) < _MOST_FAILURES:
            groups[plugin, command, error] = Failure(plugin=plugin, command=command, error=error, pipeline=pipeline,
                                                     step=step, job_id=job_id, latest=ended, earliest=ended)
        else:
            facts.other_failures += 1
    facts.failures = list(groups.values())


def spread(values: array[float]) -> Spread:
    """Return how values are distributed, by the nearest rank. Raises ValueError if there are none."""
    if not values:
        raise ValueError("nothing has no median")
    ordered = sorted(values)
    return Spread(count=len(ordered), median=_ranked(ordered, 50), high=_ranked(ordered, 95), longest=ordered[-1])


def _ranked(ordered: Sequence[float], percent: int) -> float:
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


# What comes next

_MOST_RUNS = 336      # in a week: every 30 minutes
_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """The runs of one schedule in the next seven days, without its jitter.

    `runs` are seconds since 1970. For a schedule that runs too often to be drawn `bands` are the times in which it
    does. `count` is how many runs there are, `every` its rule as people read it.
    """

    plugin: str
    schedule_id: str
    command: str
    every: str
    runs: tuple[float, ...] = ()
    bands: tuple[tuple[float, float], ...] = ()
    count: int = 0


def coming(plugins: Mapping[str, PluginConfig], slots: Mapping[tuple[str, str], tuple[str, Slot]],
           now: datetime) -> list[Coming]:
    """Return what each schedule of the enabled plugins does in the next week.

    `slots` are the stored slots with the rule they were made from. A schedule that was edited begins a new grid.
    """
    found = []
    for plugin in plugins.values():
        for schedule in plugin.schedules if plugin.enabled else ():
            rule, slot = slots.get((plugin.name, schedule.id), (None, None))
            if slot is None or rule != schedule.rule():
                slot = first(schedule, now, NoChance())
            found.append(_coming(plugin.name, schedule, slot, now))
    return found


def _coming(plugin: str, schedule: Schedule, slot: Slot, now: datetime) -> Coming:
    bands: tuple[tuple[float, float], ...] = ()
    runs: list[float] = []
    if schedule.every.seconds * _MOST_RUNS < 7 * DAY:
        bands = _bands(schedule, now)
        number = int(sum(end - start for start, end in bands) // schedule.every.seconds)
    else:
        while slot.next_run_at < now + _WEEK:
            # A run that is due, but blocked, starts as soon as it can.
            runs.append(max(slot.next_run_at, now).timestamp())
            slot = advance(schedule, slot, max(now, slot.next_run_at), NoChance())
        number = len(runs)
    return Coming(plugin=plugin, schedule_id=schedule.id, command=schedule.command, every=_every(schedule),
                  runs=tuple(runs), bands=bands, count=number)


def _bands(schedule: Schedule, now: datetime) -> tuple[tuple[float, float], ...]:
    """Return the times of the next week that are in the schedule's window, to the quarter of an hour."""
    bands: list[tuple[float, float]] = []
    step = HOUR / 4
    for number in range(7 * DAY // (HOUR // 4)):
        moment = now + timedelta(seconds=number * step)
        if not in_window(schedule, moment):
            continue
        start = moment.timestamp()
        if bands and bands[-1][1] == start:
            bands[-1] = bands[-1][0], start + step
        else:
            bands.append((start, start + step))
    return tuple(bands)


def _every(schedule: Schedule) -> str:
    """Return a schedule's rule as people read it: `every 6h ±15m, 06:00 to 22:00`."""
    text = interval(schedule.every)
    if schedule.jitter:
        text += f" ±{format_duration(schedule.jitter / 2)}"
    if schedule.window is not None:
        text += f", {schedule.window.start:%H:%M} to {schedule.window.end:%H:%M}"
    return text if schedule.zone_name is None else f"{text}, {schedule.zone_name}"
