"""The SQLite database: connect, check, migrate, and the one way to write to it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from ductile import db_files, schema
from ductile.errors import EXIT_DATA, EXIT_PERMISSION, EXIT_SYSTEM, EXIT_UNAVAILABLE, DuctileError
from ductile.pidfile import is_left, pid_file
from ductile.safe_files import network_file_system

APPLICATION_ID = 0x44754374   # "DuCt", so that another program's database is not taken for ours

_BUSY_SECONDS = 5.0           # how long to wait for another process's write
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_OLDEST_SQLITE = (3, 35, 0)   # RETURNING
_OPENINGS = 3                 # how often a connection is opened that turns out to be read-only
_JOURNAL_LIMIT_BYTES = 16 * 1024 * 1024
# Four times SQLite's default: a page that each job writes goes to its place once for four, which spares a slow card.
_CHECKPOINT_PAGES = 4000
# Past this the write-ahead log is worth a warning: it is cut to _JOURNAL_LIMIT_BYTES as soon as no reader needs it.
LARGE_LOG_BYTES = 64 * 1024 * 1024

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

# One lock around every write transaction of this process: SQLite's own waiting starves one of two threads.
_writing = threading.Lock()
# Whether the last write of this process worked, whoever made it.
_is_written = True
# The files of the database that this process serves, None for a process that only visits one.
_held: db_files.HeldFiles | None = None


class NotWritten(Exception):
    """A transaction did not happen: it was rolled back, nothing was stored, and it may be tried again.

    `is_full` says that the disk has no room for it.
    """

    def __init__(self, why: str, *, is_full: bool = False) -> None:
        super().__init__(why)
        self.is_full = is_full


class Damaged(DuctileError):
    """The database is not what Ductile wrote."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"the database {path} is damaged ({why}); {db_files.RESTORE}", exit_code=EXIT_DATA,
        )


class Replaced(Damaged):
    """A file of the database is no longer the one that this process has open."""

    def __init__(self, what: str, files: db_files.HeldFiles) -> None:
        DuctileError.__init__(self, what, exit_code=EXIT_DATA)
        self.files = files


class FateUnknown(DuctileError):
    """An I/O error left it open whether a commit is on the disk; only opening the database anew can tell."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"an I/O error in the database left the last write uncertain ({why}); check the disk and start "
            f"ductiled again: it reads what is true",
            exit_code=EXIT_SYSTEM,
        )


def translate(error: sqlite3.Error, path: str) -> Exception:
    """Return what an error of SQLite means to Ductile: Damaged, FateUnknown, NotWritten, or itself for a bug.

    By its primary code (sqlite.org/rescode.html): CORRUPT and NOTADB are damage, IOERR leaves the fate of
    a commit unknown, anything else that comes from the database means that nothing was written.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    if code & 0xFF in _DAMAGED:
        return Damaged(path, str(error))
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        return FateUnknown(f"{error.sqlite_errorname}: {error}")
    if code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_MISMATCH):
        return error
    return NotWritten(f"{error} ({error.sqlite_errorname})", is_full=code & 0xFF == sqlite3.SQLITE_FULL)


def _meaning(error: sqlite3.Error, conn: sqlite3.Connection) -> Exception:
    """`translate` an error of a connection: one that a part missing from the schema explains is no bug, but damage."""
    meaning = translate(error, path_of(conn))
    if meaning is not error:
        return meaning
    try:
        missing = schema.missing(conn)
    except sqlite3.Error:
        return error
    return Damaged(path_of(conn), missing[0]) if missing else error


def path_of(conn: sqlite3.Connection) -> str:
    """Return the file that a connection has open, for messages."""
    try:
        return conn.execute("PRAGMA database_list").fetchone()[2]
    except sqlite3.Error:
        return "(unknown)"


@contextmanager
def transaction(conn: sqlite3.Connection, *, synced: bool | None = True) -> Iterator[None]:
    """Commit everything that the block writes, or nothing.

    `synced=False` leaves the commit to the next synced one: it survives the death of this process
    but perhaps not of the machine. None is for a connection on which that is never done: it syncs as it did when
    it was opened. Raises NotWritten where nothing was written, FateUnknown and Damaged as `translate` says, Replaced
    as `refuse_replaced` does; an exception of the block rolls back and goes on.
    """
    global _is_written
    with _writing:
        refuse_replaced()
        try:
            # Before each, and nothing after the commit: an error there would deny what has happened.
            if synced is not None:
                conn.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            conn.execute("BEGIN IMMEDIATE")
            try:
                before = conn.total_changes
                yield
                conn.execute("COMMIT")
            except BaseException:
                _roll_back(conn)
                raise
        except sqlite3.Error as error:
            _is_written = False
            raise _meaning(error, conn) from error
        # One that had nothing to write proves nothing.
        _is_written = _is_written or conn.total_changes > before


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have each write of the block see first that the files of this database, open by now, are those of their names."""
    global _held
    _held = db_files.HeldFiles(path)
    try:
        yield
    finally:
        _held = None


def refuse_replaced() -> None:
    """Raise Replaced where a file of the database that is held has been removed or replaced."""
    global _is_written
    if _held is None:
        return
    lost = _held.what_is_lost()
    if lost is not None:
        _is_written = False
        raise Replaced(lost, _held)


def is_written() -> bool:
    """Say whether the last write of this process worked; True before the first."""
    return _is_written


@contextmanager
def database_errors(conn: sqlite3.Connection) -> Iterator[None]:
    """Turn errors of reads in the block into what `translate` says."""
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(error, conn) from error


def _roll_back(conn: sqlite3.Connection) -> None:
    """Undo the open transaction; an error that already ended it must not hide the one that is being raised."""
    if not conn.in_transaction:
        return
    try:
        conn.execute("ROLLBACK")
    except sqlite3.Error:
        return


def make_directory(path: Path) -> None:
    """Make the directory of the database `path`, for its owner alone.

    Raises DuctileError (71) where that cannot be, or where the directory is on a network file system.
    """
    try:
        path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise DuctileError(f"cannot make the data directory {path.parent}: {error.strerror}",
                           exit_code=EXIT_SYSTEM) from error
    _refuse_network(path.parent)


def open_for_daemon(path: Path, *, was_unclean: bool = False) -> sqlite3.Connection:
    """Open the database, making or migrating it as needed, and check it.

    `was_unclean` says that the last daemon did not stop cleanly: then there must be a database. When this returns, the
    database and its name are on the disk. Raises DuctileError: 65 damaged, newer, another program's or a part of it
    missing; 71 where it cannot be opened or written.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise DuctileError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or later is needed",
                           exit_code=EXIT_SYSTEM)
    try:
        if not db_files.is_there(path, was_unclean=was_unclean):
            _make(path)
        db_files.sync_directory(path.parent)
        return _open(path)
    except OSError as error:
        raise DuctileError(
            f"cannot open the database {path}: {error.strerror}; the directory must be writable by this user",
            exit_code=EXIT_SYSTEM,
        ) from error
    except sqlite3.Error as error:
        raise _as_start_error(error, path) from error
    except NotWritten as error:
        raise DuctileError(f"cannot write the database {path}: {error}", exit_code=EXIT_SYSTEM) from error


def open_for_operator(path: Path, *, failed: int) -> sqlite3.Connection | None:
    """Open the database of a daemon that may be running; None where there is none yet.

    It is never made or migrated here. Raises DuctileError: 65 damaged, newer, another program's or a part of it
    missing, 69 older, 77 no permission, `failed` otherwise.
    """
    try:
        # The PID file first: a daemon that starts now writes it after it has made the database.
        was_unclean = is_left(pid_file(path))
        if not db_files.is_there(path, was_unclean=was_unclean):
            return None
        if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError
    except PermissionError as error:
        raise DuctileError(
            f"no permission for the database {path}: run this as the user that runs ductiled", exit_code=EXIT_PERMISSION
        ) from error
    conn = None
    try:
        conn = _connect(path)
        version = check_version(conn, path)
        if version == 0:
            conn.close()
            return None
        if version < schema.VERSION:
            raise DuctileError(
                f"the database {path} has version {version}, older than this program's {schema.VERSION}; start "
                f"ductiled of this version: it brings the database up to date",
                exit_code=EXIT_UNAVAILABLE,
            )
        return conn
    except sqlite3.Error as error:
        if conn is not None:
            conn.close()
        problem = _as_start_error(error, path)
        problem.exit_code = EXIT_DATA if problem.exit_code == EXIT_DATA else failed
        raise problem from error
    except DuctileError:
        conn.close()
        raise


def connect_again(path: Path) -> sqlite3.Connection:
    """Open another connection to a database that `open_for_daemon` has made ready.

    Threads may share it, one at a time. Raises DuctileError: 65 damaged, 71 where it cannot be opened.
    """
    try:
        return _open_to_write(lambda: _connect(path, shared=True), _tune)
    except sqlite3.Error as error:
        raise _as_start_error(error, path) from error


def _open_to_write(connect: Callable[[], sqlite3.Connection], prepare: Callable[[sqlite3.Connection], None],
                   tries: int = _OPENINGS) -> sqlite3.Connection:
    """Open and prepare a connection; one that turns out to be read-only is opened once more.

    Where SQLite cannot write the file or its log for one moment it opens them read-only for ever (unixOpen, os_unix.c).
    """
    conn = connect()
    try:
        prepare(conn)
        return conn
    except BaseException as error:
        conn.close()
        if tries == 1 or getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_READONLY:
            raise
    return _open_to_write(connect, prepare, tries - 1)


def _refuse_read_only(conn: sqlite3.Connection) -> None:
    """Raise SQLITE_READONLY now and not at the first write. That another process writes (busy) proves nothing."""
    try:
        with _writing:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise


def _tune(conn: sqlite3.Connection) -> None:
    """Set what holds for one connection and not for the file; see that it can write."""
    _refuse_read_only(conn)
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT_BYTES}")
    conn.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")


def _connect(path: Path, *, shared: bool = False) -> sqlite3.Connection:
    conn = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=rw", uri=True, isolation_level=None, timeout=_BUSY_SECONDS,
        check_same_thread=not shared,
    )
    conn.execute("PRAGMA foreign_keys = ON")
    return conn


def _refuse_network(directory: Path) -> None:
    kind = network_file_system(directory)
    if kind is not None:
        raise DuctileError(
            f"the data directory {directory} is on a network file system ({kind}), where SQLite's locks do not hold; "
            f"set state.path to a local disk",
            exit_code=EXIT_SYSTEM,
        )


def _make(path: Path) -> None:
    """Make a database for its owner alone, under another name until it is whole: a file without tables is refused."""
    part = path.with_name(f".{path.name}.new")
    for each in (part, part.with_name(f"{part.name}-journal"), db_files.log_of(part), db_files.index_of(part)):
        # What a start has left that was killed.
        each.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
    try:
        # Closing it moves its log into it, and syncs that.
        _open(part).close()
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _open(path: Path) -> sqlite3.Connection:
    return _open_to_write(lambda: _connect(path), lambda conn: _prepare(conn, path))


def _prepare(conn: sqlite3.Connection, path: Path) -> None:
    version = check_version(conn, path)
    if version == 0:
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
    journal = conn.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if journal != "wal":
        raise DuctileError(f"the database {path} cannot use a write-ahead log here (SQLite says {journal!r}); "
                           f"set state.path to a local disk", exit_code=EXIT_SYSTEM)
    _tune(conn)
    migrate(conn, version)
    _check_size(conn, path)
    _check_schema(conn, path)


def check_version(conn: sqlite3.Connection, path: Path) -> int:
    """Return the schema's version, 0 for an empty database. Raises DuctileError (65)."""
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    owner = conn.execute("PRAGMA application_id").fetchone()[0]
    tables = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and owner != APPLICATION_ID:
        raise DuctileError(f"{path} is not a database of Ductile; set state.path to another file", exit_code=EXIT_DATA)
    if version > schema.VERSION:
        raise DuctileError(
            f"the database {path} has version {version}, newer than this program's {schema.VERSION}; "
            f"install the newer Ductile again",
            exit_code=EXIT_DATA,
        )
    return version if tables else 0


def _check_size(conn: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is shorter than its pages, where all of the write-ahead log is in it.

    A reader of another program keeps a part of the log out of the file: then its size says nothing
    (sqlite.org/pragma.html#pragma_wal_checkpoint).
    """
    # Before the checkpoint: what `ductilectl` writes in between can only make the file longer.
    pages = conn.execute("PRAGMA page_count").fetchone()[0]
    busy, logged, moved = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if busy or logged != moved:
        return
    expected = pages * conn.execute("PRAGMA page_size").fetchone()[0]
    actual = path.stat().st_size
    if actual < expected:
        raise Damaged(str(path), f"it has {actual} bytes where {expected} are expected")


def _check_schema(conn: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that lacks a part of its schema. More than expected is the operator's own affair."""
    missing = schema.missing(conn)
    if missing:
        raise Damaged(str(path), missing[0])


def migrate(conn: sqlite3.Connection, version: int) -> None:
    """Bring the schema from `version` to the newest, each step in a transaction of its own."""
    for number in range(version + 1, schema.VERSION + 1):
        with transaction(conn):
            for statement in schema.statements(number):
                conn.execute(statement)
            conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            conn.execute(f"PRAGMA user_version = {number}")


def _as_start_error(error: sqlite3.Error, path: Path) -> DuctileError:
    meaning = translate(error, str(path))
    if isinstance(meaning, Damaged):
        return meaning
    if isinstance(meaning, FateUnknown):
        return DuctileError(f"cannot open the database {path}: {error} ({error.sqlite_errorname}); "
                            f"check the disk and its room", exit_code=EXIT_SYSTEM)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
        return DuctileError(f"cannot write the database {path}: it or its -wal can only be opened for reading; check "
                            f"their permissions and the limit on open files", exit_code=EXIT_SYSTEM)
    return DuctileError(f"cannot open the database {path}: {error}", exit_code=EXIT_SYSTEM)


def full_check(conn: sqlite3.Connection) -> list[str]:
    """Return what SQLite's own full check finds wrong, and what is missing, a line each; nothing where all is well."""
    try:
        missing = schema.missing(conn)
        found = [row[0] for row in conn.execute("PRAGMA integrity_check")]
        orphans = [f"{row[0]} row {row[1]} refers to a missing row of {row[2]}"
                   for row in conn.execute("PRAGMA foreign_key_check")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [line for line in found if line != "ok"] + orphans + missing


def held_log_bytes(conn: sqlite3.Connection) -> int | None:
    """Return the size of a large write-ahead log that a reader holds, None where it is small or nobody holds it.

    A transaction that reads without an end keeps what was written since from being moved into the database. Within a
    transaction nothing can be said: None. Raises sqlite3.Error.
    """
    try:
        size = db_files.log_of(Path(path_of(conn))).stat().st_size
    except FileNotFoundError:
        return None
    if size <= LARGE_LOG_BYTES or conn.in_transaction:
        return None
    _, logged, moved = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return size if moved < logged else None


def free_pages(conn: sqlite3.Connection, limit: int) -> int:
    """Give up to `limit` unused pages back to the file system. Return how many."""
    unused = conn.execute("PRAGMA freelist_count").fetchone()[0]
    if unused:
        with _writing, database_errors(conn):
            refuse_replaced()
            conn.executescript(f"PRAGMA incremental_vacuum({limit})")
    return min(unused, limit)
