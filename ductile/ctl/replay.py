"""`ductilectl replay`: run a job again, from the event, the context and the files it started with."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from ductile import submit
from ductile.ctl.daemon_link import wake
from ductile.ctl.lookup import find
from ductile.ctl.on_disk import enabled, runtime
from ductile.ctl.session import Session
from ductile.db import transaction
from ductile.errors import EXIT_FAILED, EXIT_OK, DuctileError
from ductile.injected import NewId
from ductile.queue import job_table
from ductile.queue.job import Job, NewJob, Submitter
from ductile.runtime_config import RuntimeConfig
from ductile.workspace import artifact_table
from ductile.workspace.artifact import named
from ductile.workspace.manager import Workspaces


def replay(session: Session, *, job: str) -> int:
    """Queue a new job like one that has ended. Raises DuctileError as `add_replay` does."""
    known = runtime(session)
    with session.changing() as conn:
        again = add_replay(conn, job, known, now=session.now(), new_id=session.new_id)
        if not wake(session):
            session.err.write("ductiled is not running; the job waits until it does\n")
    session.emit({"job_id": again.id, "replay_of": again.replay_of}, f"{again.id}\n")
    return EXIT_OK


def add_replay(conn: sqlite3.Connection, job: str, known: RuntimeConfig, *, now: datetime, new_id: NewId) -> NewJob:
    """Queue a new job with the event, the context and the input files of one that has ended, and return it.

    Raises DuctileError as `find` does, 66 if its plugin is not configured or disabled, 1 if the job has not ended or
    files that it started from are gone.
    """
    # In one transaction: retention must not remove the input files between the check and the new job.
    with transaction(conn):
        found = find(conn, job)
        again = _copy_of(conn, found, known, new_id())
        job_table.add(conn, [again], now)
    return again


def _copy_of(conn: sqlite3.Connection, found: Job, known: RuntimeConfig, job_id: str) -> NewJob:
    if not found.status.is_last:
        raise DuctileError(f"job {found.id} is {found.status}: only a job that has ended can be replayed",
                           exit_code=EXIT_FAILED)
    plugin = enabled(known, found.plugin)
    _require_input(conn, found, Workspaces(known.config.workspace_path))
    return NewJob(
        id=job_id, plugin=found.plugin, command=found.command, submitted_by=Submitter.REPLAY,
        max_attempts=submit.max_attempts(plugin, found.command), payload=found.payload, dedupe_key=found.dedupe_key,
        parent_job_id=found.parent_job_id, root_job_id=found.root_job_id, source_event_id=found.source_event_id,
        event_context_id=found.event_context_id, pipeline_name=found.pipeline_name, pipeline_hash=found.pipeline_hash,
        step_id=found.step_id, replay_of=found.id, core_event=found.core_event,
    )


def _require_input(conn: sqlite3.Connection, job: Job, workspaces: Workspaces) -> None:
    """Raise DuctileError (1) if files that the job started from are gone or have changed."""
    if job.parent_job_id is None:
        return
    lost = workspaces.verify(job.parent_job_id, artifact_table.of_job(conn, job.parent_job_id))
    if lost:
        raise DuctileError(f"job {job.id} cannot be replayed: files that it started from, of job {job.parent_job_id}, "
                           f"are gone or changed: {named(lost)}; replay that job instead", exit_code=EXIT_FAILED)
