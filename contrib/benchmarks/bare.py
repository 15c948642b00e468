"""What nobody can do without: starting the plugin, and two durable commits."""

from __future__ import annotations

import sqlite3
import subprocess
import time
import uuid
from contextlib import closing
from pathlib import Path

from benchmarks.site import ECHO
from ductile.protocol import encode_request

_SCHEMA = "CREATE TABLE job (id TEXT NOT NULL PRIMARY KEY, status TEXT NOT NULL, result TEXT)"


def seconds_to_drain(directory: Path, jobs: int) -> float:
    """Return how long a bare loop takes to run the echo plugin so many times, with two commits a job."""
    directory.mkdir()
    requests = [(job_id, _request(job_id, directory)) for job_id in (str(uuid.uuid4()) for _ in range(jobs))]
    with closing(sqlite3.connect(directory / "bare.db", isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute(_SCHEMA)
        conn.execute("BEGIN")
        conn.executemany("INSERT INTO job (id, status) VALUES (?, 'queued')", ((job_id,) for job_id, _ in requests))
        conn.execute("COMMIT")
        started = time.monotonic()
        for job_id, request in requests:
            conn.execute("UPDATE job SET status = 'running' WHERE id = ?", (job_id,))
            answer = _run(request, directory)
            conn.execute("UPDATE job SET status = 'succeeded', result = ? WHERE id = ?", (answer, job_id))
        return time.monotonic() - started


def _run(request: bytes, directory: Path) -> bytes:
    process = subprocess.Popen([ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=directory,
                               start_new_session=True)
    process.stdin.write(request)
    process.stdin.close()
    answer = process.stdout.read()
    process.stdout.close()
    process.wait()
    return answer


def _request(job_id: str, directory: Path) -> bytes:
    """Return what the daemon would send: the state is what the plugin left there the last time."""
    return encode_request(
        protocol=2, job_id=job_id, command="poll", config={"message": "hello"}, event=None, context={},
        state={"last_run": "2026-02-08T10:00:00Z"}, deadline_at="2026-02-08T10:00:00.000Z",
        workspace_dir=str(directory / job_id),
    )
