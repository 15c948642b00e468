"""The SQLite database: connections, checks, migrations, and the transaction that every write uses."""

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
from ductile.pidfile import is_nonempty, pid_file
from ductile.safe_files import network_file_system

APPLICATION_ID = 0x44754374   # "DuCt", to recognise the databases of other programs

_BUSY_SECONDS = 5.0           # to wait for a write of another process
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_OLDEST_SQLITE = (3, 35, 0)   # RETURNING
_OPENINGS = 3                 # attempts to get a connection that is not read-only
_JOURNAL_LIMIT_BYTES = 16 * 1024 * 1024
# Four times SQLite's default: a page that every job writes is checkpointed a quarter as often, which spares slow cards.
_CHECKPOINT_PAGES = 4000
_SMALL_CHECKPOINT_PAGES = 500
# A larger write-ahead log is worth a warning: it shrinks to _JOURNAL_LIMIT_BYTES when no reader needs it.
LARGE_LOG_BYTES = 64 * 1024 * 1024

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

# Held for every write transaction of this process: SQLite's busy handler starves one of two threads.
_writing = threading.Lock()
# Whether the last write of this process succeeded.
_is_written = True
# The database files of the daemon; None in other processes.
_held: db_files.HeldFiles | None = None


class NotWritten(Exception):
    """A transaction was rolled back: nothing was stored, and it may be retried. `is_full`: the disk is full."""

    def __init__(self, why: str, *, is_full: bool = False) -> None:
        super().__init__(why)
        self.is_full = is_full


class Damaged(DuctileError):
    """The database does not contain what Ductile wrote."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"the database {path} is damaged ({why}); {db_files.RESTORE}", exit_code=EXIT_DATA,
        )


class Replaced(Damaged):
    """A database file was removed or replaced while this process had it open."""

    def __init__(self, what: str, files: db_files.HeldFiles) -> None:
        DuctileError.__init__(self, what, exit_code=EXIT_DATA)
        self.files = files


class FateUnknown(DuctileError):
    """After an I/O error it is unknown whether a commit is on disk; only reopening the database can tell."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"after an I/O error in the database it is unknown whether the last write was stored ({why}); check the "
            f"disk and start ductiled again",
            exit_code=EXIT_SYSTEM,
        )


def translate(error: sqlite3.Error, path: str) -> Exception:
    """Return the exception for an error of SQLite: Damaged, FateUnknown, NotWritten, or the error itself for a bug.

    Decided by the primary code (sqlite.org/rescode.html): CORRUPT and NOTADB mean damage, IOERR leaves the fate of a
    commit unknown, ERROR and MISUSE are bugs; with any other code nothing was written.
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
    """`translate` an error of a connection. A missing table or column means damage, not a bug."""
    meaning = translate(error, path_of(conn))
    if meaning is not error:
        return meaning
    try:
        missing = schema.missing(conn)
    except sqlite3.Error:
        return error
    return Damaged(path_of(conn), missing[0]) if missing else error


def path_of(conn: sqlite3.Connection) -> str:
    """Return the database file of a connection, for messages."""
    try:
        return str(conn.execute("PRAGMA database_list").fetchone()[2])
    except sqlite3.Error:
        return "(unknown)"


@contextmanager
def transaction(conn: sqlite3.Connection, *, synced: bool | None = True) -> Iterator[None]:
    """Commit everything that the block writes, or nothing.

    With `synced=False` the commit survives a crash of this process, but not always a power cut before the next synced
    one. None keeps the connection's setting. Raises NotWritten if nothing was written, FateUnknown, Damaged, and
    Replaced. An exception of the block rolls back and is raised again.
    """
    global _is_written
    with _writing:
        refuse_replaced()
        try:
            # Set before, and nothing after the commit: an error there would deny a commit that happened.
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
        # A transaction without a change proves nothing.
        _is_written = _is_written or conn.total_changes > before


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Check before each write in the block that the files of this database, which is open, are still in place."""
    global _held
    _held = db_files.HeldFiles(path)
    try:
        yield
    finally:
        _held = None


def refuse_replaced() -> None:
    """Raise Replaced if a file of the `held` database was removed or replaced."""
    global _is_written
    if _held is None:
        return
    lost = _held.find_lost()
    if lost is not None:
        _is_written = False
        raise Replaced(lost, _held)


def is_written() -> bool:
    """True if the last write of this process succeeded, and before the first."""
    return _is_written


@contextmanager
def database_errors(conn: sqlite3.Connection) -> Iterator[None]:
    """Raise errors of reads in the block as `translate` returns them."""
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(error, conn) from error


def _roll_back(conn: sqlite3.Connection) -> None:
    """Roll back the open transaction. Its own error must not hide the one that is being raised."""
    if not conn.in_transaction:
        return
    try:
        conn.execute("ROLLBACK")
    except sqlite3.Error:
        return


def make_directory(path: Path) -> None:
    """Create the directory of the database `path`, for its owner only.

    Raises DuctileError (71) if it cannot be created or is on a network file system.
    """
    try:
        path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise DuctileError(f"cannot create the data directory {path.parent}: {error.strerror}",
                           exit_code=EXIT_SYSTEM) from error
    _refuse_network(path.parent)


def open_for_daemon(path: Path, *, was_unclean: bool = False) -> sqlite3.Connection:
    """Open the database, create or migrate it if necessary, and check it.

    After an unclean stop (`was_unclean`) the database must exist. When this returns, the database and its directory
    entry are on disk. Raises DuctileError: 65 if it is damaged, newer, incomplete or another program's; 71 if it cannot
    be opened or written.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise DuctileError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or later is needed",
                           exit_code=EXIT_SYSTEM)
    try:
        if not db_files.exists(path, was_unclean=was_unclean):
            _create(path)
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
    """Open the database of a daemon that may be running; None if there is none yet. Never creates or migrates it.

    Raises DuctileError: 65 if it is damaged, newer, incomplete or another program's, 69 if it is older, 77 without
    permission, `failed` otherwise.
    """
    try:
        # The PID file first: a daemon that is starting writes it after the database.
        was_unclean = is_nonempty(pid_file(path))
        if not db_files.exists(path, was_unclean=was_unclean):
            return None
        if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError
    except PermissionError as error:
        raise DuctileError(
            f"no permission for the database {path}: run this as the user that runs ductiled", exit_code=EXIT_PERMISSION
        ) from error
    conn: sqlite3.Connection | None = None
    try:
        conn = _connect(path)
        version = check_version(conn, path)
        if version == 0:
            conn.close()
            return None
        if version < schema.VERSION:
            raise DuctileError(
                f"the database {path} has version {version}, older than this program's {schema.VERSION}; start "
                f"ductiled of this version to migrate it",
                exit_code=EXIT_UNAVAILABLE,
            )
        return conn
    except (sqlite3.Error, DuctileError) as error:
        if conn is not None:
            conn.close()
        if isinstance(error, DuctileError):
            raise
        problem = _as_start_error(error, path)
        problem.exit_code = EXIT_DATA if problem.exit_code == EXIT_DATA else failed
        raise problem from error


def connect_again(path: Path) -> sqlite3.Connection:
    """Open another connection to a database after `open_for_daemon`. Threads may share it, one at a time.

    Raises DuctileError: 65 if it is damaged, 71 if it cannot be opened.
    """
    try:
        return _open_to_write(lambda: _connect(path, shared=True), _tune)
    except sqlite3.Error as error:
        raise _as_start_error(error, path) from error


def _open_to_write(connect: Callable[[], sqlite3.Connection], prepare: Callable[[sqlite3.Connection], None],
                   tries: int = _OPENINGS) -> sqlite3.Connection:
    """Open and prepare a connection; reopen it if it is read-only.

    If SQLite cannot open the file or its log for writing, even for a moment, it opens them read-only (os_unix.c).
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
    """Raise SQLITE_READONLY now instead of at the first write. SQLITE_BUSY proves nothing."""
    try:
        with _writing:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise


def _tune(conn: sqlite3.Connection) -> None:
    """Set the options that SQLite keeps per connection, and check that it can write."""
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


def _create(path: Path) -> None:
    """Create a database for its owner only, under another name until it is complete: an empty one is refused."""
    part = path.with_name(f".{path.name}.new")
    for each in (part, part.with_name(f"{part.name}-journal"), db_files.log_of(part), db_files.index_of(part)):
        # Left by a start that was killed.
        each.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
    try:
        # Closing it checkpoints its log and syncs the file.
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
    """Return the schema version, 0 for an empty database. Raises DuctileError (65)."""
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
    """Refuse a truncated file, if the write-ahead log is checkpointed.

    While another program reads, a part of the log may not be in the file, and its size proves nothing
    (sqlite.org/pragma.html#pragma_wal_checkpoint).
    """
    # Before the checkpoint: a write of `ductilectl` in between can only make the file longer.
    pages = conn.execute("PRAGMA page_count").fetchone()[0]
    busy, logged, moved = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if busy or logged != moved:
        return
    expected = pages * conn.execute("PRAGMA page_size").fetchone()[0]
    actual = path.stat().st_size
    if actual < expected:
        raise Damaged(str(path), f"it has {actual} bytes, expected {expected}")


def _check_schema(conn: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that lacks a table, column or index. Additional ones are allowed."""
    missing = schema.missing(conn)
    if missing:
        raise Damaged(str(path), missing[0])


def migrate(conn: sqlite3.Connection, version: int) -> None:
    """Migrate the schema from `version` to the newest, each step in its own transaction."""
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
                            f"check the disk and its free space", exit_code=EXIT_SYSTEM)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
        return DuctileError(f"cannot write the database {path}: it or its -wal can only be opened for reading; check "
                            f"their permissions and the limit on open files", exit_code=EXIT_SYSTEM)
    return DuctileError(f"cannot open the database {path}: {error}", exit_code=EXIT_SYSTEM)


def full_check(conn: sqlite3.Connection) -> list[str]:
    """Return what is wrong by SQLite's full check and what the schema lacks, a line each; empty if nothing is."""
    try:
        missing = schema.missing(conn)
        found = [row[0] for row in conn.execute("PRAGMA integrity_check")]
        orphans = [f"{row[0]} row {row[1]} refers to a missing row of {row[2]}"
                   for row in conn.execute("PRAGMA foreign_key_check")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [line for line in found if line != "ok"] + orphans + missing


def held_log_bytes(conn: sqlite3.Connection) -> int | None:
    """Return the size of a large write-ahead log that a reader keeps from being checkpointed; else None.

    Within a transaction it is unknown: None. Raises sqlite3.Error.
    """
    try:
        size = db_files.log_of(Path(path_of(conn))).stat().st_size
    except FileNotFoundError:
        return None
    if size <= LARGE_LOG_BYTES or conn.in_transaction:
        return None
    _, logged, moved = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return size if moved < logged else None


@contextmanager
def small_checkpoints(conn: sqlite3.Connection) -> Iterator[None]:
    """Make commits of the block move the log into the database early: each move is short."""
    conn.execute(f"PRAGMA wal_autocheckpoint = {_SMALL_CHECKPOINT_PAGES}")
    try:
        yield
    finally:
        conn.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")


def free_pages(conn: sqlite3.Connection, limit: int) -> int:
    """Return up to `limit` unused pages to the file system, and their number to the caller."""
    unused: int = conn.execute("PRAGMA freelist_count").fetchone()[0]
    if unused:
        with _writing, database_errors(conn):
            refuse_replaced()
            conn.executescript(f"PRAGMA incremental_vacuum({limit})")
    return min(unused, limit)
