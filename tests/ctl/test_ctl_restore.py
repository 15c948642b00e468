"""`restore`: a checked copy in place of the database, what it replaced kept whole, whatever is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ctl.desk import Desk, Said
from ductile import db, schema
from ductile.ctl.restore import restore
from ductile.pidfile import PidLock, pid_file
from ductile.queue.job import Status
from support.killing import killed_at
from support.ledger import put_ended, put_job

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
OPEN_JOBS = "at the next start of ductiled 2 queued jobs will run, and 1 running job will run again\n"


@pytest.fixture
def copy(desk: Desk) -> Path:
    """A backup with open jobs in it, of a database that has changed since then."""
    with desk.ledger() as conn:
        for name, status in (("a", Status.QUEUED), ("b", Status.QUEUED), ("c", Status.RUNNING)):
            put_job(conn, name, status)
    file = desk.home / "copy.db"
    assert desk.call("backup", str(file)).code == 0
    with desk.ledger() as conn:
        put_ended(conn, range(10), at="2026-02-08T10:00:00.000Z")
    return file


def dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as conn:
        return list(conn.iterdump())


def crash(desk: Desk) -> dict[str, bytes]:
    """Leave the database as a killed daemon does, with a write in its log alone; return its three files."""
    lock = PidLock(pid_file(desk.database))
    lock.write()
    with desk.ledger() as conn:
        put_job(conn, "in the log")
        files = {end: beside(desk.database, end).read_bytes() for end in ("", "-wal", "-shm")}
    for end, content in files.items():
        beside(desk.database, end).write_bytes(content)
    lock.abandon()
    return files


def beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def kept(desk: Desk) -> list[Path]:
    """The databases that restores have replaced."""
    return sorted(each for each in desk.database.parent.glob("state.db.before-*") if each.name.endswith("Z"))


def names(desk: Desk) -> list[str]:
    return sorted(os.listdir(desk.database.parent))


def test_the_copy_is_the_database_and_what_it_replaced_is_kept(desk: Desk, copy: Path) -> None:
    before = desk.dump()
    said = desk.call("restore", str(copy))
    (replaced,) = kept(desk)
    assert said == Said(code=0, err="", out=f"{copy} is now the database {desk.database}\n"
                                            f"what it replaced is kept as {replaced}*\n{OPEN_JOBS}")
    assert (desk.dump(), dump(replaced)) == (dump(copy), before)
    assert names(desk) == ["ductiled.pid", "state.db", replaced.name]
    assert (desk.database.stat().st_mode & 0o777, pid_file(desk.database).read_text()) == (0o600, "")


def test_the_document_says_the_same(desk: Desk, copy: Path) -> None:
    found = desk.call("--json", "restore", str(copy)).json
    assert found == {"file": str(copy), "database": str(desk.database), "version": schema.VERSION, "queued": 2,
                     "running": 1, "replaced": str(kept(desk)[0])}


def test_a_log_goes_with_its_database(desk: Desk, copy: Path) -> None:
    files = crash(desk)
    assert desk.call("restore", str(copy)).code == 0
    (replaced,) = kept(desk)
    assert {end: beside(replaced, end).read_bytes() for end in files} == files
    # Back again: what a restore has replaced can itself be restored.
    assert desk.call("restore", str(replaced)).code == 0
    with desk.ledger() as conn:
        assert conn.execute("SELECT 1 FROM job_queue WHERE id = 'in the log'").fetchone() == (1,)


def test_without_a_database_there_is_nothing_to_keep(desk: Desk, copy: Path) -> None:
    for path in desk.database.parent.iterdir():
        path.unlink()
    desk.database.parent.rmdir()
    assert desk.call("restore", str(copy)) == Said(
        code=0, err="", out=f"{copy} is now the database {desk.database}\n{OPEN_JOBS}")
    assert desk.dump() == dump(copy)


def test_a_copy_of_an_older_version_is_good(desk: Desk) -> None:
    file = desk.home / "old.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as conn:
        for statement in schema.statements(1):
            conn.execute(statement)
        conn.execute(f"PRAGMA application_id = {db.APPLICATION_ID}")
        conn.execute("PRAGMA user_version = 1")
    said = desk.call("restore", str(file))
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(
        f"{file} is now the database {desk.database} (version 1: ductiled brings it up to date)\n")
    with desk.ledger() as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


def change(*statements: str) -> Callable[[Path], None]:
    def act(file: Path) -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as conn:
            for statement in statements:
                conn.execute(statement)

    return act


def put_in_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(file: Path) -> None:
        file.unlink()
        make(file)

    return act


@pytest.mark.parametrize(("damage", "code", "text"), [
    (lambda file: file.write_bytes(b"no database at all" * 1000), 65,
     "FILE is damaged (file is not a database); restore another backup\n"),
    (lambda file: os.truncate(file, file.stat().st_size // 2), 65, "FILE is damaged"),
    (lambda file: file.write_bytes(b""), 65, "the database FILE is an empty file"),
    (lambda file: beside(file, "-shm").touch(), 65, "the write-ahead log FILE-wal is missing"),
    (change("DROP TABLE artifacts"), 65, "FILE is damaged; restore another backup\n"),
    (change(f"PRAGMA user_version = {schema.VERSION + 1}"), 65, f"the database FILE has version {schema.VERSION + 1}"),
    (change("PRAGMA application_id = 7"), 65, "FILE is not a database of Ductile"),
    (put_in_place(change("PRAGMA journal_mode = WAL")), 65, "FILE holds no database of Ductile"),
    (put_in_place(Path.mkdir), 74, "FILE is not a regular file: name a backup"),
    (put_in_place(os.mkfifo), 74, "FILE is not a regular file: name a backup"),
    (Path.unlink, 74, "FILE: No such file or directory"),
])
def test_what_is_no_good_copy_changes_nothing(desk: Desk, copy: Path, damage: Callable[[Path], object], code: int,
                                              text: str) -> None:
    damage(copy)
    before = desk.dump()
    said = desk.call("restore", str(copy))
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith(text.replace("FILE", str(copy)))
    assert desk.dump() == before
    assert set(names(desk)) <= {"ductiled.pid", "state.db"}


def test_the_database_itself_is_no_backup_of_it(desk: Desk, copy: Path) -> None:
    assert desk.call("restore", str(desk.database)) == Said(
        code=74, out="", err=f"{desk.database} is the database itself: name a backup\n")


def test_while_the_daemon_runs_nothing_is_replaced(desk: Desk, copy: Path) -> None:
    lock = PidLock(pid_file(desk.database))
    lock.write()
    assert desk.call("restore", str(copy)) == Said(
        code=1, out="", err=f"ductiled is already running as PID {os.getpid()} (it holds {pid_file(desk.database)}):"
                            f" stop it, then restore\n")
    pid_file(desk.database).unlink()
    assert desk.call("restore", str(copy)).code == 1
    lock.release()
    assert kept(desk) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, which takes root")
def test_another_user_than_the_daemons_is_refused(desk: Desk, copy: Path) -> None:
    os.chown(desk.database, 65534, 65534)
    assert desk.call("restore", str(copy)) == Said(
        code=77, out="", err=f"{desk.database} belongs to another user: run this as the user that runs ductiled\n")
    assert names(desk) == ["state.db"]


def test_without_room_nothing_is_changed(desk: Desk, copy: Path) -> None:
    before = desk.dump()
    said = desk.process("restore", str(copy), become=("prlimit", "--fsize=65536"))
    assert said == Said(code=74, out="", err=f"cannot copy {copy} into {desk.database.parent}: File too large; nothing"
                                             f" was changed\n")
    assert desk.dump() == before
    assert set(names(desk)) <= {"ductiled.pid", "state.db"}


def attempt(desk: Desk, copy: Path) -> None:
    with open(os.devnull, "w") as nowhere:
        assert restore(desk.session(out=nowhere, err=nowhere), file=copy) == 0


def test_killed_anywhere_no_start_finds_half_of_it_and_the_next_restore_completes_it(desk: Desk, copy: Path) -> None:
    expected, seen = dump(copy), set()
    lock = PidLock(pid_file(desk.database))
    lock.release()
    number = 1
    while True:
        for path in desk.database.parent.glob("*state.db*"):
            path.unlink()
        pid_file(desk.database).write_bytes(b"")
        set_aside = crash(desk)
        pid_file(desk.database).write_bytes(b"")    # as after `ductilectl` has read a database of a clean stop
        is_killed = killed_at(number, lambda: attempt(desk, copy))
        if not is_killed:
            break
        seen.add(start(desk, set_aside))
        assert desk.call("restore", str(copy)).code == 0
        assert desk.dump() == expected
        whole = [each for each in kept(desk)
                 if {end: beside(each, end).exists() and beside(each, end).read_bytes() for end in set_aside}
                 == set_aside]
        assert len(whole) == 1, names(desk)
        number += 1
    assert seen == {"the old one", "refused", "the new one"}


def start(desk: Desk, old: dict[str, bytes]) -> str:
    """What a start would find: all of the old database, all of the new one, or a reason to refuse it."""
    files = {end: beside(desk.database, end).read_bytes() for end in old if beside(desk.database, end).exists()}
    if files == old:
        return "the old one"
    if list(files) == [""]:
        return "the new one"
    with pytest.raises(db.db_files.RestoreInterrupted):
        db.open_for_daemon(desk.database, was_unclean=pid_file(desk.database).stat().st_size > 0)
    return "refused"


def test_a_signal_before_anything_is_replaced_leaves_all_as_it_was(desk: Desk, copy: Path) -> None:
    before = desk.dump()

    class Terminal:
        """Interrupts when it is asked whether it is one, which is before the copy is made."""

        def isatty(self) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            return False

    with open(os.devnull, "w") as nowhere, pytest.raises(SystemExit) as ended:
        restore(desk.session(out=nowhere, err=Terminal()), file=copy)
    assert ended.value.code == 143
    assert desk.dump() == before
    assert names(desk) == ["ductiled.pid", "state.db"]
