from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from ductile import db, schema
from ductile.errors import EXIT_DATA, EXIT_IO, EXIT_PERMISSION, EXIT_SYSTEM, DuctileError
from ductile.pidfile import pid_file
from support.launch import in_a_child
from support.ledger import opened, put_ended, put_job

BUSY_SECONDS = 5
MEND = "restore a backup with `ductilectl restore FILE`"
NEWER = (f"the database FILE has version {schema.VERSION + 1}, newer than this program's {schema.VERSION}; install the"
         " newer Ductile again")
T0 = "2026-02-08T10:00:00.000Z"


@pytest.fixture
def path(tmp_path):
    """A good database that nobody has open."""
    with opened(tmp_path) as conn:
        put_ended(conn, range(300), at=T0, result="x" * 500)
    return tmp_path / "state.db"


def execute(path: Path, *statements: str) -> None:
    conn = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        conn.execute(statement)
    conn.close()


def refusal(path: Path) -> tuple[int, str]:
    """How the daemon refuses the database, where it must leave the file as it is."""
    before = path.read_bytes()
    with pytest.raises(DuctileError) as caught:
        db.open_for_daemon(path)
    assert path.read_bytes() == before
    return caught.value.exit_code, str(caught.value).replace(str(path), "FILE")


def test_a_newer_version_is_left_alone(path):
    execute(path, f"PRAGMA user_version = {schema.VERSION + 1}")
    assert refusal(path) == (EXIT_DATA, f"the database FILE has version {schema.VERSION + 1}, newer than this "
                                        f"program's {schema.VERSION}; "
                                        "install the newer Ductile again")


def test_a_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "theirs.db"
    execute(path, "CREATE TABLE theirs (x)")
    assert refusal(path) == (EXIT_DATA, "FILE is not a database of Ductile; set state.path to another file")


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("this is no database\n" * 100)
    assert refusal(path) == (EXIT_DATA, f"the database FILE is damaged (file is not a database); {MEND}")


def test_a_file_cut_in_half_is_damaged(path):
    os.truncate(path, path.stat().st_size // 2)
    assert refusal(path) == (EXIT_DATA, f"the database FILE is damaged (database disk image is malformed); {MEND}")


def test_a_file_that_lost_its_last_byte_is_damaged(path):
    os.truncate(path, path.stat().st_size - 1)
    assert refusal(path)[0] == EXIT_DATA


def test_a_reader_that_keeps_the_log_from_being_moved_is_no_damage(path):
    """As a backup tool or `sqlite3` is, which began before the last daemon was killed."""
    writer, reader = (sqlite3.connect(path, isolation_level=None) for _ in range(2))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM job_log").fetchone()
    put_ended(writer, range(300, 900), at=T0, result="x" * 500)
    writer.close()
    began = time.monotonic()
    daemon = db.open_for_daemon(path)
    assert time.monotonic() - began < BUSY_SECONDS
    assert daemon.execute("SELECT count(*) FROM job_log").fetchone() == (900,)
    reader.close()
    daemon.close()


def test_a_reader_does_not_hide_that_a_file_is_cut(path):
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM plugin_state").fetchone()
    os.truncate(path, path.stat().st_size - 1)
    assert refusal(path)[0] == EXIT_DATA
    reader.close()


def lost(path: Path, opens=db.open_for_daemon, **settings) -> tuple[int, str]:
    """How a database is refused of which a part is gone, where nothing may be made or changed."""
    before = contents(path.parent)
    with pytest.raises(DuctileError) as caught:
        opens(path, **settings)
    assert contents(path.parent) == before
    return caught.value.exit_code, str(caught.value).replace(str(path), "FILE")


def contents(directory: Path) -> dict[str, bytes | None]:
    return {each.name: each.read_bytes() if each.exists() else None for each in directory.iterdir()}


def operator(path: Path):
    return db.open_for_operator(path, failed=EXIT_IO)


@pytest.mark.parametrize("log", [None, b"", b"x" * 5000])
@pytest.mark.parametrize("opens", [db.open_for_daemon, operator])
def test_an_empty_file_is_refused_whatever_is_beside_it(tmp_path, opens, log):
    (tmp_path / "state.db").touch()
    if log is not None:
        (tmp_path / "state.db-wal").write_bytes(log)
    assert lost(tmp_path / "state.db", opens) == (
        EXIT_DATA, f"the database FILE is an empty file; {MEND}, or remove FILE to start with an empty database")


@pytest.mark.parametrize("name", ["state.db-wal", "state.db-shm"])
@pytest.mark.parametrize("opens", [db.open_for_daemon, operator])
def test_a_missing_file_with_something_of_it_left_is_refused(tmp_path, opens, name):
    (tmp_path / name).touch()
    there = name.replace("state.db", "FILE")
    assert lost(tmp_path / "state.db", opens) == (
        EXIT_DATA, f"the database FILE is missing, but {there} exists; {MEND}, or remove {there} to start with an"
                   f" empty database")


def test_a_missing_file_after_an_unclean_stop_is_refused(tmp_path):
    pid = pid_file(tmp_path / "state.db")
    expected = (EXIT_DATA, f"the database FILE is missing, and ductiled did not stop cleanly: {pid} is not empty;"
                           f" {MEND}, or remove {pid} to start with an empty database")
    assert lost(tmp_path / "state.db", was_unclean=True) == expected
    pid.write_text("1234\n")
    assert lost(tmp_path / "state.db", operator) == expected
    pid.write_text("")
    assert operator(tmp_path / "state.db") is None


@pytest.mark.parametrize("left", [(), ("state.db-wal", "state.db-shm"), ("state.db-shm",)])
@pytest.mark.parametrize("opens", [partial(db.open_for_daemon, was_unclean=True), operator])
def test_after_an_interrupted_restore_the_one_way_on_is_the_same_restore(tmp_path, opens, left):
    """The files that are left belong to those that it has already put aside: nothing else may touch them."""
    pid_file(tmp_path / "state.db").write_text("restore 2026-02-08T100000.000Z\n")
    for name in left:
        (tmp_path / name).write_bytes(b"x" * 5000)
    assert lost(tmp_path / "state.db", opens) == (
        EXIT_DATA, "the database FILE is missing, because a restore was interrupted; run the same `ductilectl restore"
                   " FILE` again")


@pytest.mark.parametrize("opens", [db.open_for_daemon, operator])
def test_an_index_whose_log_was_removed_is_refused(path, opens):
    index = path.with_name("state.db-shm")
    index.touch()
    log = path.with_name("state.db-wal")
    assert lost(path, opens) == (
        EXIT_DATA, f"the write-ahead log FILE-wal is missing, but FILE-shm exists: the log was removed, and with it"
                   f" the latest writes; {MEND}, or remove FILE-shm to continue without them")
    log.touch()
    opens(path).close()


@pytest.mark.parametrize("opens", [db.open_for_daemon, operator])
@pytest.mark.parametrize("is_applied", [True, False])
def test_an_index_that_a_stop_could_not_remove_is_no_damage(tmp_path, opens, is_applied):
    path, index, log = (tmp_path / f"state.db{end}" for end in ("", "-shm", "-wal"))
    with opened(tmp_path) as conn:
        put_job(conn, "a")
        if is_applied:
            conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        left = in_a_child(index.read_bytes)
    assert not log.exists()
    index.write_bytes(left)
    if not is_applied:
        assert lost(path, opens)[0] == EXIT_DATA
        return
    with closing(opens(path)) as conn:
        assert conn.execute("SELECT id FROM job_queue").fetchall() == [("a",)]


def test_a_link_that_leads_nowhere_is_not_replaced(tmp_path):
    (tmp_path / "state.db").symlink_to(tmp_path / "disk" / "state.db")
    assert lost(tmp_path / "state.db") == (
        EXIT_SYSTEM, f"cannot open the database FILE: it is a symbolic link to {tmp_path}/disk/state.db, which does not"
                     f" exist; is its disk mounted?")


def test_a_start_that_was_killed_before_there_was_a_database_is_no_damage(tmp_path):
    for end in ("", "-journal", "-wal", "-shm"):
        (tmp_path / f".state.db.new{end}").write_bytes(b"half" * 1000)
    with opened_anew(tmp_path) as conn:
        put_job(conn, "a")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["state.db"]


@contextmanager
def opened_anew(directory: Path):
    conn = db.open_for_daemon(directory / "state.db")
    yield conn
    conn.close()


def test_a_crash_before_the_first_commit_is_no_damage(tmp_path):
    execute(tmp_path / "state.db", "PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA journal_mode = WAL")
    with opened(tmp_path) as conn:
        assert conn.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        put_job(conn, "a")


@pytest.mark.parametrize("statement, why", [
    ("ALTER TABLE job_log DROP COLUMN stderr", "table job_log has no column stderr"),
    ("DROP TABLE artifacts", "table artifacts has no column digest"),
    ("DROP INDEX job_queue_open", "table job_queue has no index job_queue_open"),
])
def test_a_missing_part_of_the_schema_is_damage(path, statement, why):
    execute(path, statement)
    with pytest.raises(DuctileError) as caught:
        db.open_for_daemon(path)
    assert (caught.value.exit_code, str(caught.value)) == (EXIT_DATA, f"the database {path} is damaged ({why}); {MEND}")


@pytest.mark.parametrize("block", [db.database_errors, db.transaction])
@pytest.mark.parametrize("statement, query, why", [
    ("DROP TABLE artifacts", "SELECT * FROM artifacts", "table artifacts has no column digest"),
    ("DROP INDEX job_queue_open", "SELECT 1 FROM job_queue INDEXED BY job_queue_open WHERE completed_at IS NULL",
     "table job_queue has no index job_queue_open"),
])
def test_a_part_of_the_schema_that_goes_while_it_runs_is_damage(tmp_path, block, statement, query, why):
    with opened(tmp_path) as conn:
        execute(tmp_path / "state.db", statement)
        with pytest.raises(db.Damaged) as caught, block(conn):
            conn.execute(query)
        assert str(caught.value) == f"the database {tmp_path}/state.db is damaged ({why}); {MEND}"
        assert why in db.full_check(conn)


def test_columns_and_tables_of_the_operator_are_no_damage(path):
    execute(path, "ALTER TABLE job_queue ADD COLUMN note TEXT", "CREATE TABLE mine (x)")
    db.open_for_daemon(path).close()


def test_a_directory_in_its_place_is_refused(tmp_path):
    (tmp_path / "state.db").mkdir()
    with pytest.raises(DuctileError) as caught:
        db.open_for_daemon(tmp_path / "state.db")
    assert caught.value.exit_code == EXIT_SYSTEM


def test_a_file_in_place_of_the_data_directory_is_refused(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(DuctileError) as caught:
        db.make_directory(tmp_path / "data" / "state.db")
    assert (caught.value.exit_code, str(caught.value)) == (
        EXIT_SYSTEM, f"cannot create the data directory {tmp_path}/data: File exists")


def test_the_full_check_finds_what_the_start_does_not(path):
    with open(path, "r+b") as file:
        file.seek(-3000, os.SEEK_END)
        file.write(b"\xff" * 1000)
    conn = db.open_for_daemon(path)
    assert db.full_check(conn) != []
    conn.close()


# The operator's command


def test_without_a_database_the_operator_gets_none(tmp_path):
    assert db.open_for_operator(tmp_path / "state.db", failed=EXIT_IO) is None
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_tables_is_none_to_the_operator(tmp_path):
    execute(tmp_path / "state.db", "PRAGMA journal_mode = WAL")
    assert db.open_for_operator(tmp_path / "state.db", failed=EXIT_IO) is None


def test_the_operator_reads_and_writes_beside_the_daemon(tmp_path):
    with opened(tmp_path) as daemon:
        operator = db.open_for_operator(tmp_path / "state.db", failed=EXIT_IO)
        put_job(operator, "a")
        operator.close()
        assert daemon.execute("SELECT id FROM job_queue").fetchall() == [("a",)]


@pytest.mark.parametrize("damage, exit_code, text", [
    (lambda path: execute(path, f"PRAGMA user_version = {schema.VERSION + 1}"), EXIT_DATA,
     f"the database FILE has version {schema.VERSION + 1}, newer than this program's {schema.VERSION}; install "
     f"the newer Ductile again"),
    (lambda path: path.write_text("no database\n" * 100), EXIT_DATA,
     f"the database FILE is damaged (file is not a database); {MEND}"),
    (lambda path: (path.unlink(), path.mkdir()), EXIT_IO,
     "cannot open the database FILE: unable to open database file"),
])
def test_the_operator_is_told_what_is_wrong(path, damage, exit_code, text):
    damage(path)
    with pytest.raises(DuctileError) as caught:
        db.open_for_operator(path, failed=EXIT_IO)
    assert (caught.value.exit_code, str(caught.value)) == (exit_code, text.replace("database FILE", f"database {path}"))


# As an ordinary user

def as_ordinary_user(what: str, path: Path) -> tuple[int, str]:
    """What comes of opening the database as a user who is not its owner."""
    def opened_or_refused() -> tuple[int, str]:
        try:
            if what == "make":
                db.make_directory(path)
            conn = db.open_for_operator(path, failed=74) if what == "operator" else db.open_for_daemon(path)
        except DuctileError as error:
            return error.exit_code, str(error)
        return 0, repr(conn)

    return in_a_child(opened_or_refused, ordinary=True)


@pytest.fixture
def reachable(tmp_path, tmp_path_factory):
    """A directory that every user may look into; pytest's own are for their owner alone."""
    base = tmp_path_factory.getbasetemp()
    for directory in (tmp_path, base, *[base.parent] * base.parent.name.startswith("pytest-of-")):
        directory.chmod(0o755)
    return tmp_path


def test_a_directory_that_may_not_be_written_is_refused(reachable):
    reachable.chmod(0o555)
    path = reachable / "state.db"
    assert as_ordinary_user("daemon", path) == (
        EXIT_SYSTEM, f"cannot open the database {path}: Permission denied; the directory must be writable by this user")


def test_a_data_directory_that_cannot_be_made_is_refused(reachable):
    reachable.chmod(0o555)
    assert as_ordinary_user("make", reachable / "data" / "state.db") == (
        EXIT_SYSTEM, f"cannot create the data directory {reachable}/data: Permission denied")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a database that this user may not open")
@pytest.mark.parametrize("directory_mode", [0o755, 0o700])
def test_the_operator_needs_the_daemons_user(reachable, directory_mode):
    data = reachable / "data"
    data.mkdir()
    with opened(data):
        data.chmod(directory_mode)
        assert as_ordinary_user("operator", data / "state.db") == (
            EXIT_PERMISSION, f"no permission for the database {data}/state.db: run this as the user that runs ductiled")


# What an error means


def error(code: int | None) -> sqlite3.OperationalError:
    made = sqlite3.OperationalError("it says why")
    if code is not None:
        made.sqlite_errorcode = code
        made.sqlite_errorname = next(name for name, value in vars(sqlite3).items()
                                     if name.startswith("SQLITE_") and name != "SQLITE_OK" and value == code)
    return made


@pytest.mark.parametrize("code, meaning, exit_code", [
    (sqlite3.SQLITE_CORRUPT, db.Damaged, EXIT_DATA),
    (sqlite3.SQLITE_CORRUPT_INDEX, db.Damaged, EXIT_DATA),
    (sqlite3.SQLITE_NOTADB, db.Damaged, EXIT_DATA),
    (sqlite3.SQLITE_IOERR, db.FateUnknown, EXIT_SYSTEM),
    (sqlite3.SQLITE_IOERR_FSYNC, db.FateUnknown, EXIT_SYSTEM),
    (sqlite3.SQLITE_IOERR_WRITE, db.FateUnknown, EXIT_SYSTEM),
])
def test_damage_and_uncertainty_end_the_daemon(code, meaning, exit_code):
    translated = db.translate(error(code), "state.db")
    assert (type(translated), translated.exit_code) == (meaning, exit_code)


def test_an_uncertain_write_says_so():
    assert str(db.translate(error(sqlite3.SQLITE_IOERR_FSYNC), "state.db")) == (
        "after an I/O error in the database it is unknown whether the last write was stored (SQLITE_IOERR_FSYNC: it"
        " says why); check the disk and start ductiled again")


@pytest.mark.parametrize("code", [
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT, sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CONSTRAINT_UNIQUE,
])
def test_any_other_error_of_the_database_means_that_nothing_was_written(code):
    translated = db.translate(error(code), "state.db")
    assert type(translated) is db.NotWritten
    assert str(translated).startswith("it says why (SQLITE_")


@pytest.mark.parametrize("code", [None, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE])
def test_a_bug_stays_a_bug(code):
    mine = error(code)
    assert db.translate(mine, "state.db") is mine


@pytest.mark.parametrize("block", [db.database_errors, db.transaction])
def test_a_mistake_in_sql_is_raised_as_it_is(tmp_path, block):
    with (opened(tmp_path) as conn, pytest.raises(sqlite3.OperationalError, match="^no such table: theirs$"),
          block(conn)):
        conn.execute("SELECT * FROM theirs")


@pytest.mark.parametrize("block", [db.database_errors, db.transaction])
def test_damage_found_while_it_runs_ends_the_daemon(path, block):
    conn = db.open_for_daemon(path)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(db.Damaged) as caught, block(conn):
        conn.execute("SELECT sum(length(result)) FROM job_log").fetchone()
    conn.close()
    assert str(caught.value) == f"the database {path} is damaged (database disk image is malformed); {MEND}"
