"""What passes from one job's workspace to the next: a clone before its run, its files after."""

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
    """What a job starts from: the files of its parent, by path. `deep` asks for copies instead of hard links."""

    parent_id: str
    artifacts: Mapping[str, Artifact]
    deep: bool


def inherited(conn: sqlite3.Connection, job: Job, router: Router, workspaces: Workspaces) -> Inherited | None:
    """Return what a job starts from; None where it has no parent, or one that left nothing.

    Raises what `reading` raises.
    """
    if job.parent_job_id is None:
        return None
    with database_errors(conn):
        artifacts = artifact_table.of_job(conn, job.parent_job_id)
        if not artifacts and workspaces.open(job.parent_job_id) is None:
            return None
        place = version_table.position_of(conn, job, router.pipelines)
    return Inherited(parent_id=job.parent_job_id, artifacts=artifacts, deep=place is not None and place.node.deep_copy)


def clone(job: Job, source: Inherited, workspaces: Workspaces, abort: Callable[[], bool]) -> ClonedWorkspace | Outcome:
    """Make the job's workspace from its parent's; an outcome where that cannot be. `abort` says when to give up.

    Raises OSError where trying again may help.
    """
    try:
        return workspaces.clone(job.id, source.parent_id, source.artifacts, deep=source.deep, abort=abort)
    except InputLost as error:
        return Refused(error=one_line(str(error)))
    except Aborted:
        return stopped()


def complete(job: Job, source: Inherited | None, outcome: Succeeded, workspaces: Workspaces,
             abort: Callable[[], bool]) -> tuple[Outcome, tuple[str, ...]]:
    """Bring the files of a success to the disk and seal them. Return it with their list, and warnings, a line each.

    Another outcome where that cannot be: then nothing of the attempt counts but what its response keeps in any case.
    """
    parent_id, before = (None, {}) if source is None else (source.parent_id, source.artifacts)
    try:
        completed = workspaces.complete(job.id, parent_id, before, abort=abort)
    except ChangedInPlace as error:
        return overruled(outcome, Refused, one_line(str(error))), ()
    except OSError as error:
        where = without_place(os.fspath(error.filename or "its workspace"), job, workspaces)
        return overruled(outcome, Failed, one_line(f"its files could not be kept: {error.strerror}: {where}")), ()
    except Aborted:
        return replace(stopped(), response=outcome.response, exit_code=outcome.exit_code, stderr=outcome.stderr,
                       is_overruled=True), ()
    return replace(outcome, artifacts=completed.artifacts), completed.warnings


def without_place(text: str, job: Job, workspaces: Workspaces) -> str:
    """Return a text with paths into the job's workspace, and its parent's, as portable ones."""
    for job_id in (job.id, job.parent_job_id):
        if job_id is not None:
            text = to_portable(text, os.fspath(workspaces.root / job_id))
    return text


def stopped() -> Interrupted:
    """Return how an attempt ends that a stop of the daemon has overtaken."""
    return Interrupted(by="stop", error="interrupted by a stop of the daemon")
