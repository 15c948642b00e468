"""The files of the database: detects lost and replaced ones, rescues the content, and publishes complete copies."""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from ductile.errors import EXIT_DATA, EXIT_SYSTEM, DuctileError
from ductile.pidfile import is_restoring, mark_unclean, pid_file

# Errors of link(2) on a file system without hard links, such as exFAT.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
# The beginning of a -shm file, in the machine's byte order (sqlite.org/walformat.html, section 2.1): two equal headers,
# each with `isInit` and `mxFrame`, then `nBackfill`.
_INDEX = struct.Struct("=12xB3xI76xI")
_INDEX_HEADER_BYTES = 48
_RESCUE_PAGES = 10_000     # 40 MB between two calls of `alive`

RESTORE = "restore a backup with `ductilectl restore FILE`"


class FilesLost(DuctileError):
    """A database file is missing. Creating a new one would hide that."""

    def __init__(self, what: str, otherwise: str) -> None:
        super().__init__(f"{what}; {RESTORE}, or {otherwise}", exit_code=EXIT_DATA)


class RestoreInterrupted(DuctileError):
    """A restore has moved the database away and not put the new one in place."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the database {path} is missing, because a restore was interrupted; run the same"
                         " `ductilectl restore FILE` again", exit_code=EXIT_DATA)


def log_of(database: Path) -> Path:
    """Return the write-ahead log of a database."""
    return database.with_name(f"{database.name}-wal")


def index_of(database: Path) -> Path:
    """Return the shared-memory file of a write-ahead log."""
    return database.with_name(f"{database.name}-shm")


def exists(path: Path, *, was_unclean: bool) -> bool:
    """True if the database exists, False if there has never been one. `was_unclean`: the last stop was unclean.

    Raises FilesLost or RestoreInterrupted if it has existed, DuctileError (71) for a broken symbolic link, and OSError.
    """
    real = Path(os.path.realpath(path))
    log, index = log_of(real), index_of(real)
    size = _size(real)
    if size == 0:
        raise FilesLost(f"the database {path} is an empty file", _start_empty(path, path))
    if size is not None:
        if _size(index) is not None and _size(log) is None and not _is_applied(index):
            raise FilesLost(f"the write-ahead log {log} is missing, but {index} exists: the log was removed, and with"
                            f" it the latest writes", f"remove {index} to continue without them")
        return True
    if path.is_symlink():
        raise DuctileError(f"cannot open the database {path}: it is a symbolic link to {real}, which does not exist;"
                           f" is its disk mounted?", exit_code=EXIT_SYSTEM)
    if is_restoring(pid_file(path)):
        raise RestoreInterrupted(path)
    left = next((each for each in (log, index) if _size(each) is not None), None)
    if left is not None:
        raise FilesLost(f"the database {path} is missing, but {left} exists", _start_empty(path, left))
    if was_unclean:
        raise FilesLost(f"the database {path} is missing, and ductiled did not stop cleanly:"
                        f" {pid_file(path)} is not empty", _start_empty(path, pid_file(path)))
    return False


def _is_applied(index: Path) -> bool:
    """True if the index says that the database has everything that its log had: a stop could not remove the index.

    Call this only when there is no log: closing the file drops the locks of this process's connections.
    """
    with open(index, "rb") as file:
        head = file.read(_INDEX.size)
    first, second = head[:_INDEX_HEADER_BYTES], head[_INDEX_HEADER_BYTES:2 * _INDEX_HEADER_BYTES]
    if len(head) < _INDEX.size or first != second:
        return False
    is_initialised, frames, applied = _INDEX.unpack(head)
    return bool(is_initialised) and applied >= frames


def _start_empty(path: Path, what: Path) -> str:
    return f"remove {what} to start with an empty database"


class HeldFiles:
    """The database files that this process has open, by device and inode."""

    def __init__(self, database: Path) -> None:
        self._database = database
        real = Path(os.path.realpath(database))
        names = [str(each) for each in (real, log_of(real), index_of(real))]
        self._seen = tuple((name, _identity(name)) for name in names)

    def find_lost(self) -> str | None:
        """Return which file was removed or replaced, None if all are in place. Opens nothing."""
        for name, seen in self._seen:
            found = _identity(name)
            if found != seen:
                what = "removed" if found is None else "replaced by another file"
                return f"{name} was {what} while ductiled was running"
        return None

    def rescue(self, conn: sqlite3.Connection, now: datetime, alive: Callable[[], None]) -> Path:
        """Save everything that an open connection holds in a new file beside the database, and return its path.

        `alive` is called regularly. Raises sqlite3.Error and OSError.
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
                conn.backup(target, pages=_RESCUE_PAGES, progress=lambda status, left, total: alive())
            os.fsync(fd)
            publish(part, rescued)
        finally:
            os.close(fd)
            part.unlink(missing_ok=True)
        self._remove_log()
        mark_unclean(pid_file(self._database))
        sync_directory(self._database.parent)
        return rescued

    def _remove_log(self) -> None:
        """Remove the log of a replaced database: SQLite would apply it to the new one."""
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
    """Return the size of a file, None if it does not exist. Opening and closing it would drop SQLite's locks."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def sync_directory(directory: Path) -> None:
    """Sync the entries of a directory to disk. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(part: Path, path: Path) -> None:
    """Rename a complete file to `path` in one step. Raises FileExistsError instead of replacing one, and OSError."""
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
        # The file is published, even if its old name stays.
        part.unlink()


def stamp(now: datetime) -> str:
    """Return a time for a file name; sorted as text, names are sorted by time."""
    return f"{now:%Y-%m-%dT%H%M%S}.{now.microsecond // 1000:03d}Z"
