"""The janitor goes round in slices, with the heartbeat, and may be stopped anywhere."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from ductile import db
from ductile.queue import job_table
from ductile.scheduler import retention
from ductile.scheduler.heartbeat import Heartbeat
from ductile.workspace.cleanup import WorkspaceCleanup
from scheduler.hall import TTL, Hall
from support import failing, worlds
from support.clock import START
from support.ledger import dump, ids, opened
from support.logs import kept, lines
from workspace.trees import tree

WORLD = worlds.runtime(worlds.plugin("echo"), job_log_retention=30 * TTL)
LOOKED_AT_ONCE, REMOVED_AT_ONCE = 1000, 100


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    with opened(tmp_path) as conn, kept(tmp_path) as log:
        yield Hall(tmp_path, conn, log)


# Slices


def test_no_more_than_so_many_go_at_once_and_all_in_the_end(hall: Hall) -> None:
    count = 2 * REMOVED_AT_ONCE + 50
    for number in range(count):
        hall.directory(f"{number:04d}")
    left = [len(hall.clean()) for _ in range(4)]
    assert left == [count - REMOVED_AT_ONCE, count - 2 * REMOVED_AT_ONCE, 0, 0]
    assert [line["count"] for line in lines(hall.log)] == [100, 100, 50]


def test_old_ones_behind_more_young_ones_than_a_slice_has_are_reached(hall: Hall) -> None:
    for number in range(LOOKED_AT_ONCE + 10):
        (hall.root / f"{number:04d}").mkdir()
        hall.age(hall.root / f"{number:04d}", 0)
    old = [f"{number:04d}" for number in (0, LOOKED_AT_ONCE - 1, LOOKED_AT_ONCE, LOOKED_AT_ONCE + 9)]
    for name in old:
        hall.age(hall.root / name, TTL + 1)
    left = [hall.clean() for _ in range(2)]
    assert [[name for name in old if name in each] for each in left] == [old[2:], []]
    # It has gone round: what has become old at the beginning is found again.
    hall.age(hall.root / "0001", TTL + 1)
    assert "0001" not in hall.clean()
    assert len(hall.left()) == LOOKED_AT_ONCE + 5


@pytest.mark.parametrize("count", [LOOKED_AT_ONCE, 2 * LOOKED_AT_ONCE])
def test_a_last_slice_that_is_full_ends_the_round_all_the_same(hall: Hall, count: int) -> None:
    for number in range(count):
        (hall.root / f"{number:04d}").mkdir()
        hall.age(hall.root / f"{number:04d}", 0)
    for _ in range(count // LOOKED_AT_ONCE + 1):
        hall.clean()
    hall.age(hall.root / "0000", TTL + 1)
    assert "0000" not in hall.clean()


def test_a_slice_cut_short_by_removals_is_looked_at_again(hall: Hall) -> None:
    for number in range(REMOVED_AT_ONCE):
        hall.directory(f"a{number:03d}")
    hall.directory("b-old")
    (hall.root / "c-young").mkdir()
    hall.age(hall.root / "c-young", 0)
    assert hall.clean() == ["b-old", "c-young"]
    hall.directory("a-late")
    assert hall.clean() == ["c-young"]


# On the heartbeat


@pytest.fixture
def heartbeat(hall: Hall) -> Heartbeat:
    return Heartbeat(hall.conn, clock=hall.clock, rng=Random(0), new_id=ids(), workspaces=hall.workspaces)


def test_it_comes_with_each_beat_and_with_no_other_look(hall: Hall, heartbeat: Heartbeat) -> None:
    hall.job("root", ago=TTL - 59)
    heartbeat.beat(WORLD)
    hall.clock.move(60)
    heartbeat.look(WORLD)
    assert hall.left() == ["root"]
    heartbeat.beat(WORLD)
    assert hall.left() == []


def test_after_a_jump_of_the_clock_nothing_goes_for_an_hour_of_real_time(hall: Hall, heartbeat: Heartbeat) -> None:
    hall.job("root", ago=60)
    hall.directory("stranger", ago=60)
    heartbeat.beat(WORLD)
    hall.clock.set(START + timedelta(days=2))
    for _ in range(60):
        heartbeat.beat(WORLD)
        assert hall.left() == ["root", "stranger"]
        hall.clock.move(60)
    heartbeat.beat(WORLD)
    assert hall.left() == []


def test_a_chain_that_was_pruned_goes_by_the_time_of_its_directory(hall: Hall, heartbeat: Heartbeat) -> None:
    hall.job("root", ago=31 * TTL)
    while retention.prune(hall.conn, 30 * TTL, hall.clock.now(), monotonic=hall.clock.monotonic):
        continue
    heartbeat.beat(WORLD)
    assert (hall.left(), job_table.get(hall.conn, "root")) == (["root"], None)
    hall.clock.move(TTL + 1)
    heartbeat.beat(WORLD)
    assert hall.left() == []


def test_an_idle_round_writes_nothing_and_says_nothing(hall: Hall) -> None:
    hall.job("root", ago=5)
    hall.directory("stranger", ago=5)
    before = hall.conn.total_changes, hall.log.read_text()
    for _ in range(5):
        hall.clean()
        hall.clock.move(60)
    assert (hall.conn.total_changes, hall.log.read_text()) == before


def test_a_write_that_fails_at_any_statement_takes_no_half_of_a_workspace(tmp_path: Path) -> None:
    with opened(tmp_path) as conn, kept(tmp_path) as log, closing(failing.connect(tmp_path / "state.db")) as breaks:
        hall = Hall(tmp_path, breaks, log)
        hall.job("root")
        before, whole = dump(conn), tree(hall.root / "root")
        for number in itertools.count(1):
            breaks.fail_from(number, sqlite3.SQLITE_FULL)
            try:
                with db.database_errors(breaks):
                    WorkspaceCleanup(breaks, clock=hall.clock, workspaces=hall.workspaces).clean(TTL)
                break
            except db.NotWritten:
                assert (dump(conn), breaks.in_transaction) == (before, False)
            (left,) = hall.root.iterdir()
            assert tree(left) == whole
            # What is out of reach already would go with the next beat.
            left.rename(hall.root / "root")
        assert (hall.left(), dump(conn)) == ([], before)
    assert number > 3


def test_what_a_failed_write_has_left_goes_with_the_next_beat(hall: Hall) -> None:
    hall.job("root")
    hall.conn.execute("PRAGMA query_only = ON")
    with closing(sqlite3.connect(db.path_of(hall.conn), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        hall.conn.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(db.NotWritten):
            hall.clean()
        other.execute("ROLLBACK")
    assert hall.left() == ["root"]
    hall.conn.execute("PRAGMA query_only = OFF")
    assert hall.clean() == []
