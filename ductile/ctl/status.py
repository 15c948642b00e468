"""`ductilectl status`: the daemon, the queue, and each plugin with its next run or why there is none."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from ductile import db
from ductile.config.model import PluginConfig
from ductile.ctl import queries, table, times
from ductile.ctl.output import document
from ductile.ctl.table import Page
from ductile.errors import EXIT_OK
from ductile.pidfile import pid_file, running_pid
from ductile.scheduler.schedule import next_in_window
from ductile.units import format_size, parse_utc, utc_text

# Reasons that the scheduler stores with a schedule, but that `status` itself knows better at this moment.
_KNOWN_HERE = ("not loaded", "unhealthy", "breaker")


def status(conn: sqlite3.Connection, *, state_path: Path, plugins: Mapping[str, PluginConfig], now: datetime,
           as_json: bool, out: TextIO, page: Page = table.PLAIN) -> int:
    """Show what `read` returns."""
    found = read(conn, state_path=state_path, plugins=plugins, now=now)
    out.write(document(found) if as_json else text(found, now, page))
    return EXIT_OK


def read(conn: sqlite3.Connection, *, state_path: Path, plugins: Mapping[str, PluginConfig],
         now: datetime) -> dict[str, Any]:
    """Return everything that `status` shows; times are UTC text.

    `plugins` is the configuration on disk, which knows when an open breaker lets a probe through. Raises OSError if the
    PID file cannot be read.
    """
    found = queries.status(conn, now)
    return {"daemon": _daemon(state_path, found.pop("listen")), **found, "held_log_bytes": db.held_log_bytes(conn),
            "plugins": [_plugin(row, plugins.get(row["plugin"]), now) for row in found["plugins"]]}


def _daemon(state_path: Path, listen: str | None) -> dict[str, Any]:
    """Return whether ductiled runs, its PID, its start (when it wrote its PID file) and where it listens."""
    file = pid_file(state_path)
    pid = running_pid(file)
    if pid is None:
        return {"running": False, "pid": None, "since": None, "listen": None}
    since = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return {"running": True, "pid": pid, "since": utc_text(since), "listen": listen}


def _plugin(row: queries.Row, settings: PluginConfig | None, now: datetime) -> dict[str, Any]:
    last = row["last"] or {}
    open_until = _open_until(row, settings, now)
    return {
        "plugin": row["plugin"], "version": row["version"], "enabled": row["enabled"],
        "last_run": last.get("completed_at"), "last_outcome": last.get("status"), "last_error": last.get("last_error"),
        "last_job_id": last.get("job_id"), "next_run": _next_run(row, settings, open_until),
        "held": _held(row, open_until), "state_bytes": row["state_bytes"],
        "schedules": row["schedules"], "breakers": row["breakers"],
    }


def _open_until(row: queries.Row, settings: PluginConfig | None, now: datetime) -> dict[str, datetime | None]:
    """Return, by command, until when an open breaker blocks runs; None if the plugin is not configured."""
    found: dict[str, datetime | None] = {}
    for breaker in row["breakers"]:
        if breaker["state"] != "open" or breaker["opened_at"] is None:
            continue
        opened = parse_utc(breaker["opened_at"])
        until = None if settings is None else opened + timedelta(seconds=settings.breaker.reset_after)
        if until is None or opened <= now < until:
            found[breaker["command"]] = until
    return found


def _next_run(row: queries.Row, settings: PluginConfig | None,
              open_until: Mapping[str, datetime | None]) -> str | None:
    """Return when the plugin's next run starts. While a breaker is open that is the probe."""
    if not row["enabled"]:
        return None
    schedules = {} if settings is None else {each.id: each for each in settings.schedules}
    due = []
    for entry in row["schedules"]:
        at, schedule = entry["next_run_at"], schedules.get(entry["schedule_id"])
        until = None if schedule is None else open_until.get(schedule.command)
        if schedule is not None and until is not None:
            # The probe waits for the window, and the jitter then adds to it: this is the earliest.
            at = utc_text(next_in_window(schedule, max(parse_utc(at), until), _NoJitter()))
        due.append(at)
    return min(due, default=None)


class _NoJitter:
    """A random source that always returns the least value."""

    def uniform(self, least: float, most: float) -> float:
        return least


def _held(row: queries.Row, open_until: Mapping[str, datetime | None]) -> list[str]:
    """Return every reason why the plugin's next run will not start, or why the last one was skipped."""
    if not row["enabled"]:
        return ["disabled"]
    if row["reason"] is not None:
        return [f"not loaded: {row['reason']}"]
    reasons = [] if row["healthy"] else ["unhealthy: init has not succeeded"]
    reasons += [reason for breaker in row["breakers"] if (reason := _breaker(breaker, open_until))]
    several = len(row["schedules"]) > 1
    for entry in row["schedules"]:
        held = entry["held_reason"]
        if held is not None and not held.startswith(_KNOWN_HERE):
            reasons.append(f"{entry['schedule_id']}: {held}" if several else held)
    return reasons


def _breaker(breaker: queries.Row, open_until: Mapping[str, datetime | None]) -> str | None:
    """Return why a breaker blocks the next run; None if it does not."""
    command = breaker["command"]
    if breaker["state"] == "half_open":
        return f"breaker of {command} half-open: a probe is out"
    if command not in open_until:
        return None
    until = open_until[command]
    return (f"breaker of {command} open since {breaker['opened_at']}" if until is None
            else f"breaker of {command} open until {utc_text(until)}")


def text(found: Mapping[str, Any], now: datetime, page: Page) -> str:
    """Return what `read` returned as the operator reads it."""
    lines = [*_daemon_lines(found["daemon"], now, page), *_load_lines(found["config_load"], page),
             _queue_line(found, now, page)]
    if found["held_log_bytes"] is not None:
        lines.append(f"write-ahead log: {format_size(found['held_log_bytes'])}; it grows as long as another program"
                     f" reads the database in one transaction")
    lines += [f"running: {table.short(job['job_id'])} {job['plugin']} {job['command']}, attempt {job['attempt']},"
              f" {times.age(job['started_at'], now) if job['started_at'] else 'just started'}"
              for job in found["running"]]
    ended = found["ended_24h"]
    lines.append(f"last 24h: {ended['succeeded']} succeeded, {ended['dead']} dead, {ended['deduped']} deduped")
    header = ("plugin", "version", "last run", "outcome", "next run", "state", "blocked")
    rows = [(row["plugin"], row["version"], page.time(row["last_run"]), row["last_outcome"], page.time(row["next_run"]),
             f"{row['state_bytes']} B", "; ".join(row["held"]) or None) for row in found["plugins"]]
    plugins = "\n" + table.lines(header, rows, page=page, whole="blocked") if rows else ""
    return "".join(line + "\n" for line in lines) + plugins


def _daemon_lines(daemon: Mapping[str, Any], now: datetime, page: Page) -> list[str]:
    if not daemon["running"]:
        return ["daemon: not running"]
    since = f"{page.clock(daemon['since'])} ({times.age(daemon['since'], now)})"
    line = f"daemon: running as PID {daemon['pid']} since {since}"
    return [line] if daemon["listen"] is None else [line, f"webhooks: listening on {daemon['listen']}"]


def _load_lines(load: Mapping[str, Any] | None, page: Page) -> list[str]:
    if load is None:
        return ["configuration: not loaded yet"]
    if load["ok"]:
        return [f"configuration: loaded at {page.clock(load['loaded_at'])}"]
    errors = table.block(load["errors"] or "", "  ").splitlines()
    return [f"configuration: rejected at {page.clock(load['loaded_at'])}; still using the previous one", *errors]


def _queue_line(found: Mapping[str, Any], now: datetime, page: Page) -> str:
    depth = found["queue"]
    line = f"queue: {depth['queued']} queued, {depth['waiting']} waiting for a retry, {depth['running']} running"
    oldest = found["oldest_waiting"]
    return line if oldest is None else f"{line}; oldest waiting since {page.clock(oldest)} ({times.age(oldest, now)})"
