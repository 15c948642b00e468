"""A connection to SQLite that fails on demand, with any of SQLite's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# What SQLite does without a disk.
_NEVER_FAILS = "ROLLBACK"
# Of errors: the sqlite3 module has other things of the same numbers.
_NAMES = ("SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_IOERR_FSYNC", "SQLITE_CORRUPT", "SQLITE_FULL", "SQLITE_CONSTRAINT",
          "SQLITE_NOTADB")


def connect(path: Path) -> FailingConnection:
    """Open a database as the daemon does."""
    conn = sqlite3.connect(path, isolation_level=None, factory=FailingConnection)
    conn.execute("PRAGMA foreign_keys = ON")
    return conn


class FailingConnection(sqlite3.Connection):
    """Counts statements, and from one of them on fails each but ROLLBACK, as on a disk that is full or broken.

    `failed` says whether one has failed since, `committed` whether a transaction has been.
    """

    failed = False
    committed = False
    _code = 0
    _left: int | None = None
    _only: str | None = None
    _is_once = False

    def fail_from(self, number: int, code: int) -> None:
        """Fail from the `number`-th statement on (from 1) with an error code of SQLite."""
        self._left, self._code, self._only, self._is_once = number, code, None, False
        self.failed = self.committed = False

    def fail_at(self, statement: str, code: int) -> None:
        """Fail each statement that begins so."""
        self._left, self._code, self._only, self._is_once = None, code, statement, False
        self.failed = self.committed = False

    def fail_once_at(self, statement: str, code: int) -> None:
        """Fail the next statement that begins so, and no other."""
        self.fail_at(statement, code)
        self._is_once = True

    def mend(self) -> None:
        """Fail no more."""
        self._left = self._only = None

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._meet(sql)
        cursor = super().execute(sql, *parameters)
        self.committed = self.committed or sql == "COMMIT"
        return cursor

    def executemany(self, sql: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        self._meet(sql)
        return super().executemany(sql, rows)

    def executescript(self, script: str) -> sqlite3.Cursor:
        self._meet(script)
        return super().executescript(script)

    def _meet(self, sql: str) -> None:
        if sql == _NEVER_FAILS:
            return
        if self._left is not None:
            self._left -= 1
        if (self._left is not None and self._left <= 0) or (self._only is not None and sql.startswith(self._only)):
            self.failed = True
            if self._is_once:
                self.mend()
            raise _error(self._code)


def _error(code: int) -> sqlite3.OperationalError:
    """Return an error as the sqlite3 module raises it."""
    name = next(name for name in _NAMES if getattr(sqlite3, name) == code)
    error = sqlite3.OperationalError(f"as if {name}")
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error
