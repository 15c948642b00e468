"""The `pipeline_versions` table: every version of every pipeline that the daemon has run on, for chains in flight."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import datetime

from ductile.pipeline.graph import Pipeline, Position, canonical, from_canonical
from ductile.queue.job import Job
from ductile.units import utc_text


def add(conn: sqlite3.Connection, pipelines: Iterable[Pipeline], now: datetime) -> None:
    """Store the pipelines that are not stored yet."""
    known = {row[0] for row in conn.execute("SELECT hash FROM pipeline_versions")}
    for pipeline in pipelines:
        if pipeline.hash not in known:
            conn.execute("INSERT INTO pipeline_versions (hash, name, definition, first_seen_at) VALUES (?, ?, ?, ?)",
                         (pipeline.hash, pipeline.name, canonical(pipeline), utc_text(now)))


def get(conn: sqlite3.Connection, digest: str) -> Pipeline | None:
    """Return one version, or None if it is missing or damaged."""
    row = conn.execute("SELECT definition FROM pipeline_versions WHERE hash = ?", (digest,)).fetchone()
    try:
        pipeline = None if row is None else from_canonical(row[0])
    except ValueError:
        return None
    return pipeline if pipeline is not None and pipeline.hash == digest else None


def position_of(conn: sqlite3.Connection, job: Job, pipelines: Mapping[str, Pipeline]) -> Position | None:
    """Return the position of a job in the version that it started with, or None outside a known pipeline.

    `pipelines` are the current versions; the table is read for older ones only.
    """
    if job.pipeline_hash is None or job.pipeline_name is None or job.step_id is None:
        return None
    pipeline = pipelines.get(job.pipeline_name)
    if pipeline is None or pipeline.hash != job.pipeline_hash:
        pipeline = get(conn, job.pipeline_hash)
    if pipeline is None or job.step_id not in pipeline.nodes:
        return None
    return Position(pipeline=pipeline, step_id=job.step_id)
