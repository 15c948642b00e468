"""`ductilectl backup`: a copy of the database as it was at one moment, checked, or nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from io import TextIOBase
from pathlib import Path
from tempfile import mkstemp
from urllib.parse import quote

from ductile import db
from ductile.ctl.document import document
from ductile.ctl.ending import noted
from ductile.ctl.progress import progress
from ductile.errors import EXIT_DATA, EXIT_IO, EXIT_OK, DuctileError, io_exit_code
from ductile.text import one_line
from ductile.units import format_size, utc_text

_PIECE_PAGES = 1000          # 4 MB: how often a signal is noticed while copying
_CHECK_STEPS = 100_000       # of SQLite's machine: the same while checking
_FINDINGS_SHOWN = 5
_FILE_MODE = 0o600
_NAME_SHOWN = 40             # of the file's in that of its unfinished copy, which has to be short enough
_NOTE = "in it: jobs, logs, states, contexts, schedules, breakers; not in it: the configuration, secrets, plugins," \
        " pipelines, and the files in workspaces\n"


class _Interrupted(Exception):
    """A signal has come."""


def backup(conn: sqlite3.Connection, *, file: Path, state_path: Path, now: datetime, as_json: bool, out: TextIOBase,
           err: TextIOBase) -> int:
    """Copy the database to a file that is not there yet, for its owner alone. Writers are not held up.

    Raises DuctileError: 74 where the file is there or cannot be written, 77 where this user may not, 65 where SQLite's
    full check finds the copy damaged; what `reading` and `noted` raise. Then no file is left.
    """
    shown = one_line(str(file))
    if os.path.lexists(file):
        raise DuctileError(f"{shown} exists already; name another file, or move it away", exit_code=EXIT_IO)
    try:
        with noted() as got:
            size = _make(conn, file, state_path, lambda: bool(got), err)
    except OSError as error:
        raise _not_written(file, error.strerror, io_exit_code(error)) from error
    if as_json:
        out.write(document({"file": str(file), "bytes": size, "taken_at": utc_text(now)}))
    else:
        out.write(f"{shown}: {format_size(size)}, checked\n{_NOTE}")
    return EXIT_OK


def _not_written(file: Path, why: str, exit_code: int = EXIT_IO) -> DuctileError:
    return DuctileError(f"cannot write {one_line(str(file))}: {why}; nothing was made", exit_code=exit_code)


def _make(conn: sqlite3.Connection, file: Path, state_path: Path, ends: Callable[[], bool], err: TextIOBase) -> int:
    """Make the copy under another name beside its place, and give it its own when it is whole. Return its bytes.

    Raises DuctileError, OSError; with `ends`, asked now and then, _Interrupted, which no one sees: the signal itself
    is raised in its place.
    """
    fd, name = mkstemp(prefix=f".{file.name[:_NAME_SHOWN]}.", dir=file.parent)
    part = Path(name)
    try:
        with progress(f"copying {one_line(str(state_path))}", err):
            _copy(conn, part, file, ends)
        os.fsync(fd)
        with progress("checking the copy", err):
            _check(part, state_path, ends)
        size = os.fstat(fd).st_size
        _publish(part, file)
    finally:
        os.close(fd)
        part.unlink(missing_ok=True)
    _sync_directory(file.parent)
    return size


def _copy(conn: sqlite3.Connection, part: Path, file: Path, ends: Callable[[], bool]) -> None:
    """Copy page by page. The open read keeps the moment: without it a write of the daemon would start it anew."""
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


def _publish(part: Path, file: Path) -> None:
    """Give the copy its name. Raises FileExistsError where somebody else has taken it meanwhile."""
    # Taken first and replaced then: a link would do both at once, but some file systems know none.
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
    try:
        os.rename(part, file)
    except OSError:
        file.unlink()
        raise


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
