"""The `job_queue` table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from ductile.queue.job import MOVES, Job, NewJob, StaleJob, Status, Submitter
from ductile.units import parse_utc, utc_text

_COLUMNS = tuple(field.name for field in fields(Job))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM job_queue"
_TIMES = ("created_at", "started_at", "completed_at", "next_retry_at")


def _job(row: tuple[Any, ...]) -> Job:
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in _TIMES:
        if values[name] is not None:
            values[name] = parse_utc(values[name])
    values["status"] = Status(values["status"])
    values["submitted_by"] = Submitter(values["submitted_by"])
    return Job(**values)


def _jobs(conn: sqlite3.Connection, where: str, *parameters: object) -> list[Job]:
    return [_job(row) for row in conn.execute(f"{_SELECT} {where}", parameters)]


def add(conn: sqlite3.Connection, jobs: Iterable[NewJob], now: datetime) -> None:
    """Add queued jobs, in this order."""
    for job in jobs:
        conn.execute(
            "INSERT INTO job_queue (id, plugin, command, payload, status, attempt, max_attempts, submitted_by,"
            " dedupe_key, created_at, parent_job_id, root_job_id, source_event_id, event_context_id, pipeline_name,"
            " pipeline_hash, step_id, replay_of, core_event, schedule_id)"
            " VALUES (?, ?, ?, ?, 'queued', 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (job.id, job.plugin, job.command, job.payload, job.max_attempts, job.submitted_by, job.dedupe_key,
             utc_text(now), job.parent_job_id, job.root_job_id or job.id, job.source_event_id, job.event_context_id,
             job.pipeline_name, job.pipeline_hash, job.step_id, job.replay_of, job.core_event,
             job.schedule_id),
        )


def get(conn: sqlite3.Connection, job_id: str) -> Job | None:
    """Return a job by its full id."""
    jobs = _jobs(conn, "WHERE id = ?", job_id)
    return jobs[0] if jobs else None


def failed_at(conn: sqlite3.Connection, job_id: str) -> str | None:
    """Return when a job became dead, UTC text; None if it has not, or was cancelled while it ran."""
    row = conn.execute("SELECT completed_at FROM job_queue WHERE id = ? AND status = 'dead'"
                       " AND cancel_requested_at IS NULL", (job_id,)).fetchone()
    return None if row is None else str(row[0])


def with_prefix(conn: sqlite3.Connection, prefix: str, limit: int) -> list[Job]:
    """Return up to `limit` jobs whose ids start with `prefix`."""
    return _jobs(conn, "WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", prefix, prefix + "\x7f", limit)


def of_chain(conn: sqlite3.Connection, root_job_id: str) -> list[Job]:
    """Return all jobs of a chain, in the order in which they were queued."""
    return _jobs(conn, "WHERE root_job_id = ? ORDER BY seq", root_job_id)


def running(conn: sqlite3.Connection) -> list[Job]:
    """Return the jobs with status `running`."""
    return _jobs(conn, "WHERE status = 'running' ORDER BY seq")


def move(conn: sqlite3.Connection, job: Job, to: Status, now: datetime, *, attempt: int | None = None,
         max_attempts: int | None = None, retry_at: datetime | None = None, error: str | None = None) -> None:
    """Change a job's status if its row is still as in `job`.

    `attempt` and `max_attempts` default to the job's. Raises StaleJob if the row has changed, ValueError for a move
    that is not in MOVES.
    """
    if (job.status, to) not in MOVES:
        raise ValueError(f"a job cannot go from {job.status} to {to}")
    moved = conn.execute(
        "UPDATE job_queue SET status = ?, attempt = ?, max_attempts = ?, next_retry_at = ?, last_error = ?,"
        " started_at = iif(? = 'running', ?, started_at), completed_at = ?, cancel_requested_at = NULL"
        " WHERE id = ? AND status = ? AND attempt = ?",
        (to, attempt or job.attempt, max_attempts or job.max_attempts, retry_at and utc_text(retry_at),
         error, to, utc_text(now), utc_text(now) if to.is_last else None, job.id, job.status, job.attempt),
    ).rowcount
    if moved != 1:
        raise StaleJob(f"job {job.id} is no longer {job.status} in attempt {job.attempt}")


def request_cancel(conn: sqlite3.Connection, job_id: str, now: datetime) -> None:
    """Note that an operator cancels a running job. The next move of the job clears it."""
    conn.execute("UPDATE job_queue SET cancel_requested_at = ? WHERE id = ? AND status = 'running'",
                 (utc_text(now), job_id))


def is_cancel_requested(conn: sqlite3.Connection, job_id: str) -> bool:
    """Return whether an operator cancels the job, which runs."""
    return conn.execute("SELECT 1 FROM job_queue WHERE id = ? AND cancel_requested_at IS NOT NULL",
                        (job_id,)).fetchone() is not None


def release_due_retries(conn: sqlite3.Connection, now: datetime) -> None:
    """Make the retries ready that are due."""
    conn.execute(
        "UPDATE job_queue SET next_retry_at = NULL WHERE status = 'queued' AND next_retry_at <= ?", (utc_text(now),)
    )


def release_stranded_retries(conn: sqlite3.Connection, latest: Mapping[str, datetime]) -> int:
    """Make retries ready that are later than their plugin's `latest`: the clock was set back. Return how many."""
    if not latest:
        return 0
    by_plugin = json.dumps({plugin: utc_text(moment) for plugin, moment in latest.items()})
    return conn.execute(
        "UPDATE job_queue SET next_retry_at = NULL WHERE status = 'queued' AND next_retry_at > ?"
        " AND next_retry_at > (SELECT value FROM json_each(?) WHERE key = plugin)",
        (utc_text(min(latest.values())), by_plugin),
    ).rowcount


def has_retry_after(conn: sqlite3.Connection, moment: datetime) -> bool:
    """Return whether a retry is due later than `moment`."""
    return bool(conn.execute(
        "SELECT EXISTS (SELECT 1 FROM job_queue WHERE status = 'queued' AND next_retry_at > ?)", (utc_text(moment),)
    ).fetchone()[0])


def next_retry_at(conn: sqlite3.Connection) -> datetime | None:
    """Return when the next retry is due."""
    text = conn.execute(
        "SELECT min(next_retry_at) FROM job_queue WHERE status = 'queued' AND next_retry_at IS NOT NULL"
    ).fetchone()[0]
    return None if text is None else parse_utc(text)


def next_ready(conn: sqlite3.Connection, plugins: Iterable[str], blocked: Iterable[str]) -> Job | None:
    """Return the oldest job of `plugins` that may run now and is not in `blocked`.

    This takes one seek in the index for each plugin, so that a million jobs of other plugins cost nothing.
    """
    jobs = _jobs(
        conn, "WHERE seq = (SELECT min((SELECT q.seq FROM job_queue q INDEXED BY job_queue_ready"
        " WHERE q.plugin = p.value AND q.status = 'queued' AND q.next_retry_at IS NULL"
        " AND q.id NOT IN (SELECT value FROM json_each(?)) ORDER BY q.seq LIMIT 1)) FROM json_each(?) p)",
        json.dumps(list(blocked)), json.dumps(list(plugins)),
    )
    return jobs[0] if jobs else None


def succeeded_with_key(conn: sqlite3.Connection, job: NewJob | Job, since: datetime) -> str | None:
    """Return the id of the newest job with the same plugin, command, step and key that succeeded since `since`."""
    row = conn.execute(
        "SELECT id FROM job_queue INDEXED BY job_queue_dedupe WHERE dedupe_key = ? AND plugin = ? AND command = ?"
        " AND pipeline_name IS ? AND step_id IS ? AND status = 'succeeded' AND completed_at >= ?"
        " ORDER BY completed_at DESC LIMIT 1",
        (job.dedupe_key, job.plugin, job.command, job.pipeline_name, job.step_id, utc_text(since)),
    ).fetchone()
    return None if row is None else str(row[0])


def open_with_key(conn: sqlite3.Connection, job: NewJob) -> str | None:
    """Return the id of an open job with the same plugin, command, step and key."""
    row = conn.execute(
        "SELECT id FROM job_queue WHERE dedupe_key = ? AND plugin = ? AND command = ? AND pipeline_name IS ?"
        " AND step_id IS ? AND completed_at IS NULL ORDER BY seq LIMIT 1",
        (job.dedupe_key, job.plugin, job.command, job.pipeline_name, job.step_id),
    ).fetchone()
    return None if row is None else str(row[0])


def count_waiting(conn: sqlite3.Connection, most: int) -> int:
    """Return how many jobs are queued, or `most` if there are more: counting stops there."""
    # The index holds running jobs too.
    return int(conn.execute(
        "SELECT count(*) - (SELECT count(*) FROM job_queue WHERE status = 'running') FROM (SELECT 1 FROM job_queue"
        " INDEXED BY job_queue_open_seq WHERE completed_at IS NULL"
        " LIMIT ? + (SELECT count(*) FROM job_queue WHERE status = 'running'))", (most,)
    ).fetchone()[0])


def open_totals(conn: sqlite3.Connection, most: int) -> list[tuple[str, str, int]]:
    """Return how many of the oldest `most` open jobs each plugin has in each status: plugin, status, count."""
    return list(conn.execute(
        "SELECT plugin, status, count(*) FROM (SELECT plugin, status FROM job_queue INDEXED BY job_queue_open_seq"
        " WHERE completed_at IS NULL ORDER BY seq LIMIT ?) GROUP BY plugin, status", (most,)))


def oldest_waiting(conn: sqlite3.Connection) -> str | None:
    """Return when the first queued job of the queue was created, UTC text; None if there is none."""
    row = conn.execute("SELECT created_at FROM job_queue INDEXED BY job_queue_open_seq WHERE completed_at IS NULL"
                       " AND status = 'queued' ORDER BY seq LIMIT 1").fetchone()
    return None if row is None else str(row[0])


def ended_totals(conn: sqlite3.Connection, *, since: datetime, before: datetime) -> list[tuple[str, str, int]]:
    """Return how many jobs of each plugin have ended in a time: plugin, status, count."""
    return list(conn.execute(
        "SELECT plugin, status, count(*) FROM job_queue INDEXED BY job_queue_ended WHERE completed_at >= ?"
        " AND completed_at < ? GROUP BY plugin, status", (utc_text(since), utc_text(before))))


def last_seq(conn: sqlite3.Connection) -> int:
    """Return the `seq` of the newest job, 0 if there is none."""
    return int(conn.execute("SELECT coalesce(max(seq), 0) FROM job_queue").fetchone()[0])


def is_full(conn: sqlite3.Connection, depth: int) -> bool:
    """Return whether `depth` or more jobs are queued."""
    return count_waiting(conn, depth) >= depth


def count_open(conn: sqlite3.Connection, plugin: str, command: str, submitted_by: Submitter) -> int:
    """Return how many open jobs for a command a submitter has."""
    return int(conn.execute(
        "SELECT count(*) FROM job_queue WHERE plugin = ? AND command = ? AND submitted_by = ? AND completed_at IS NULL",
        (plugin, command, submitted_by),
    ).fetchone()[0])


def has_open(conn: sqlite3.Connection, plugin: str, command: str) -> bool:
    """Return whether there is an open job for a command."""
    return bool(conn.execute(
        "SELECT EXISTS (SELECT 1 FROM job_queue WHERE plugin = ? AND command = ? AND completed_at IS NULL)",
        (plugin, command),
    ).fetchone()[0])


def queued_outside(conn: sqlite3.Connection, plugins: Iterable[str], limit: int) -> list[Job]:
    """Return up to `limit` queued jobs of plugins that are not in `plugins`."""
    found: list[Job] = []
    for name in _open_plugins_outside(conn, plugins):
        found += _jobs(conn, "WHERE plugin = ? AND completed_at IS NULL AND status = 'queued' LIMIT ?",
                       name, limit - len(found))
    return found


def count_queued_outside(conn: sqlite3.Connection, plugins: Iterable[str]) -> dict[str, int]:
    """Return the number of queued jobs of each plugin that is not in `plugins`, without zeros."""
    counts = {}
    for name in _open_plugins_outside(conn, plugins):
        # Open jobs minus running ones: the index of open jobs has no status, and the rows may be a million.
        counts[name] = conn.execute(
            "SELECT (SELECT count(*) FROM job_queue WHERE plugin = ?1 AND completed_at IS NULL)"
            " - (SELECT count(*) FROM job_queue WHERE status = 'running' AND plugin = ?1)", (name,)).fetchone()[0]
    return {name: count for name, count in counts.items() if count}


def _open_plugins_outside(conn: sqlite3.Connection, plugins: Iterable[str]) -> list[str]:
    """Return the plugins with open jobs that are not in `plugins`: one seek in the index for each plugin."""
    known = set(plugins)
    names: list[str] = []
    name: str | None = ""
    while name is not None:
        name = conn.execute("SELECT min(plugin) FROM job_queue INDEXED BY job_queue_open WHERE completed_at IS NULL"
                            " AND plugin > ?", (name,)).fetchone()[0]
        if name is not None and name not in known:
            names.append(name)
    return names


def roots_of(conn: sqlite3.Connection, ids: Iterable[str]) -> dict[str, str]:
    """Return the roots of those jobs that exist, by job id."""
    return dict(conn.execute("SELECT id, root_job_id FROM job_queue WHERE id IN (SELECT value FROM json_each(?))",
                             (json.dumps(list(ids)),)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEnd:
    """When the last job of a chain ended, None while one is open."""

    ended_at: datetime | None


def chain_end(conn: sqlite3.Connection, root_job_id: str) -> ChainEnd | None:
    """Return when a chain ended, None if no job has this root."""
    latest, open_jobs_left = conn.execute(
        "SELECT max(completed_at), sum(completed_at IS NULL) FROM job_queue WHERE root_job_id = ?", (root_job_id,)
    ).fetchone()
    if open_jobs_left is None:
        return None
    return ChainEnd(ended_at=None if open_jobs_left else parse_utc(latest))


def ended_chains(conn: sqlite3.Connection, before: datetime, limit: int) -> list[str]:
    """Return the root ids of up to `limit` chains whose every job ended before `before`."""
    # Without INDEXED BY, SQLite would read the whole index of roots to avoid the DISTINCT. The DISTINCT is a query of
    # its own, so that each chain is checked once, however many of its jobs are old.
    rows = conn.execute(
        "SELECT root FROM (SELECT DISTINCT root_job_id AS root FROM job_queue INDEXED BY job_queue_ended"
        " WHERE completed_at < ?1) WHERE NOT EXISTS (SELECT 1 FROM job_queue c WHERE c.root_job_id = root"
        "  AND (c.completed_at IS NULL OR c.completed_at >= ?1)) LIMIT ?2",
        (utc_text(before), limit),
    )
    return [row[0] for row in rows]


def newest_of_chains(conn: sqlite3.Connection, roots: Iterable[str], limit: int) -> list[str]:
    """Return the ids of the newest `limit` jobs of these chains. No other job refers to them."""
    return [row[0] for row in conn.execute(
        "SELECT id FROM job_queue WHERE root_job_id IN (SELECT value FROM json_each(?)) ORDER BY seq DESC LIMIT ?",
        (json.dumps(list(roots)), limit),
    )]


def contexts_of(conn: sqlite3.Connection, jobs: Iterable[str]) -> list[str]:
    """Return the ids of the contexts of these jobs."""
    return [row[0] for row in conn.execute(
        "SELECT event_context_id FROM job_queue WHERE event_context_id IS NOT NULL"
        " AND id IN (SELECT value FROM json_each(?))", (json.dumps(list(jobs)),)
    )]


def without_jobs(conn: sqlite3.Connection, contexts: Iterable[str]) -> list[str]:
    """Return those contexts that no job has. A replayed job shares the context of its original."""
    return [row[0] for row in conn.execute(
        "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM job_queue WHERE event_context_id = value)",
        (json.dumps(list(contexts)),)
    )]


def remove(conn: sqlite3.Connection, jobs: Iterable[str]) -> None:
    """Delete jobs by id."""
    conn.execute("DELETE FROM job_queue WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(jobs)),))
