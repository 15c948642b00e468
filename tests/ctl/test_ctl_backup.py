"""`backup`: a copy that is whole, checked and restorable, or nothing at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import pytest

from ctl.desk import Desk, Said, run
from ductile import db_files
from ductile.ctl.backup import backup
from ductile.errors import DuctileError
from support.daemon import RealDaemon
from support.killing import killed_at
from support.ledger import opened, put_ended

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, which takes root")
NOTE = ("in it: jobs, logs, states, contexts, schedules, breakers; not in it: the configuration, secrets, plugins,"
        " pipelines, and the files in workspaces\n")
COUNTS = ('#!/bin/sh\nprintf \'{"status":"ok","result":"%s","state_updates":{"last":"%s"}}\' "$DUCTILE_JOB_ID"'
          ' "$DUCTILE_JOB_ID"\n')


@pytest.fixture
def filled(desk: Desk) -> Desk:
    """A database with enough in it for several pieces."""
    desk.database.parent.mkdir(mode=0o700)
    desk.database.write_bytes(_thousand_jobs())
    desk.database.chmod(0o600)
    return desk


@cache
def _thousand_jobs() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        with opened(Path(directory)) as conn:
            put_ended(conn, range(1000), at="2026-02-08T10:00:00.000Z", result=json.dumps({"x": "y" * 7000}))
        return Path(directory, "state.db").read_bytes()


@contextmanager
def full_disk(place: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m,mode=0700", "ductile-test"]
    if subprocess.run(["mount", *options, place], capture_output=True, check=False, timeout=20).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, timeout=20)


def dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as conn:
        return list(conn.iterdump())


def test_the_copy_is_the_database(filled: Desk) -> None:
    before = filled.dump()
    said = filled.call("backup", str(filled.home / "copy.db"))
    copy = filled.home / "copy.db"
    assert (said.code, said.err) == (0, "")
    assert said.out == f"{copy}: {copy.stat().st_size / 1024**2:.1f} MB, checked\n{NOTE}"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert dump(copy) == before
    assert sorted(os.listdir(filled.home)) == ["config.yaml", "copy.db", "data", "plugins"]


def test_the_document_says_the_same(filled: Desk) -> None:
    copy = filled.home / "copy.db"
    found = filled.call("backup", str(copy), "--json").json
    assert found.pop("taken_at").endswith("Z")
    assert found == {"file": str(copy), "bytes": copy.stat().st_size, "removed": []}


def test_what_is_only_in_the_write_ahead_log_is_in_the_copy(desk: Desk) -> None:
    with desk.ledger() as conn:
        put_ended(conn, range(10), at="2026-02-08T10:00:00.000Z")
        assert desk.database.with_name("state.db-wal").stat().st_size > 0
        assert desk.process("backup", "copy.db", cwd=desk.home).code == 0
        assert dump(desk.home / "copy.db") == list(conn.iterdump())


@pytest.mark.parametrize("there", ["a file", "a link to nothing"])
def test_nothing_is_ever_overwritten(filled: Desk, there: str) -> None:
    file = filled.home / "there"
    if there == "a file":
        file.write_text("mine")
    else:
        file.symlink_to("nothing")
    seen = os.lstat(file)
    assert filled.call("backup", str(file)) == Said(
        code=74, out="", err=f"{file} exists already; name another file, or move it away\n")
    assert (os.lstat(file).st_ino, os.lstat(file).st_mtime_ns) == (seen.st_ino, seen.st_mtime_ns)
    assert filled.call("backup", str(filled.database)).code == 74


def test_a_place_that_is_not_there_is_74(filled: Desk) -> None:
    file = filled.home / "no" / "copy.db"
    assert filled.call("backup", str(file)) == Said(
        code=74, out="", err=f"cannot write {file}: No such file or directory; nothing was written\n")


def test_without_a_database_it_is_69(desk: Desk) -> None:
    assert desk.call("backup", str(desk.home / "copy.db")) == Said(
        code=69, out="", err=f"ductiled has not run yet: there is no database at {desk.database}\n")
    assert not (desk.home / "copy.db").exists()


@as_root
def test_where_an_ordinary_user_may_not_write_it_is_77(filled: Desk) -> None:
    for path in (filled.home, *filled.home.parents[:-2]):
        path.chmod(path.stat().st_mode | 0o055)
    for path in (filled.database.parent, *filled.database.parent.iterdir()):
        os.chown(path, 65534, 65534)
    assert filled.process("backup", "/etc/copy-of-nobody.db", user=NOBODY) == Said(
        code=77, out="", err="cannot write /etc/copy-of-nobody.db: Permission denied; nothing was written\n")


@as_root
def test_a_full_disk_is_74_and_nothing_is_left(filled: Desk) -> None:
    with full_disk(filled.home / "small") as small:
        assert filled.process("backup", str(small / "copy.db")) == Said(
            code=74, out="", err=f"cannot write {small}/copy.db: database or disk is full; nothing was written\n")
        assert os.listdir(small) == []


def test_a_limit_on_file_sizes_is_74_and_nothing_is_left(filled: Desk) -> None:
    (filled.home / "there").mkdir()
    said = filled.process("backup", str(filled.home / "there" / "copy.db"), become=("prlimit", "--fsize=1048576"))
    assert (said.code, said.out) == (74, "")
    assert said.err.startswith(f"cannot write {filled.home}/there/copy.db: ")
    assert said.err.endswith("; nothing was written\n")
    assert os.listdir(filled.home / "there") == []


def test_a_damaged_database_leaves_no_backup(filled: Desk) -> None:
    with filled.ledger() as conn:
        page = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'job_queue'").fetchone()[0]
    with open(filled.database, "r+b") as file:
        file.seek((page - 1) * 4096 + 100)
        file.write(b"\xff" * 1000)
    before = sorted(os.listdir(filled.home))
    said = filled.call("backup", str(filled.home / "copy.db"))
    assert (said.code, said.out) == (65, "")
    assert said.err.startswith(
        f"the copy of {filled.database} is damaged and was thrown away; see `ductilectl check --database`, and keep the"
        " backups there are\n")
    assert len(said.err.splitlines()) > 1
    assert sorted(os.listdir(filled.home)) == before


# Into a directory


def test_into_a_directory_the_copy_has_the_time_in_its_name(filled: Desk) -> None:
    (filled.home / "copies").mkdir()
    said = filled.call("--json", "backup", str(filled.home / "copies"))
    (name,) = os.listdir(filled.home / "copies")
    assert re.fullmatch(r"ductile-\d{4}-\d\d-\d\dT\d{6}\.\d{3}Z\.db", name)
    assert said.json["file"] == str(filled.home / "copies" / name)
    assert dump(filled.home / "copies" / name) == filled.dump()


@pytest.mark.parametrize(("keep", "gone"), [("1", 3), ("2", 2), ("3", 1), ("4", 0), ("9", 0)])
def test_the_last_dated_copies_are_kept(filled: Desk, keep: str, gone: int) -> None:
    copies = filled.home / "copies"
    copies.mkdir()
    old = [copies / f"ductile-2020-01-0{day}T000000.000Z.db" for day in (1, 2, 3)]
    others = [copies / name for name in ("ductile-2020-01-01.db", "ductile-2020-01-01T000000.000Z.db.gz", "mine.db")]
    for each in (*old, *others):
        each.touch()
    made = filled.call("--json", "backup", "--keep", keep, str(copies)).json
    assert made["removed"] == [str(each) for each in old[:gone]]
    assert set(copies.iterdir()) == {*old[gone:], *others, Path(made["file"])}


def test_a_clock_that_was_set_back_never_removes_the_new_copy(filled: Desk) -> None:
    copies = filled.home / "copies"
    copies.mkdir()
    (copies / "ductile-9999-01-01T000000.000Z.db").touch()
    made = filled.call("--json", "backup", "--keep", "1", str(copies)).json
    assert os.listdir(copies) == [Path(made["file"]).name]


def test_keeping_some_is_for_a_directory(filled: Desk) -> None:
    file = filled.home / "copy.db"
    assert filled.call("backup", "--keep", "3", str(file)) == Said(
        code=64, out="", err=f"ductilectl backup: --keep is for a directory, and {file} is none\n")
    assert not file.exists()


# What comes in between


def test_killed_anywhere_no_name_is_without_the_whole_copy_and_the_next_one_clears_up(filled: Desk) -> None:
    expected, copies = filled.dump(), filled.home / "copies"
    copies.mkdir()
    number, seen = 1, set()
    while killed_at(number, lambda: filled.call("backup", str(copies / "copy.db"))):
        left = {each.name for each in copies.iterdir()}
        if "copy.db" in left:
            assert dump(copies / "copy.db") == expected
            (copies / "copy.db").unlink()
        seen.add("a part" if any(name.startswith(".ductile-backup.") for name in left) else "nothing")
        assert len(left) <= 2, "what was left has not been removed"
        number += 1
    assert seen == {"a part", "nothing"}
    assert os.listdir(copies) == ["copy.db"]


def test_the_copy_that_another_backup_works_at_is_left_alone(filled: Desk) -> None:
    part = filled.home / ".ductile-backup.other"
    with open(part, "w") as worked_at:
        fcntl.flock(worked_at, fcntl.LOCK_EX)
        assert filled.call("backup", str(filled.home / "one.db")).code == 0
        assert part.exists()
    assert filled.call("backup", str(filled.home / "two.db")).code == 0
    assert not part.exists()


def test_where_the_directory_cannot_be_synced_the_truth_is_told(filled: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int, sync: Callable[[int], None] = os.fsync) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "it says why")
        sync(fd)

    monkeypatch.setattr(os, "fsync", fails)
    file = filled.home / "copy.db"
    said = filled.call("backup", str(file))
    assert (said.code, said.err) == (
        74, f"{file} is there and whole, but may be gone after a power cut: cannot sync its directory: it says why\n")
    monkeypatch.undo()
    assert dump(file) == filled.dump()


def test_without_hard_links_the_copy_gets_its_name_all_the_same(filled: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **settings: object) -> None:
        raise OSError(errno.EPERM, "it says why")

    monkeypatch.setattr(os, "link", fails)
    file = filled.home / "copy.db"
    assert filled.call("backup", str(file)).code == 0
    assert dump(file) == filled.dump()
    file.write_text("mine")
    with pytest.raises(FileExistsError):
        db_files.publish(filled.home / "config.yaml", file)
    assert file.read_text() == "mine"


class Eventful(sqlite3.Connection):
    """A connection to whose backup something happens: after the first piece, or when it is done."""

    after_a_piece: Callable[[], None] | None = None
    when_done: Callable[[], None] | None = None

    def backup(self, target: sqlite3.Connection, *, pages: int, progress: Callable[[int, int, int], None]) -> None:
        def look(status: int, remaining: int, total: int) -> None:
            if self.after_a_piece is not None:
                assert remaining > 0, "it is not copied in pieces"
                act, self.after_a_piece = self.after_a_piece, None
                act()
            progress(status, remaining, total)

        super().backup(target, pages=pages, progress=look if self.after_a_piece is not None else progress)
        if self.when_done is not None:
            self.when_done()


def attempt(desk: Desk, **events: Callable[[], None]) -> None:
    with closing(sqlite3.connect(desk.database, isolation_level=None, factory=Eventful)) as conn:
        for name, act in events.items():
            setattr(conn, name, act)
        assert backup(desk.session(conn=conn), file=desk.home / "copy.db", keep=None) == 0


@pytest.mark.parametrize("when", ["after_a_piece", "when_done"])
@pytest.mark.parametrize(("number", "expected"), [
    (signal.SIGINT, KeyboardInterrupt()), (signal.SIGTERM, SystemExit(143)), (signal.SIGHUP, SystemExit(129))])
def test_a_signal_leaves_nothing(filled: Desk, when: str, number: int, expected: BaseException) -> None:
    before, handler = sorted(os.listdir(filled.home)), signal.getsignal(number)
    with pytest.raises(type(expected)) as ended:
        attempt(filled, **{when: lambda: os.kill(os.getpid(), number)})
    assert ended.value.args == expected.args
    assert sorted(os.listdir(filled.home)) == before
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize("when", ["after_a_piece", "when_done"])
def test_what_somebody_else_has_put_there_meanwhile_stays(filled: Desk, when: str) -> None:
    file = filled.home / "copy.db"
    with pytest.raises(DuctileError) as refused:
        attempt(filled, **{when: lambda: file.write_text("mine")})
    assert (refused.value.exit_code, refused.value.lines) == (
        74, (f"cannot write {file}: File exists; nothing was written",))
    assert file.read_text() == "mine"
    assert sorted(os.listdir(filled.home)) == ["config.yaml", "copy.db", "data", "plugins"]


def test_it_is_the_database_of_one_moment_whatever_is_written_meanwhile(filled: Desk) -> None:
    before = filled.dump()

    def write() -> None:
        with filled.ledger() as conn:
            put_ended(conn, range(1000, 1010), at="2026-02-08T10:00:00.000Z")
            conn.execute("UPDATE job_log SET last_error = 'later'")

    attempt(filled, after_a_piece=write)
    assert dump(filled.home / "copy.db") == before
    assert filled.dump() != before


# With the daemon


@contextmanager
def working(daemon: RealDaemon, plugin: str) -> Iterator[None]:
    """Queue one job after the other during the block."""
    is_over = threading.Event()

    def submit() -> None:
        while not is_over.is_set():
            daemon.submit(plugin)

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_backup_under_load_is_restored_elsewhere(daemon: RealDaemon, tmp_path: Path) -> None:
    daemon.plugin("counts", COUNTS)
    daemon.start()
    first = [daemon.submit("counts") for _ in range(20)]
    for job_id in first:
        daemon.await_job(job_id, "succeeded")
    jobs, attempts = (daemon.rows(f"SELECT * FROM {table} ORDER BY seq") for table in ("job_queue", "job_log"))
    # From here on there is always work.
    with working(daemon, "counts"):
        daemon.until("SELECT count(*) > 22 FROM job_queue", [(1,)])
        said = run("backup", tmp_path / "copy.db", home=daemon.home)
    assert (said.code, said.err) == (0, "")
    daemon.kill()
    restored = tmp_path / "elsewhere"
    daemon.moved_to(restored)
    daemon.configure(state={"path": str(restored / "state.db")})
    assert run("restore", tmp_path / "copy.db", home=daemon.home).code == 0
    daemon.start()
    daemon.until("SELECT count(*) FROM job_queue WHERE status <> 'succeeded'", [(0,)])
    assert daemon.rows("SELECT * FROM job_queue ORDER BY seq")[:len(jobs)] == jobs
    assert daemon.rows("SELECT * FROM job_log ORDER BY seq")[:len(attempts)] == attempts
    last = daemon.rows("SELECT job_id FROM job_log ORDER BY seq DESC LIMIT 1")[0][0]
    assert json.loads(daemon.rows("SELECT state FROM plugin_state")[0][0]) == {"last": last}
    daemon.stop()


def test_the_help_says_how_to_restore() -> None:
    assert "To restore: ductilectl restore FILE." in run("backup", "--help").out
