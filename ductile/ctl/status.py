"""`ductilectl status`: the daemon, the queue, and each plugin with its next run or why there is none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ductile import db
from ductile.config import load_table
from ductile.config.load_table import ConfigLoad
from ductile.config.model import PluginConfig
from ductile.ctl import queries, table, times
from ductile.ctl.session import Session
from ductile.ctl.table import Page
from ductile.errors import EXIT_DOWN, EXIT_OK, DuctileError
from ductile.injected import NoChance
from ductile.pidfile import pid_file, running_pid
from ductile.scheduler.schedule import next_in_window
from ductile.units import format_size, parse_utc, utc_text

# How much later than the change of a file the daemon may have read it, by the clocks of both.
_CLOCK_SLACK = timedelta(seconds=2)
_MANIFESTS = ("manifest.yaml", "manifest.yml")
# Reasons that the scheduler stores with a schedule, but that `status` itself knows better at this moment.
_KNOWN_HERE = ("not loaded", "unhealthy", "breaker", "paused")


def status(session: Session, *, digest: Callable[[], str]) -> int:
    """Show what `read` returns. `digest` reads all files and returns their digest, if a change is suspected.

    Return 3 if the daemon is down. Raises NoDatabase.
    """
    now = session.now()
    with session.reading() as conn:
        found = read(conn, state_path=session.state_path, plugins=session.plugins, now=now)
        if found["daemon"]["running"] and found["config_load"] is not None:
            loaded = load_table.after(conn, load_table.last_id(conn) - 1)
            found["config_load"]["edited_at"] = loaded and _edited_at(session, loaded, digest)
    session.emit(found, text(found, now, session.page))
    return EXIT_OK if found["daemon"]["running"] else EXIT_DOWN


def read(conn: sqlite3.Connection, *, state_path: Path, plugins: Mapping[str, PluginConfig],
         now: datetime) -> dict[str, Any]:
    """Return everything that `status` shows; times are UTC text.

    `plugins` is the configuration on disk, which knows when an open breaker lets a probe through. Raises OSError if the
    PID file cannot be read.
    """
    found = queries.status(conn, now)
    load = found["config_load"]
    return {"daemon": _daemon(state_path, found.pop("listen")), **found, "held_log_bytes": db.held_log_bytes(conn),
            "config_load": load and {**load, "edited_at": None},
            "plugins": [_plugin(row, plugins.get(row["plugin"]), now) for row in found["plugins"]]}


def _edited_at(session: Session, loaded: ConfigLoad, digest: Callable[[], str]) -> str | None:
    """Return when files were last changed, if they are others than those that the daemon read last."""
    newest = max((change for path in _files(session) if (change := _changed_at(path)) is not None), default=None)
    if newest is None or newest < parse_utc(loaded.loaded_at) - _CLOCK_SLACK:
        return None
    try:
        is_same = digest() == loaded.digest
    except DuctileError:
        is_same = newest < parse_utc(loaded.loaded_at)
    return None if is_same else utc_text(newest)


def _files(session: Session) -> Iterator[Path]:
    """Yield the files of the configuration, the pipelines and the plugins, and their directories."""
    yield session.config_path
    try:
        config = session.config
    except DuctileError:
        return
    yield from session.config_files
    for directory in (config.pipelines_dir, *config.plugins_dirs):
        yield directory
        with suppress(OSError):
            for entry in sorted(directory.iterdir()):
                yield entry
                yield from (entry / name for name in _MANIFESTS)


def _changed_at(path: Path) -> datetime | None:
    """Return when a file or its inode changed, which a copy that keeps the file's own times does not hide."""
    try:
        return datetime.fromtimestamp(path.stat().st_ctime, UTC)
    except OSError:
        return None


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
        "held": _held(row, open_until), "state_bytes": row["state_bytes"], "paused_since": row["paused_since"],
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
            at = utc_text(next_in_window(schedule, max(parse_utc(at), until), NoChance()))
        due.append(at)
    return min(due, default=None)


def _held(row: queries.Row, open_until: Mapping[str, datetime | None]) -> list[str]:
    """Return every reason why the plugin's next run will not start, or why the last one was skipped."""
    if not row["enabled"]:
        return ["disabled"]
    if row["reason"] is not None:
        return [f"not loaded: {row['reason']}"]
    if row["paused_since"] is not None:
        return [f"paused since {row['paused_since']}"]
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
    lines = [*_daemon_lines(found["daemon"], now, page), *_load_lines(found["config_load"], now, page),
             _queue_line(found, now, page)]
    if found["held_log_bytes"] is not None:
        lines.append(f"write-ahead log: {format_size(found['held_log_bytes'])}; it grows as long as another program"
                     f" reads the database in one transaction")
    lines += [f"running: {table.short(job['job_id'])} {job['plugin']} {job['command']}, attempt {job['attempt']},"
              f" {times.age(job['started_at'], now) if job['started_at'] else 'just started'}"
              for job in found["running"]]
    ended = found["ended_24h"]
    lines.append(f"last 24h: {ended['succeeded']} succeeded, {ended['dead']} dead, {ended['deduped']} deduped; busy"
                 f" {found['busy_24h']:.1%}")
    return "".join(line + "\n" for line in lines) + _plugins_text(found["plugins"], now, page)


def _plugins_text(plugins: Sequence[Mapping[str, Any]], now: datetime, page: Page) -> str:
    """Return the table of the plugins, and below it each last attempt that failed, and what is overdue."""
    if not plugins:
        return ""
    header = ("plugin", "last run", "outcome", "next run", "state", "blocked")
    rows = [(row["plugin"], page.time(row["last_run"]), row["last_outcome"], page.time(row["next_run"]),
             format_size(row["state_bytes"]), times.localized("; ".join(row["held"]), page.zone) or None)
            for row in plugins]
    errors = [page.paragraph(f"{row['plugin']}: {row['last_outcome']} {times.relative(row['last_run'], now)} (job"
                             f" {table.short(row['last_job_id'])}): {row['last_error']}")
              for row in plugins if row["last_error"]]
    errors += [page.paragraph(f"{row['plugin']}: schedule {each['schedule_id']} is overdue since"
                              f" {page.clock(each['overdue_at'])}, see ductilectl schedule {row['plugin']}")
               for row in plugins for each in row["schedules"] if each["overdue_at"]]
    return "".join(["\n", table.lines(header, rows, page=page, whole="blocked"), *(["\n"] if errors else []), *errors])


def _daemon_lines(daemon: Mapping[str, Any], now: datetime, page: Page) -> list[str]:
    if not daemon["running"]:
        return ["daemon: not running"]
    since = f"{page.clock(daemon['since'])} ({times.age(daemon['since'], now)})"
    line = f"daemon: running as PID {daemon['pid']} since {since}"
    return [line] if daemon["listen"] is None else [line, f"webhooks: listening on {daemon['listen']}"]


def _load_lines(load: Mapping[str, Any] | None, now: datetime, page: Page) -> list[str]:
    if load is None:
        return ["configuration: not loaded yet"]
    edited = load["edited_at"]
    suffix = "" if edited is None else f"; edited {times.relative(edited, now)}, not reloaded"
    if load["ok"]:
        return [f"configuration: loaded at {page.clock(load['loaded_at'])}{suffix}"]
    errors = table.block(load["errors"] or "", "  ").splitlines()
    return [f"configuration: rejected at {page.clock(load['loaded_at'])}; still using the previous one{suffix}",
            *errors]


def _queue_line(found: Mapping[str, Any], now: datetime, page: Page) -> str:
    depth = found["queue"]
    line = f"queue: {depth['queued']} queued, {depth['waiting']} waiting for a retry, {depth['running']} running"
    oldest = found["oldest_waiting"]
    return line if oldest is None else f"{line}; oldest waiting since {page.clock(oldest)} ({times.age(oldest, now)})"
