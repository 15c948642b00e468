"""Runs one job at a time: starts it, drives it to its end, writes its result, and loses none of it on the way."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from ductile.clock import Clock
from ductile.db import NotWritten, database_errors, path_of
from ductile.dispatch import attempt, job_workspace, transactions
from ductile.dispatch.attempt import AttemptEnd, NotNow
from ductile.dispatch.conclude import Conclusion, Rules
from ductile.dispatch.job_workspace import Inherited
from ductile.dispatch.outcome import CANCELLED, Cancelled, Failed, Outcome, Succeeded, Unrunnable, overruled
from ductile.dispatch.report import report_end
from ductile.dispatch.run_lock import RunLocks
from ductile.dispatch.runner import Run
from ductile.dispatch.transactions import Claimed
from ductile.dispatch.worker import Worker
from ductile.errors import DuctileError
from ductile.injected import Chance, NewId
from ductile.log import Component
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.queue import job_table
from ductile.queue.job import Job, StaleJob, Status
from ductile.runtime_config import RuntimeConfig
from ductile.workspace.manager import ClonedWorkspace, Workspaces

# A temporary shortage (memory, processes, a file being written) is retried this often, for this long.
_TEMPORARY_SECONDS = 60.0
_RETRY_SECONDS = 1.0
# Retry interval while no job can have a workspace.
_ROOT_RETRY_SECONDS = 5.0
# After so many writes without room on the disk, the job's own files are taken as the cause.
_MOST_NO_ROOM = 3
_LARGE_WORKSPACE_BYTES = 1024 * 1024
# Retry interval of a write that did not happen.
WRITE_RETRY_SECONDS = 5.0

_log = Component("dispatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A note from the worker: the output and the files of a run that has ended are dealt with."""

    end: AttemptEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloned:
    """A note from the worker: the workspace of a claimed job is cloned, or cannot be."""

    result: ClonedWorkspace | Outcome | OSError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A claimed job with the configuration that it was claimed under."""

    job: Job
    plugin: ConfiguredPlugin
    rules: Rules
    environ: Mapping[str, str]
    claimed_at: float    # monotonic
    # The worker's thread reads it: stop working on the workspace.
    aborted: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Starting:
    """The plugin is not running yet; the start is tried at `retry_at`, in monotonic seconds."""

    task: _Task
    retry_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cloning:
    """The worker clones the workspace from the parent's."""

    task: _Task
    parent: Inherited


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """The plugin runs. `parent` is what its workspace is a clone of, None for an empty one."""

    task: _Task
    parent: Inherited | None
    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class _Collecting:
    """The plugin has ended; the worker reads its output and seals or removes its files."""

    task: _Task


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """The attempt has ended, but its result is not saved. The write is retried at `retry_at`, in monotonic seconds.

    `no_room` counts the writes that failed because the disk is full.
    """

    task: _Task
    end: AttemptEnd
    ended_at: datetime
    retry_at: float
    no_room: int = 0


_State = _Starting | _Cloning | _Running | _Collecting | _Ended


class Dispatcher:
    """Runs one job at a time. Only work on files that may take long happens outside the loop's thread."""

    def __init__(self, conn: sqlite3.Connection, *, clock: Clock, rng: Chance, new_id: NewId, locks: RunLocks,
                 workspaces: Workspaces, post: Callable[[Collected | Cloned | BaseException], None]) -> None:
        self._conn = conn
        self._clock = clock
        self._rng = rng
        self._new_id = new_id
        self._locks = locks
        self._workspaces = workspaces
        self._worker = Worker(post)
        self._state: _State | None = None         # None while no job is claimed
        self._root_fault: str | None = None       # why no job can have a workspace, as last reported
        self.root_retry_at: float | None = None   # monotonic: when to check that again
        self._to_finalize: list[tuple[Job, bool]] = []    # jobs whose workspaces are to be kept, or removed
        self._large_state: set[str] = set()       # plugins whose large state has been reported
        self.blocked: set[str] = set()            # ids of jobs with live processes of an earlier run
        # Since the daemon last took them: plugins that got jobs, and plugins whose `init` has ended, by fingerprint.
        self.received_jobs: set[str] = set()
        self.inits: set[tuple[str, str]] = set()

    @property
    def job(self) -> Job | None:
        """The job that runs, or whose result is not saved yet."""
        return None if self._state is None else self._state.task.job

    @property
    def is_unsaved(self) -> bool:
        """Whether the result of an attempt could not be saved and is retried; any thread may ask."""
        return isinstance(self._state, _Ended)

    @property
    def retry_at(self) -> float | None:
        """The monotonic time at which `retry_pending` has something to do."""
        return self._state.retry_at if isinstance(self._state, _Starting | _Ended) else None

    @property
    def descriptors(self) -> Collection[int]:
        """The running plugin's descriptors, to poll for input."""
        return self._state.run.descriptors if isinstance(self._state, _Running) else ()

    def seconds_left(self) -> float | None:
        """Return after how many seconds the running plugin has a deadline, None if there is none."""
        return self._state.run.seconds_left() if isinstance(self._state, _Running) else None

    def open(self) -> None:
        """Start the worker. Raises DuctileError (71)."""
        self._worker.start()

    def start_next(self, runtime: RuntimeConfig) -> bool:
        """Claim and start the next job that may run. Return whether there was one. Raises NotWritten."""
        now = self._clock.now()
        self.root_retry_at = None
        if not transactions.is_any_ready(self._conn, plugins=runtime.runnable, blocked=self.blocked, now=now):
            return False
        if not self.has_root():
            self.root_retry_at = self._clock.monotonic() + _ROOT_RETRY_SECONDS
            return False
        claimed = transactions.claim(self._conn, plugins=runtime.runnable, blocked=self.blocked,
                                     dedupe_ttl=runtime.config.service.dedupe_ttl, now=now)
        return self._begin(claimed, runtime)

    def _begin(self, claimed: Claimed, runtime: RuntimeConfig) -> bool:
        """Start the claimed job. Return whether there was one."""
        for duplicate, earlier in claimed.duplicates:
            _log.info("job deduped", job_id=duplicate.id, plugin=duplicate.plugin, dedupe_key=duplicate.dedupe_key,
                      earlier_job_id=earlier)
        job = claimed.job
        if job is None:
            return False
        now = self._clock.monotonic()
        task = _Task(job=job, plugin=runtime.plugins[job.plugin], rules=transactions.rules_for(runtime, job.plugin),
                     environ=runtime.environ, claimed_at=now)
        self._state = _Starting(task=task, retry_at=now)
        _log.info("job started", job_id=job.id, plugin=job.plugin, command=job.command, attempt=job.attempt,
                  submitted_by=job.submitted_by)
        self._start(task)
        return True

    def has_root(self) -> bool:
        """Return whether jobs can have workspaces. Their directory is created again if it is gone.

        Without it no job starts, and none uses an attempt. Each reason is reported once.
        """
        fault = self._workspaces.fault()
        if fault is not None:
            try:
                self._workspaces.make_root()
            except DuctileError:
                if fault != self._root_fault:
                    self._root_fault = fault
                    _log.error("no job can start; trying again", error=fault)
                return False
            _log.error("workspace directory created again", error=fault)
        elif self._root_fault is not None:
            _log.info("jobs can have workspaces again")
        self._root_fault = None
        return True

    def retry_pending(self) -> None:
        """Try the start of the job, or the write of its result, again if that is due."""
        state = self._state
        if isinstance(state, _Starting | _Ended) and self._clock.monotonic() >= state.retry_at:
            if isinstance(state, _Ended):
                self._save(state, None)
            else:
                self._start(state.task)

    def drive(self, ready: Collection[int], next_in: RuntimeConfig | None) -> None:
        """Read the running plugin's `ready` descriptors, keep its deadlines, and finish its job if it has ended.

        With `next_in`, claim the next job under that configuration in the same commit.
        """
        state = self._state
        if not isinstance(state, _Running):
            return
        state.run.on_ready(ready)
        state.run.on_time()
        facts = state.run.facts
        if facts is None:
            return
        task = state.task

        def collect(*, is_empty: bool) -> AttemptEnd:
            return attempt.ended(facts, task.job, task.plugin.settings.timeout(task.job.command), parent=state.parent,
                                 workspaces=self._workspaces, locks=self._locks, aborted=task.aborted.is_set,
                                 is_empty=is_empty)

        if state.parent is None and attempt.is_quick(facts, task.job, self._workspaces):
            self._end(task, collect(is_empty=True), next_in)
        else:
            self._state = _Collecting(task=task)
            self._worker.submit(lambda: Collected(end=collect(is_empty=False)))

    def on_collected(self, note: Collected, next_in: RuntimeConfig | None) -> None:
        """Finish the job, with `next_in` as for `drive`."""
        assert isinstance(self._state, _Collecting)
        self._end(self._state.task, note.end, next_in)

    def on_cloned(self, note: Cloned) -> None:
        """Start the plugin in its cloned workspace, or end the job if there is none."""
        state, result = self._state, note.result
        assert isinstance(state, _Cloning)
        task = state.task
        if isinstance(result, ClonedWorkspace):
            for warning in result.warnings:
                _log.warn("workspace clone incomplete", job_id=task.job.id, plugin=task.job.plugin, warning=warning)
            self._spawn(task, state.parent, result.path)
        elif isinstance(result, OSError):
            self._on_start_error(task, result)
        else:
            self._end_unstarted(task, result)

    def interrupt(self) -> None:
        """End the running plugin as at its deadline. Its job goes back to the queue."""
        self._cut_short("stop", job_workspace.stopped())

    def obey_cancel(self) -> None:
        """End the running plugin as at its deadline if an operator cancels its job. Raises NotWritten."""
        job = self.job
        if job is not None:
            with database_errors(self._conn):
                is_requested = job_table.is_cancel_requested(self._conn, job.id)
            if is_requested:
                _log.info("cancelling the running job", job_id=job.id, plugin=job.plugin)
                self._cut_short("cancel", Cancelled(error=CANCELLED))

    def _cut_short(self, by: Literal["stop", "cancel"], outcome: Outcome) -> None:
        state = self._state
        if state is None or isinstance(state, _Ended):
            return
        if by == "cancel" and isinstance(state, _Collecting):
            # The plugin has ended; if it succeeded, that came first.
            return
        state.task.aborted.set()
        if isinstance(state, _Running):
            state.run.end(by)
        elif isinstance(state, _Starting):
            self._end_unstarted(state.task, outcome)

    def close(self) -> None:
        """End the running plugin and the worker, without a write: the next start recovers the job."""
        if self._state is not None:
            self._state.task.aborted.set()
            if isinstance(self._state, _Running):
                self._state.run.end()
                self._state.run.wait()
        self._worker.close()

    def finalize_workspaces(self) -> None:
        """Finalize the workspaces of successes. This happens while the next plugin runs."""
        while self._to_finalize:
            job, keep = self._to_finalize.pop()
            fault = attempt.cleanup_workspace(self._workspaces, job, keep=keep)
            if fault is not None:
                _log.warn("workspace not tidied up after its job", job_id=job.id, plugin=job.plugin, error=fault)

    def _start(self, task: _Task) -> None:
        """Start the plugin, or have the worker clone the job's workspace first: that may take long."""
        try:
            parent = job_workspace.inherited(self._conn, task.job, task.rules.routing.router, self._workspaces)
        except NotWritten as error:
            self._start_later(task, str(error))
            return
        except OSError as error:
            self._on_start_error(task, error)
            return
        if parent is None:
            self._spawn(task, None, None)
        else:
            self._state = _Cloning(task=task, parent=parent)
            self._worker.submit(lambda: self._clone(task, parent))

    def _clone(self, task: _Task, parent: Inherited) -> Cloned:
        """Clone a workspace, in the worker's thread."""
        try:
            return Cloned(result=job_workspace.clone(task.job, parent, self._workspaces, task.aborted.is_set))
        except OSError as error:
            return Cloned(result=error)

    def _on_start_error(self, task: _Task, error: OSError) -> None:
        try:
            outcome = attempt.not_started(error, os.fspath(error.filename or "its workspace"), task.job,
                                          self._workspaces)
        except NotNow as temporary:
            self._start_later(task, str(temporary))
        else:
            self._end_unstarted(task, outcome)

    def _spawn(self, task: _Task, parent: Inherited | None, cloned: Path | None) -> None:
        if task.aborted.is_set():
            self._end_unstarted(task, job_workspace.stopped())
            return
        job = task.job
        try:
            inputs = transactions.read_inputs(self._conn, job, task.rules.routing.router.pipelines)
            started = attempt.start(job, task.plugin, inputs, environ=task.environ, cloned=cloned,
                                    workspaces=self._workspaces, locks=self._locks, now=self._clock.now())
        except (NotNow, NotWritten) as error:
            self._start_later(task, str(error))
            return
        if not isinstance(started, Run):
            self._end_unstarted(task, started)
            return
        _log.debug("plugin spawned", job_id=job.id, plugin=job.plugin, pid=started.pid)
        self._state = _Running(task=task, parent=parent, run=started)

    def _start_later(self, task: _Task, why: str) -> None:
        now = self._clock.monotonic()
        if not self.has_root():
            # Not the plugin's fault, however long it lasts.
            self._state = _Starting(task=task, retry_at=now + _ROOT_RETRY_SECONDS)
        elif now - task.claimed_at >= _TEMPORARY_SECONDS:
            self._end_unstarted(task, Unrunnable(error=why))
        else:
            _log.warn("job not started yet", job_id=task.job.id, plugin=task.job.plugin, error=why)
            self._state = _Starting(task=task, retry_at=now + _RETRY_SECONDS)

    def _end_unstarted(self, task: _Task, outcome: Outcome) -> None:
        end = attempt.unstarted(outcome, task.job, workspaces=self._workspaces, locks=self._locks)
        self._end(task, end, None)

    def _end(self, task: _Task, end: AttemptEnd, next_in: RuntimeConfig | None) -> None:
        ended = _Ended(task=task, end=end, ended_at=self._clock.now(), retry_at=self._clock.monotonic())
        self._save(ended, next_in)

    def _save(self, ended: _Ended, next_in: RuntimeConfig | None) -> None:
        """Write the result of the job. A result that cannot be written stays in memory and is retried."""
        task, end = ended.task, ended.end
        job = task.job
        if not end.proved_dead:
            self.blocked.add(job.id)
        if self._workspaces.fault() is not None:
            next_in = None
        try:
            conclusion, claimed = self._write(ended, next_in)
        except NotWritten as error:
            _log.error("job result not saved, retrying", job_id=job.id, plugin=job.plugin, error=str(error))
            self._state = self._unsaved(ended, error)
            return
        except StaleJob as error:
            self._state = None
            self._locks.remove_stderr(job.id)
            _log.error("job result dropped: another program has changed the job's row", job_id=job.id,
                       error=str(error))
            return
        self._state = None
        self._locks.remove_stderr(job.id)
        self.received_jobs.update(each.job.plugin for each in conclusion.jobs)
        if conclusion.status is Status.QUEUED:
            self.received_jobs.add(job.plugin)
        if conclusion.init is not None:
            self.inits.add((job.plugin, conclusion.init.fingerprint))
        if isinstance(end.outcome, Succeeded):
            # `conclude` may still have refused it for exceeding a limit.
            self._to_finalize.append((job, conclusion.status is Status.SUCCEEDED))
        report_end(job, end, conclusion, self._clock.monotonic() - task.claimed_at, self._large_state)
        if next_in is not None:
            self._begin(claimed, next_in)

    def _unsaved(self, ended: _Ended, error: NotWritten) -> _Ended:
        """Return the state after a failed write.

        If the job's own files leave no room for its result, remove them and let the attempt fail.
        """
        no_room = ended.no_room + error.is_full
        later = replace(ended, no_room=no_room, retry_at=self._clock.monotonic() + WRITE_RETRY_SECONDS)
        job, outcome = ended.task.job, ended.end.outcome
        if no_room != _MOST_NO_ROOM or not isinstance(outcome, Succeeded) or not attempt.fills_the_disk(
                Path(path_of(self._conn)), job, self._workspaces, _LARGE_WORKSPACE_BYTES):
            return later
        fault = attempt.cleanup_workspace(self._workspaces, job, keep=False)
        failed = overruled(outcome, Failed, "its workspace left no room for its own result")
        end = replace(ended.end, outcome=failed, workspace_fault=fault, warnings=())
        return replace(later, end=end, retry_at=self._clock.monotonic())

    def _write(self, ended: _Ended, next_in: RuntimeConfig | None) -> tuple[Conclusion, Claimed]:
        job, outcome, rules = ended.task.job, ended.end.outcome, ended.task.rules
        if next_in is None:
            conclusion = transactions.finish(self._conn, job, outcome, rules, now=ended.ended_at, rng=self._rng,
                                             new_id=self._new_id)
            return conclusion, Claimed(job=None)
        return transactions.finish_and_claim(
            self._conn, job, outcome, rules, plugins=next_in.runnable, blocked=self.blocked,
            dedupe_ttl=next_in.config.service.dedupe_ttl, ended_at=ended.ended_at, now=self._clock.now(),
            rng=self._rng, new_id=self._new_id,
        )
