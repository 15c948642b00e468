"""Reads the tables of all packages for `status`, `monitor`, `logs` and completion. Writes none.

The cost of a query does not grow with the number of ended jobs: each follows an index in its own order. Long strings
are cut to what a screen can show.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from ductile.units import parse_utc, utc_text

_ERROR_CHARACTERS = 500
_OUTPUT_CHARACTERS = 8000
_PRINTED_CHARACTERS = 64 * 1024
_FILES = 200

# A row, by the names of its columns.
Row = dict[str, Any]

_FACTS = ("seq, id AS job_id, plugin, command, status, attempt, max_attempts, created_at, started_at, completed_at,"
          " next_retry_at, parent_job_id, root_job_id, pipeline_name, step_id, replay_of, submitted_by")
_JOB = f"{_FACTS}, substr(last_error, 1, {_ERROR_CHARACTERS}) AS last_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs `jobs` returns; None is any. `status` is one of STATUSES.

    `since` and `until` are about when a job ended; with `until`, a job that has not ended does not match.
    """

    status: str | None = None
    plugin: str | None = None
    pipeline: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_OPEN = ("running", "queued", "waiting")
STATUSES = (*_OPEN, "succeeded", "dead", "deduped")


def jobs(conn: sqlite3.Connection, wanted: JobFilter, limit: int) -> list[Row]:
    """Return up to `limit` jobs, all for -1: those that have not ended, the latest first, then by when they ended."""
    waiting: list[Row] = []
    ended: list[Row] = []
    for status in STATUSES if wanted.status is None else (wanted.status,):
        if status not in _OPEN:
            ended += _jobs_of_status(conn, status, wanted, limit)
        elif wanted.until is None:
            waiting += _jobs_of_status(conn, status, wanted, limit)
    waiting.sort(key=itemgetter("seq"), reverse=True)
    ended.sort(key=itemgetter("completed_at", "seq"), reverse=True)
    return [*waiting, *ended][:limit if limit >= 0 else None]


def _jobs_of_status(conn: sqlite3.Connection, status: str, wanted: JobFilter, limit: int) -> list[Row]:
    """Return the newest jobs of one status that match, each read along an index."""
    index = _index(status, wanted)
    # A partial index is used only if its condition is in the query word for word.
    conditions = [_OF_STATUS.get(status, "completed_at IS NOT NULL"), *_PARTIAL.get(index, ())]
    parameters: list[object] = []
    found: tuple[tuple[str, object], ...] = (
        # With a plain `status`, SQLite would sort again: the index has the time before it.
        ("+status = ?" if index == "job_queue_ended" else "status = ?", None if status in _OPEN else status),
        ("plugin = ?", wanted.plugin), ("pipeline_name = ?", wanted.pipeline))
    if status not in _OPEN:
        found += (("completed_at >= ?", wanted.since and utc_text(wanted.since)),
                  ("completed_at < ?", wanted.until and utc_text(wanted.until)))
    for condition, value in found:
        if value is not None:
            conditions.append(condition)
            parameters.append(value)
    # The order of the index, so that nothing is sorted.
    order = "seq DESC" if status in _OPEN else "completed_at DESC, status DESC, seq DESC"
    return rows(conn, f"SELECT {_JOB} FROM job_queue INDEXED BY {index} WHERE {' AND '.join(conditions)}"
                      f" ORDER BY {order} LIMIT ?", *parameters, limit)


_OF_STATUS = {
    "running": "status = 'running'", "queued": "status = 'queued' AND next_retry_at IS NULL",
    "waiting": "status = 'queued' AND next_retry_at IS NOT NULL",
}
_PARTIAL = {"job_queue_unsuccessful": ("status IN ('dead', 'deduped')",),
            "job_queue_open_seq": ("completed_at IS NULL",)}


def _index(status: str, wanted: JobFilter) -> str:
    """Return the index along which jobs of a status are read, the narrowest there is."""
    if status == "running":
        return "job_queue_running"
    if wanted.pipeline is not None:
        return "job_queue_pipeline"
    if status == "waiting":
        return "job_queue_retry"
    if status == "queued":
        return "job_queue_open_seq" if wanted.plugin is None else "job_queue_ready"
    if wanted.plugin is not None:
        return "job_queue_plugin_ended"
    return "job_queue_ended" if status == "succeeded" else "job_queue_unsuccessful"


def status_of(job: Row) -> str:
    """Return a job's status, `waiting` for one that waits for a retry."""
    return "waiting" if job["status"] == "queued" and job["next_retry_at"] is not None else str(job["status"])


def seconds(job: Row) -> float | None:
    """Return how long the last attempt of an ended job took, None if that is unknown."""
    if job["started_at"] is None or job["completed_at"] is None:
        return None
    return max(0.0, (parse_utc(job["completed_at"]) - parse_utc(job["started_at"])).total_seconds())


def open_jobs(conn: sqlite3.Connection, limit: int) -> list[Row]:
    """Return up to `limit` jobs that have not ended: what runs, then the others in the order of the queue."""
    running = rows(conn, f"SELECT {_JOB} FROM job_queue WHERE status = 'running' ORDER BY seq LIMIT ?", limit)
    queued = rows(conn, f"SELECT {_JOB} FROM job_queue INDEXED BY job_queue_open_seq WHERE completed_at IS NULL"
                        " AND status = 'queued' ORDER BY seq LIMIT ?", limit)
    return [*running, *queued][:limit]


def jobs_with_prefix(conn: sqlite3.Connection, prefix: str, limit: int) -> list[Row]:
    """Return up to `limit` jobs whose ids start with `prefix`."""
    return rows(conn, f"SELECT {_JOB} FROM job_queue WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                prefix, prefix + "\x7f", limit)


def ended_jobs(conn: sqlite3.Connection, limit: int) -> list[Row]:
    """Return the `limit` jobs that ended last, the latest first."""
    return rows(conn, f"SELECT {_JOB} FROM job_queue INDEXED BY job_queue_ended WHERE completed_at IS NOT NULL"
                      " ORDER BY completed_at DESC, status DESC, seq DESC LIMIT ?", limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFilter:
    """Which attempts `attempts` yields; None is any. `after_seq` and `last_seq` are bounds of `job_log.seq`."""

    plugin: str | None = None
    job_id: str | None = None
    failed: bool = False
    since: datetime | None = None
    until: datetime | None = None
    grep: re.Pattern[str] | None = None
    after_seq: int | None = None
    last_seq: int | None = None


def attempts(conn: sqlite3.Connection, wanted: AttemptFilter, *, last: int | None = None,
             whole: bool = False) -> Iterator[Row]:
    """Yield attempts in the order they ended, only the `last` ones if that is given.

    Of a response only what `logs` shows is read (`text` is its result), or with `whole` all of it as JSON.
    """
    if wanted.grep is not None:
        pattern = wanted.grep
        conn.create_function("has_match", -1, lambda *texts: any(pattern.search(text) for text in texts if text))
    conditions, parameters = _attempt_conditions(conn, wanted)    # the first parameter is before the first row
    source = f"FROM job_log{_attempt_index(wanted)} WHERE {' AND '.join(conditions)}"
    if last == 0:
        return
    if last is not None:
        # Where they begin, so that they are read one at a time, oldest first.
        first = conn.execute(f"SELECT seq {source} ORDER BY seq DESC LIMIT 1 OFFSET ?",
                             (*parameters, last - 1)).fetchone()
        if first is not None:
            parameters[0] = first[0] - 1
    cursor = conn.execute(f"SELECT {_WHOLE if whole else _PARTS} {source} ORDER BY seq", parameters)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


_ATTEMPT = "id, job_id, attempt, plugin, command, status, started_at, completed_at, exit_code, last_error"
_WHOLE = f"{_ATTEMPT}, stderr, printed, result"


def _of_response(key: str) -> str:
    return f"CASE WHEN json_valid(result) THEN json_extract(result, '$.{key}') END"


def _list_of(key: str) -> str:
    return (f"CASE WHEN json_valid(result) AND json_type(result, '$.{key}') = 'array'"
            f" THEN json_extract(result, '$.{key}') END")


_PARTS = (f"{_ATTEMPT}, stderr, substr(printed, 1, {_PRINTED_CHARACTERS}) AS printed,"
          f" CASE WHEN json_valid(result) AND json_type(result, '$.result') = 'text'"
          f" THEN substr(json_extract(result, '$.result'), 1, {_PRINTED_CHARACTERS}) END AS text,"
          f" {_list_of('logs')} AS logs, {_list_of('notes')} AS notes")


def _attempt_index(wanted: AttemptFilter) -> str:
    if wanted.job_id is not None:
        return " INDEXED BY job_log_job"
    if wanted.failed:
        return " INDEXED BY job_log_failed"
    return "" if wanted.plugin is None else " INDEXED BY job_log_plugin"


def _attempt_conditions(conn: sqlite3.Connection, wanted: AttemptFilter) -> tuple[list[str], list[object]]:
    before, after = _seq_bounds(conn, wanted)
    # One lower bound: SQLite would use the first of several, and read all rows from there.
    conditions = ["seq > ?"]
    parameters: list[object] = [max(before or 0, wanted.after_seq or 0)]
    for condition, value in (
            ("seq <= ?", wanted.last_seq), ("seq < ?", after), ("plugin = ?", wanted.plugin),
            ("job_id = ?", wanted.job_id), ("completed_at >= ?", wanted.since and utc_text(wanted.since)),
            ("completed_at < ?", wanted.until and utc_text(wanted.until))):
        if value is not None:
            conditions.append(condition)
            parameters.append(value)
    if wanted.failed:
        conditions.append("status != 'succeeded'")
    if wanted.grep is not None:
        conditions.append(f"has_match(last_error, stderr, printed, {_of_response('result')}, {_of_response('logs')})")
    return conditions, parameters


# How far a clock may have been set back without hiding an attempt.
_CLOCK_SLACK = timedelta(hours=1)


def _seq_bounds(conn: sqlite3.Connection, wanted: AttemptFilter) -> tuple[int | None, int | None]:
    """Return between which rows the attempts of a time are: they are in the order they ended, give or take a clock."""
    before = after = None
    if wanted.since is not None:
        before = conn.execute("SELECT seq FROM job_log INDEXED BY job_log_completed WHERE completed_at < ?"
                              " ORDER BY completed_at DESC LIMIT 1",
                              (utc_text(wanted.since - _CLOCK_SLACK),)).fetchone()
    if wanted.until is not None:
        after = conn.execute("SELECT seq FROM job_log INDEXED BY job_log_completed WHERE completed_at >= ?"
                             " ORDER BY completed_at LIMIT 1", (utc_text(wanted.until + _CLOCK_SLACK),)).fetchone()
    return before and before[0], after and after[0]


def logged_plugins(conn: sqlite3.Connection) -> set[str]:
    """Return the names of all plugins that have an attempt in the log, also of those no longer configured."""
    # From one name to the next in the index: a plain DISTINCT would read every row.
    return {name for (name,) in conn.execute(
        "WITH RECURSIVE p (name) AS (SELECT min(plugin) FROM job_log"
        " UNION ALL SELECT (SELECT min(plugin) FROM job_log WHERE plugin > name) FROM p WHERE name IS NOT NULL)"
        " SELECT name FROM p WHERE name IS NOT NULL")}


def chain_jobs(conn: sqlite3.Connection, root_job_id: str, limit: int | None = None) -> list[Row]:
    """Return the jobs of a chain in the order of the queue, the first `limit` of them if that is given."""
    return rows(conn, f"SELECT {_FACTS}, last_error, event_context_id FROM job_queue"
                      " WHERE root_job_id = ? ORDER BY seq LIMIT ?", root_job_id, -1 if limit is None else limit)


def chain_job(conn: sqlite3.Connection, job_id: str) -> Row | None:
    """Return one job with the columns of `chain_jobs`."""
    return _first(conn, f"SELECT {_FACTS}, last_error, event_context_id FROM job_queue WHERE id = ?",
                  job_id)


def chain_length(conn: sqlite3.Connection, root_job_id: str) -> int:
    """Return how many jobs a chain has."""
    return int(conn.execute("SELECT count(*) FROM job_queue WHERE root_job_id = ?", (root_job_id,)).fetchone()[0])


def output(conn: sqlite3.Connection, job_id: str) -> Row:
    """Return the output of a job's last attempt, None if it has none, and its first files with the number of all."""
    return {
        "attempt": _first(
            conn, f"SELECT attempt, status, exit_code, substr(stderr, 1, {_OUTPUT_CHARACTERS}) AS stderr,"
            f" substr(printed, 1, {_OUTPUT_CHARACTERS}) AS printed FROM job_log WHERE job_id = ?"
            " ORDER BY attempt DESC, seq DESC LIMIT 1", job_id),
        "files": rows(conn, f"SELECT path, size FROM artifacts WHERE job_id = ? ORDER BY path LIMIT {_FILES}", job_id),
        "files_total": conn.execute("SELECT count(*) FROM artifacts WHERE job_id = ?", (job_id,)).fetchone()[0],
    }


_RECENT = timedelta(hours=24)


def status(conn: sqlite3.Connection, now: datetime) -> dict[str, Any]:
    """Return everything that `status` shows and the database knows; times are UTC text.

    `plugins` are the configured ones as the daemon last loaded them, by name.
    """
    running = rows(conn, "SELECT id AS job_id, plugin, command, attempt, started_at FROM job_queue"
                         " WHERE status = 'running' ORDER BY seq")
    load = _first(conn, "SELECT loaded_at, ok, errors FROM config_loads ORDER BY id DESC LIMIT 1")
    return {
        "config_load": load and {**load, "ok": bool(load["ok"])},
        "listen": _listen(conn),
        "queue": _depth(conn, len(running)),
        "oldest_waiting": _oldest_waiting(conn),
        "ended_24h": _ended(conn, now - _RECENT),
        "busy_24h": _busy(conn, now - _RECENT, now),
        "running": running,
        "plugins": _plugins(conn),
    }


def _listen(conn: sqlite3.Connection) -> str | None:
    """Return where the daemon listens for webhooks while it runs; a rejected configuration changed nothing."""
    row = conn.execute("SELECT listen FROM config_loads WHERE ok = 1 ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None or row[0] is None else str(row[0])


def _depth(conn: sqlite3.Connection, running: int) -> dict[str, Any]:
    """Return how many jobs have not ended, by status."""
    count = conn.execute("SELECT count(*) FROM job_queue WHERE completed_at IS NULL").fetchone()[0]
    waiting = conn.execute(
        "SELECT count(*) FROM job_queue WHERE status = 'queued' AND next_retry_at IS NOT NULL").fetchone()[0]
    return {"queued": max(0, count - waiting - running), "waiting": waiting, "running": running}


def unfinished(conn: sqlite3.Connection) -> tuple[int, int]:
    """Return how many jobs are queued and how many are running, in a database of any version."""
    queued, running = conn.execute(
        "SELECT count(*) FILTER (WHERE status = 'queued'), count(*) FILTER (WHERE status = 'running')"
        " FROM job_queue WHERE status IN ('queued', 'running')").fetchone()
    return queued, running


def _oldest_waiting(conn: sqlite3.Connection) -> str | None:
    """Return when the first of all queued jobs was queued."""
    row = conn.execute("SELECT created_at FROM job_queue INDEXED BY job_queue_open_seq WHERE completed_at IS NULL"
                       " AND status = 'queued' ORDER BY seq LIMIT 1").fetchone()
    return None if row is None else str(row[0])


def _ended(conn: sqlite3.Connection, since: datetime) -> dict[str, Any]:
    """Return how many jobs have ended since then, by status."""
    return rows(
        conn, "SELECT count(*) FILTER (WHERE status = 'succeeded') AS succeeded,"
        " count(*) FILTER (WHERE status = 'dead') AS dead, count(*) FILTER (WHERE status = 'deduped') AS deduped"
        " FROM job_queue WHERE completed_at >= ?", utc_text(since))[0]


# Some four a second for a day; the share of a busier daemon is of the time that so many take.
_MOST_ATTEMPTS = 20_000


def _busy(conn: sqlite3.Connection, since: datetime, now: datetime) -> float:
    """Return which part of the time since then a plugin ran, from 0 to 1."""
    count, first, days = conn.execute(
        "SELECT count(*), min(completed_at), sum(julianday(completed_at) - julianday(max(started_at, ?1))) FROM"
        " (SELECT completed_at, started_at FROM job_log INDEXED BY job_log_completed WHERE completed_at >= ?1"
        " AND started_at IS NOT NULL ORDER BY completed_at DESC LIMIT ?2)",
        (utc_text(since), _MOST_ATTEMPTS)).fetchone()
    if count == _MOST_ATTEMPTS:
        since = parse_utc(first)
    running = conn.execute("SELECT started_at FROM job_queue WHERE status = 'running' AND started_at IS NOT NULL")
    busy = timedelta(days=days or 0) + sum((max(timedelta(0), now - max(since, parse_utc(at))) for at, in running),
                                           timedelta(0))
    return round(min(1.0, max(0.0, busy / max(now - since, timedelta(seconds=1)))), 6)


def _plugins(conn: sqlite3.Connection) -> list[Row]:
    plugins = rows(conn, "SELECT plugin, version, enabled, reason, needs_init FROM plugin_loads ORDER BY plugin")
    initialised = set(conn.execute("SELECT plugin, fingerprint FROM plugin_inits WHERE ok = 1"))
    paused = dict(conn.execute("SELECT plugin, since FROM paused_plugins"))
    sizes = dict(conn.execute("SELECT plugin_name, length(CAST(state AS BLOB)) FROM plugin_state"))
    for row in plugins:
        name, needs = row["plugin"], row.pop("needs_init")
        row["enabled"] = bool(row["enabled"])
        row["healthy"] = needs is None or (name, needs) in initialised
        row["state_bytes"] = sizes.get(name, 0)
        row["paused_since"] = paused.get(name)
        row["last"] = _first(conn, "SELECT job_id, command, status, completed_at, last_error FROM job_log"
                                   " WHERE plugin = ? ORDER BY seq DESC LIMIT 1", name)
        row["breakers"] = rows(conn, "SELECT command, state, failure_count, opened_at FROM circuit_breakers"
                                     " WHERE plugin = ? ORDER BY command", name)
        row["schedules"] = rows(conn, "SELECT schedule_id, next_run_at, last_run_at, held_reason, overdue_at"
                                      " FROM schedule_entries"
                                      " WHERE plugin = ? ORDER BY schedule_id", name)
    return plugins


_MOST_COUNTED = 5_000


def activity(conn: sqlite3.Connection, now: datetime) -> dict[str, list[tuple[int, int]]]:
    """Return, by plugin, how many attempts ended in each of the last 24 hours, and how many of them failed.

    Of very many attempts the latest are counted.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for plugin, hour, ran, failed in conn.execute(
            "SELECT plugin, CAST((julianday(?) - julianday(completed_at)) * 24 AS INTEGER) AS hour, count(*),"
            " count(*) FILTER (WHERE status IN ('failed', 'timed_out', 'orphaned'))"
            " FROM (SELECT plugin, completed_at, status FROM job_log INDEXED BY job_log_completed"
            " WHERE completed_at > ? AND completed_at <= ? ORDER BY completed_at DESC LIMIT ?) GROUP BY plugin, hour",
            (utc_text(now), utc_text(now - _RECENT), utc_text(now), _MOST_COUNTED)):
        if 0 <= hour < 24:
            found.setdefault(plugin, [(0, 0)] * 24)[23 - hour] = ran, failed
    return found


# What `report` counts. There may be a million rows: SQLite counts them by part of the period, as one sort of all takes
# twice the time.

_SECONDS_BETWEEN = "round((julianday({until}) - julianday({since})) * 86400, 3)"


def ended_in(conn: sqlite3.Connection, since: datetime, until: datetime, *,
             cancelled: str) -> list[tuple[str, str, bool, bool, int]]:
    """Return how many of the jobs that ended in a time are alike.

    Alike are those with one plugin, one status, more than one attempt or not, and the error `cancelled` or not; those
    are the columns.
    """
    return conn.execute(
        "SELECT plugin, status, attempt > 1 AS retried, status = 'dead' AND last_error IS ? AS cancelled, count(*)"
        " FROM job_queue INDEXED BY job_queue_ended WHERE completed_at IS NOT NULL AND completed_at >= ?"
        " AND completed_at < ? GROUP BY plugin, status, retried, cancelled",
        (cancelled, utc_text(since), utc_text(until))).fetchall()


def work_in(conn: sqlite3.Connection, since: datetime, until: datetime) -> tuple[int, float]:
    """Return how many attempts failed in a time, and for how many seconds of it attempts ran that have ended."""
    period = utc_text(since), utc_text(until)
    failed, days = conn.execute(
        "SELECT count(*) FILTER (WHERE status IN ('failed', 'timed_out')),"
        " total(max(0, julianday(completed_at) - julianday(max(started_at, ?1))))"
        " FROM job_log INDEXED BY job_log_completed WHERE completed_at >= ?1 AND completed_at < ?2", period).fetchone()
    # One attempt runs at a time: the next that ended may have begun before.
    (more,) = conn.execute(
        "SELECT total(max(0, julianday(?2) - julianday(max(started_at, ?1)))) FROM (SELECT started_at FROM job_log"
        " INDEXED BY job_log_completed WHERE completed_at >= ?2 ORDER BY completed_at LIMIT 1)", period).fetchone()
    return failed, round((days + more) * 86400, 3)


def attempts_in(conn: sqlite3.Connection, since: datetime, until: datetime, *,
                limit: int) -> Iterator[tuple[str, str, str, float | None, float | None]]:
    """Yield up to `limit` attempts that ended in a period, the latest first, as plain tuples.

    The columns are plugin, command, status, how many seconds it took, and how many the job had waited before; None for
    a later attempt, which waits on purpose.
    """
    yield from conn.execute(
        f"SELECT plugin, command, status, {_SECONDS_BETWEEN.format(since='started_at', until='completed_at')},"
        f" CASE WHEN attempt = 1 THEN {_SECONDS_BETWEEN.format(since='created_at', until='started_at')} END"
        " FROM job_log INDEXED BY job_log_completed WHERE completed_at >= ? AND completed_at < ?"
        " ORDER BY completed_at DESC LIMIT ?", (utc_text(since), utc_text(until), limit))


def dead_in(conn: sqlite3.Connection, since: datetime, until: datetime, *, cancelled: str,
            limit: int) -> Iterator[tuple[str, str, str, str | None, str | None, str | None, str]]:
    """Yield id, plugin, command, error, pipeline, step and end of the jobs that failed permanently, the latest first.

    Not of those whose error is `cancelled`.
    """
    yield from conn.execute(
        f"SELECT id, plugin, command, substr(last_error, 1, {_ERROR_CHARACTERS}), pipeline_name, step_id, completed_at"
        " FROM job_queue INDEXED BY job_queue_unsuccessful WHERE status IN ('dead', 'deduped') AND status = 'dead'"
        " AND completed_at >= ? AND completed_at < ? AND last_error IS NOT ? ORDER BY completed_at DESC LIMIT ?",
        (utc_text(since), utc_text(until), cancelled, limit))


def rows(conn: sqlite3.Connection, sql: str, *parameters: object) -> list[Row]:
    """Return the rows of a query, each by the names of its columns."""
    cursor = conn.execute(sql, parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _first(conn: sqlite3.Connection, sql: str, *parameters: object) -> Row | None:
    return next(iter(rows(conn, sql, *parameters)), None)
