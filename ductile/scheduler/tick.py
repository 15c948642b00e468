"""The scheduler's work on the database: enqueue due runs, release stuck retries."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from ductile import submit
from ductile.config.model import Schedule
from ductile.db import transaction
from ductile.injected import Chance, NewId
from ductile.plugin import plugin_table
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.protocol import SCHEDULE_OVERDUE, SCHEDULE_RECOVERED
from ductile.queue import job_table
from ductile.queue.job import Status, Submitter
from ductile.queue.retry import longest_delay
from ductile.runtime_config import RuntimeConfig
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import Breaker, Gate, gate
from ductile.scheduler.schedule import advance, first, in_window, next_in_window, redraw_if_stalled
from ductile.scheduler.schedule_table import ScheduleEntry, ScheduleKey
from ductile.scheduler.silence import alert_at, silence_after
from ductile.text import one_line
from ductile.units import format_duration, utc_text

QUEUE_FULL = "queue full"
PAUSED = "paused"
_REASON_CHARACTERS = 500

_Wanted = tuple[ConfiguredPlugin, Schedule]
# By schedule: the id of the job that is awaited, or _BLOCKED.
Awaited = Mapping[ScheduleKey, str]
_BLOCKED = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TickLogLine:
    """One line for the log."""

    level: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TickResult:
    """When the next run is due or a schedule is overdue, and what to log.

    `follows_jobs`: the end of a job may change something, as a due run is blocked, a schedule is overdue, or a run is
    awaited. `awaited` is for the next look.
    """

    next_at: datetime | None
    follows_jobs: bool
    log_lines: tuple[TickLogLine, ...] = ()
    awaited: Awaited = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """The facts that decide whether a due run is enqueued."""

    plugin: ConfiguredPlugin
    paused: bool
    healthy: bool
    gate: Gate
    outstanding: int
    queue_is_full: bool


def tick(conn: sqlite3.Connection, runtime: RuntimeConfig, *, now: datetime, rng: Chance, new_id: NewId,
         awaited: Awaited | None = MappingProxyType({})) -> TickResult:
    """Enqueue the runs that are due, store the next due times, and tell of schedules without a success for too long.

    Nothing is written if nothing has changed. `awaited` are the runs that were due at the start, and before whose end
    their schedules cannot be overdue; None at the first look, which finds them. Raises what `transaction` raises; then
    nothing has changed.
    """
    stored = schedule_table.entries(conn)
    wanted = dict(_schedules(runtime))
    gone = [key for key in stored if key not in wanted and not _is_disabled(runtime, key[0])]
    unwatched = [entry for key, entry in stored.items()
                 if key not in wanted and key not in gone and entry.silence.since is not None]
    if not gone and not unwatched and not any(
            _needs_work(stored.get(key), schedule, now, rng) for key, (_, schedule) in wanted.items()):
        return _result(conn, [(stored[key], schedule) for key, (_, schedule) in wanted.items()], now, (), awaited)
    log_lines: list[TickLogLine] = []
    with transaction(conn):
        stored = schedule_table.entries(conn)
        schedule_table.remove_entries(conn, gone)
        for entry in unwatched:
            schedule_table.put_entry(conn, replace(entry, silence=silence_after(entry.silence, None, now)))
        visit = _Visit(conn=conn, runtime=runtime, now=now, rng=rng, new_id=new_id, awaited=awaited,
                       log_lines=log_lines)
        after = [(visit.entry(plugin, schedule, stored.get(key)), schedule)
                 for key, (plugin, schedule) in _in_order(wanted, stored)]
        return _result(conn, after, now, tuple(log_lines), awaited)


def _schedules(runtime: RuntimeConfig) -> Iterator[tuple[ScheduleKey, _Wanted]]:
    for name, plugin in runtime.plugins.items():
        if plugin.settings.enabled:
            for schedule in plugin.settings.schedules:
                yield (name, schedule.id), (plugin, schedule)


def _is_disabled(runtime: RuntimeConfig, name: str) -> bool:
    """Return whether a plugin is configured but disabled: its schedules are kept until it is enabled again."""
    plugin = runtime.plugins.get(name)
    return plugin is not None and not plugin.settings.enabled


def _needs_work(entry: ScheduleEntry | None, schedule: Schedule, now: datetime, rng: Chance) -> bool:
    return (entry is None or entry.rule != schedule.rule() or entry.slot.next_run_at <= now
            or redraw_if_stalled(schedule, entry.slot, now, rng) is not None
            or silence_after(entry.silence, schedule.alert_after, now) != entry.silence)


def _in_order(wanted: Mapping[ScheduleKey, _Wanted],
              stored: Mapping[ScheduleKey, ScheduleEntry]) -> list[tuple[ScheduleKey, _Wanted]]:
    """Return the schedules in the order in which they became due: the queue is first in, first out."""
    return sorted(wanted.items(), key=lambda item: (
        utc_text(stored[item[0]].slot.next_run_at) if item[0] in stored else "", item[0]))


def _result(conn: sqlite3.Connection, entries: Sequence[tuple[ScheduleEntry, Schedule]], now: datetime,
            log_lines: tuple[TickLogLine, ...], awaited: Awaited | None) -> TickResult:
    runs = [entry.slot.next_run_at for entry, _ in entries]
    alerts = [alert_at(entry.silence, schedule.alert_after, now) for entry, schedule in entries
              if schedule.alert_after is not None and entry.silence.overdue_at is None]
    left = {entry.key: run for entry, schedule in entries if schedule.alert_after is not None
            and (run := _awaited_run(conn, entry, awaited, now)) is not None}
    return TickResult(next_at=min((time for time in (*runs, *alerts) if time > now), default=None),
                      follows_jobs=bool(left) or any(time <= now for time in runs)
                      or any(entry.silence.overdue_at is not None for entry, _ in entries), log_lines=log_lines,
                      awaited=left)


def _awaited_run(conn: sqlite3.Connection, entry: ScheduleEntry, awaited: Awaited | None, now: datetime) -> str | None:
    """Return the awaited run of a schedule if it has not ended: its job, or _BLOCKED while it is due and has none.

    Later runs are not awaited, or a schedule whose every run fails would never be overdue.
    """
    run = _BLOCKED if awaited is None else awaited.get(entry.key)
    if run == _BLOCKED:
        run = _BLOCKED if entry.slot.next_run_at <= now else entry.last_job_id
    if run in (None, _BLOCKED):
        return run
    job = job_table.get(conn, run)
    return None if job is None or job.status.is_last else run


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    """A look at all schedules, in one transaction."""

    conn: sqlite3.Connection
    runtime: RuntimeConfig
    now: datetime
    rng: Chance
    new_id: NewId
    awaited: Awaited | None
    log_lines: list[TickLogLine]

    def entry(self, plugin: ConfiguredPlugin, schedule: Schedule, entry: ScheduleEntry | None) -> ScheduleEntry:
        """Update one entry: put it on its grid, and run, skip or block a due run. Return the new entry."""
        name, conn, now = plugin.settings.name, self.conn, self.now
        if entry is None or entry.rule != schedule.rule():
            fresh = ScheduleEntry(plugin=name, schedule_id=schedule.id, slot=first(schedule, now, self.rng),
                                  rule=schedule.rule())
            before = fresh if entry is None else replace(entry, slot=fresh.slot, rule=fresh.rule, held_reason=None)
        else:
            before = replace(entry, slot=redraw_if_stalled(schedule, entry.slot, now, self.rng) or entry.slot)
        after = before
        if before.slot.next_run_at <= now:
            breaker = schedule_table.breaker(conn, name, schedule.command)
            facts = _facts(conn, self.runtime, plugin, schedule, breaker, now)
            after = _decide(conn, schedule, before, facts, now=now, rng=self.rng, new_id=self.new_id)
            if facts.gate.action == "probe" and after.last_job_id != before.last_job_id:
                schedule_table.put_breaker(conn, name, schedule.command, replace(breaker, state="half_open"), now)
        after = self._watched(schedule, after, None if entry is None else entry.last_job_id)
        if after != entry:
            schedule_table.put_entry(conn, after)
        self.log_lines.extend(_log_lines(entry, after, schedule))
        return after

    def _watched(self, schedule: Schedule, entry: ScheduleEntry, last_job_id: str | None) -> ScheduleEntry:
        """Tell of a schedule that has become overdue or has recovered. Return its new entry.

        `last_job_id` is that of the last run before this look.
        """
        silence = silence_after(entry.silence, schedule.alert_after, self.now)
        was, after = entry.silence.overdue_at is not None, silence.overdue_at is not None
        if after and not was and _awaited_run(self.conn, entry, self.awaited, self.now) is not None:
            silence = replace(silence, overdue_at=None)
        elif was != after and schedule.alert_after is not None:
            last = silence.last_success_at
            payload = {
                "plugin": entry.plugin, "schedule_id": entry.schedule_id, "last_success_at": last and utc_text(last),
                "alert_after": format_duration(schedule.alert_after),
                "reason": _why_silent(self.conn, entry, last_job_id) if after else None}
            event_type = SCHEDULE_OVERDUE if after else SCHEDULE_RECOVERED
            submit.submit_core_event(self.conn, self.runtime, event_type, payload, new_id=self.new_id, now=self.now)
            fields = {"schedule": entry.schedule_id, "reason": payload["reason"],
                      "last_success_at": payload["last_success_at"]}
            self.log_lines.append(TickLogLine(
                level="warn" if after else "info", message="schedule overdue" if after else "schedule recovered",
                fields={"plugin": entry.plugin, **{name: text for name, text in fields.items() if text is not None}}))
        return replace(entry, silence=silence)


def _why_silent(conn: sqlite3.Connection, entry: ScheduleEntry, last_job_id: str | None) -> str:
    """Return why a schedule has had no success. `last_job_id` is that of the last run before this look."""
    if entry.plugin in plugin_table.paused(conn):
        return PAUSED
    held_reason = entry.held_reason
    job = None if last_job_id is None else job_table.get(conn, last_job_id)
    if job is None or (job.status.is_last and held_reason is not None):
        return one_line(held_reason or "no run was due", _REASON_CHARACTERS)
    if job.status is Status.SUCCEEDED:
        return "no run since then"
    state = "its last run failed" if job.status.is_last else "its last run has not ended"
    return one_line(f"{state}: {job.last_error}" if job.last_error else state, _REASON_CHARACTERS)


def _facts(conn: sqlite3.Connection, runtime: RuntimeConfig, plugin: ConfiguredPlugin, schedule: Schedule,
           breaker: Breaker, now: datetime) -> _Facts:
    outstanding = job_table.count_open(conn, plugin.settings.name, schedule.command, Submitter.SCHEDULER)
    needs = plugin.needs_init
    return _Facts(
        plugin=plugin, outstanding=outstanding, paused=plugin.settings.name in plugin_table.paused(conn),
        healthy=needs is None or (plugin.settings.name, needs) in plugin_table.initialised(conn),
        gate=gate(breaker, plugin.settings.breaker.reset_after, outstanding, now),
        queue_is_full=job_table.is_full(conn, runtime.config.service.max_queue_depth),
    )


def block_reason(facts: _Facts) -> str | None:
    """Return why a due run is blocked, None if it is not."""
    if facts.plugin.plugin is None:
        return f"not loaded: {facts.plugin.reason}"
    if facts.paused:
        return PAUSED
    if not facts.healthy:
        return "unhealthy: init has not succeeded"
    if facts.gate.action == "block":
        return ("breaker half-open: a probe is out" if facts.gate.until is None
                else f"breaker open until {utc_text(facts.gate.until)}")
    return QUEUE_FULL if facts.queue_is_full else None


def _decide(conn: sqlite3.Connection, schedule: Schedule, entry: ScheduleEntry, facts: _Facts, *, now: datetime,
            rng: Chance, new_id: NewId) -> ScheduleEntry:
    """Enqueue, skip, postpone or block a due run."""
    reason = block_reason(facts)
    if reason is not None:
        return replace(entry, held_reason=reason)
    if not in_window(schedule, now):
        slot = replace(entry.slot, next_run_at=next_in_window(schedule, now, rng))
        return replace(entry, slot=slot, held_reason="outside its preferred window")
    moved = advance(schedule, entry.slot, now, rng)
    if facts.outstanding >= facts.plugin.settings.max_outstanding_polls:
        return replace(entry, slot=moved, held_reason=f"poll guard: {facts.outstanding} outstanding")
    job = submit.scheduled_job(facts.plugin, schedule, new_id=new_id, now=now)
    job_table.add(conn, [job], now)
    return replace(entry, slot=moved, last_run_at=now, last_job_id=job.id, held_reason=None)


def _log_lines(before: ScheduleEntry | None, after: ScheduleEntry, schedule: Schedule) -> Iterator[TickLogLine]:
    names = {"plugin": after.plugin, "schedule": after.schedule_id, "command": schedule.command}
    if after.last_job_id is not None and (before is None or before.last_job_id != after.last_job_id):
        yield TickLogLine(level="info", message="scheduled run enqueued", fields=names | {
            "job_id": after.last_job_id, "next_run_at": utc_text(after.slot.next_run_at)})
    reason = before.held_reason if before is not None else None
    if after.held_reason != reason and after.held_reason is not None:
        level = "warn" if after.held_reason == QUEUE_FULL else "info"
        yield TickLogLine(level=level, message="scheduled run blocked", fields=names | {"reason": after.held_reason})
    elif after.held_reason != reason:
        yield TickLogLine(level="info", message="scheduled run no longer blocked", fields=names | {"reason": reason})


def release_stranded_retries(conn: sqlite3.Connection, runtime: RuntimeConfig, now: datetime) -> int:
    """Make retries due that are later than any delay of their plugin: the clock was set back. Return how many."""
    latest = {}
    for name, plugin in runtime.plugins.items():
        retry = plugin.settings.retry
        latest[name] = now + timedelta(seconds=longest_delay(retry.backoff_base, retry.backoff_max))
    if not job_table.has_retry_after(conn, min(latest.values(), default=now)):
        return 0
    with transaction(conn):
        return job_table.release_stranded_retries(conn, latest)
