"""The main loop: receives notes, runs one job at a time, obeys signals."""

from __future__ import annotations

import signal
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from ductile import log, submit
from ductile.clock import Clock
from ductile.db import NotWritten, database_errors, is_written, refuse_replaced
from ductile.dispatch.dispatcher import WRITE_RETRY_SECONDS, Cloned, Collected, Dispatcher
from ductile.dispatch.recovery import Recovery
from ductile.dispatch.run_lock import RunLocks
from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.inbox import Inbox, Ready, Signal
from ductile.injected import Chance, NewId
from ductile.plugin import plugin_table
from ductile.protocol import INIT
from ductile.queue import job_table
from ductile.reload import Reload
from ductile.runtime_config import ConfigSource, RuntimeConfig
from ductile.scheduler import retention
from ductile.scheduler.heartbeat import Heartbeat
from ductile.sdnotify import Notifier
from ductile.webhook.health import Health
from ductile.webhook.server import WebhookServer
from ductile.workspace.manager import Workspaces

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# A wake-up comes this much late rather than early, or the loop would turn twice.
_MARGIN_SECONDS = 0.002

# How long a start waits for killed processes to end. After that they only block their own job.
_PATIENCE_SECONDS = 2.0

# How often buffered log lines are offered again to a slow reader.
_LOG_SECONDS = 1.0

_log = log.Component("daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stop:
    """A stop is under way. The running plugin has until `deadline`, in monotonic seconds; then it is interrupted."""

    deadline: float
    has_interrupted: bool = False


# What other threads put into the inbox.
Note = Collected | Cloned | BaseException


class Daemon:
    """The thread that makes every decision. Other threads only put notes into `inbox`."""

    def __init__(self, runtime: RuntimeConfig, conn: sqlite3.Connection, *, clock: Clock, rng: Chance, new_id: NewId,
                 workspaces: Workspaces, locks: RunLocks, notifier: Notifier, inbox: Inbox[Note],
                 source: ConfigSource, passed: Sequence[socket.socket] = ()) -> None:
        """`passed` are listening sockets of systemd."""
        self._runtime = runtime
        self._conn = conn
        self._clock = clock
        self._new_id = new_id
        self._notifier = notifier
        self._workspaces = workspaces
        self._locks = locks
        self._inbox = inbox
        self._started_at = self._turned_at = clock.monotonic()
        self._webhooks = WebhookServer(runtime.config.state_path, clock=clock, new_id=new_id, health=self._health,
                                       post=self._on_webhook, passed=passed)
        self._reloader = Reload(conn, source=source, webhooks=self._webhooks, new_id=new_id)
        self._dispatcher = Dispatcher(conn, clock=clock, rng=rng, new_id=new_id, locks=locks, workspaces=workspaces,
                                      post=inbox.put)
        self._recovery = Recovery(conn=conn, locks=locks, workspaces=workspaces, rng=rng, new_id=new_id)
        self._heartbeat = Heartbeat(conn, clock=clock, rng=rng, new_id=new_id, workspaces=workspaces)
        self._paused: set[str] = set()
        self._initialising: set[str] = set()   # plugins whose `init` must end before the first look at the schedules
        self._beat_at = clock.monotonic()
        self._write_retry_at: float | None = None
        self._job_retry_at: datetime | None = None   # when the next retry of a job is due
        self._turn_again = False               # turn at once, without a note
        self._has_reloaded = False             # the queue does not follow the new configuration yet
        self._recheck_blocked = False
        self._stop: _Stop | None = None        # None while the daemon is not stopping

    @property
    def done(self) -> bool:
        """Whether the daemon has stopped."""
        return self._stop is not None and self._dispatcher.job is None

    def prepare(self) -> None:
        """Recover orphaned jobs, fail jobs that cannot run any more, queue `init` where it is due, listen.

        Raises DuctileError (71) if it cannot write the database, listen, or search for leftover processes.
        """
        now = self._clock.now()
        try:
            with database_errors(self._conn):
                self._prepare(now)
        except NotWritten as error:
            raise DuctileError(f"cannot write the database {self._runtime.config.state_path}: {error}",
                               exit_code=EXIT_SYSTEM) from error

    def _prepare(self, now: datetime) -> None:
        self._dispatcher.open()
        self._locks.remove_all_stderr()
        try:
            self._dispatcher.blocked = self._recovery.recover(self._runtime, now, patience=_PATIENCE_SECONDS)
        except OSError as error:
            raise DuctileError(f"cannot search for leftover processes: {error.filename}: {error.strerror}",
                               exit_code=EXIT_SYSTEM) from error
        self._reloader.start(self._runtime, now)
        self._fail_unrunnable_jobs()
        self._note_paused()
        self._submit_inits()
        self._initialising = self._with_open_init(self._runtime.plugins)
        if self._initialising:
            # Not later than this: an `init` may wait for days, for example while its plugin is paused.
            self._beat_at = self._clock.monotonic() + self._runtime.config.service.tick_interval
        self._turn_again = True

    def _note_paused(self) -> None:
        """Log which plugins an operator has paused and resumed. The claim and the schedules read it themselves."""
        with database_errors(self._conn):
            paused = set(plugin_table.paused(self._conn))
        for name in sorted(paused ^ self._paused):
            _log.info("plugin paused" if name in paused else "plugin resumed", plugin=name)
        self._paused = paused

    def _with_open_init(self, plugins: Iterable[str]) -> set[str]:
        return {name for name in plugins if job_table.has_open(self._conn, name, INIT)}

    def _needs_another_init(self, plugin: str, fingerprint: str) -> bool:
        """Return whether a plugin was reloaded while its `init` ran with the previous configuration."""
        configured = self._runtime.plugins.get(plugin)
        return configured is not None and configured.needs_init not in (None, fingerprint)

    def _submit_inits(self) -> None:
        now = self._clock.now()
        for name in submit.submit_inits(self._conn, self._runtime.plugins, new_id=self._new_id, now=now):
            _log.info("init enqueued", plugin=name)

    def _fail_unrunnable_jobs(self) -> None:
        while jobs := retention.fail_unrunnable_jobs(self._conn, self._runtime, self._clock.now()):
            for job in jobs:
                _log.warn("queued job failed: its plugin is no longer enabled", job_id=job.id, plugin=job.plugin)
        self._dispatcher.received_jobs.clear()

    def run(self) -> None:
        """Turn until the daemon is stopped. Raises DuctileError if the database is lost, and any bug."""
        while not self.done:
            self.turn(self._receive())

    def close(self) -> None:
        """End what runs and stop to listen, whatever the daemon ends for."""
        self._webhooks.finish()
        self._dispatcher.close()
        log.flush()

    def turn(self, note: Note | Signal | Ready | None) -> None:
        """Handle what has come, None if only time has passed, then do everything that is due."""
        self._turned_at = self._clock.monotonic()
        self._handle(note)
        self._dispatcher.retry_pending()
        if self._stop is not None:
            self._continue_stop(self._stop)
        else:
            self._work()
        self._dispatcher.finalize_workspaces()
        self._notifier.report(self._status(), self._clock.monotonic())
        log.flush()

    def _handle(self, note: Note | Signal | Ready | None) -> None:
        if isinstance(note, BaseException):
            raise note
        if isinstance(note, Signal):
            self._obey(note.number)
        elif isinstance(note, Cloned):
            self._dispatcher.on_cloned(note)
        elif isinstance(note, Collected):
            self._dispatcher.on_collected(note, self._claims_next_in())
        self._dispatcher.drive(note.descriptors if isinstance(note, Ready) else (), self._claims_next_in())

    def _claims_next_in(self) -> RuntimeConfig | None:
        """Return under what configuration the end of a job claims the next one in the same commit, None for neither.

        Blocked jobs are checked between two jobs.
        """
        may_claim = self._stop is None and not (self._recheck_blocked and self._dispatcher.blocked)
        return self._runtime if may_claim else None

    def _obey(self, number: int) -> None:
        if number in STOP_SIGNALS:
            self._begin_stop(number)
        elif number == signal.SIGHUP:
            self._reload()
        else:
            # SIGUSR1: an operator has changed the database.
            with suppress(NotWritten):
                # If it cannot be read now, the end of the attempt reads it again.
                self._dispatcher.obey_cancel()
                self._note_paused()

    def _reload(self) -> None:
        """Read everything again and use it. If anything is wrong, nothing changes."""
        if self._stop is not None:
            return
        self._notifier.send(RELOADING="1", MONOTONIC_USEC=str(int(self._clock.monotonic() * 1_000_000)))
        runtime = self._reloader.read_again(self._runtime, self._clock.now())
        if runtime is not None:
            self._runtime = runtime
            self._has_reloaded = True
        self._notifier.send(READY="1")

    def _begin_stop(self, number: int) -> None:
        now = self._clock.monotonic()
        if self._stop is not None:
            _log.info("second stop signal; ending the running plugin", signal=number)
            self._stop = replace(self._stop, deadline=now)
            return
        grace = self._runtime.config.service.shutdown_grace
        self._stop = _Stop(deadline=now + grace)
        self._turn_again = False
        # Webhooks are taken until the running plugin has ended: many senders do not try again.
        self._notifier.send(STOPPING="1", STATUS="stopping")
        job = self._dispatcher.job
        _log.info("stopping", signal=number, running_job_id=job and job.id, shutdown_grace=grace)

    def _continue_stop(self, stop: _Stop) -> None:
        """Wait for the running plugin. After the deadline end it and wait for that."""
        if self.done or (not stop.has_interrupted and self._clock.monotonic() < stop.deadline):
            return
        if self._dispatcher.is_unsaved:
            raise DuctileError("stopped before a job's result could be saved; the next start runs the job again",
                               exit_code=EXIT_SYSTEM)
        if not stop.has_interrupted:
            self._stop = replace(stop, has_interrupted=True)
            self._dispatcher.interrupt()

    def _work(self) -> None:
        """Do what is due: the interval, the schedules, the next job. A write that fails is retried later."""
        now = self._clock.monotonic()
        if self._write_retry_at is not None and now < self._write_retry_at:
            return
        try:
            with database_errors(self._conn):
                self._do_what_is_due(now)
        except NotWritten as error:
            self._write_retry_at = self._clock.monotonic() + WRITE_RETRY_SECONDS
            self._turn_again = False
            _log.error("the database cannot be written; trying again", error=str(error))
            return
        if self._write_retry_at is not None:
            self._write_retry_at = None
            _log.info("the database can be written again")

    def _do_what_is_due(self, now: float) -> None:
        if self._has_reloaded:
            self._fail_unrunnable_jobs()
            self._submit_inits()
            self._heartbeat.look(self._runtime)
            self._has_reloaded = False
        elif not self._dispatcher.received_jobs.issubset(self._runtime.enabled):
            # A job claimed before a reload can lead to jobs of a plugin that is gone. Only those fail: an operator
            # may have queued a job for a plugin that the next reload brings.
            self._fail_unrunnable_jobs()
        if any(self._needs_another_init(*ended) for ended in self._dispatcher.inits):
            self._submit_inits()
        self._dispatcher.inits.clear()
        if self._initialising:
            self._initialising = self._with_open_init(self._initialising)
            if not self._initialising:
                self._beat_at = now
        if now >= self._beat_at:
            self._beat(now)
        elif self._is_due() or self._heartbeat.follows_jobs:
            self._heartbeat.look(self._runtime)
        self._job_retry_at = None
        self._turn_again = False
        if self._dispatcher.job is None:
            self._start_next()
        if self._heartbeat.prunes:
            # After the start, so that a plugin runs meanwhile.
            self._heartbeat.prune(self._runtime)
            self._turn_again |= self._heartbeat.prunes

    def _start_next(self) -> None:
        if self._recheck_blocked and self._dispatcher.blocked:
            self._recheck()
        self._recheck_blocked = False
        started = self._dispatcher.start_next(self._runtime)
        # A job that could not be started has ended already, and no note will come.
        self._turn_again = started and self._dispatcher.job is None
        if not started:
            self._job_retry_at = job_table.next_retry_at(self._conn)

    def _recheck(self) -> None:
        """Check again whether jobs are still blocked by live processes."""
        try:
            self._dispatcher.blocked = self._recovery.recover(self._runtime, self._clock.now(), patience=0.0)
        except OSError as error:
            # They stay blocked until the next interval.
            _log.warn("cannot search for leftover processes", error=error.strerror)
            return
        self._fail_unrunnable_jobs()

    def _beat(self, now: float) -> None:
        self._recheck_blocked = True
        # An idle daemon writes nothing, but it holds the only copy of a database file that was removed.
        refuse_replaced()
        self._dispatcher.has_root()
        self._webhooks.beat()
        self._heartbeat.beat(self._runtime)
        # Last, so that a beat that could not be written is repeated at the next retry.
        interval = self._runtime.config.service.tick_interval
        self._beat_at += interval * max(1, 1 + int((now - self._beat_at) // interval))

    def _is_due(self) -> bool:
        return self._heartbeat.next_at is not None and self._heartbeat.next_at <= self._clock.now()

    def _receive(self) -> Note | Signal | Ready | None:
        """Wait until the next thing is due."""
        return self._inbox.get(timeout=self._seconds_to_wait(), descriptors=self._dispatcher.descriptors)

    def _seconds_to_wait(self) -> float | None:
        """Return the seconds until the next thing is due, None if only a note can bring one."""
        if self._turn_again:
            return 0.0
        due = [self._dispatcher.retry_at, self._notifier.watchdog_at]
        wall: list[datetime | None] = []
        if self._stop is not None:
            due.append(None if self._stop.has_interrupted else self._stop.deadline)
        elif self._write_retry_at is not None:
            due.append(self._write_retry_at)
        else:
            due += [self._beat_at, self._dispatcher.root_retry_at]
            wall += [self._heartbeat.next_at, self._job_retry_at]
        seconds = [at - self._clock.monotonic() for at in due if at is not None]
        seconds += [(at - self._clock.now()).total_seconds() for at in wall if at is not None]
        plugin = self._dispatcher.seconds_left()
        if plugin is not None:
            seconds.append(plugin)
        if log.is_behind():
            seconds.append(_LOG_SECONDS)
        return max(0.0, min(seconds)) + _MARGIN_SECONDS if seconds else None

    def _on_webhook(self, fault: BaseException | None) -> None:
        """Wake the loop for a job of a webhook, or end it with a fault. Other threads call this."""
        if fault is not None:
            self._inbox.put(fault)
        elif self._dispatcher.job is None:
            # A job that runs wakes the loop when it ends, and the queue is read after that.
            self._inbox.wake()

    def _health(self) -> Health:
        """Return the state of the loop. Other threads call this."""
        now = self._clock.monotonic()
        return Health(uptime_seconds=int(now - self._started_at), plugins_loaded=len(self._runtime.runnable),
                      reasons=tuple(self._reasons(now)))

    def _reasons(self, now: float) -> Iterator[str]:
        """Yield what is wrong. A result that is just being saved is not, only one that could not be saved."""
        runtime = self._runtime
        if now - self._turned_at > 2 * runtime.config.service.tick_interval:
            yield f"the main loop has not turned for {int(now - self._turned_at)} s"
        if not is_written():
            yield "the last write to the database failed"
        elif self._dispatcher.is_unsaved:
            yield "the result of a job could not be written"
        for name, plugin in sorted(runtime.plugins.items()):
            if plugin.settings.enabled and not plugin.runnable:
                yield f"plugin {name} is not loaded: {plugin.reason}"
        for name, reason in sorted(self._heartbeat.gone.items()):
            yield f"plugin {name} is not available: {reason}"
        fault = self._workspaces.fault()
        if fault is not None:
            yield fault
        if self._stop is not None:
            yield "ductiled is stopping"

    def _status(self) -> str | None:
        """Return what systemd shows, None to leave that as it is."""
        job = self._dispatcher.job
        if self._stop is not None:
            return None
        return "idle" if job is None else f"running {job.plugin} {job.command}"
