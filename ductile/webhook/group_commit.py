"""Stores the jobs of webhooks: requests that arrive at the same time share one commit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from ductile.db import Damaged, FateUnknown, NotWritten, refuse_replaced, transaction
from ductile.errors import DuctileError
from ductile.queue import job_table
from ductile.runtime_config import RuntimeConfig
from ductile.submit import EventJob, Submitted, submit_once

T = TypeVar("T")

# From this size on the memory of a write is released at once.
_LARGE_CHARACTERS = 1024**2


class _Write(Generic[T]):
    """A write that waits for its commit. A thread that waits for another one's commit blocks on `turn`."""

    __slots__ = ("done", "error", "result", "turn", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = False
        self.turn = threading.Lock()


class _WorkFailed(Exception):
    """One write raised and rolled back the batch; the cause is what it raised."""

    def __init__(self, write: _Write[Any]) -> None:
        super().__init__()
        self.write = write


class GroupCommit:
    """A connection shared by threads. The first thread to come commits for all that come in the meantime.

    A single write waits for nobody; under load each commit takes all writes that arrived during the one before.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """`connect` opens a connection that syncs each commit and that nobody else uses. Raises what it raises."""
        self._connect = connect
        self._conn = connect()
        self._arriving = threading.Lock()
        self._using = threading.Lock()     # the connection
        self._waiting: list[_Write[Any]] = []
        self._is_led = False               # a thread commits and will wake one of those that wait
        self._closed = False

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` in a transaction and return its result once that is on disk.

        An exception of `work` rolls it back and is raised here; the other writes of the batch are run again. An error
        of the database is raised in every thread. Raises what `transaction` raises, and NotWritten after `close`.
        """
        mine = _Write(work)
        with self._arriving:
            self._waiting.append(mine)
            follows = self._is_led
            if follows:
                mine.turn.acquire()
            self._is_led = True
        if follows:
            # Not a lock shared by all: a thread whose write is done would queue up behind the next commit.
            mine.turn.acquire()
        if not mine.done:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return cast(T, mine.result)

    def look(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of `read`, without a transaction."""
        with self._using:
            return read(self._conn)

    def renew(self) -> None:
        """Release the memory of a large write: a connection keeps the last parameters of its statements."""
        with self._using:
            if self._closed:
                return
            try:
                # If the file was replaced, SQLite would read the old log into the new file.
                refuse_replaced()
                fresh = self._connect()
            except DuctileError:
                # The old connection still works, and if the file was replaced the next write reports it.
                return
            self._conn.close()
            self._conn = fresh

    def close(self) -> None:
        """Close the connection after the last commit."""
        with self._using:
            self._closed = True
            self._conn.close()

    def _lead(self) -> None:
        """Commit for all that wait. Then wake them, and the first of those that came in the meantime to lead next."""
        with self._arriving:
            batch, self._waiting = self._waiting, []
        with self._using:
            self._commit(batch)
        with self._arriving:
            next_leader = self._waiting[:1]
            self._is_led = bool(next_leader)
        for each in batch:
            each.done = True
        # The first of the batch is this thread.
        for each in next_leader + batch[1:]:
            each.turn.release()

    def _commit(self, batch: list[_Write[Any]]) -> None:
        try:
            if self._closed:
                raise NotWritten("the daemon is stopping")
            with transaction(self._conn, synced=None):
                for each in batch:
                    self._do(each)
        except _WorkFailed as failed:
            # Rare, so there is no savepoint for each write: every webhook would pay for it.
            failed.write.error = failed.__cause__
            left = [each for each in batch if each is not failed.write]
            if left:
                self._commit(left)
        except BaseException as error:
            for each in batch:
                each.error = error

    def _do(self, write: _Write[Any]) -> None:
        try:
            write.result = write.work(self._conn)
        except sqlite3.Error:
            raise
        except Exception as error:
            raise _WorkFailed(write) from error


class QueueFull(Exception):
    """`service.max_queue_depth` jobs are waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """How many jobs were waiting, up to `most`, when the database had this version and this last job."""

    version: int
    last_seq: int
    waiting: int
    most: int


class _Depth:
    """The number of waiting jobs, as seen by a connection that only adds jobs.

    Counting takes time with the depth, 100 us for some thousand jobs. Until another connection has committed, what was
    counted last and what this one has added since is the same. A transaction that is rolled back takes the last `seq`
    back with it.
    """

    def __init__(self) -> None:
        self._count: _Count | None = None

    def is_full(self, conn: sqlite3.Connection, depth: int) -> bool:
        """Return whether `depth` or more jobs are waiting. Call it in a transaction."""
        version = int(conn.execute("PRAGMA data_version").fetchone()[0])
        last_seq = job_table.last_seq(conn)
        known = self._count
        if known is None or known.version != version or known.most != depth or known.waiting >= depth:
            known = _Count(version=version, last_seq=last_seq, waiting=job_table.count_waiting(conn, depth), most=depth)
            self._count = known
        return known.waiting + last_seq - known.last_seq >= depth


class JobStore:
    """Puts the jobs of webhooks into the queue and wakes the loop."""

    def __init__(self, group: GroupCommit, *, current: Callable[[], RuntimeConfig],
                 post: Callable[[BaseException | None], None]) -> None:
        """`current` returns the configuration in force; `post` takes None for a new job, or a fatal error."""
        self._group = group
        self._current = current
        self._post = post
        self._depth = _Depth()

    def submit(self, runtime: RuntimeConfig, jobs: Sequence[EventJob], now: datetime) -> list[Submitted]:
        """Store the jobs of one event, and return once they are on disk.

        Raises QueueFull, NotWritten, and Damaged and FateUnknown, which end the daemon: only a restart can tell what is
        on disk.
        """
        try:
            submitted = self._group.run(lambda conn: self._store(conn, runtime, jobs, now))
        except (Damaged, FateUnknown) as error:
            self._post(error)
            raise
        # A turn of the loop costs as much as a webhook, so it is woken only for a job that can run. The configuration
        # may have changed since the request arrived; after a change the loop looks by itself.
        plugins = self._current().plugins
        if any(each.is_new for each in submitted) and any(
                each.job.plugin in plugins and plugins[each.job.plugin].runnable for each in jobs):
            self._post(None)
        if sum(len(each.job.payload or "") for each in jobs) >= _LARGE_CHARACTERS:
            self._group.renew()
            # The connection is another one, and its versions are others.
            self._depth = _Depth()
        return submitted

    def _store(self, conn: sqlite3.Connection, runtime: RuntimeConfig, jobs: Sequence[EventJob],
               now: datetime) -> list[Submitted]:
        service = runtime.config.service
        if self._depth.is_full(conn, service.max_queue_depth):
            raise QueueFull
        return [submit_once(conn, each.job, context=each.context, dedupe_ttl=service.dedupe_ttl, now=now)
                for each in jobs]
