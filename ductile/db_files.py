"""The files of the database: what is missing is told from what was never there, and a copy gets its name when it is
whole."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from ductile.errors import EXIT_DATA, EXIT_SYSTEM, DuctileError
from ductile.pidfile import leave_unclean, pid_file

# What os.link says of a file system without hard links, such as exFAT.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_PIECE_PAGES = 10_000     # 40 MB: how often a rescue shows that it is alive

RESTORE = "restore a backup with `ductilectl restore FILE`"


class FilesLost(DuctileError):
    """A part of the database is gone: a new one in its place would hide that."""

    def __init__(self, what: str, otherwise: str) -> None:
        super().__init__(f"{what}; {RESTORE}, or {otherwise}", exit_code=EXIT_DATA)


def log_of(database: Path) -> Path:
    """Return the write-ahead log of a database."""
    return database.with_name(f"{database.name}-wal")


def index_of(database: Path) -> Path:
    """Return the shared-memory file that belongs to a write-ahead log."""
    return database.with_name(f"{database.name}-shm")


def is_there(path: Path, *, was_unclean: bool) -> bool:
    """Say whether there is a database; False where none has ever been. `was_unclean`: the last stop was no clean one.

    Raises FilesLost where one has been, DuctileError (71) for a link that leads nowhere, and OSError.
    """
    real = Path(os.path.realpath(path))
    log, index = log_of(real), index_of(real)
    size = _size(real)
    if size == 0:
        raise FilesLost(f"the database {path} is an empty file", _to_begin_anew(path, path))
    if size is not None:
        if _size(index) is not None and _size(log) is None:
            raise FilesLost(f"the write-ahead log {log} is missing, though {index} is there: somebody has removed it,"
                            f" and with it what was written last", f"remove {index} to go on without that")
        return True
    if path.is_symlink():
        raise DuctileError(f"cannot open the database {path}: it is a link to {real}, which is not there; is its disk"
                           f" mounted?", exit_code=EXIT_SYSTEM)
    left = next((each for each in (log, index) if _size(each) is not None), None)
    if left is not None:
        raise FilesLost(f"the database {path} is missing, though {left} is there", _to_begin_anew(path, left))
    if was_unclean:
        raise FilesLost(f"the database {path} is missing, though ductiled did not stop cleanly:"
                        f" {pid_file(path)} is not empty", _to_begin_anew(path, pid_file(path)))
    return False


def _to_begin_anew(path: Path, what: Path) -> str:
    return f"remove {what} to begin with an empty database"


class HeldFiles:
    """The database and what belongs to it, as this process has them open: what tells each from others of its name.

    No dataclass: what `status` would import for one takes longer than it may.
    """

    __slots__ = ("_database", "_seen")

    def __init__(self, database: Path) -> None:
        self._database = database
        real = Path(os.path.realpath(database))
        names = [str(each) for each in (real, log_of(real), index_of(real))]
        self._seen = tuple((name, _identity(name)) for name in names)

    def what_is_lost(self) -> str | None:
        """Say which of them is no longer the file of its name, None where all are. A stat opens nothing."""
        for name, seen in self._seen:
            found = _identity(name)
            if found != seen:
                return f"{name} was removed while ductiled ran" if found is None \
                    else f"{name} was replaced by another file while ductiled ran"
        return None

    def rescue(self, conn: sqlite3.Connection, now: datetime, alive: Callable[[], None]) -> Path:
        """Write all that an open connection has to a new file where the database was, and return that.

        `alive` is called now and then. Raises sqlite3.Error and OSError.
        """
        rescued = self._database.with_name(f"{self._database.name}.rescued-{stamp(now)}")
        part = self._database.with_name(f".{self._database.name}.rescue")
        self._database.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        try:
            with closing(sqlite3.connect(f"file:{quote(os.fsencode(part))}?mode=rw", uri=True,
                                         isolation_level=None)) as target:
                target.execute("PRAGMA journal_mode = OFF")
                target.execute("PRAGMA synchronous = OFF")
                conn.backup(target, pages=_PIECE_PAGES, progress=lambda status, left, total: alive())
            os.fsync(fd)
            publish(part, rescued)
        finally:
            os.close(fd)
            part.unlink(missing_ok=True)
        self._forget_log()
        leave_unclean(pid_file(self._database))
        sync_directory(self._database.parent)
        return rescued

    def _forget_log(self) -> None:
        """Remove the log of a database that is no longer the file of its name: SQLite would read it into another."""
        (database, seen), *beside = self._seen
        if _identity(database) == seen:
            return
        for name, seen in beside:
            if _identity(name) == seen:
                os.unlink(name)


def _identity(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int | None:
    """Return a file's bytes, None where there is none. Opening it would end SQLite's locks on it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(part: Path, path: Path) -> None:
    """Give a whole file its name, for the first time and in one step; its name until then goes.

    Raises FileExistsError where something has that name, and OSError.
    """
    try:
        os.link(part, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        part.rename(path)
        return
    with suppress(OSError):
        # It is whole under its own name, whatever becomes of the other.
        part.unlink()


def stamp(now: datetime) -> str:
    """Return a moment for the name of a file: sorted as text they are sorted in time."""
    return f"{now:%Y-%m-%dT%H%M%S}.{now.microsecond // 1000:03d}Z"
