"""`ductilectl restore`: a checked copy takes the place of the database, and what it replaces is kept."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from ductile import db, db_files, schema
from ductile.ctl import queries
from ductile.ctl.output import deferred_signals, progress
from ductile.ctl.session import Session
from ductile.errors import (
    EXIT_DATA,
    EXIT_FAILED,
    EXIT_IO,
    EXIT_OK,
    EXIT_PERMISSION,
    DuctileError,
    io_exit_code,
)
from ductile.pidfile import RESTORING, AlreadyRunning, PidLock, pid_file, running_pid
from ductile.text import one_line

_ENDS = ("", "-wal", "-shm")      # of the names of what belongs together
_PIECE_BYTES = 4 * 1024 * 1024    # how often a signal is noticed while copying
_CHECK_STEPS = 100_000            # of SQLite's machine: the same while checking
_FINDINGS_SHOWN = 5
_FILE_MODE = 0o600


class _Interrupted(Exception):
    """A signal has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    version: int
    queued: int
    running: int


def restore(session: Session, *, file: Path) -> int:
    """Check a backup and put it in place of the database, while holding both locks of the daemon.

    Raises DuctileError: 1 if the daemon runs, 65 for a file that is not a good database of Ductile, 74 and 77 if it
    cannot be read or put in place; and as `deferred_signals` does. Then the database is as it was, unless the message
    says more.
    """
    state_path = session.state_path
    _check_user(state_path)
    _check_source(file, state_path)
    db.make_directory(state_path)
    lock = _lock(state_path)
    try:
        with deferred_signals() as received:
            copy, kept = _restore(file, Path(os.path.realpath(state_path)), lock, session.now(),
                                  lambda: bool(received), session.err)
    except BaseException:
        lock.abandon()
        raise
    lock.release()
    found: dict[str, Any] = {
        "file": str(file), "database": str(state_path), "version": copy.version, "queued": copy.queued,
        "running": copy.running, "replaced": None if kept is None else str(kept),
    }
    session.emit(found, _text(found))
    return EXIT_OK


def _text(found: dict[str, Any]) -> str:
    older = f" (version {found['version']}: ductiled brings it up to date)" if found["version"] < schema.VERSION else ""
    lines = [f"{one_line(found['file'])} is now the database {one_line(found['database'])}{older}"]
    if found["replaced"] is not None:
        lines.append(f"what it replaced is kept as {one_line(found['replaced'])}*")
    lines.append(f"at the next start of ductiled {_jobs(found['queued'], 'queued')} will run, and"
                 f" {_jobs(found['running'], 'running')} will run again")
    return "".join(f"{line}\n" for line in lines)


def _jobs(count: int, status: str) -> str:
    return f"{count} {status} job{'' if count == 1 else 's'}"


def _check_user(state_path: Path) -> None:
    """Refuse another user than the daemon's, for whom the new files would be out of reach. Raises DuctileError (77)."""
    for path in (state_path, pid_file(state_path), state_path.parent):
        try:
            owner = path.stat().st_uid
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DuctileError(f"cannot look at {path}: {error.strerror}; run this as the user that runs ductiled",
                               exit_code=io_exit_code(error)) from error
        if owner != os.geteuid():
            raise DuctileError(f"{path} belongs to another user: run this as the user that runs ductiled",
                               exit_code=EXIT_PERMISSION)
        return


def _check_source(file: Path, state_path: Path) -> None:
    """Refuse what is no file to copy. Raises DuctileError, OSError."""
    shown = one_line(str(file))
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DuctileError(f"{shown} is not a regular file: name a backup", exit_code=EXIT_IO)
    if state_path.exists() and file.samefile(state_path):
        raise DuctileError(f"{shown} is the database itself: name a backup", exit_code=EXIT_IO)
    db_files.exists(file, was_unclean=False)
    if db_files.index_of(file).exists() and running_pid(pid_file(file)) is not None:
        raise DuctileError(f"{shown} is the database of a ductiled that runs: copy it with `ductilectl backup`",
                           exit_code=EXIT_FAILED)


def _lock(state_path: Path) -> PidLock:
    try:
        return PidLock(pid_file(state_path))
    except AlreadyRunning as error:
        raise DuctileError(f"{error}: stop it, then restore", exit_code=EXIT_FAILED) from error


def _restore(file: Path, database: Path, lock: PidLock, now: datetime, ends: Callable[[], bool],
             err: TextIO) -> tuple[_Copy, Path | None]:
    """Copy, check and put in place. Return what the copy holds and the name of what it replaced, None for nothing."""
    part = database.with_name(f".{database.name}.restore")
    try:
        with progress(f"copying {one_line(str(file))}", err):
            for end in _ENDS:
                _named(part, end).unlink(missing_ok=True)
            _copy(file, part, ends)
            if db_files.log_of(file).exists():
                _copy(db_files.log_of(file), db_files.log_of(part), ends)
        with progress("checking the copy", err):
            copy = _check(part, file, ends)
        return copy, _replace(database, part, lock, now)
    except _Interrupted:
        # The signal itself is raised in its place.
        return _Copy(version=0, queued=0, running=0), None
    except OSError as error:
        raise DuctileError(f"cannot copy {one_line(str(file))} into {one_line(str(database.parent))}: {error.strerror};"
                           f" nothing was changed", exit_code=io_exit_code(error)) from error
    finally:
        for end in _ENDS:
            _named(part, end).unlink(missing_ok=True)


def _named(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _copy(source: Path, target: Path, ends: Callable[[], bool]) -> None:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with open(os.open(source, flags), "rb") as reader, \
            open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE), "wb") as writer:
        while piece := reader.read(_PIECE_BYTES):
            if ends():
                raise _Interrupted
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())


def _check(part: Path, file: Path, ends: Callable[[], bool]) -> _Copy:
    """Move the copy's log into it, check it in full, and return what it holds. Raises DuctileError (65)."""
    shown = one_line(str(file))
    try:
        with closing(sqlite3.connect(f"file:{quote(os.fsencode(part))}?mode=rw", uri=True,
                                     isolation_level=None)) as conn:
            conn.set_progress_handler(ends, _CHECK_STEPS)
            version = db.check_version(conn, file)
            if version == 0:
                raise DuctileError(f"{shown} holds no database of Ductile; name a backup", exit_code=EXIT_DATA)
            findings = db.full_check(conn)
            queued, running = (0, 0) if findings else queries.unfinished(conn)
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        if ends():
            raise _Interrupted from error
        if isinstance(db.translate(error, str(file)), db.Damaged):
            raise DuctileError(f"{shown} is damaged ({error}); restore another backup", exit_code=EXIT_DATA) from error
        raise DuctileError(f"cannot check the copy of {shown}: {error}; nothing was changed",
                           exit_code=EXIT_IO) from error
    if ends():
        raise _Interrupted
    if findings:
        raise DuctileError(f"{shown} is damaged; restore another backup",
                           *(one_line(line) for line in findings[:_FINDINGS_SHOWN]), exit_code=EXIT_DATA)
    return _Copy(version=version, queued=queued, running=running)


def _replace(database: Path, part: Path, lock: PidLock, now: datetime) -> Path | None:
    """Put the copy in place. Return the name of what it replaced, None for nothing. Raises DuctileError.

    The PID file says that this goes on, so that after our death no start takes the missing database for one that was
    never there; it keeps the moment, so that the next restore completes the set that was being put aside.
    """
    moment = db_files.stamp(now)
    if lock.left.startswith(RESTORING) and not database.exists():
        moment = lock.left.removeprefix(RESTORING).strip()
    kept = database.with_name(f"{database.name}.before-{moment}")
    lock.note(RESTORING + moment)
    try:
        # The database first: from here on a start is refused, and nobody makes a new log.
        for end in _ENDS:
            if _named(database, end).exists():
                _named(database, end).rename(_named(kept, end))
        db_files.sync_directory(database.parent)
        part.rename(database)
        db_files.sync_directory(database.parent)
    except OSError as error:
        raise DuctileError(f"cannot put the backup in place: {error.strerror}; what was there is kept as"
                           f" {one_line(str(kept))}*, run `ductilectl restore` again", exit_code=EXIT_IO) from error
    return kept if any(_named(kept, end).exists() for end in _ENDS) else None
