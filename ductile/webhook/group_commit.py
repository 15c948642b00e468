"""One commit for what several threads submit at the same time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ductile.db import NotWritten, refuse_replaced, transaction
from ductile.errors import DuctileError

T = TypeVar("T")


class _Waiting:
    """Work that waits for its commit; who waits for another thread does so at `turn`."""

    __slots__ = ("done", "error", "result", "turn", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.turn: threading.Lock | None = None


class _Fault(Exception):
    """The work of one has raised, and with it undone all that shares its transaction; the cause is what it raised."""

    def __init__(self, culprit: _Waiting) -> None:
        super().__init__()
        self.culprit = culprit


class GroupCommit:
    """A connection that threads share. Whoever comes first commits for all that have come meanwhile.

    Nobody waits where nobody else is there; where many are, each commit takes all that arrived during the last one.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """`connect` opens a connection that syncs each commit and that nobody else has. Raises what it raises."""
        self._connect = connect
        self._conn = connect()
        self._arriving = threading.Lock()
        self._using = threading.Lock()     # the connection
        self._waiting: list[_Waiting] = []
        self._is_led = False               # a thread commits, and will hand on to one of those that wait
        self._closed = False

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` inside a transaction and return what it gave once that is on the disk.

        An exception of `work` undoes that work alone and is raised here; then the work of others that was undone with
        it is called once more. One of the database is raised in every thread. Raises NotWritten, as `transaction`
        does, also where it has been closed.
        """
        mine = _Waiting(work)
        with self._arriving:
            self._waiting.append(mine)
            if self._is_led:
                mine.turn = threading.Lock()
                mine.turn.acquire()
            self._is_led = True
        if mine.turn is not None:
            # Not at a lock that all of them want: one that is done would stand behind the next commit.
            mine.turn.acquire()
        if not mine.done:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.result

    def look(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `read` finds, without a transaction."""
        with self._using:
            return read(self._conn)

    def renew(self) -> None:
        """Give the memory of a large write back: a connection keeps what its statements were last called with."""
        with self._using:
            if self._closed:
                return
            try:
                # To open another file of that name would have SQLite read this one's log into it.
                refuse_replaced()
                fresh = self._connect()
            except DuctileError:
                # The old one works as well; where the file was replaced, the next write says so.
                return
            self._conn.close()
            self._conn = fresh

    def close(self) -> None:
        """Close the connection once the last commit is through."""
        with self._using:
            self._closed = True
            self._conn.close()

    def _lead(self) -> None:
        """Commit for all that have come; hand on to the first of those that came meanwhile, and wake the others."""
        with self._arriving:
            together, self._waiting = self._waiting, []
        with self._using:
            self._commit(together)
        with self._arriving:
            followers = self._waiting[:1]
            self._is_led = bool(followers)
        for each in together:
            each.done = True
        # Whoever leads was woken before, or never waited.
        for each in followers + together[1:]:
            each.turn.release()

    def _commit(self, together: list[_Waiting]) -> None:
        try:
            if self._closed:
                raise NotWritten("the daemon is stopping")
            with transaction(self._conn, synced=None):
                for each in together:
                    self._do(each)
        except _Fault as fault:
            # Rare: no savepoint for each, which every webhook would pay for.
            fault.culprit.error = fault.__cause__
            left = [each for each in together if each is not fault.culprit]
            if left:
                self._commit(left)
        except BaseException as error:
            for each in together:
                each.error = error

    def _do(self, each: _Waiting) -> None:
        try:
            each.result = each.work(self._conn)
        except sqlite3.Error:
            raise
        except Exception as error:
            raise _Fault(each) from error
