"""A job's workspace: cloned from its parent's before the run, sealed after it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ductile.db import database_errors
from ductile.dispatch.outcome import Failed, Interrupted, Outcome, Refused, Succeeded, overruled
from ductile.pipeline import version_table
from ductile.queue.job import Job
from ductile.routing.portable_paths import to_portable
from ductile.routing.router import Router
from ductile.text import one_line
from ductile.workspace import artifact_table
from ductile.workspace.artifact import Aborted, Artifact, ChangedInPlace, InputLost
from ductile.workspace.manager import ClonedWorkspace, Workspaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """The parent's files, by path, that a job starts from. `deep`: copy them instead of linking."""

    parent_id: str
    artifacts: Mapping[str, Artifact]
    deep: bool


def inherited(conn: sqlite3.Connection, job: Job, router: Router, workspaces: Workspaces) -> Inherited | None:
    """Return what a job starts from, None if it has no parent or the parent left no files.

    Raises what `database_errors` raises.
    """
    if job.parent_job_id is None:
        return None
    with database_errors(conn):
        artifacts = artifact_table.of_job(conn, job.parent_job_id)
        if not artifacts and workspaces.open(job.parent_job_id) is None:
            return None
        position = version_table.position_of(conn, job, router.pipelines)
    deep = position is not None and position.node.deep_copy
    return Inherited(parent_id=job.parent_job_id, artifacts=artifacts, deep=deep)


def clone(job: Job, parent: Inherited, workspaces: Workspaces,
          aborted: Callable[[], bool]) -> ClonedWorkspace | Outcome:
    """Clone the parent's workspace for the job, until `aborted` returns true. Return an outcome if that is impossible.

    Raises OSError if another try may help.
    """
    try:
        return workspaces.clone(job.id, parent.parent_id, parent.artifacts, deep=parent.deep, abort=aborted)
    except InputLost as error:
        return Refused(error=one_line(str(error)))
    except Aborted:
        return stopped()


def complete(job: Job, parent: Inherited | None, outcome: Succeeded, workspaces: Workspaces,
             aborted: Callable[[], bool]) -> tuple[Outcome, tuple[str, ...]]:
    """Sync and seal the files of a success. Return the outcome with the list of files, and warnings, a line each.

    If that fails, the outcome is another one, and its response counts only as that of a failed attempt.
    """
    parent_id, before = (None, {}) if parent is None else (parent.parent_id, parent.artifacts)
    try:
        completed = workspaces.complete(job.id, parent_id, before, abort=aborted)
    except ChangedInPlace as error:
        return overruled(outcome, Refused, one_line(str(error))), ()
    except OSError as error:
        where = with_portable_paths(os.fspath(error.filename or "its workspace"), job, workspaces)
        return overruled(outcome, Failed, one_line(f"its files could not be kept: {error.strerror}: {where}")), ()
    except Aborted:
        return replace(stopped(), response=outcome.response, exit_code=outcome.exit_code, stderr=outcome.stderr,
                       is_overruled=True), ()
    return replace(outcome, artifacts=completed.artifacts), completed.warnings


def with_portable_paths(text: str, job: Job, workspaces: Workspaces) -> str:
    """Return a text with portable paths in place of those into the job's workspace and its parent's."""
    for job_id in (job.id, job.parent_job_id):
        if job_id is not None:
            text = to_portable(text, os.fspath(workspaces.root / job_id))
    return text


def stopped() -> Interrupted:
    """Return the outcome of an attempt that a stop of the daemon interrupts."""
    return Interrupted(by="stop", error="interrupted by a stop of the daemon")
