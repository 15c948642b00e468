"""`ductilectl backup`: a copy of the database as it was at one moment, checked, or nothing."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import TextIO
from urllib.parse import quote

from ductile import db, db_files
from ductile.ctl.output import deferred_signals, progress
from ductile.ctl.session import Session
from ductile.errors import EXIT_DATA, EXIT_IO, EXIT_OK, EXIT_USAGE, DuctileError, io_exit_code
from ductile.text import one_line
from ductile.units import format_size, utc_text

_PIECE_PAGES = 1000          # 4 MB: how often a signal is noticed while copying
_CHECK_STEPS = 100_000       # of SQLite's machine: the same while checking
_FINDINGS_SHOWN = 5
_PART = ".ductile-backup."    # how the name of an unfinished copy begins
_DATED = re.compile(r"ductile-\d{4}-\d\d-\d\dT\d{6}\.\d{3}Z\.db")
_NOTE = "in it: jobs, logs, states, contexts, schedules, breakers; not in it: the configuration, secrets, plugins," \
        " pipelines, and the files in workspaces\n"


class _Interrupted(Exception):
    """A signal has come."""


def backup(session: Session, *, file: Path, keep: int | None) -> int:
    """Copy the database to a new file, readable by its owner only. Writers are not blocked.

    In a directory the copy has the time in its name, and the last `keep` copies are kept. Raises DuctileError: 74 if
    the file exists or cannot be written, 77 without permission, 65 if SQLite's full check finds the copy damaged, 64
    for `keep` without a directory; and as `deferred_signals` does. Then no file is left.
    """
    now = session.now()
    directory = file if file.is_dir() else None
    with session.changing() as conn:
        if directory is not None:
            file = directory / f"ductile-{db_files.stamp(now)}.db"
        elif keep is not None:
            raise DuctileError(f"ductilectl backup: --keep is for a directory, and {one_line(str(file))} is none",
                               exit_code=EXIT_USAGE)
        shown = one_line(str(file))
        if os.path.lexists(file):
            raise DuctileError(f"{shown} exists already; name another file, or move it away", exit_code=EXIT_IO)
        try:
            with deferred_signals() as received:
                size = _make(conn, file, session.state_path, lambda: bool(received), session.err)
        except OSError as error:
            raise _not_written(file, str(error.strerror), io_exit_code(error)) from error
    _sync(file)
    removed = [] if keep is None else _remove_old(file, keep)
    session.emit({"file": str(file), "bytes": size, "taken_at": utc_text(now), "removed": removed}, "\n".join(
        [f"{shown}: {format_size(size)}, checked", *(f"removed {one_line(each)}" for each in removed), _NOTE]))
    return EXIT_OK


def _not_written(file: Path, why: str, exit_code: int = EXIT_IO) -> DuctileError:
    return DuctileError(f"cannot write {one_line(str(file))}: {why}; nothing was written", exit_code=exit_code)


def _sync(file: Path) -> None:
    try:
        db_files.sync_directory(file.parent)
    except OSError as error:
        raise DuctileError(f"{one_line(str(file))} is there and whole, but may be gone after a power cut: cannot sync"
                           f" its directory: {error.strerror}", exit_code=EXIT_IO) from error


def _remove_old(file: Path, keep: int) -> list[str]:
    """Remove all dated backups beside a new one but the last, of which it is one. Return them, the oldest first."""
    others = sorted(each for each in file.parent.iterdir() if _DATED.fullmatch(each.name) and each != file)
    old = others[:len(others) - (keep - 1)] if keep <= len(others) else []
    for each in old:
        try:
            each.unlink()
        except OSError as error:
            raise DuctileError(f"{one_line(str(file))} is there and whole, but {one_line(str(each))} cannot be removed:"
                               f" {error.strerror}", exit_code=io_exit_code(error)) from error
    return [str(each) for each in old]


def _make(conn: sqlite3.Connection, file: Path, state_path: Path, ends: Callable[[], bool], err: TextIO) -> int:
    """Make the copy under another name beside its place, and give it its own when it is whole. Return its bytes.

    Raises DuctileError, OSError; with `ends`, asked now and then, _Interrupted, which no one sees: the signal itself
    is raised in its place.
    """
    _remove_parts(file.parent)
    fd, part = _make_part(file.parent)
    try:
        with progress(f"copying {one_line(str(state_path))}", err):
            _copy(conn, part, file, ends)
        os.fsync(fd)
        with progress("checking the copy", err):
            _check(part, state_path, ends)
        size = os.fstat(fd).st_size
        db_files.publish(part, file)
    finally:
        os.close(fd)
        part.unlink(missing_ok=True)
    return size


def _make_part(directory: Path) -> tuple[int, Path]:
    """Make a file for a copy, locked as long as this process works at it."""
    while True:
        fd, name = mkstemp(prefix=_PART, dir=directory)
        with suppress(OSError):
            # Where a file system knows no such locks, none is ever removed.
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, Path(name)
        # Another backup has taken it for one that nobody works at.
        os.close(fd)


def _remove_parts(directory: Path) -> None:
    """Remove unfinished copies whose process is gone."""
    for part in directory.glob(f"{_PART}*"):
        try:
            fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            # Gone meanwhile, or another user's.
            continue
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
        except OSError:
            continue
        finally:
            os.close(fd)


def _copy(conn: sqlite3.Connection, part: Path, file: Path, ends: Callable[[], bool]) -> None:
    """Copy page by page. The open read keeps the moment: without it a write of the daemon would restart the copy."""
    def look(status: int, remaining: int, total: int) -> None:
        if ends():
            raise _Interrupted

    with closing(_open(part, "rw")) as target:
        # Nothing is to be rolled back in a file that is thrown away after any error, and what is synced is the whole.
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        conn.execute("BEGIN")
        try:
            conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
            try:
                conn.backup(target, pages=_PIECE_PAGES, progress=look)
            except sqlite3.Error as error:
                raise _copy_failed(error, conn, file) from error
        finally:
            conn.execute("ROLLBACK")


def _copy_failed(error: sqlite3.Error, conn: sqlite3.Connection, file: Path) -> Exception:
    """Return what an error means: full or failing is what is written to, for the read has already begun."""
    meaning = db.translate(error, db.path_of(conn))
    if isinstance(meaning, db.Damaged):
        return meaning
    return _not_written(file, str(error))


def _check(part: Path, state_path: Path, ends: Callable[[], bool]) -> None:
    """Raise DuctileError (65) where SQLite's full check finds something in the copy."""
    with closing(_open(part, "ro&immutable=1")) as conn:
        conn.set_progress_handler(ends, _CHECK_STEPS)
        findings = db.full_check(conn)
    if ends():
        raise _Interrupted
    if findings:
        shown = [one_line(line) for line in findings[:_FINDINGS_SHOWN]]
        raise DuctileError(f"the copy of {one_line(str(state_path))} is damaged and was thrown away; see `ductilectl"
                           " check --database`, and keep the backups there are", *shown, exit_code=EXIT_DATA)


def _open(part: Path, mode: str) -> sqlite3.Connection:
    # Immutable where it is only read: otherwise SQLite would put a -wal and a -shm beside it.
    return sqlite3.connect(f"file:{quote(os.fsencode(part))}?mode={mode}", uri=True, isolation_level=None)
