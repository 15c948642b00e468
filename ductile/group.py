"""One commit for what several threads submit at the same time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ductile.db import NotWritten, transaction

T = TypeVar("T")


class _Waiting:
    """Work that waits for its commit."""

    __slots__ = ("work", "result", "error", "done")

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False


class GroupCommit:
    """A connection that threads share. Whoever comes first commits for all that have come meanwhile.

    Nobody waits where nobody else is there; on a slow disk each commit takes all that arrived during the last one.
    """

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._arriving = threading.Lock()
        self._committing = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._closed = False

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` inside a transaction and return what it gave once that is on the disk.

        An exception of `work` undoes that work alone and is raised here; one of the database is raised in every thread.
        Raises NotWritten, as `transaction` does, also where it has been closed.
        """
        mine = _Waiting(work)
        with self._arriving:
            self._waiting.append(mine)
        with self._committing:
            if not mine.done:
                with self._arriving:
                    together, self._waiting = self._waiting, []
                self._commit(together)
        if mine.error is not None:
            raise mine.error
        return mine.result

    def look(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `read` finds, without a transaction."""
        with self._committing:
            return read(self._conn)

    def close(self) -> None:
        """Close the connection once the last commit is through."""
        with self._committing:
            self._closed = True
            self._conn.close()

    def _commit(self, together: list[_Waiting]) -> None:
        try:
            if self._closed:
                raise NotWritten("the daemon is stopping")
            with transaction(self._conn):
                for each in together:
                    self._work(each)
        except BaseException as error:
            for each in together:
                each.error = error
        for each in together:
            each.done = True

    def _work(self, each: _Waiting) -> None:
        """Do one thread's work under a savepoint, so that its fault is not the others'."""
        self._conn.execute("SAVEPOINT one")
        try:
            each.result = each.work(self._conn)
        except sqlite3.Error:
            # The transaction itself may be lost: no part of it is worth keeping.
            raise
        except Exception as error:
            each.error = error
            self._conn.execute("ROLLBACK TO one")
        self._conn.execute("RELEASE one")
