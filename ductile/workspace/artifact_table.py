"""The `artifacts` table: the files that each successful job had in its workspace."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable

from ductile.workspace.artifact import Artifact


def add(conn: sqlite3.Connection, job_id: str, artifacts: Iterable[Artifact]) -> None:
    """Add a row for each file of a job, whose own row must exist."""
    conn.executemany(
        "INSERT INTO artifacts (job_id, path, size, mtime_ns, digest) VALUES (?, ?, ?, ?, ?)",
        ((job_id, _stored(each.path), each.size, each.mtime_ns, each.digest) for each in artifacts),
    )


def of_job(conn: sqlite3.Connection, job_id: str) -> dict[str, Artifact]:
    """Return the files of a job by path."""
    rows = conn.execute("SELECT path, size, mtime_ns, digest FROM artifacts WHERE job_id = ? ORDER BY path", (job_id,))
    found = (Artifact(path=_read(path), size=size, mtime_ns=mtime_ns, digest=digest)
             for path, size, mtime_ns, digest in rows)
    return {artifact.path: artifact for artifact in found}


def remove(conn: sqlite3.Connection, job_ids: Iterable[str], limit: int) -> int:
    """Delete up to `limit` rows of these jobs and return how many. Call it before the jobs' own rows are deleted."""
    return conn.execute(
        "DELETE FROM artifacts WHERE (job_id, path) IN (SELECT job_id, path FROM artifacts"
        " WHERE job_id IN (SELECT value FROM json_each(?)) LIMIT ?)", (json.dumps(list(job_ids)), limit)).rowcount


def _stored(path: str) -> str | bytes:
    """Return the stored form of a path: a string, or bytes if it is not UTF-8. The reader's locale does not matter.
    """
    name = os.fsencode(path)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name


def _read(stored: str | bytes) -> str:
    return os.fsdecode(stored if isinstance(stored, bytes) else stored.encode("utf-8"))
