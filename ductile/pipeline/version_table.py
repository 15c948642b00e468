"""The `pipeline_versions` table: every version of every pipeline that the daemon has run on, for chains in flight."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import datetime

from ductile.pipeline.graph import Pipeline, Position, canonical, from_canonical
from ductile.queue.job import Job
from ductile.units import utc_text


def add(conn: sqlite3.Connection, pipelines: Iterable[Pipeline], now: datetime) -> None:
    """Keep the pipelines that are not kept yet."""
    known = {row[0] for row in conn.execute("SELECT hash FROM pipeline_versions")}
    for pipeline in pipelines:
        if pipeline.hash not in known:
            conn.execute("INSERT INTO pipeline_versions (hash, name, definition, first_seen_at) VALUES (?, ?, ?, ?)",
                         (pipeline.hash, pipeline.name, canonical(pipeline), utc_text(now)))


def get(conn: sqlite3.Connection, digest: str) -> Pipeline | None:
    """Return one version; None where it is not kept, or is no longer what was kept."""
    row = conn.execute("SELECT definition FROM pipeline_versions WHERE hash = ?", (digest,)).fetchone()
    try:
        pipeline = None if row is None else from_canonical(row[0])
    except ValueError:
        return None
    return pipeline if pipeline is not None and pipeline.hash == digest else None


def position_of(conn: sqlite3.Connection, job: Job, pipelines: Mapping[str, Pipeline]) -> Position | None:
    """Return where a job stands in the version that it began with; None outside, and where that is not known.

    `pipelines`, those that run now, are looked at first, so that the table is read for older versions alone.
    """
    if job.pipeline_hash is None:
        return None
    pipeline = pipelines.get(job.pipeline_name)
    if pipeline is None or pipeline.hash != job.pipeline_hash:
        pipeline = get(conn, job.pipeline_hash)
    if pipeline is None or job.step_id not in pipeline.nodes:
        return None
    return Position(pipeline=pipeline, step_id=job.step_id)
