from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from ductile import db
from ductile.pipeline.graph import Node, build
from ductile.plugin import plugin_table
from ductile.plugin.plugin_table import PluginLoad
from ductile.queue import job_table
from ductile.queue.job import Status
from ductile.routing.router import Router
from ductile.scheduler.heartbeat import Heartbeat
from ductile.units import utc_text
from ductile.workspace.manager import Workspaces
from scheduler.schedules import schedule
from support import worlds
from support.clock import START, FakeClock
from support.ledger import ids, opened, put_ended, put_job
from support.logs import kept, lines, messages, said
from support.ticking import written

WORLD = worlds.runtime(worlds.plugin("echo", schedule("5m")), job_log_retention=86400)
WITHOUT_SCHEDULE = worlds.runtime(worlds.plugin("echo"), job_log_retention=86400)
JUMPED = "warn the clock jumped ahead; nothing is pruned for an hour"
DAY = timedelta(days=1)


@pytest.fixture
def conn(tmp_path):
    with opened(tmp_path) as conn:
        yield conn


@pytest.fixture
def log(tmp_path):
    with kept(tmp_path) as path:
        yield path


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def workspaces(tmp_path):
    made = Workspaces(tmp_path / "ws")
    made.make_root()
    return made


@pytest.fixture
def heartbeat(conn, clock, log, workspaces):
    return Heartbeat(conn, clock=clock, rng=Random(0), new_id=ids(), workspaces=workspaces)


def jobs(conn) -> int:
    return conn.execute("SELECT count(*) FROM job_queue").fetchone()[0]


def test_a_beat_enqueues_what_is_due_and_says_when_the_next_is(heartbeat, conn, log):
    heartbeat.beat(WORLD)
    assert (jobs(conn), heartbeat.next_at, heartbeat.follows_jobs) == (1, START + timedelta(minutes=5), False)
    (line,) = lines(log)
    expected = {"level": "info", "component": "scheduler", "message": "scheduled run enqueued", "plugin": "echo",
                "schedule": "main", "command": "poll", "next_run_at": "2026-02-08T10:05:00.000Z"}
    assert {name: line[name] for name in expected} == expected


def test_before_the_first_look_nothing_is_known_to_be_due(heartbeat):
    assert (heartbeat.next_at, heartbeat.follows_jobs) == (None, False)


def test_a_run_that_is_held_is_remembered(heartbeat):
    heartbeat.look(worlds.runtime(worlds.plugin("echo", schedule("5m"), not_loaded="gone")))
    assert (heartbeat.next_at, heartbeat.follows_jobs) == (None, True)


def test_an_idle_beat_writes_nothing_and_says_nothing(heartbeat, conn, clock, log, tmp_path):
    heartbeat.beat(WORLD)
    before = written(conn, tmp_path / "state.db"), log.read_text()
    for _ in range(4):
        clock.move(60)
        heartbeat.beat(WORLD)
    assert (written(conn, tmp_path / "state.db"), log.read_text()) == before


def prune(heartbeat, runtime=WITHOUT_SCHEDULE) -> None:
    while heartbeat.prunes:
        heartbeat.prune(runtime)


def test_old_jobs_are_pruned_after_a_beat_one_batch_at_a_time(heartbeat, conn, log):
    put_ended(conn, range(1100), at=utc_text(START - 2 * DAY))
    heartbeat.beat(WITHOUT_SCHEDULE)
    assert (jobs(conn), heartbeat.prunes) == (1100, True)
    left = []
    for _ in range(3):
        heartbeat.prune(WITHOUT_SCHEDULE)
        left.append(jobs(conn))
    assert (left, heartbeat.prunes, messages(log)) == ([1000, 900, 800], True, [])
    prune(heartbeat)
    assert (jobs(conn), messages(log)) == (0, ["old jobs pruned"])
    heartbeat.beat(WITHOUT_SCHEDULE)
    prune(heartbeat)
    assert messages(log) == ["old jobs pruned"]


@pytest.mark.parametrize(("seconds", "expected"), [(0.02, [1099, 1098]), (0.003, [1097, 1094]), (0.001, [1093, 1086])])
def test_a_batch_ends_before_it_takes_long(heartbeat, conn, clock, seconds, expected):
    put_ended(conn, range(1100), at=utc_text(START - 2 * DAY))
    heartbeat.beat(WITHOUT_SCHEDULE)

    def take_time(statement: str) -> None:
        # By the number of rows, as large ones do.
        if statement.startswith("DELETE FROM job_log"):
            clock.move(seconds * len(json.loads(statement.split("'")[1])))

    conn.set_trace_callback(take_time)
    left = []
    for _ in expected:
        heartbeat.prune(WITHOUT_SCHEDULE)
        left.append(jobs(conn))
    assert left == expected


def test_a_log_that_a_reader_holds_is_told_once_and_again_when_it_comes_back(
        heartbeat, conn, clock, log, tmp_path, monkeypatch):
    monkeypatch.setattr(db, "LARGE_LOG_BYTES", 100_000)
    for _ in range(2):
        with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM job_queue").fetchone()
            put_ended(conn, range(jobs(conn), jobs(conn) + 500), at=utc_text(START))
            for _ in range(3):
                beats(heartbeat, clock, 1)
        beats(heartbeat, clock, 1)
    told = ("warn the write-ahead log grows: another program keeps a read transaction on the database open; find"
            " it with `fuser` or `lsof` on the database and stop it")
    assert [text for text in said(log) if "log" in text] == [told, told]


def test_a_large_log_that_nobody_holds_is_not_told(heartbeat, conn, clock, log, monkeypatch):
    monkeypatch.setattr(db, "LARGE_LOG_BYTES", 100_000)
    put_ended(conn, range(500), at=utc_text(START))
    beats(heartbeat, clock, 2)
    assert [text for text in said(log) if "log" in text] == []


def test_a_look_prunes_nothing(heartbeat, conn):
    put_ended(conn, range(5), at=utc_text(START - 2 * DAY))
    heartbeat.look(WITHOUT_SCHEDULE)
    assert jobs(conn) == 5


# A clock that is set


def test_a_clock_that_is_set_ahead_between_two_batches_costs_no_young_job(heartbeat, conn, clock):
    put_ended(conn, range(150), at=utc_text(START - 2 * DAY))
    put_ended(conn, range(1000, 1050), at=utc_text(START))
    heartbeat.beat(WITHOUT_SCHEDULE)
    heartbeat.prune(WITHOUT_SCHEDULE)
    clock.set(START + 30 * DAY)
    prune(heartbeat)
    assert jobs(conn) == 50
    clock.move(60)
    heartbeat.beat(WITHOUT_SCHEDULE)
    assert heartbeat.prunes is False


def beats(heartbeat, clock, count) -> None:
    for _ in range(count):
        clock.move(60)
        heartbeat.beat(WITHOUT_SCHEDULE)
        prune(heartbeat)


def test_after_a_jump_ahead_nothing_is_pruned_for_an_hour_of_real_time(heartbeat, conn, clock, log):
    heartbeat.beat(WITHOUT_SCHEDULE)
    put_ended(conn, range(5), at=utc_text(START))
    clock.set(START + 30 * DAY)
    heartbeat.beat(WITHOUT_SCHEDULE)
    beats(heartbeat, clock, 59)
    assert jobs(conn) == 5
    beats(heartbeat, clock, 1)
    assert jobs(conn) == 0
    assert said(log) == [JUMPED, "info old jobs pruned"]
    assert lines(log)[0]["seconds"] == 30 * 86400


def test_a_jump_that_is_taken_back_in_time_costs_no_job(heartbeat, conn, clock):
    heartbeat.beat(WITHOUT_SCHEDULE)
    put_ended(conn, range(5), at=utc_text(START))
    clock.set(START + 30 * DAY)
    beats(heartbeat, clock, 30)
    clock.set(START + timedelta(hours=1))
    beats(heartbeat, clock, 60)
    assert jobs(conn) == 5


def test_a_second_jump_starts_the_hour_anew(heartbeat, conn, clock):
    put_ended(conn, range(5), at=utc_text(START))
    clock.set(START + 30 * DAY)
    beats(heartbeat, clock, 40)
    clock.set(START + 60 * DAY)
    beats(heartbeat, clock, 40)
    assert jobs(conn) == 5
    beats(heartbeat, clock, 30)
    assert jobs(conn) == 0


@pytest.mark.parametrize("jump, pauses", [(3600, False), (3601, True), (-3601, False), (-86400, False)])
def test_only_more_than_an_hour_ahead_is_a_jump(heartbeat, clock, log, jump, pauses):
    clock.set(START + timedelta(seconds=jump))
    heartbeat.beat(WITHOUT_SCHEDULE)
    assert (JUMPED in said(log)) is pauses


def test_time_that_passes_for_both_clocks_is_no_jump(heartbeat, conn, clock, log):
    """So a machine that was busy, or whose monotonic clock counts its sleep, prunes on."""
    put_ended(conn, range(5), at=utc_text(START))
    clock.move(30 * 86400)
    heartbeat.beat(WITHOUT_SCHEDULE)
    prune(heartbeat)
    assert (jobs(conn), said(log)) == (0, ["info old jobs pruned"])


def test_retries_that_a_clock_set_back_has_stranded_are_let_go(heartbeat, conn, log):
    for name in ("a", "b"):
        job = put_job(conn, name, Status.RUNNING)
        job_table.move(conn, job, Status.QUEUED, START, attempt=2, retry_at=START + DAY)
    heartbeat.beat(WITHOUT_SCHEDULE)
    assert job_table.next_ready(conn, ["echo"], ()).id == "a"
    assert [(line["level"], line["message"], line["count"]) for line in lines(log)] == [
        ("warn", "the clock was set back; retries that would wait longer than their backoff are due now", 2)]


def test_a_beat_that_cannot_be_written_raises_and_the_next_one_does_its_work(heartbeat, conn, clock, log):
    conn.execute("PRAGMA query_only = ON")
    with pytest.raises(db.NotWritten):
        heartbeat.beat(WORLD)
    assert messages(log) == []
    conn.execute("PRAGMA query_only = OFF")
    clock.move(5)
    heartbeat.beat(WORLD)
    assert (jobs(conn), messages(log)) == (1, ["scheduled run enqueued"])


def test_a_program_that_is_gone_is_told_of_once_and_so_is_its_return(conn, heartbeat, log, tmp_path):
    program = tmp_path / "run.sh"
    program.write_text("")
    world = worlds.runtime(worlds.plugin("echo", entrypoint=program), worlds.plugin("notify"))
    takers = {each: build(name=each, on=f"ductile.plugin.{each}", entry=("a",), nodes=[
        Node(id="a", plugin="notify", command="handle", deep_copy=False, next=())])
        for each in ("unavailable", "available")}
    world = replace(world, router=Router((), takers))
    with db.transaction(conn):
        plugin_table.replace_loads(conn, [PluginLoad(plugin="echo", version="1", enabled=True, needs_init=None,
                                                     reason=None)], START)
    heartbeat.beat(world)
    program.rename(tmp_path / "hidden")
    why = f"{program}: No such file or directory"
    for _ in range(2):
        heartbeat.beat(world)
        assert [load.reason for load in plugin_table.loads(conn)] == [why]
        assert heartbeat.gone == {"echo": why}
    (tmp_path / "hidden").rename(program)
    for _ in range(2):
        heartbeat.beat(world)
    assert ([load.reason for load in plugin_table.loads(conn)], heartbeat.gone) == ([None], {})
    told = [json.loads(payload) for (payload,) in conn.execute("SELECT payload FROM job_queue ORDER BY seq")]
    assert [(event["type"], event["payload"]) for event in told] == [
        ("ductile.plugin.unavailable", {"plugin": "echo", "reason": why}),
        ("ductile.plugin.available", {"plugin": "echo", "reason": None})]
    assert said(log) == ["error plugin unavailable", "info plugin available again"]
