from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ductile import db, schema
from ductile.queue import job_table
from ductile.units import parse_utc
from support.ledger import dump, new_job, opened, put_ended, put_job

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 60
T0 = "2026-02-08T10:00:00.000Z"
NOW = parse_utc(T0)


@pytest.fixture
def conn(tmp_path):
    conn = db.open_for_daemon(tmp_path / "state.db")
    yield conn
    conn.close()


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def pragma(conn: sqlite3.Connection, name: str) -> object:
    return conn.execute(f"PRAGMA {name}").fetchone()[0]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# A fresh one


def test_a_fresh_database_is_for_its_owner_alone(tmp_path, open_umask):
    path = tmp_path / "data" / "state.db"
    db.make_directory(path)
    conn = db.open_for_daemon(path)
    put_job(conn, "a")
    assert mode(path.parent) == 0o700
    assert {each.name: mode(each) for each in path.parent.iterdir()} == {
        "state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600,
    }
    conn.close()


@pytest.mark.parametrize("name, value", [
    ("journal_mode", "wal"),
    ("auto_vacuum", 2),                       # incremental
    ("foreign_keys", 1),
    ("application_id", db.APPLICATION_ID),
    ("user_version", schema.VERSION),
    ("busy_timeout", 5000),
    ("journal_size_limit", 16 * 1024 * 1024),
])
def test_a_fresh_database_is_set_up(conn, name, value):
    assert pragma(conn, name) == value


@pytest.mark.parametrize("name, value", [("auto_vacuum", 2), ("foreign_keys", 1), ("journal_mode", "wal")])
def test_a_second_connection_is_set_up_too(conn, tmp_path, name, value):
    again = db.connect_again(tmp_path / "state.db")
    assert pragma(again, name) == value
    again.close()


def test_what_is_stored_is_there_when_it_is_opened_again(tmp_path):
    with opened(tmp_path) as conn:
        put_job(conn, "a")
        before = dump(conn)
    with opened(tmp_path) as conn:
        assert dump(conn) == before


def test_a_name_with_odd_characters_is_a_file_like_any_other(tmp_path):
    path = tmp_path / "a?b#c %41 d.db"
    db.open_for_daemon(path).close()
    assert path.is_file()


def test_the_full_check_finds_nothing_in_a_good_database(conn):
    put_ended(conn, range(50), at=T0)
    assert db.full_check(conn) == []


def test_the_full_check_names_a_row_that_refers_to_nothing(conn):
    conn.execute("PRAGMA foreign_keys = OFF")
    put_job(conn, "a", parent_job_id="gone")
    assert db.full_check(conn) == ["job_queue row 1 refers to a missing row of job_queue"]


def test_a_row_that_refers_to_nothing_is_refused(conn):
    with pytest.raises(db.NotWritten, match=r"^FOREIGN KEY constraint failed \(SQLITE_CONSTRAINT_FOREIGNKEY\)$"):
        put_job(conn, "a", parent_job_id="gone")
    assert job_table.get(conn, "a") is None


def test_freed_pages_go_back_to_the_file_system(conn, tmp_path):
    put_ended(conn, range(200), at=T0, result="x" * 8192)
    pragma(conn, "wal_checkpoint(TRUNCATE)")
    before = (tmp_path / "state.db").stat().st_size
    with db.transaction(conn):
        conn.execute("DELETE FROM job_log")
    db.free_pages(conn, 300)
    db.free_pages(conn, 10_000)
    assert pragma(conn, "freelist_count") == 0
    pragma(conn, "wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "state.db").stat().st_size < before / 4


def test_no_more_pages_are_freed_at_once_than_asked_for(conn):
    put_ended(conn, range(100), at=T0, result="x" * 8192)
    with db.transaction(conn):
        conn.execute("DELETE FROM job_log")
    free = pragma(conn, "freelist_count")
    db.free_pages(conn, 20)
    assert pragma(conn, "freelist_count") == free - 20


def test_without_free_pages_nothing_is_written(conn):
    put_job(conn, "a")
    before = conn.total_changes, pragma(conn, "page_count")
    db.free_pages(conn, 100)
    assert (conn.total_changes, pragma(conn, "page_count")) == before


# Migrations


def test_the_schema_is_what_its_file_says_to_the_last_statement():
    model, migrated = sqlite3.connect(":memory:"), sqlite3.connect(":memory:", isolation_level=None)
    here = Path(db.__file__).parent
    for script in (here / "schema.sql", *sorted((here / "migrations").glob("*.sql"))):
        model.executescript(script.read_text())
    db.migrate(migrated, 0)
    tables = "SELECT type, name, sql FROM sqlite_master ORDER BY rootpage"
    assert migrated.execute(tables).fetchall() == model.execute(tables).fetchall()
    model.close()
    migrated.close()


def test_a_migration_that_fails_anywhere_leaves_the_version_before():
    steps = {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_PRAGMA,
             sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ALTER_TABLE}
    refused, versions = 0, set()
    for failing in itertools.count():
        conn = sqlite3.connect(":memory:", isolation_level=None)
        met = itertools.count()
        conn.set_authorizer(lambda action, *_, met=met, failing=failing: (
            sqlite3.SQLITE_DENY if action in steps and next(met) == failing else sqlite3.SQLITE_OK))
        try:
            db.migrate(conn, 0)
            break
        except db.NotWritten:
            refused += 1
        finally:
            conn.set_authorizer(None)
            version = pragma(conn, "user_version")
            tables = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
            conn.close()
        # Each step is a transaction of its own: what fails in the second leaves the first.
        assert (tables > (0,)) == (version > 0)
        versions.add(version)
    assert refused > 20
    assert versions == set(range(schema.VERSION))
    assert version == schema.VERSION


def test_a_database_of_the_newest_version_is_not_migrated_again(conn):
    before = dump(conn)
    db.migrate(conn, schema.VERSION)
    assert dump(conn) == before


# Transactions


def test_an_exception_in_the_block_undoes_it_and_goes_on(conn):
    before = dump(conn)
    with pytest.raises(LookupError, match=r"^mine$"), db.transaction(conn):
        job_table.add(conn, [new_job("a")], NOW)
        raise LookupError("mine")
    assert dump(conn) == before
    put_job(conn, "b")
    assert job_table.get(conn, "b") is not None


def test_another_thread_can_write_after_a_failure_of_the_first(conn, tmp_path):
    with pytest.raises(KeyboardInterrupt), db.transaction(conn):
        raise KeyboardInterrupt

    def write() -> None:
        mine = db.connect_again(tmp_path / "state.db")
        put_job(mine, "a")
        mine.close()

    other = threading.Thread(target=write, daemon=True)
    other.start()
    other.join(LIMIT_SECONDS)
    assert not other.is_alive()
    assert job_table.get(conn, "a") is not None


@pytest.mark.parametrize("synced, level", [(True, 2), (False, 1)])
def test_only_what_must_be_durable_is_synced(conn, synced, level):
    with db.transaction(conn, synced=synced):
        assert pragma(conn, "synchronous") == level


def test_a_connection_beside_the_loops_syncs_from_the_start_whatever_that_one_does(conn, tmp_path):
    with closing(db.connect_again(tmp_path / "state.db")) as other:
        for _ in range(2):
            with db.transaction(conn, synced=False):
                pass
            with db.transaction(other, synced=None):
                assert pragma(other, "synchronous") == 2


def test_a_full_file_is_not_written_and_stays_as_it_was(conn):
    put_job(conn, "a")
    before = dump(conn)
    conn.execute(f"PRAGMA max_page_count = {pragma(conn, 'page_count')}")
    with pytest.raises(db.NotWritten, match=r"^database or disk is full \(SQLITE_FULL\)$"):
        put_job(conn, "b", payload="x" * 100_000)
    assert dump(conn) == before
    conn.execute("PRAGMA max_page_count = 1000000")
    put_job(conn, "b", payload="x" * 100_000)
    assert job_table.get(conn, "b") is not None


def test_a_write_that_failed_is_known_until_another_has_worked(conn, tmp_path):
    other = db.connect_again(tmp_path / "state.db")
    conn.execute(f"PRAGMA max_page_count = {pragma(conn, 'page_count')}")
    with pytest.raises(db.NotWritten):
        put_job(conn, "a", payload="x" * 100_000)
    with db.transaction(other):
        pass
    assert not db.is_written()
    put_job(other, "b")
    assert db.is_written()
    other.close()


def test_a_write_of_another_process_is_waited_for_no_longer_than_allowed(conn, tmp_path):
    other = db.connect_again(tmp_path / "state.db")
    other.execute("BEGIN IMMEDIATE")
    conn.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(db.NotWritten, match=r"^database is locked \(SQLITE_BUSY\)$"):
        put_job(conn, "a")
    other.execute("ROLLBACK")
    put_job(conn, "a")
    other.close()


def test_a_reader_does_not_hold_a_writer_up(conn, tmp_path):
    put_job(conn, "a")
    reader = db.connect_again(tmp_path / "state.db")
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM job_queue").fetchone() == (1,)
    conn.execute("PRAGMA busy_timeout = 0")
    put_job(conn, "b")
    assert reader.execute("SELECT count(*) FROM job_queue").fetchone() == (1,)
    reader.close()


WRITER = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from ductile import db
from ductile.queue import job_table
from ductile.queue.job import NewJob, Submitter

def write(conn, name, count):
    conn.execute("PRAGMA busy_timeout = 20000")
    for number in range(count):
        with db.transaction(conn):
            job_table.add(conn, [NewJob(id=f"{name}-{number}", plugin="echo", command="poll", max_attempts=4,
                                   submitted_by=Submitter.CLI)], datetime.now(timezone.utc))
"""


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def write_in_a_thread(path: Path, name: str, busy_timeout: int, failures: list[BaseException]) -> threading.Thread:
    """Two hundred transactions over a connection of the thread's own."""
    def write() -> None:
        mine = db.connect_again(path)
        try:
            mine.execute(f"PRAGMA busy_timeout = {busy_timeout}")
            for number in range(200):
                with db.transaction(mine):
                    job_table.add(mine, [new_job(f"{name}-{number}")], NOW)
        except BaseException as error:
            failures.append(error)
        finally:
            mine.close()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def counts(conn: sqlite3.Connection) -> list[tuple[str, int]]:
    return conn.execute(
        "SELECT substr(id, 1, instr(id, '-') - 1), count(*) FROM job_queue GROUP BY 1 ORDER BY 1").fetchall()


def test_threads_wait_for_each_other_without_the_help_of_sqlite(conn, tmp_path):
    failures: list[BaseException] = []
    for thread in [write_in_a_thread(tmp_path / "state.db", name, 0, failures) for name in ("one", "two")]:
        thread.join(LIMIT_SECONDS)
    assert failures == []
    assert counts(conn) == [("one", 200), ("two", 200)]


def test_threads_and_another_process_all_get_to_write(conn, tmp_path):
    path = tmp_path / "state.db"
    failures: list[BaseException] = []
    child = python(WRITER + "write(db.connect_again(Path(sys.argv[1])), 'child', 100)", path)
    for thread in [write_in_a_thread(path, name, 20_000, failures) for name in ("one", "two")]:
        thread.join(LIMIT_SECONDS)
    child.communicate(timeout=LIMIT_SECONDS)
    assert (failures, child.returncode) == ([], 0)
    assert counts(conn) == [("child", 100), ("one", 200), ("two", 200)]


KILLED = WRITER + """
conn = db.open_for_daemon(Path(sys.argv[1]))
with db.transaction(conn, synced=sys.argv[2] == "synced"):
    job_table.add(conn, [NewJob(id="kept", plugin="echo", command="poll", max_attempts=4, submitted_by=Submitter.CLI)],
             datetime.now(timezone.utc))
conn.execute("BEGIN IMMEDIATE")
conn.execute("UPDATE job_queue SET plugin = 'never committed'")
print("now", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["synced", "not synced"])
def test_a_commit_outlives_the_kill_of_its_process(tmp_path, how):
    child = python(KILLED, tmp_path / "state.db", how)
    try:
        assert child.stdout.readline() == "now\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=LIMIT_SECONDS)
    with opened(tmp_path) as conn:
        assert conn.execute("SELECT id, plugin FROM job_queue").fetchall() == [("kept", "echo")]
        assert db.full_check(conn) == []
