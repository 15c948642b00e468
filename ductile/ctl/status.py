"""`ductilectl status`: the daemon, the queue, and each plugin with its next run or why there is none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from io import TextIOBase
from pathlib import Path

from ductile.ctl import snapshot, table
from ductile.ctl.table import Page
from ductile.errors import EXIT_OK
from ductile.lock import pid_file, running_pid
from ductile.units import format_duration, parse_utc, utc_text

# What the scheduler notes of a run and what is known at this moment anyway, more freshly.
_SEEN_HERE = ("not loaded", "unhealthy", "breaker")


def status(conn: sqlite3.Connection, *, state_path: Path, reset_after: Callable[[], Mapping[str, int]], now: datetime,
           document: Callable[[object], str] | None, out: TextIOBase, page: Page = table.PLAIN) -> int:
    """Show everything at a glance. `reset_after` gives, by plugin, the seconds for which a breaker stays open.

    It is asked only where one is open. `document` makes one JSON document; None for text. Raises OSError where
    the PID file cannot be read.
    """
    seen = snapshot.take(conn, now)
    is_open = any(breaker["state"] == "open" for row in seen["plugins"] for breaker in row["breakers"])
    resets = reset_after() if is_open else {}
    found = {"daemon": _daemon(state_path, seen.pop("listen")), **seen}
    found["plugins"] = [_plugin(row, resets, now) for row in seen["plugins"]]
    out.write(_text(found, now, page) if document is None else document(found))
    return EXIT_OK


def _daemon(state_path: Path, listen: str | None) -> dict:
    """Return whether ductiled runs, as whom, since when and where it listens: its PID file is written at its start."""
    file = pid_file(state_path)
    pid = running_pid(file)
    if pid is None:
        return {"running": False, "pid": None, "since": None, "listen": None}
    since = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    return {"running": True, "pid": pid, "since": utc_text(since), "listen": listen}


def _plugin(row: dict, resets: Mapping[str, int], now: datetime) -> dict:
    last = row["last"] or {}
    due = [entry["next_run_at"] for entry in row["schedules"]] if row["enabled"] else []
    return {
        "plugin": row["plugin"], "version": row["version"], "enabled": row["enabled"],
        "last_run": last.get("completed_at"), "last_outcome": last.get("status"), "last_error": last.get("last_error"),
        "last_job_id": last.get("job_id"), "next_run": min(due, default=None),
        "held": _held(row, resets.get(row["plugin"]), now), "state_bytes": row["state_bytes"],
        "schedules": row["schedules"], "breakers": row["breakers"],
    }


def _held(row: dict, reset_after: int | None, now: datetime) -> list[str]:
    """Return every reason why the plugin's next run will not start, or why its last one was passed over."""
    if not row["enabled"]:
        return ["disabled"]
    if row["reason"] is not None:
        return [f"not loaded: {row['reason']}"]
    reasons = [] if row["healthy"] else ["unhealthy: init has not succeeded"]
    reasons += [reason for breaker in row["breakers"] if (reason := _breaker(breaker, reset_after, now))]
    several = len(row["schedules"]) > 1
    for entry in row["schedules"]:
        held = entry["held_reason"]
        if held is not None and not held.startswith(_SEEN_HERE):
            reasons.append(f"{entry['schedule_id']}: {held}" if several else held)
    return reasons


def _breaker(breaker: dict, reset_after: int | None, now: datetime) -> str | None:
    """Return what an open breaker says; None for one that lets the next run through."""
    if breaker["state"] == "half_open":
        return f"breaker of {breaker['command']} half-open: a probe is out"
    if breaker["state"] != "open" or breaker["opened_at"] is None:
        return None
    if reset_after is None:
        return f"breaker of {breaker['command']} open since {breaker['opened_at']}"
    opened = parse_utc(breaker["opened_at"])
    until = opened + timedelta(seconds=reset_after)
    return f"breaker of {breaker['command']} open until {utc_text(until)}" if opened <= now < until else None


def _text(found: dict, now: datetime, page: Page) -> str:
    lines = [*_daemon_lines(found["daemon"], now), *_load_lines(found["config_load"]), _queue_line(found, now)]
    lines += [f"running: {table.short(job['job_id'])} {job['plugin']} {job['command']}, attempt {job['attempt']},"
              f" {_ago(job['started_at'], now)}" for job in found["running"]]
    ended = found["ended_24h"]
    lines.append(f"last 24h: {ended['succeeded']} succeeded, {ended['dead']} dead, {ended['deduped']} deduped")
    header = ("plugin", "version", "last run", "outcome", "next run", "state", "held back")
    rows = [(row["plugin"], row["version"], page.time(row["last_run"]), row["last_outcome"], page.time(row["next_run"]),
             f"{row['state_bytes']} B", "; ".join(row["held"]) or None) for row in found["plugins"]]
    plugins = "\n" + table.lines(header, rows, page=page, whole="held back") if rows else ""
    return "".join(line + "\n" for line in lines) + plugins


def _daemon_lines(daemon: dict, now: datetime) -> list[str]:
    if not daemon["running"]:
        return ["daemon: not running"]
    line = f"daemon: running as PID {daemon['pid']} since {daemon['since']} ({_ago(daemon['since'], now)})"
    return [line] if daemon["listen"] is None else [line, f"webhooks: listening on {daemon['listen']}"]


def _load_lines(load: dict | None) -> list[str]:
    if load is None:
        return ["configuration: not read yet"]
    if load["ok"]:
        return [f"configuration: taken at {load['loaded_at']}"]
    errors = table.block(load["errors"] or "", "  ").splitlines()
    return [f"configuration: refused at {load['loaded_at']}, the one before is in force", *errors]


def _queue_line(found: dict, now: datetime) -> str:
    depth = found["queue"]
    line = f"queue: {depth['queued']} queued, {depth['waiting']} waiting for a retry, {depth['running']} running"
    oldest = found["oldest_waiting"]
    return line if oldest is None else f"{line}; the oldest waits since {oldest} ({_ago(oldest, now)})"


def _ago(moment: str | None, now: datetime) -> str:
    return format_duration((now - parse_utc(moment)).total_seconds()) if moment else "just now"
