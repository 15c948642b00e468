"""The one job that runs: started, attended, finished, and nothing of it forgotten on the way."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ductile.clock import Clock
from ductile.db import NotWritten
from ductile.dispatch import job_workspace, transactions
from ductile.dispatch.conclude import Conclusion, Rules
from ductile.dispatch.job_workspace import Inherited
from ductile.dispatch.outcome import Failed, Outcome, Succeeded, Unrunnable, overruled
from ductile.dispatch.recovery import rules_for
from ductile.dispatch.report import report_end
from ductile.dispatch.run_lock import RunLocks
from ductile.dispatch.runner import Run
from ductile.dispatch.transactions import Claimed, Ended, NotNow
from ductile.dispatch.waiter import Waiter
from ductile.errors import DuctileError
from ductile.injected import Chance, NewId
from ductile.log import Component
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.queue.job import Job, StaleJob, Status
from ductile.runtime_config import RuntimeConfig
from ductile.workspace.manager import ClonedWorkspace, Workspaces

# How long a passing lack (memory, processes, a file being written) is waited out, and how often it is tried.
_PASSING_SECONDS = 60.0
_AGAIN_SECONDS = 1.0
# While no job can have a workspace.
_ROOT_AGAIN_SECONDS = 5.0
# So often a result is tried to be written before the job's own files are taken for what fills the disk.
_MOST_NO_ROOM = 3
_LARGE_WORKSPACE_BYTES = 1024 * 1024
# After a write that did not happen.
WRITE_AGAIN_SECONDS = 5.0

_log = Component("dispatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A waiter's note: a run has ended."""

    job_id: str
    ended: Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloned:
    """A waiter's note: the workspace of a claimed job has been made, or could not be."""

    made: ClonedWorkspace | Outcome | OSError


@dataclass(slots=True, kw_only=True)
class _Current:
    """The job between its claim and its finish, under the configuration that it was claimed with."""

    job: Job
    plugin: ConfiguredPlugin
    rules: Rules
    claimed: float                     # monotonic seconds
    environ: Mapping[str, str]
    source: Inherited | None = None    # what its workspace is a clone of
    is_cloning: bool = False
    is_given_up: bool = False          # set here and read by the waiter's thread: no more work on its workspace
    run: Run | None = None
    again_at: float | None = None      # monotonic: when to start or to finish it again
    ended: Ended | None = None         # how it ended, from then until the ledger has it
    ended_at: datetime | None = None
    no_room: int = 0                   # how often the disk had no room for its row


class Dispatcher:
    """Runs one job at a time. All but the waiter's thread happens in the loop's."""

    def __init__(self, conn: sqlite3.Connection, *, clock: Clock, rng: Chance, new_id: NewId, locks: RunLocks,
                 workspaces: Workspaces, post: Callable[[Finished | Cloned | BaseException], None]) -> None:
        self._conn = conn
        self._clock = clock
        self._rng = rng
        self._new_id = new_id
        self._locks = locks
        self._workspaces = workspaces
        self._waiter = Waiter(post)
        self._current: _Current | None = None
        self._root_fault: str | None = None       # why no job can have a workspace, as it was last reported
        self.root_again_at: float | None = None   # monotonic: when to look at that again
        self._untidy: list[tuple[Job, bool]] = []    # whose workspaces are still to be kept, or not
        self.held: set[str] = set()
        self.followed: set[str] = set()    # plugins that got jobs since it was last seen to that they may run
        self.inits: set[tuple[str, str]] = set()   # plugins and the fingerprints whose `init` has ended since then

    @property
    def job(self) -> Job | None:
        """The job that runs, or that has ended and is not yet in the ledger."""
        return self._current and self._current.job

    @property
    def unwritten(self) -> bool:
        """Say whether an attempt has ended that the ledger does not have yet."""
        return self._current is not None and self._current.ended is not None

    @property
    def waits_to_write(self) -> bool:
        """Say whether the end of an attempt could not be written and is tried again later; any thread may ask."""
        current = self._current
        return current is not None and current.ended is not None and current.again_at is not None

    @property
    def again_at(self) -> float | None:
        """Return the monotonic time at which `go_on` has something to do."""
        return self._current and self._current.again_at

    def start_next(self, runtime: RuntimeConfig) -> bool:
        """Claim and start the next job that may run. Return whether there was one. Raises NotWritten."""
        now = self._clock.now()
        self.root_again_at = None
        if not transactions.is_any_ready(self._conn, plugins=runtime.runnable, held=self.held, now=now):
            return False
        if not self.has_root():
            self.root_again_at = self._clock.monotonic() + _ROOT_AGAIN_SECONDS
            return False
        claimed = transactions.claim(self._conn, plugins=runtime.runnable, held=self.held,
                                  dedupe_ttl=runtime.config.service.dedupe_ttl, now=now)
        return self._begin(claimed, runtime)

    def _begin(self, claimed: Claimed, runtime: RuntimeConfig) -> bool:
        """Start what was claimed. Return whether there was a job."""
        for job, earlier in claimed.duplicates:
            _log.info("job deduped", job_id=job.id, plugin=job.plugin, dedupe_key=job.dedupe_key,
                      earlier_job_id=earlier)
        job = claimed.job
        if job is None:
            return False
        self._current = _Current(
            job=job, plugin=runtime.plugins[job.plugin], rules=rules_for(runtime, job.plugin), environ=runtime.environ,
            claimed=self._clock.monotonic(),
        )
        _log.info("job started", job_id=job.id, plugin=job.plugin, command=job.command, attempt=job.attempt,
                  submitted_by=job.submitted_by)
        self._start()
        return True

    def has_root(self) -> bool:
        """Say whether jobs can have workspaces; their directory is created again where it is gone.

        Otherwise no job is started, and none uses an attempt. Each reason is reported once.
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

    def go_on(self) -> None:
        """Try again what could not be done before: the start of the job, or its row in the ledger."""
        current = self._current
        if current is None or current.again_at is None or self._clock.monotonic() < current.again_at:
            return
        current.again_at = None
        if current.ended is not None:
            self._finish(None)
        else:
            self._start()

    def note(self, finished: Finished, next_in: RuntimeConfig | None) -> None:
        """Take a waiter's note and finish the job; with `next_in`, claim the next by that world in the same commit."""
        self._end(finished.ended, next_in)

    def interrupt(self) -> None:
        """End the running plugin as at its deadline; its job will go back to the queue."""
        current = self._current
        if current is None or current.ended is not None:
            return
        current.is_given_up = True
        if current.run is not None:
            current.run.end()
        elif not current.is_cloning:
            self._end_unstarted(job_workspace.stopped())

    def close(self) -> None:
        """End the running plugin, if any, and the waiter, with no word to the ledger: a start recovers the job."""
        if self._current is not None:
            self._current.is_given_up = True
            if self._current.run is not None:
                self._current.run.end()
        self._waiter.close()

    def tidy(self) -> None:
        """Settle the workspaces of successes: what can be done while the next plugin runs is done then."""
        while self._untidy:
            job, keep = self._untidy.pop()
            fault = transactions.cleanup_workspace(self._workspaces, job, keep=keep)
            if fault is not None:
                _log.warn("workspace not settled", job_id=job.id, plugin=job.plugin, error=fault)

    def _start(self) -> None:
        """Start the claimed job, or have its workspace cloned first: that may take long, so the waiter does it."""
        current = self._current
        try:
            # First of all: a plugin that was started has to be attended to.
            self._waiter.start()
            current.source = job_workspace.inherited(self._conn, current.job, current.rules.ways.router, self._workspaces)
        except NotWritten as error:
            self._start_later(current, str(error))
            return
        except OSError as error:
            self._start_later_or_never(error)
            return
        if current.source is None:
            self._spawn(None)
        else:
            current.is_cloning = True
            self._waiter.attend(lambda: self._clone(current))

    def _clone(self, current: _Current) -> Cloned:
        """Clone a workspace, in the waiter's thread."""
        try:
            return Cloned(made=job_workspace.clone(current.job, current.source, self._workspaces,
                                              lambda: current.is_given_up))
        except OSError as error:
            return Cloned(made=error)

    def note_clone(self, cloned: Cloned) -> None:
        """Take a waiter's note and start the plugin in its workspace, or end the job where there is none."""
        current, made = self._current, cloned.made
        current.is_cloning = False
        if isinstance(made, ClonedWorkspace):
            for warning in made.warnings:
                _log.warn("workspace cloned", job_id=current.job.id, plugin=current.job.plugin, warning=warning)
            self._spawn(made.path)
        elif isinstance(made, OSError):
            self._start_later_or_never(made)
        else:
            self._end_unstarted(made)

    def _start_later_or_never(self, error: OSError) -> None:
        current = self._current
        try:
            outcome = transactions.not_started(error, os.fspath(error.filename or "its workspace"), current.job,
                                            self._workspaces)
        except NotNow as passing:
            self._start_later(current, str(passing))
        else:
            self._end_unstarted(outcome)

    def _spawn(self, cloned: Path | None) -> None:
        current = self._current
        now = self._clock.now()
        if current.is_given_up:
            self._end_unstarted(job_workspace.stopped())
            return
        try:
            started = transactions.start(self._conn, current.job, current.plugin, environ=current.environ, cloned=cloned,
                                      workspaces=self._workspaces, locks=self._locks, now=now)
        except (NotNow, NotWritten) as error:
            self._start_later(current, str(error))
            return
        if not isinstance(started, Run):
            self._end_unstarted(started)
            return
        _log.debug("plugin spawned", job_id=current.job.id, plugin=current.job.plugin, pid=started.pid)
        current.run = started
        self._waiter.attend(lambda: self._attend(current, started))

    def _start_later(self, current: _Current, why: str) -> None:
        now = self._clock.monotonic()
        if not self.has_root():
            # No fault of the plugin's, however long it lasts.
            current.again_at = now + _ROOT_AGAIN_SECONDS
            return
        if now - current.claimed >= _PASSING_SECONDS:
            self._end_unstarted(Unrunnable(error=why))
            return
        _log.warn("job not started yet", job_id=current.job.id, plugin=current.job.plugin, error=why)
        current.again_at = now + _AGAIN_SECONDS

    def _end_unstarted(self, outcome: Outcome) -> None:
        job = self._current.job
        fault = transactions.cleanup_workspace(self._workspaces, job, keep=False)
        self._end(Ended(outcome=outcome, proved_dead=self._locks.release(job.id), workspace_fault=fault), None)

    def _attend(self, current: _Current, run: Run) -> Finished:
        """Wait for a run, in the waiter's thread."""
        job = current.job
        ended = transactions.attend(run, job, current.plugin.settings.timeout(job.command), source=current.source,
                                 workspaces=self._workspaces, locks=self._locks, abort=lambda: current.is_given_up)
        return Finished(job_id=job.id, ended=ended)

    def _end(self, ended: Ended, next_in: RuntimeConfig | None) -> None:
        self._current.ended = ended
        self._current.ended_at = self._clock.now()
        self._finish(next_in)

    def _finish(self, next_in: RuntimeConfig | None) -> None:
        """Write the end of the job; what cannot be written stays in memory and is tried again."""
        current = self._current
        job = current.job
        if not current.ended.proved_dead:
            self.held.add(job.id)
        if self._workspaces.fault() is not None:
            next_in = None
        try:
            conclusion, claimed = self._write_end(current, next_in)
        except NotWritten as error:
            current.again_at = self._clock.monotonic() + WRITE_AGAIN_SECONDS
            _log.error("end of a job not written; it is tried again", job_id=job.id, plugin=job.plugin,
                       error=str(error))
            current.no_room += error.is_full
            if current.no_room == _MOST_NO_ROOM:
                self._make_room(current)
            return
        except StaleJob as error:
            self._current = None
            _log.error("end of a job dropped: somebody else has changed its row", job_id=job.id, error=str(error))
            return
        self._current = None
        self.followed.update(each.job.plugin for each in conclusion.jobs)
        if conclusion.status is Status.QUEUED:
            self.followed.add(job.plugin)
        if conclusion.init is not None:
            self.inits.add((job.plugin, conclusion.init.fingerprint))
        if isinstance(current.ended.outcome, Succeeded):
            # A success may still have been refused, for a limit that it overstepped.
            self._untidy.append((job, conclusion.status is Status.SUCCEEDED))
        report_end(job, current.ended, conclusion, self._clock.monotonic() - current.claimed)
        if next_in is not None:
            self._begin(claimed, next_in)

    def _make_room(self, current: _Current) -> None:
        """Remove the job's files and fail its attempt where they are what leaves no room for its own result."""
        job, outcome = current.job, current.ended.outcome
        if not isinstance(outcome, Succeeded) or not transactions.fills_the_disk(
                self._conn, job, self._workspaces, _LARGE_WORKSPACE_BYTES):
            return
        fault = transactions.cleanup_workspace(self._workspaces, job, keep=False)
        failed = overruled(outcome, Failed, "its workspace left no room for its own result")
        current.ended = replace(current.ended, outcome=failed, workspace_fault=fault, warnings=())
        current.again_at = self._clock.monotonic()

    def _write_end(self, current: _Current, next_in: RuntimeConfig | None) -> tuple[Conclusion, Claimed]:
        job, outcome, rules = current.job, current.ended.outcome, current.rules
        if next_in is None:
            conclusion = transactions.finish(self._conn, job, outcome, rules, now=current.ended_at, rng=self._rng,
                                          new_id=self._new_id)
            return conclusion, Claimed(job=None)
        return transactions.finish_and_claim(
            self._conn, job, outcome, rules, plugins=next_in.runnable, held=self.held,
            dedupe_ttl=next_in.config.service.dedupe_ttl, ended_at=current.ended_at, now=self._clock.now(),
            rng=self._rng, new_id=self._new_id,
        )
