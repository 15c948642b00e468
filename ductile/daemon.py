"""The loop that decides: notes come in, one job runs at a time, signals are obeyed."""

from __future__ import annotations

import math
import signal
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue

from ductile import log, submit
from ductile.clock import Clock
from ductile.db import NotWritten, database_errors, is_written, refuse_replaced
from ductile.dispatch.dispatcher import WRITE_AGAIN_SECONDS, Cloned, Dispatcher, Finished
from ductile.dispatch.recovery import Recovery
from ductile.dispatch.run_lock import RunLocks
from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.injected import Chance, NewId
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

# How long a start waits for killed leftovers to be gone; what takes longer holds back its own job alone.
_PATIENCE_SECONDS = 2.0

# How often the log is offered again to a reader that has not taken all.
_LOG_SECONDS = 1.0

_log = log.Component("daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A signal has come, `at` monotonic seconds."""

    number: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A webhook has put a job into the queue."""


Note = Signal | Finished | Cloned | Queued | BaseException


class Daemon:
    """One thread that owns every decision. Others only put notes into `inbox`."""

    def __init__(self, runtime: RuntimeConfig, conn: sqlite3.Connection, *, clock: Clock, rng: Chance, new_id: NewId,
                 workspaces: Workspaces, locks: RunLocks, notifier: Notifier, inbox: SimpleQueue[Note],
                 source: ConfigSource) -> None:
        self._runtime = runtime
        self._conn = conn
        self._clock = clock
        self._new_id = new_id
        self._notifier = notifier
        self._workspaces = workspaces
        self._inbox = inbox
        self._started = self._turned_at = clock.monotonic()
        self._wants_word = True                # of a webhook's job: set before each look, so that no word is lost
        self._webhooks = WebhookServer(runtime.config.state_path, clock=clock, new_id=new_id, health=self._vitals,
                            post=self._take_word)
        self._reloader = Reload(conn, source=source, webhooks=self._webhooks)
        self._dispatcher = Dispatcher(conn, clock=clock, rng=rng, new_id=new_id, locks=locks, workspaces=workspaces,
                                      post=inbox.put)
        self._recovery = Recovery(conn=conn, locks=locks, workspaces=workspaces, rng=rng, new_id=new_id)
        self._heartbeat = Heartbeat(conn, clock=clock, rng=rng, new_id=new_id, workspaces=workspaces)
        self._beat_at = clock.monotonic()
        self._initialising: set[str] = set()   # plugins whose `init` the first look at the schedules waits for
        self._watchdog_at = clock.monotonic()
        self._write_again_at: float | None = None
        self._retry_at: datetime | None = None  # when the next waiting retry falls due
        self._look_again = False               # the next job need not wait for a note
        self._is_settled = True                # what a reload asks of the queue has been done
        self._reloaded_at = -math.inf          # monotonic: when the last reload began
        self._recheck_held = False
        self._status = ""
        self._stopping = False
        self._end_at: float | None = None      # monotonic: when the patience with the running plugin is over
        self.done = False

    def prepare(self) -> None:
        """Recover orphans, end jobs that nobody can run, queue `init` where it is due, listen.

        Raises DuctileError (71) where that cannot be written or bound, or leftovers cannot be looked for.
        """
        now = self._clock.now()
        try:
            with database_errors(self._conn):
                self._prepare(now)
        except BaseException as error:
            self._webhooks.close()
            if not isinstance(error, NotWritten):
                raise
            raise DuctileError(f"cannot write the database {self._runtime.config.state_path}: {error}",
                               exit_code=EXIT_SYSTEM) from error

    def _prepare(self, now: datetime) -> None:
        try:
            self._dispatcher.held = self._recovery.recover(self._runtime, now, patience=_PATIENCE_SECONDS)
        except OSError as error:
            raise DuctileError(f"cannot look for leftover processes: {error.filename}: {error.strerror}",
                               exit_code=EXIT_SYSTEM) from error
        self._reloader.start(self._runtime, now)
        self._settle_plugins()
        self._initialising = self._with_open_init(self._runtime.plugins)
        if self._initialising:
            # At the latest: one whose plugin is paused, say, may wait for days.
            self._beat_at = self._clock.monotonic() + self._runtime.config.service.tick_interval
        self._look_again = True

    def _with_open_init(self, plugins: Iterable[str]) -> set[str]:
        return {name for name in plugins if job_table.has_open(self._conn, name, INIT)}

    def _settle_plugins(self) -> None:
        """End queued jobs that nobody can run any more, and queue `init` where it is due."""
        self._bury()
        self._submit_inits()

    def _needs_another_init(self, plugin: str, fingerprint: str) -> bool:
        """Say whether a plugin was reloaded while its `init` ran with the configuration of before."""
        configured = self._runtime.plugins.get(plugin)
        return configured is not None and configured.needs_init not in (None, fingerprint)

    def _submit_inits(self) -> None:
        now = self._clock.now()
        for name in submit.submit_inits(self._conn, self._runtime.plugins, new_id=self._new_id, now=now):
            _log.info("init enqueued", plugin=name)

    def _bury(self) -> None:
        while jobs := retention.fail_unrunnable_jobs(self._conn, self._runtime, self._clock.now()):
            for job in jobs:
                _log.warn("queued job ended: its plugin is no longer enabled", job_id=job.id, plugin=job.plugin)
        self._dispatcher.followed.clear()

    def run(self) -> None:
        """Turn until asked to stop. Raises DuctileError where the database is lost, and any bug."""
        try:
            while not self.done:
                self.turn(self._receive())
        finally:
            self._webhooks.finish()
            self._dispatcher.close()
            log.flush()

    def turn(self, note: Note | None) -> None:
        """Take one note, None for the passing of time, and bring everything up to date."""
        self._turned_at = self._clock.monotonic()
        ended = self._take(note)
        before = self._dispatcher.job
        self._dispatcher.go_on()
        ended |= before is not None and self._dispatcher.job is None
        if self._stopping:
            self._go_on_stopping()
        else:
            self._work(look=ended or isinstance(note, Signal))
        self._dispatcher.tidy()
        self._tell_systemd()
        log.flush()

    def _take(self, note: Note | None) -> bool:
        """Act on a note. Return whether a job has ended."""
        if isinstance(note, BaseException):
            raise note
        if isinstance(note, Finished):
            # Held jobs are looked at between two jobs, which a claim in the same commit leaves no room for.
            goes_on = not self._stopping and not (self._recheck_held and self._dispatcher.held)
            self._dispatcher.note(note, self._runtime if goes_on else None)
            return True
        if isinstance(note, Cloned):
            self._dispatcher.note_clone(note)
            return self._dispatcher.job is None
        if isinstance(note, Signal):
            self._obey(note)
        return False

    def _obey(self, received: Signal) -> None:
        if received.number in STOP_SIGNALS:
            self._stop(received.number)
        elif received.number == signal.SIGHUP and received.at >= self._reloaded_at:
            # One that came before the last reload began has been served by it: signals mean "look", not "once more".
            self._reload()

    def _reload(self) -> None:
        """Read everything again and run on it; where anything is wrong nothing has happened."""
        if self._stopping:
            return
        self._reloaded_at = self._clock.monotonic()
        self._notifier.send(RELOADING="1", MONOTONIC_USEC=str(int(self._reloaded_at * 1_000_000)))
        runtime = self._reloader.read_again(self._runtime, self._clock.now())
        if runtime is not None:
            self._runtime = runtime
            self._is_settled = False
        self._notifier.send(READY="1")

    def _stop(self, number: int) -> None:
        if self._stopping:
            _log.info("second stop signal; the running plugin is ended", signal=number)
            self._end_at = self._clock.monotonic()
            return
        self._stopping = True
        self._look_again = False
        self._webhooks.close()
        grace = self._runtime.config.service.shutdown_grace
        self._end_at = self._clock.monotonic() + grace
        self._notifier.send(STOPPING="1", STATUS="stopping")
        job = self._dispatcher.job
        _log.info("stopping", signal=number, running_job_id=job and job.id, shutdown_grace=grace)

    def _go_on_stopping(self) -> None:
        """Wait for the running plugin; when the patience is over, end it and wait for that."""
        if self._dispatcher.job is None:
            self.done = True
        elif self._end_at is None or self._clock.monotonic() >= self._end_at:
            if self._dispatcher.unwritten:
                raise DuctileError("stopped with the end of a job unwritten; the next start runs it again",
                                   exit_code=EXIT_SYSTEM)
            if self._end_at is not None:
                self._end_at = None
                self._dispatcher.interrupt()
                self.done = self._dispatcher.job is None

    def _work(self, *, look: bool) -> None:
        """Do what is due: the heartbeat, the schedules, the next job. A write that fails is put off, not lost."""
        now = self._clock.monotonic()
        if self._write_again_at is not None and now < self._write_again_at:
            return
        try:
            with database_errors(self._conn):
                self._do_what_is_due(now, look)
        except NotWritten as error:
            self._write_again_at = self._clock.monotonic() + WRITE_AGAIN_SECONDS
            self._look_again = False
            _log.error("the database cannot be written; trying again", error=str(error))
            return
        if self._write_again_at is not None:
            self._write_again_at = None
            _log.info("the database can be written again")

    def _do_what_is_due(self, now: float, look: bool) -> None:
        if not self._is_settled:
            self._settle_plugins()
            self._heartbeat.look(self._runtime)
            self._is_settled = True
        elif not self._dispatcher.followed.issubset(self._runtime.enabled):
            # What began before a reload leads to a plugin that is gone. Others keep their jobs: an operator may
            # have queued one for a plugin that the next reload brings.
            self._bury()
        if any(self._needs_another_init(*ended) for ended in self._dispatcher.inits):
            self._submit_inits()
        self._dispatcher.inits.clear()
        if self._initialising and look:
            self._initialising = self._with_open_init(self._initialising)
            if not self._initialising:
                self._beat_at = now
        if now >= self._beat_at:
            self._beat(now)
        elif self._is_due() or (look and self._heartbeat.holding):
            self._heartbeat.look(self._runtime)
        self._retry_at = None
        self._look_again = False
        if self._dispatcher.job is None:
            self._start_next()
        if self._heartbeat.prunes:
            # After the start: a plugin runs meanwhile.
            self._heartbeat.prune(self._runtime)
            self._look_again |= self._heartbeat.prunes

    def _start_next(self) -> None:
        if self._recheck_held and self._dispatcher.held:
            self._recheck()
        self._recheck_held = False
        self._wants_word = True
        started = self._dispatcher.start_next(self._runtime)
        # One that could not be started has ended already, and no note of it will come.
        self._look_again = started and self._dispatcher.job is None
        if not started:
            self._retry_at = job_table.next_retry_at(self._conn)

    def _recheck(self) -> None:
        """Look again whether what holds jobs back has ended."""
        try:
            self._dispatcher.held = self._recovery.recover(self._runtime, self._clock.now(), patience=0.0)
        except OSError as error:
            # They are held back still, until the next heartbeat.
            _log.warn("leftover processes cannot be looked for", error=error.strerror)
            return
        self._bury()

    def _beat(self, now: float) -> None:
        self._recheck_held = True
        # An idle daemon writes nothing, and is the last to have what was in a file that is gone.
        refuse_replaced()
        self._dispatcher.has_root()
        self._webhooks.beat()
        self._heartbeat.beat(self._runtime)
        # Not before: a beat that could not be written is made again with the next try, not with the next beat.
        interval = self._runtime.config.service.tick_interval
        self._beat_at += interval * max(1, 1 + int((now - self._beat_at) // interval))

    def _is_due(self) -> bool:
        return self._heartbeat.next_at is not None and self._heartbeat.next_at <= self._clock.now()

    def _receive(self) -> Note | None:
        """Wait for a note until the next thing is due."""
        try:
            return self._inbox.get(timeout=self._seconds_to_wait())
        except Empty:
            return None

    def _seconds_to_wait(self) -> float | None:
        """Return the time to the next thing that is due; None where only a note can bring one."""
        if self._look_again:
            return 0.0
        due = [self._dispatcher.again_at]
        wall: list[datetime | None] = []
        if self._notifier.watchdog is not None:
            due.append(self._watchdog_at)
        if self._stopping:
            due.append(self._end_at)
        elif self._write_again_at is not None:
            due.append(self._write_again_at)
        else:
            due += [self._beat_at, self._dispatcher.root_again_at]
            wall += [self._heartbeat.next_at, self._retry_at]
        seconds = [at - self._clock.monotonic() for at in due if at is not None]
        seconds += [(at - self._clock.now()).total_seconds() for at in wall if at is not None]
        if log.is_behind():
            seconds.append(_LOG_SECONDS)
        return max(0.0, min(seconds)) + _MARGIN_SECONDS if seconds else None

    def _take_word(self, fault: BaseException | None) -> None:
        """Have the loop look for a webhook's job, or end of a fault; called by other threads.

        One note for all that came since the loop looked last: while a job runs its end is reason enough to look.
        """
        if fault is not None:
            self._inbox.put(fault)
        elif self._wants_word:
            self._wants_word = False
            self._inbox.put(Queued())

    def _vitals(self) -> Health:
        """Say how the loop is; called by other threads."""
        now = self._clock.monotonic()
        return Health(uptime_seconds=int(now - self._started), plugins_loaded=len(self._runtime.runnable),
                      reasons=tuple(self._reasons(now)))

    def _reasons(self, now: float) -> Iterator[str]:
        """Say what is wrong. A job whose end is being written is not: only one that could not be written."""
        runtime = self._runtime
        if now - self._turned_at > 2 * runtime.config.service.tick_interval:
            yield f"the main loop has not turned for {int(now - self._turned_at)} s"
        if not is_written():
            yield "the last write to the database failed"
        elif self._dispatcher.waits_to_write:
            yield "the result of a job could not be written"
        for name, plugin in sorted(runtime.plugins.items()):
            if plugin.settings.enabled and not plugin.runnable:
                yield f"plugin {name} is not loaded: {plugin.reason}"
        fault = self._workspaces.fault()
        if fault is not None:
            yield fault
        if self._stopping:
            yield "ductiled is stopping"

    def _tell_systemd(self) -> None:
        job = self._dispatcher.job
        status = "idle" if job is None else f"running {job.plugin} {job.command}"
        if status != self._status and not self._stopping:
            self._status = status
            self._notifier.send(STATUS=status)
        now = self._clock.monotonic()
        if self._notifier.watchdog is not None and now >= self._watchdog_at:
            self._watchdog_at = now + self._notifier.watchdog / 2
            self._notifier.send(WATCHDOG="1")
