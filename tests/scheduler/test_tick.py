from __future__ import annotations

import json
from datetime import timedelta

import pytest

from ductile import db
from ductile.plugin import plugin_table
from ductile.queue import job_table
from ductile.queue.job import Status, Submitter
from ductile.scheduler import schedule_table, tick
from scheduler.schedules import schedule
from support import worlds
from support.clock import START
from support.ledger import dump, new_job, opened, put_job
from support.ticking import FAILED, SUCCEEDED, Ticking, written

MINUTE = timedelta(minutes=1)
ENQUEUED = "info scheduled run enqueued"


@pytest.fixture
def conn(tmp_path):
    with opened(tmp_path) as conn:
        yield conn


@pytest.fixture
def ticking(conn):
    return Ticking(conn, worlds.runtime(worlds.plugin("echo", schedule("5m"))))


def states(conn) -> list[tuple]:
    return conn.execute("SELECT plugin, command, status, submitted_by FROM job_queue ORDER BY seq").fetchall()


# Grid


def test_the_first_run_is_enqueued_at_the_first_look(ticking):
    assert ticking.notes() == [ENQUEUED]
    assert states(ticking.conn) == [("echo", "poll", "queued", "scheduler")]
    entry, due = ticking.entry(), START + 5 * MINUTE
    assert (entry.slot.base_at, entry.slot.next_run_at, entry.last_run_at) == (due, due, START)
    assert job_table.get(ticking.conn, entry.last_job_id).max_attempts == 4


@pytest.mark.parametrize("payload", [None, {}, {"sample": 5, "deep": [{"a": None}]}])
def test_a_schedule_with_a_payload_gives_its_job_an_event(conn, payload):
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("echo", schedule("5m", payload=payload))))
    ticking.tick()
    job = job_table.get(conn, ticking.entry().last_job_id)
    assert (job.schedule_id, job.command, job.event_context_id) == ("main", "poll", None)
    if payload is None:
        assert (job.payload, job.source_event_id) == (None, None)
        return
    event = json.loads(job.payload)
    assert event == {"type": "schedule", "payload": payload, "source": "scheduler",
                     "timestamp": "2026-02-08T10:00:00.000Z", "event_id": job.source_event_id}


def test_with_jitter_the_first_run_is_drawn_within_it(conn):
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("echo", schedule("1h", jitter=600))))
    ticked = ticking.tick()
    assert START < ticked.next_at <= START + 10 * MINUTE
    assert (ticking.count(), ticking.entry().slot.next_run_at) == (0, ticked.next_at)


def test_a_drawn_time_is_stored_and_not_drawn_again(conn):
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("echo", schedule("1h", jitter=600))))
    due = ticking.tick().next_at
    assert {ticking.tick().next_at for _ in range(20)} == {due}


def test_runs_stay_on_the_grid_however_late_each_look_is(ticking):
    ticking.tick()
    late = [0.5, 17, 59, 3, 299]
    for number, seconds in enumerate(late, start=1):
        ticking.end(SUCCEEDED)
        ticking.clock.set(START + number * 5 * MINUTE + timedelta(seconds=seconds))
        assert ticking.notes() == [ENQUEUED]
        assert ticking.entry().slot.next_run_at == START + (number + 1) * 5 * MINUTE
    assert ticking.count() == 1 + len(late)


def test_after_a_long_stop_a_run_is_made_up_for_once(ticking):
    ticking.tick()
    ticking.end(SUCCEEDED)
    assert ticking.after(3 * 86400 + 100) == [ENQUEUED]
    assert ticking.notes() == []
    assert ticking.entry().slot.next_run_at == START + timedelta(days=3, minutes=5)


def test_before_it_is_due_nothing_is_enqueued(ticking):
    ticking.tick()
    ticking.end(SUCCEEDED)
    assert ticking.after(299.9) == []
    assert ticking.after(0.1) == [ENQUEUED]


def runs_in_an_hour(ticking) -> int:
    before = ticking.count()
    for _ in range(60):
        ticking.clock.move(60)
        if ENQUEUED in ticking.notes():
            ticking.end(SUCCEEDED)
    return ticking.count() - before


@pytest.mark.parametrize("days", [-1, -365, 365])
def test_a_clock_that_was_set_stalls_nothing_and_makes_no_burst(ticking, days):
    ticking.tick()
    ticking.end(SUCCEEDED)
    ticking.clock.set(START + timedelta(days=days))
    assert runs_in_an_hour(ticking) in (12, 13)
    assert timedelta(0) < ticking.entry().slot.next_run_at - ticking.clock.now() <= 5 * MINUTE


def test_the_look_says_when_the_next_run_is_due(conn):
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("one", schedule("2h")), worlds.plugin("two", schedule("1h"))))
    ticked = ticking.tick()
    assert (ticked.next_at, ticked.follows_jobs) == (START + 60 * MINUTE, False)


def test_without_a_schedule_nothing_is_due(conn):
    ticked = Ticking(conn, worlds.runtime(worlds.plugin("echo"))).tick()
    assert (ticked.next_at, ticked.follows_jobs, ticked.log_lines) == (None, False, ())


def test_runs_are_enqueued_in_the_order_in_which_they_fell_due(conn):
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("late", schedule("10m")), worlds.plugin("early",
                                                                                                 schedule("4m")),
                                         worlds.plugin("new", schedule("7m"))))
    ticking.tick()
    while ticking.conn.execute("SELECT 1 FROM job_queue WHERE status = 'queued'").fetchone():
        ticking.end(SUCCEEDED)
    ticking.after(86400)
    waiting = conn.execute("SELECT plugin FROM job_queue WHERE status = 'queued' ORDER BY seq").fetchall()
    assert waiting == [("early",), ("new",), ("late",)]


def test_each_schedule_of_a_plugin_runs_its_own_command(conn):
    poll, sync = schedule("5m"), schedule("1h", command="handle")
    object.__setattr__(sync, "id", "sync")
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("echo", poll, sync)))
    ticking.tick()
    assert sorted(states(conn)) == [("echo", "handle", "queued", "scheduler"), ("echo", "poll", "queued", "scheduler")]


# Window


def test_a_run_waits_for_its_window(conn):
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("echo", schedule("1h", window="12:00-14:00"))))
    assert ticking.tick().next_at == START + 120 * MINUTE
    ticking.clock.move(2 * 3600)
    assert ticking.notes() == [ENQUEUED]


def test_a_run_that_was_missed_in_its_window_waits_for_the_next_one(conn):
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("echo", schedule("1h", window="12:00-14:00"))))
    ticking.tick()
    assert ticking.after(5 * 3600) == ["info scheduled run blocked outside its preferred window"]
    assert ticking.count() == 0
    assert ticking.entry().slot.next_run_at == START + timedelta(hours=26)
    assert ticking.after(21 * 3600) == [
        ENQUEUED, "info scheduled run no longer blocked outside its preferred window"]


# Poll guard

GUARDED = "info scheduled run blocked poll guard: 1 outstanding"


def start(ticking) -> None:
    job_table.move(ticking.conn, job_table.next_ready(ticking.conn, ["echo"], ()), Status.RUNNING, START)


@pytest.mark.parametrize("hold", [
    lambda ticking: None, start, lambda ticking: ticking.end(FAILED),
], ids=["queued", "running", "waiting for a retry"])
def test_with_a_run_outstanding_the_next_is_skipped_and_moves_on(ticking, hold):
    ticking.tick()
    hold(ticking)
    assert ticking.after(300) == [GUARDED]
    assert ticking.count() == 1
    assert ticking.entry().slot.next_run_at == START + 10 * MINUTE
    assert ticking.after(300) == []
    assert ticking.entry().slot.next_run_at == START + 15 * MINUTE


def test_when_the_run_has_ended_the_next_is_enqueued_again(ticking):
    ticking.tick()
    ticking.after(300)
    ticking.end(SUCCEEDED)
    assert ticking.notes() == []
    assert ticking.after(300) == [ENQUEUED, "info scheduled run no longer blocked poll guard: 1 outstanding"]
    assert ticking.entry().held_reason is None


@pytest.mark.parametrize("other", [
    {"submitted_by": Submitter.CLI}, {"submitted_by": Submitter.SCHEDULER, "command": "handle"},
    {"submitted_by": Submitter.SCHEDULER, "plugin": "other"},
])
def test_other_jobs_do_not_hold_a_run(ticking, other):
    put_job(ticking.conn, "other", **other)
    assert ticking.notes() == [ENQUEUED]


def test_as_many_may_be_outstanding_as_are_allowed(conn):
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("echo", schedule("5m"), max_outstanding_polls=3)))
    said = [ticking.after(300) for _ in range(4)]
    assert said == [[ENQUEUED]] * 3 + [["info scheduled run blocked poll guard: 3 outstanding"]]


# Reasons to hold a run


HELD = "info scheduled run blocked "
NO_LONGER = "info scheduled run no longer blocked "
INIT = {"commands": ("poll", "init")}


def test_a_plugin_that_is_not_loaded_holds_its_run_until_it_is(ticking):
    good = ticking.runtime
    ticking.runtime = worlds.runtime(worlds.plugin("echo", schedule("5m"), not_loaded="its manifest is missing"))
    assert ticking.notes() == [f"{HELD}not loaded: its manifest is missing"]
    assert [ticking.after(1000) for _ in range(3)] == [[], [], []]
    assert ticking.tick().follows_jobs is True
    ticking.runtime = good
    assert ticking.notes() == [ENQUEUED, f"{NO_LONGER}not loaded: its manifest is missing"]
    assert (ticking.notes(), ticking.count()) == ([], 1)


def test_a_plugin_whose_init_has_not_succeeded_holds_its_run_until_it_has(conn):
    plugin = worlds.plugin("echo", schedule("5m"), **INIT)
    ticking = Ticking(conn, worlds.runtime(plugin))
    assert ticking.notes() == [f"{HELD}unhealthy: init has not succeeded"]
    init = {"plugin": "echo", "command": "init", "max_attempts": 1, "submitted_by": Submitter.INIT}
    for number, outcome in enumerate((FAILED, SUCCEEDED)):
        job_table.add(conn, [new_job(f"init-{number}", **init)], START)
        assert ticking.after(1000) == []
        ticking.end(outcome)
    assert ticking.notes() == [ENQUEUED, f"{NO_LONGER}unhealthy: init has not succeeded"]


def test_a_full_queue_holds_a_run_with_a_warning_until_there_is_room(conn):
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("echo", schedule("5m")), max_queue_depth=2))
    put_job(conn, "a")
    put_job(conn, "b")
    assert ticking.notes() == ["warn scheduled run blocked queue full"]
    assert [ticking.after(1000) for _ in range(3)] == [[], [], []]
    ticking.end(SUCCEEDED)
    assert ticking.notes() == [ENQUEUED, f"{NO_LONGER}queue full"]
    assert (ticking.notes(), ticking.count()) == ([], 3)


def test_a_paused_plugin_s_run_stays_due_and_runs_once(ticking):
    plugin_table.pause(ticking.conn, "echo", START)
    assert ticking.notes() == [f"{HELD}paused"]
    assert [ticking.after(1000) for _ in range(3)] == [[], [], []]
    assert plugin_table.resume(ticking.conn, "echo")
    assert ticking.notes() == [ENQUEUED, f"{NO_LONGER}paused"]
    assert ticking.count() == 1


def test_each_change_of_reason_is_one_line(conn):
    good = worlds.plugin("echo", schedule("5m"), **INIT)
    ticking = Ticking(conn, worlds.runtime(worlds.plugin("echo", schedule("5m"), not_loaded="first reason")))
    said = ticking.notes()
    ticking.runtime = worlds.runtime(worlds.plugin("echo", schedule("5m"), not_loaded="second reason"))
    said += ticking.after(60) + ticking.after(60)
    ticking.runtime = worlds.runtime(good)
    said += ticking.after(60) + ticking.after(60)
    assert said == [f"{HELD}not loaded: first reason", f"{HELD}not loaded: second reason",
                    f"{HELD}unhealthy: init has not succeeded"]
    assert ticking.entry().held_reason == "unhealthy: init has not succeeded"


def test_a_run_that_was_held_keeps_to_its_grid(ticking):
    good = ticking.runtime
    ticking.runtime = worlds.runtime(worlds.plugin("echo", schedule("5m"), not_loaded="gone"))
    ticking.tick()
    ticking.clock.move(1234)
    ticking.runtime = good
    ticking.tick()
    assert ticking.entry().slot.next_run_at == START + 25 * MINUTE


# A changed configuration


def test_an_unchanged_schedule_keeps_its_time_over_a_restart(ticking):
    ticking.tick()
    ticking.end(SUCCEEDED)
    before = ticking.entry()
    again = Ticking(ticking.conn, worlds.runtime(worlds.plugin("echo", schedule("5m", jitter=60))), ticking.clock)
    again.clock.move(100)
    assert again.notes() == []
    assert again.entry() == before


@pytest.mark.parametrize("changed", [
    schedule("10m"), schedule("1d"), schedule("5m", zone="Europe/Berlin"),
], ids=["another interval", "a calendar interval", "another zone"])
def test_a_changed_schedule_starts_a_new_grid(ticking, changed):
    ticking.tick()
    ticking.end(SUCCEEDED)
    ticking.runtime = worlds.runtime(worlds.plugin("echo", changed))
    assert ticking.after(100) == [ENQUEUED]
    entry = ticking.entry()
    assert (entry.rule, entry.last_run_at) == (changed.rule(), START + timedelta(seconds=100))
    assert entry.slot.next_run_at >= START + timedelta(seconds=100 + 300)


def test_a_schedule_that_is_gone_from_the_configuration_loses_its_row(ticking):
    ticking.tick()
    ticking.runtime = worlds.runtime(worlds.plugin("echo"))
    assert ticking.tick().next_at is None
    assert schedule_table.entries(ticking.conn) == {}


def test_a_plugin_that_is_gone_loses_its_rows(ticking):
    ticking.tick()
    ticking.runtime = worlds.runtime()
    ticking.tick()
    assert schedule_table.entries(ticking.conn) == {}


def test_a_disabled_plugin_keeps_its_row_and_does_not_run(ticking):
    ticking.tick()
    before = ticking.entry()
    ticking.runtime = worlds.runtime(worlds.plugin("echo", schedule("5m"), enabled=False))
    assert ticking.after(3600) == []
    assert (ticking.entry(), ticking.count()) == (before, 1)


@pytest.mark.parametrize("hours", [0, 1])
def test_a_disabled_plugins_row_wakes_nobody_and_holds_nothing(ticking, hours):
    ticking.tick()
    ticking.runtime = worlds.runtime(worlds.plugin("echo", schedule("5m"), enabled=False))
    ticking.clock.move(hours * 3600)
    ticked = ticking.tick()
    assert (ticked.next_at, ticked.follows_jobs) == (None, False)


# Writing


def test_a_look_that_finds_nothing_writes_nothing(ticking, tmp_path):
    ticking.tick()
    before = written(ticking.conn, tmp_path / "state.db")
    for _ in range(10):
        assert ticking.after(20) == []
    assert written(ticking.conn, tmp_path / "state.db") == before


def test_a_look_at_a_run_that_is_held_still_writes_nothing(ticking, tmp_path):
    ticking.runtime = worlds.runtime(worlds.plugin("echo", schedule("5m"), not_loaded="gone"))
    ticking.tick()
    before = written(ticking.conn, tmp_path / "state.db")
    for _ in range(10):
        ticking.after(1000)
    assert written(ticking.conn, tmp_path / "state.db") == before


def test_a_look_that_cannot_be_written_has_done_nothing_and_is_repeated(ticking):
    before = dump(ticking.conn)
    ticking.conn.execute("PRAGMA query_only = ON")
    with pytest.raises(db.NotWritten):
        ticking.tick()
    assert dump(ticking.conn) == before
    ticking.conn.execute("PRAGMA query_only = OFF")
    assert ticking.notes() == [ENQUEUED]


# Retries that a clock has stranded


@pytest.mark.parametrize("ahead, released", [(3600, 0), (3600.001, 1), (86400, 1)])
def test_a_retry_further_off_than_the_longest_delay_is_due_now(ticking, ahead, released):
    job = put_job(ticking.conn, "a", Status.RUNNING)
    retry_at = START + timedelta(seconds=ahead)
    job_table.move(ticking.conn, job, Status.QUEUED, START, attempt=2, retry_at=retry_at)
    assert tick.release_stranded_retries(ticking.conn, ticking.runtime, START) == released
    assert job_table.get(ticking.conn, "a").next_retry_at == (None if released else retry_at)


def test_without_a_stranded_retry_nothing_is_written(ticking, tmp_path):
    put_job(ticking.conn, "a")
    before = written(ticking.conn, tmp_path / "state.db")
    assert tick.release_stranded_retries(ticking.conn, ticking.runtime, START) == 0
    assert written(ticking.conn, tmp_path / "state.db") == before
