"""Old workspaces are cleared away: whole chains, what nobody knows, and nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from ductile.queue import job_table
from ductile.queue.job import Status, Submitter
from scheduler.hall import TTL, Hall
from support.clock import START
from support.launch import in_a_child, writable_by_all
from support.ledger import new_job, opened, put_job
from support.logs import kept, lines, said

PATIENCE_SECONDS = 30
REMOVED = "info old workspaces removed"
PUT_OFF = "warn old workspace not removed; retrying daily"


class Interposing(sqlite3.Connection):
    """A connection before whose next transaction somebody else does something."""

    before: Callable[[], None] | None = None

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        act, self.before = (self.before, None) if sql == "BEGIN IMMEDIATE" else (None, self.before)
        if act is not None:
            act()
        return super().execute(sql, *parameters)


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    with opened(tmp_path) as conn, kept(tmp_path) as log:
        yield Hall(tmp_path, conn, log)


# Chains


def test_of_a_chain_all_workspaces_go_and_no_row_does(hall: Hall) -> None:
    hall.job("root")
    hall.job("one", parent_job_id="root", root_job_id="root")
    hall.job("two", Status.DEAD, parent_job_id="one", root_job_id="root")
    hall.job("three", Status.DEDUPED, parent_job_id="one", root_job_id="root")
    assert hall.clean() == []
    assert said(hall.log) == [REMOVED]
    assert lines(hall.log)[0]["count"] == 4
    assert hall.conn.execute("SELECT count(*) FROM job_queue").fetchone() == (4,)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
@pytest.mark.parametrize("member", ["root", "child", "replay"])
def test_a_chain_with_a_job_that_waits_or_runs_keeps_everything(hall: Hall, status: Status, member: str) -> None:
    parents = {"root": None, "child": "root", "replay": None}
    for name, parent in parents.items():
        hall.job(name, status if name == member else Status.SUCCEEDED, ago=100 * TTL, parent_job_id=parent,
                 root_job_id="root")
    assert hall.clean() == ["child", "replay", "root"]
    assert said(hall.log) == []


def test_a_job_that_waits_for_its_retry_keeps_the_chain(hall: Hall) -> None:
    hall.job("root")
    hall.job("child", Status.RUNNING, parent_job_id="root", root_job_id="root")
    job_table.move(hall.conn, job_table.get(hall.conn, "child"), Status.QUEUED, START, attempt=2,
                    retry_at=START + timedelta(days=3))
    assert hall.clean() == ["child", "root"]


def test_the_job_that_ended_last_counts_for_the_whole_chain(hall: Hall) -> None:
    hall.job("root", ago=100 * TTL)
    hall.job("child", ago=TTL - 60, parent_job_id="root", root_job_id="root")
    hall.job("other", ago=TTL + 60)
    assert hall.clean() == ["child", "root"]
    hall.clock.move(61)
    assert hall.clean() == []


@pytest.mark.parametrize(("ago", "goes"), [(TTL - 0.001, False), (TTL, False), (TTL + 0.001, True)])
def test_a_chain_goes_once_the_ttl_is_past(hall: Hall, ago: float, goes: bool) -> None:
    hall.job("root", ago=ago)
    assert hall.clean() == ([] if goes else ["root"])


def test_the_age_of_the_directory_of_a_known_job_does_not_matter(hall: Hall) -> None:
    hall.job("root", ago=10)
    hall.age(hall.root / "root", 100 * TTL)
    assert hall.clean() == ["root"]


def put_back(operator: sqlite3.Connection) -> None:
    job_table.move(operator, job_table.get(operator, "child"), Status.QUEUED, START)


def replay(operator: sqlite3.Connection) -> None:
    job_table.add(operator, [new_job("again", submitted_by=Submitter.REPLAY, parent_job_id="root", root_job_id="root",
                                      replay_of="child")], START)


@pytest.mark.parametrize("act", [put_back, replay])
def test_a_chain_that_the_operator_wakes_between_the_look_and_the_removal_is_kept(
    tmp_path: Path, act: Callable[[sqlite3.Connection], None],
) -> None:
    with opened(tmp_path) as operator, kept(tmp_path) as log, \
            closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None, factory=Interposing)) as conn:
        hall = Hall(tmp_path, conn, log)
        hall.job("root")
        hall.job("child", Status.DEAD, parent_job_id="root", root_job_id="root")
        conn.before = lambda: act(operator)
        assert hall.clean() == ["child", "root"]
        assert (conn.before, said(log)) == (None, [])


# What no job knows


@pytest.mark.parametrize(("ago", "goes"), [(0, False), (TTL - 1, False), (TTL, False), (TTL + 1, True)])
def test_a_directory_that_no_job_knows_goes_by_its_own_time(hall: Hall, ago: float, goes: bool) -> None:
    hall.directory("stranger", ago=ago)
    assert hall.clean() == ([] if goes else ["stranger"])


def test_what_is_no_directory_goes_too(hall: Hall) -> None:
    for name in ("file", ".proof"):
        (hall.root / name).write_text("x")
        hall.age(hall.root / name, TTL + 1)
    os.mkfifo(hall.root / "fifo")
    hall.age(hall.root / "fifo", TTL + 1)
    assert hall.clean() == []


def test_links_are_removed_and_what_they_lead_to_is_not_touched(hall: Hall, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    hall.age(precious, 100 * TTL)
    before = os.lstat(precious), os.lstat(precious / "file")
    for name, target in {"stranger": precious, "known": precious, ".gone-old": precious, "dangling": "/nowhere/at/all",
                         "up": "..", "loop": "loop"}.items():
        (hall.root / name).symlink_to(target)
        hall.age(hall.root / name, TTL + 1)
    put_job(hall.conn, "known", Status.SUCCEEDED, now=START - timedelta(seconds=TTL + 1))
    inside = hall.directory("inside")
    (inside / "link").symlink_to(precious)
    hall.age(inside, TTL + 1)
    assert hall.clean() == []
    after = os.lstat(precious), os.lstat(precious / "file")
    assert [(found.st_mode, found.st_mtime_ns, found.st_nlink) for found in after] == [
        (found.st_mode, found.st_mtime_ns, found.st_nlink) for found in before]
    assert (precious / "file").read_text() == "kept"


def test_a_young_link_to_an_old_place_stays(hall: Hall) -> None:
    (hall.root / "young").symlink_to("/etc")
    hall.age(hall.root / "young", 60)
    assert hall.clean() == ["young"]


def test_the_spare_directory_stays_however_old_it_is(hall: Hall) -> None:
    hall.workspaces.create("job")
    hall.workspaces.keep("job")
    hall.age(hall.root / ".spare", 100 * TTL)
    assert hall.clean() == [".spare"]


def test_what_a_killed_cleanup_has_left_goes_at_once(hall: Hall) -> None:
    hall.job("root", ago=5)
    hall.directory("half", ago=5)
    assert hall.workspaces.retire("half") == ".gone-half"
    assert hall.left() == [".gone-half", "root"]
    assert hall.clean() == ["root"]


@pytest.mark.parametrize("name", [
    b"\xff\xfe", "é".encode(), b"a\nb", b"%s", b"-rf", b" ", b"'", b"x" * 255, "é".encode() * 127,
    b"\xed\xb3\xbf", b"...", b".hidden",
])
def test_any_name_that_a_file_can_have_is_cleared_away(hall: Hall, name: bytes) -> None:
    hall.directory(os.fsdecode(name))
    hall.directory("other")
    assert hall.clean() == []
    assert said(hall.log) == [REMOVED]


def test_a_tree_of_closed_directories_goes() -> None:
    def left() -> list[str]:
        with opened(place) as conn, kept(place) as log:
            hall = Hall(place, conn, log)
            path = hall.directory("closed")
            (path / "below").mkdir()
            (path / "below" / "file").write_text("x")
            (path / "below").chmod(0)
            path.chmod(0)
            hall.age(path, TTL + 1)
            return hall.clean()

    with writable_by_all() as place:
        assert in_a_child(left, ordinary=True) == []


# What cannot be removed


@pytest.fixture
def fixed(tmp_path: Path) -> Iterator[Callable[[Path, str], None]]:
    """A function that makes a file immutable (`+i`), even for root, or lets go of it (`-i`)."""

    if shutil.which("chattr") is None:
        pytest.skip("there is no chattr")

    def change(path: Path, how: str) -> None:
        if subprocess.run(["chattr", how, path], capture_output=True, timeout=PATIENCE_SECONDS).returncode != 0:
            pytest.skip("this user, or this file system, has no immutable files")

    yield change
    # Under whatever name it is by now.
    subprocess.run(["chattr", "-R", "-i", tmp_path], capture_output=True, timeout=PATIENCE_SECONDS)


def test_what_cannot_be_removed_is_said_once_and_tried_again_after_a_day(
    hall: Hall, fixed: Callable[[Path, str], None],
) -> None:
    hall.job("stuck")
    hall.job("works")
    fixed(hall.root / "stuck" / "file", "+i")
    for _ in range(3):
        assert hall.clean() == [".gone-stuck"]
        hall.clock.move(TTL / 3 - 1)
    assert said(hall.log) == [PUT_OFF, REMOVED]
    put_off = lines(hall.log)[0]
    assert (put_off["workspace"], put_off["error"]) == (
        ".gone-stuck", f"Operation not permitted: {hall.root}/.gone-stuck/file")
    hall.clock.move(3)
    assert hall.clean() == [".gone-stuck"]
    assert said(hall.log) == [PUT_OFF, REMOVED]
    fixed(hall.root / ".gone-stuck" / "file", "-i")
    hall.clock.move(TTL - 1)
    assert hall.clean() == [".gone-stuck"]
    hall.clock.move(1)
    assert hall.clean() == []
    assert said(hall.log) == [PUT_OFF, REMOVED, REMOVED]


def test_what_cannot_even_be_moved_is_said_once_and_tried_again_after_a_day(
    hall: Hall, fixed: Callable[[Path, str], None],
) -> None:
    stuck = hall.directory("stuck")
    fixed(stuck, "+i")
    for _ in range(3):
        assert hall.clean() == ["stuck"]
        hall.clock.move(TTL / 3 - 1)
    assert said(hall.log) == [PUT_OFF]
    assert lines(hall.log)[0]["error"] == f"Operation not permitted: {hall.root}/stuck"
    fixed(stuck, "-i")
    hall.clock.move(3)
    assert hall.clean() == []


def test_an_ordinary_user_goes_on_past_the_files_of_another() -> None:
    def as_nobody() -> tuple[list[str], list[str]]:
        with opened(place) as conn, kept(place) as log:
            hall = Hall(place, conn, log)
            hall.directory("mine")
            hall.directory("zebra")
            return hall.clean(), said(log)

    if os.geteuid() != 0:
        pytest.skip("only root can leave somebody else's file")
    with writable_by_all() as place:
        (place / "ws").mkdir()
        (place / "ws").chmod(0o777)
        theirs = place / "ws" / "theirs"
        (theirs / "below").mkdir(parents=True)
        (theirs / "below" / "file").write_text("root's")
        moment = (START - timedelta(seconds=TTL + 1)).timestamp()
        os.utime(theirs, (moment, moment))
        found, log = in_a_child(as_nobody, ordinary=True)
    assert (found, log) == ([".gone-theirs"], [PUT_OFF, REMOVED])


def test_a_root_that_is_gone_is_left_to_those_who_start_jobs(hall: Hall) -> None:
    hall.root.rmdir()
    hall.cleanup.clean(TTL)
    assert said(hall.log) == []
    hall.root.mkdir()
    hall.directory("stranger")
    assert hall.clean() == []
