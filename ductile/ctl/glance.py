"""Rows for `monitor`, completion and `logs` from the tables of all rooms: what waits, what ended lately, whose
attempts are in the log, and one job's chain with its files.

Each query costs the same however many jobs there are, for which it goes along an index in that index's own order, and
gives only as much of a long text as a screen can show.
"""

from __future__ import annotations

import sqlite3
from itertools import chain as joined
from operator import itemgetter

from ductile.ctl.snapshot import rows

_ERROR_CHARACTERS = 500
_OUTPUT_CHARACTERS = 8000
_CHAIN_JOBS = 300
_FILES = 200

_JOB = (f"seq, id AS job_id, plugin, command, status, attempt, max_attempts, created_at, started_at, completed_at,"
        f" next_retry_at, substr(last_error, 1, {_ERROR_CHARACTERS}) AS last_error, parent_job_id, root_job_id,"
        f" pipeline_name, step_id, replay_of")
_READY = "INDEXED BY job_queue_ready WHERE status = 'queued' AND next_retry_at IS NULL"


def open_jobs(conn: sqlite3.Connection, limit: int) -> list[dict]:
    """Return up to `limit` jobs that have not ended: what runs, what waits for its turn, what waits for a retry."""
    running = rows(conn, f"SELECT {_JOB} FROM job_queue WHERE status = 'running' ORDER BY seq LIMIT ?", limit)
    retries = rows(conn, f"SELECT {_JOB} FROM job_queue INDEXED BY job_queue_retry"
                         " WHERE status = 'queued' AND next_retry_at IS NOT NULL ORDER BY next_retry_at LIMIT ?",
                   limit)
    return [*running, *_ready(conn, limit), *retries][:limit]


def _ready(conn: sqlite3.Connection, limit: int) -> list[dict]:
    """Return the first jobs of each plugin, merged: in the order of the queue alone SQLite reads every row there is."""
    plugins = conn.execute(
        f"WITH RECURSIVE p (name) AS (SELECT min(plugin) FROM job_queue {_READY}"
        f" UNION ALL SELECT (SELECT min(plugin) FROM job_queue {_READY} AND plugin > name) FROM p"
        " WHERE name IS NOT NULL) SELECT name FROM p WHERE name IS NOT NULL").fetchall()
    heads = (rows(conn, f"SELECT {_JOB} FROM job_queue {_READY} AND plugin = ? ORDER BY seq LIMIT ?", name, limit)
             for (name,) in plugins)
    return sorted(joined.from_iterable(heads), key=itemgetter("seq"))[:limit]


def ended_jobs(conn: sqlite3.Connection, limit: int) -> list[dict]:
    """Return the `limit` jobs that ended last, the latest first."""
    return rows(conn, f"SELECT {_JOB} FROM job_queue INDEXED BY job_queue_ended WHERE completed_at IS NOT NULL"
                      " ORDER BY completed_at DESC, status DESC, seq DESC LIMIT ?", limit)


def logged_plugins(conn: sqlite3.Connection) -> set[str]:
    """Return the names of all plugins that have an attempt in the log, whether they are configured or not."""
    # From one name to the next in the index: a plain DISTINCT would read every row.
    return {name for (name,) in conn.execute(
        "WITH RECURSIVE p (name) AS (SELECT min(plugin) FROM job_log"
        " UNION ALL SELECT (SELECT min(plugin) FROM job_log WHERE plugin > name) FROM p WHERE name IS NOT NULL)"
        " SELECT name FROM p WHERE name IS NOT NULL")}


def chain(conn: sqlite3.Connection, job_id: str) -> dict | None:
    """Return a job's chain, what its last attempt said and the files it made; None where there is no such job.

    `jobs` are the first of the chain in the order of the queue, the asked one among them in any case; `total` is how
    many there are.
    """
    asked = rows(conn, f"SELECT {_JOB} FROM job_queue WHERE id = ?", job_id)
    if not asked:
        return None
    root = asked[0]["root_job_id"]
    jobs = rows(conn, f"SELECT {_JOB} FROM job_queue WHERE root_job_id = ? ORDER BY seq LIMIT {_CHAIN_JOBS}", root)
    if job_id not in {job["job_id"] for job in jobs}:
        jobs += asked
    said = rows(conn, f"SELECT attempt, status, exit_code, substr(stderr, 1, {_OUTPUT_CHARACTERS}) AS stderr,"
                      f" substr(printed, 1, {_OUTPUT_CHARACTERS}) AS printed FROM job_log WHERE job_id = ?"
                      " ORDER BY attempt DESC, seq DESC LIMIT 1", job_id)
    return {
        "job_id": job_id, "jobs": jobs, "attempt": said[0] if said else None,
        "total": conn.execute("SELECT count(*) FROM job_queue WHERE root_job_id = ?", (root,)).fetchone()[0],
        "files": rows(conn, f"SELECT path, size FROM artifacts WHERE job_id = ? ORDER BY path LIMIT {_FILES}", job_id),
        "files_total": conn.execute("SELECT count(*) FROM artifacts WHERE job_id = ?", (job_id,)).fetchone()[0],
    }
