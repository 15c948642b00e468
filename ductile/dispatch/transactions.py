"""A job's three meetings with the database, and what is made ready between them."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ductile import submit
from ductile.db import database_errors, path_of, transaction
from ductile.dispatch.conclude import Before, Conclusion, Rules, conclude
from ductile.dispatch.followups import FollowUp
from ductile.dispatch.job_workspace import Inherited, complete, without_place
from ductile.dispatch.outcome import Interrupted, Outcome, Refused, Succeeded, Unrunnable, classify
from ductile.dispatch.result_record import Delivery, encode_result
from ductile.dispatch.run_lock import JOB_ID_VARIABLE, RunLocks
from ductile.dispatch.runner import Launch, Run
from ductile.injected import Chance, NewId
from ductile.pipeline import version_table
from ductile.plugin import plugin_table
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.plugin.entrypoint import changed, interpreter_fault
from ductile.protocol import encode_request
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job, Status, Submitter
from ductile.routing import context_table
from ductile.routing.baggage import visible
from ductile.routing.portable_paths import from_portable
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import CLOSED
from ductile.state import state_table
from ductile.text import one_line
from ductile.units import utc_text
from ductile.workspace import artifact_table
from ductile.workspace.manager import Workspaces

# What every plugin gets of the daemon's environment; the rest, secrets among it, stays out.
_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR")

# The machine lacks something for the moment, or the plugin's file is just being written.
_PASSING = {errno.EAGAIN, errno.ENOMEM, errno.ETXTBSY, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a claim gave: the job that now runs, if any, and the duplicates passed over with the job they repeat."""

    job: Job | None
    duplicates: tuple[tuple[Job, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a waiter reports: how the attempt ended, whether nothing of it lives, and what its workspace met.

    `workspace_fault` is what could not be removed, `warnings` what was odd among the files of a success.
    """

    outcome: Outcome
    proved_dead: bool
    workspace_fault: str | None = None
    warnings: tuple[str, ...] = ()


class NotNow(Exception):
    """The plugin cannot be started for a reason that passes by itself."""


def is_any_ready(conn: sqlite3.Connection, *, plugins: Iterable[str], held: Iterable[str], now: datetime) -> bool:
    """Say whether `claim` may find a job: reading alone, so that looking in vain takes no lock."""
    retry_at = job_table.next_retry_at(conn)
    return (retry_at is not None and retry_at <= now) or job_table.next_ready(conn, plugins, held) is not None


def claim(conn: sqlite3.Connection, *, plugins: Iterable[str], held: Iterable[str], dedupe_ttl: int,
          now: datetime) -> Claimed:
    """Mark the next job as running, in one transaction, and end as `deduped` those that have become duplicates.

    `held` are ids of jobs that may not start yet. The commit is not synced: a job whose claim a power
    failure undoes is queued still. Raises what `transaction` raises.
    """
    with transaction(conn, synced=False):
        return _claim(conn, list(plugins), list(held), dedupe_ttl, now)


def _claim(conn: sqlite3.Connection, plugins: list[str], held: list[str], dedupe_ttl: int, now: datetime) -> Claimed:
    """Do what `claim` does, in the caller's transaction."""
    since = now - timedelta(seconds=dedupe_ttl)
    duplicates: list[tuple[Job, str]] = []
    job_table.release_due_retries(conn, now)
    while (job := job_table.next_ready(conn, plugins, held)) is not None:
        earlier = None
        if job.dedupe_key is not None and job.replay_of is None:
            earlier = job_table.succeeded_with_key(conn, job, since)
        if earlier is None:
            job_table.move(conn, job, Status.RUNNING, now, error=job.last_error)
            running = replace(job, status=Status.RUNNING, started_at=now)
            return Claimed(job=running, duplicates=tuple(duplicates))
        job_table.move(conn, job, Status.DEDUPED, now, error=f"duplicate of job {earlier}")
        duplicates.append((job, earlier))
    return Claimed(job=None, duplicates=tuple(duplicates))


def start(conn: sqlite3.Connection, job: Job, plugin: ConfiguredPlugin, *, environ: Mapping[str, str],
          workspaces: Workspaces, cloned: Path | None, locks: RunLocks, now: datetime) -> Run | Refused | Unrunnable:
    """Start a claimed job's plugin; an outcome where that cannot be done.

    Its workspace is the one that was `cloned` for it, None for a new and empty one. All of it can be done again.
    Raises NotNow, or what `reading` raises, where trying again soon may help.
    """
    command = plugin.plugin.manifest.commands.get(job.command)
    if command is None:
        # No attempt gives it the command: it takes a reload, and then the operator's `retry`.
        return Refused(error=f"plugin {job.plugin} {plugin.version} has no command {job.command!r}")
    try:
        why = changed(plugin.plugin.program)
        if why is not None:
            return Unrunnable(error=one_line(f"could not be started: {why}"))
        lock = locks.take()
        try:
            workspace = cloned or workspaces.create(job.id)
            return Run(_launch(conn, job, plugin, environ=environ, workspace=workspace, lock=lock, now=now))
        finally:
            os.close(lock)
    except OSError as error:
        return not_started(error, os.fspath(error.filename or plugin.plugin.entrypoint), job, workspaces)


def not_started(error: OSError, where: str, job: Job, workspaces: Workspaces) -> Unrunnable:
    """Return the outcome of a start that met an error. Raises NotNow where trying again soon may help."""
    why = interpreter_fault(Path(where)) if error.errno == errno.ENOENT else None
    text = one_line(f"could not be started: {why or error.strerror}: {without_place(where, job, workspaces)}")
    if error.errno in _PASSING or workspaces.fault() is not None:
        raise NotNow(text) from error
    return Unrunnable(error=text)


def _launch(conn: sqlite3.Connection, job: Job, plugin: ConfiguredPlugin, *, environ: Mapping[str, str],
            workspace: Path, lock: int, now: datetime) -> Launch:
    timeout = plugin.settings.timeout(job.command)
    event = None if job.payload is None else json.loads(job.payload)
    told: Mapping[str, Any] = {}
    with database_errors(conn):
        state = state_table.get(conn, job.plugin)
        if job.event_context_id is not None:
            told = context_table.get(conn, job.event_context_id).accumulated
            event["payload"] = visible(told, event["payload"])
    here = os.fspath(workspace)
    request = encode_request(
        protocol=plugin.plugin.manifest.protocol, job_id=job.id, command=job.command, config=plugin.settings.config,
        state=from_portable(state, here), event=from_portable(event, here), context=from_portable(told, here),
        deadline_at=utc_text(now + timedelta(seconds=timeout)), workspace_dir=here,
    )
    return Launch(
        entrypoint=plugin.plugin.entrypoint, cwd=workspace, stdin=request, timeout=timeout, keep_open=lock,
        environ=plugin_environment(environ, plugin, job_id=job.id, attempt=job.attempt, workspace=workspace),
    )


def plugin_environment(environ: Mapping[str, str], plugin: ConfiguredPlugin, *, job_id: str, attempt: int,
                       workspace: Path) -> dict[str, str]:
    """Return a plugin's environment: a few variables of ours, those it is configured to have, and its own."""
    names = {*_PASSED_ON, *plugin.settings.env}
    passed = {name: value for name, value in environ.items() if name in names or name.startswith("LC_")}
    return passed | {
        JOB_ID_VARIABLE: job_id, "DUCTILE_ATTEMPT": str(attempt), "DUCTILE_PLUGIN": plugin.settings.name,
        "DUCTILE_WORKSPACE": os.fspath(workspace),
    }


def attend(run: Run, job: Job, timeout: int, *, source: Inherited | None, workspaces: Workspaces, locks: RunLocks,
           abort: Callable[[], bool]) -> Ended:
    """Wait for a run, see to the files of a success, and clear away what a failed one leaves.

    Called in the waiter's thread; the database is not touched. `source` is what its workspace is a clone of, None
    where it began empty; `abort` says when to give up. The workspace of a success is settled when the ledger has it.
    """
    locks.mark(job.id, run.pid)
    outcome = classify(run.wait(), timeout=timeout, workspace_dir=os.fspath(workspaces.root / job.id))
    warnings: tuple[str, ...] = ()
    if isinstance(outcome, Succeeded):
        outcome, warnings = complete(job, source, outcome, workspaces, abort)
    fault = None if isinstance(outcome, Succeeded) else cleanup_workspace(workspaces, job, keep=False)
    return Ended(outcome=outcome, proved_dead=locks.release(job.id), workspace_fault=fault, warnings=warnings)


def cleanup_workspace(workspaces: Workspaces, job: Job, *, keep: bool) -> str | None:
    """Keep the workspace of a success, remove any other. Return what could not be done: it changes no outcome."""
    try:
        if keep:
            workspaces.keep(job.id)
        else:
            workspaces.cleanup(job.id)
    except OSError as error:
        return one_line(f"{error.strerror}: {without_place(os.fspath(error.filename or job.id), job, workspaces)}")
    return None


def fills_the_disk(conn: sqlite3.Connection, job: Job, workspaces: Workspaces, least: int) -> bool:
    """Say whether a job's workspace is on the database's file system, and would free `least` bytes of it."""
    try:
        here = workspaces.open(job.id)
        return (here is not None and here.stat().st_dev == os.stat(path_of(conn)).st_dev
                and workspaces.frees(job.id, least))
    except OSError:
        # What cannot be looked at is no proof.
        return False


def finish(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules, *, now: datetime, rng: Chance,
           new_id: NewId) -> Conclusion:
    """Commit everything that follows from an attempt, or nothing.

    Raises StaleJob where the job's row is not the one that was claimed, and what `transaction` raises.
    """
    with transaction(conn):
        return _finish(conn, job, outcome, rules, now=now, rng=rng, new_id=new_id)


def finish_and_claim(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules, *, plugins: Iterable[str],
                     held: Iterable[str], dedupe_ttl: int, ended_at: datetime, now: datetime, rng: Chance,
                     new_id: NewId) -> tuple[Conclusion, Claimed]:
    """`finish` a job that ended at `ended_at` and `claim` the next, in one transaction.

    Where jobs wait in a row, this is one commit for each instead of two. Raises what `finish` raises.
    """
    with transaction(conn):
        conclusion = _finish(conn, job, outcome, rules, now=ended_at, rng=rng, new_id=new_id)
        return conclusion, _claim(conn, list(plugins), list(held), dedupe_ttl, now)


def _finish(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules, *, now: datetime, rng: Chance,
            new_id: NewId) -> Conclusion:
    """Read, decide, write, in the caller's transaction. The writes have no `if` but "is there any"."""
    before = _read(conn, job, outcome, rules)
    conclusion = conclude(job, outcome, before, rules, now=now, rng=rng, new_id=new_id)
    # First of the writes: of a row that is gone the others would only say that a constraint failed.
    job_table.move(conn, job, conclusion.status, now, attempt=conclusion.attempt, error=conclusion.error,
                    max_attempts=conclusion.max_attempts, retry_at=conclusion.retry_at)
    if conclusion.state is not None:
        state_table.put(conn, job.plugin, conclusion.state, now)
    if conclusion.breaker is not None:
        schedule_table.put_breaker(conn, job.plugin, job.command, conclusion.breaker, now)
    if conclusion.init is not None:
        plugin_table.put_init(conn, job.plugin, fingerprint=conclusion.init.fingerprint, ok=conclusion.init.ok,
                             job_id=job.id, now=now)
    ways = tuple(_submit(conn, each, rules.ways.dedupe_ttl, now) for each in conclusion.jobs)
    counted = ways if conclusion.status is Status.SUCCEEDED else None
    result = None if conclusion.response is None else encode_result(conclusion.response, counted, conclusion.warnings)
    attempt_table.append(conn, job, conclusion.log, result)
    artifact_table.add(conn, job.id, conclusion.artifacts)
    return replace(conclusion, ways=ways)


def _submit(conn: sqlite3.Connection, each: FollowUp, dedupe_ttl: int, now: datetime) -> Delivery:
    """Queue a job that follows; say what became of it."""
    submitted = submit.submit(conn, each.job, context=each.context, dedupe_ttl=dedupe_ttl, now=now)
    return Delivery(event=each.event, plugin=each.job.plugin, step_id=each.job.step_id, dedupe_key=each.job.dedupe_key,
               job_id=submitted.job_id, is_new=submitted.is_new)


def _read(conn: sqlite3.Connection, job: Job, outcome: Outcome, rules: Rules) -> Before:
    """Read what the conclusion will look at, and nothing else: each statement counts when a queue is drained."""
    has_updates = outcome.response is not None and outcome.response.state_updates
    scheduled = job.submitted_by is Submitter.SCHEDULER
    return Before(
        state=state_table.get(conn, job.plugin) if has_updates else {},
        breaker=schedule_table.breaker(conn, job.plugin, job.command) if scheduled else CLOSED,
        cut_short=attempt_table.cut_short(conn, job.id) if isinstance(outcome, Interrupted) else 0,
        context=None if job.event_context_id is None else context_table.get(conn, job.event_context_id),
        place=version_table.position_of(conn, job, rules.ways.router.pipelines),
    )
