"""`ductilectl status`: the daemon, the queue, and each plugin with its next run or why there is none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from io import TextIOBase
from pathlib import Path

from ductile import db
from ductile.ctl import queries, table
from ductile.ctl.table import Page
from ductile.errors import EXIT_OK
from ductile.pidfile import pid_file, running_pid
from ductile.units import format_duration, format_size, parse_utc, utc_text

# What the scheduler notes of a run and what is known at this moment anyway, more freshly.
_SEEN_HERE = ("not loaded", "unhealthy", "breaker")


class Probes:
    """When the probes of open breakers run. This one knows nothing of the configuration, which takes long to read."""

    def open_until(self, plugin: str, opened_at: datetime) -> datetime | None:
        """Return until when a breaker that opened then holds runs back; None where that is not known."""
        return None

    def next_run(self, plugin: str, schedule_id: str, due: datetime, open_until: Mapping[str, datetime]) -> datetime:
        """Return when a run that falls due at `due` starts. `open_until` has the open breakers, by command."""
        return due


def status(conn: sqlite3.Connection, *, state_path: Path, probes: Callable[[], Probes], now: datetime,
           document: Callable[[object], str] | None, out: TextIOBase, page: Page = table.PLAIN) -> int:
    """Show everything at a glance. `probes` reads the configuration, and is called only where a breaker is open.

    `document` makes one JSON document; None for text. Raises OSError where the PID file cannot be read.
    """
    seen = queries.take(conn, now)
    is_open = any(breaker["state"] == "open" for row in seen["plugins"] for breaker in row["breakers"])
    known = probes() if is_open else Probes()
    found = {"daemon": _daemon(state_path, seen.pop("listen")), **seen}
    found["held_log_bytes"] = db.held_log_bytes(conn)
    found["plugins"] = [_plugin(row, known, now) for row in seen["plugins"]]
    out.write(_text(found, now, page) if document is None else document(found))
    return EXIT_OK


def _daemon(state_path: Path, listen: str | None) -> dict:
    """Return whether ductiled runs, as whom, since when and where it listens: its PID file is written at its start."""
    file = pid_file(state_path)
    pid = running_pid(file)
    if pid is None:
        return {"running": False, "pid": None, "since": None, "listen": None}
    since = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return {"running": True, "pid": pid, "since": utc_text(since), "listen": listen}


def _plugin(row: dict, probes: Probes, now: datetime) -> dict:
    last = row["last"] or {}
    open_until = _open_until(row, probes, now)
    return {
        "plugin": row["plugin"], "version": row["version"], "enabled": row["enabled"],
        "last_run": last.get("completed_at"), "last_outcome": last.get("status"), "last_error": last.get("last_error"),
        "last_job_id": last.get("job_id"), "next_run": _next_run(row, probes, open_until),
        "held": _held(row, open_until), "state_bytes": row["state_bytes"],
        "schedules": row["schedules"], "breakers": row["breakers"],
    }


def _open_until(row: dict, probes: Probes, now: datetime) -> dict[str, datetime | None]:
    """Return by command until when breakers hold runs back: None where that is not known."""
    found = {}
    for breaker in row["breakers"]:
        if breaker["state"] != "open" or breaker["opened_at"] is None:
            continue
        opened = parse_utc(breaker["opened_at"])
        until = probes.open_until(row["plugin"], opened)
        if until is None or opened <= now < until:
            found[breaker["command"]] = until
    return found


def _next_run(row: dict, probes: Probes, open_until: Mapping[str, datetime | None]) -> str | None:
    """Return when the plugin's next run starts: with an open breaker that is the probe."""
    if not row["enabled"]:
        return None
    due = [(entry["schedule_id"], entry["next_run_at"]) for entry in row["schedules"]]
    known = {command: until for command, until in open_until.items() if until is not None}
    if known:
        due = [(name, utc_text(probes.next_run(row["plugin"], name, parse_utc(at), known))) for name, at in due]
    return min((at for _, at in due), default=None)


def _held(row: dict, open_until: Mapping[str, datetime | None]) -> list[str]:
    """Return every reason why the plugin's next run will not start, or why its last one was passed over."""
    if not row["enabled"]:
        return ["disabled"]
    if row["reason"] is not None:
        return [f"not loaded: {row['reason']}"]
    reasons = [] if row["healthy"] else ["unhealthy: init has not succeeded"]
    reasons += [reason for breaker in row["breakers"] if (reason := _breaker(breaker, open_until))]
    several = len(row["schedules"]) > 1
    for entry in row["schedules"]:
        held = entry["held_reason"]
        if held is not None and not held.startswith(_SEEN_HERE):
            reasons.append(f"{entry['schedule_id']}: {held}" if several else held)
    return reasons


def _breaker(breaker: dict, open_until: Mapping[str, datetime | None]) -> str | None:
    """Return what an open breaker says; None for one that lets the next run through."""
    command = breaker["command"]
    if breaker["state"] == "half_open":
        return f"breaker of {command} half-open: a probe is out"
    if command not in open_until:
        return None
    until = open_until[command]
    return (f"breaker of {command} open since {breaker['opened_at']}" if until is None
            else f"breaker of {command} open until {utc_text(until)}")


def _text(found: dict, now: datetime, page: Page) -> str:
    lines = [*_daemon_lines(found["daemon"], now), *_load_lines(found["config_load"]), _queue_line(found, now)]
    if found["held_log_bytes"] is not None:
        lines.append(f"write-ahead log: {format_size(found['held_log_bytes'])}; it grows as long as another program"
                     f" reads the database in one transaction")
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
