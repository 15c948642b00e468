from __future__ import annotations

import pytest

from ductile import db
from ductile.config.model import BreakerRule, Retry
from ductile.queue import job_table
from ductile.queue.job import Status, Submitter
from ductile.scheduler import retention, schedule_table
from ductile.scheduler.breaker import CLOSED, Breaker
from scheduler.schedules import schedule
from support import worlds
from support.clock import START
from support.ledger import opened, put_job
from support.ticking import FAILED, SUCCEEDED, Ticking

EVERY = 300
RESET_AFTER = 1800
ENQUEUED = "info scheduled run enqueued"
OPEN_UNTIL = "breaker open until 2026-02-08T10:40:00.000Z"
PROBING = "breaker half-open: a probe is out"


def runtime(**settings):
    rule = {"retry": Retry(max_attempts=1), "breaker": BreakerRule(threshold=3, reset_after=RESET_AFTER)}
    return worlds.runtime(worlds.plugin("echo", schedule("5m"), **rule | settings))


@pytest.fixture
def ticking(tmp_path):
    with opened(tmp_path) as conn:
        yield Ticking(conn, runtime())


def breaker(ticking) -> Breaker:
    return schedule_table.breaker(ticking.conn, "echo", "poll")


def die(ticking, times: int) -> None:
    """Let scheduled runs die, one each interval, beginning now."""
    for number in range(times):
        if number:
            ticking.clock.move(EVERY)
        assert ENQUEUED in ticking.notes()
        assert ticking.end(FAILED).status is Status.DEAD


@pytest.fixture
def opened_breaker(ticking):
    """A breaker that has opened ten minutes after the start, a run held before it."""
    die(ticking, 3)
    ticking.clock.move(EVERY)
    return ticking


def test_three_deaths_in_a_row_open_it(ticking):
    die(ticking, 2)
    assert breaker(ticking) == Breaker(state="closed", failure_count=2, opened_at=None)
    ticking.clock.move(EVERY)
    die(ticking, 1)
    assert breaker(ticking) == Breaker(state="open", failure_count=3, opened_at=ticking.clock.now())


def test_a_success_between_deaths_starts_the_count_again(ticking):
    for _ in range(3):
        die(ticking, 2)
        ticking.after(EVERY)
        ticking.end(SUCCEEDED)
        assert breaker(ticking) == CLOSED
        ticking.clock.move(EVERY)


def test_a_failure_that_is_retried_is_no_death(ticking):
    ticking.runtime = runtime(retry=Retry(max_attempts=2))
    ticking.tick()
    assert ticking.end(FAILED).status is Status.QUEUED
    assert breaker(ticking) == CLOSED


def test_while_it_is_open_runs_are_held_until_the_time_it_names(opened_breaker):
    ticking = opened_breaker
    assert ticking.notes() == [f"info scheduled run blocked {OPEN_UNTIL}"]
    assert ticking.after(RESET_AFTER - EVERY - 1) == []
    assert ticking.count() == 3


def test_then_one_probe_is_let_through(opened_breaker):
    ticking = opened_breaker
    ticking.tick()
    assert ticking.after(RESET_AFTER - EVERY) == [ENQUEUED, f"info scheduled run no longer blocked {OPEN_UNTIL}"]
    assert breaker(ticking).state == "half_open"
    assert ticking.after(EVERY) == [f"info scheduled run blocked {PROBING}"]
    assert ticking.after(EVERY) == []
    assert ticking.count() == 4


def probe(ticking, outcome) -> None:
    ticking.clock.move(RESET_AFTER)
    assert ENQUEUED in ticking.notes()
    ticking.end(outcome)


def test_a_probe_that_succeeds_closes_it(opened_breaker):
    probe(opened_breaker, SUCCEEDED)
    assert breaker(opened_breaker) == CLOSED
    assert opened_breaker.after(EVERY) == [ENQUEUED]


def test_a_probe_that_dies_opens_it_for_as_long_again(opened_breaker):
    ticking = opened_breaker
    probe(ticking, FAILED)
    assert breaker(ticking) == Breaker(state="open", failure_count=4, opened_at=ticking.clock.now())
    ticking.clock.move(EVERY)
    ticking.tick()
    assert ENQUEUED not in ticking.after(RESET_AFTER - EVERY - 1)
    assert ENQUEUED in ticking.after(1)


def test_a_probe_that_is_cancelled_is_followed_by_another(opened_breaker):
    ticking = opened_breaker
    ticking.clock.move(RESET_AFTER)
    ticking.tick()
    ticking.cancel()
    assert breaker(ticking).state == "half_open"
    assert ENQUEUED in ticking.after(EVERY)
    assert breaker(ticking).state == "half_open"


def test_a_restart_does_not_forget_it(opened_breaker):
    again = Ticking(opened_breaker.conn, runtime(), opened_breaker.clock)
    again.new_id = opened_breaker.new_id
    assert again.notes() == [f"info scheduled run blocked {OPEN_UNTIL}"]
    assert ENQUEUED in again.after(RESET_AFTER)


def test_cancelled_jobs_do_not_count(ticking):
    for _ in range(5):
        assert ticking.notes() == [ENQUEUED]
        ticking.cancel()
        ticking.clock.move(EVERY)
    assert breaker(ticking) == CLOSED


def test_jobs_of_a_disabled_plugin_do_not_count(ticking):
    for _ in range(5):
        ticking.tick()
        retention.fail_unrunnable_jobs(ticking.conn, worlds.runtime(worlds.plugin("echo", enabled=False),
                                                                    worlds.plugin("other")), ticking.clock.now())
        ticking.clock.move(EVERY)
    assert (ticking.count(), breaker(ticking)) == (5, CLOSED)


@pytest.mark.parametrize("submitter", [each for each in Submitter if each is not Submitter.SCHEDULER])
def test_only_scheduled_jobs_count(ticking, submitter):
    for number in range(5):
        put_job(ticking.conn, f"job-{number}", submitted_by=submitter, max_attempts=1)
        assert ticking.end(FAILED).status is Status.DEAD
    assert breaker(ticking) == CLOSED


def test_jobs_of_others_run_while_it_is_open(opened_breaker):
    put_job(opened_breaker.conn, "by-hand")
    assert opened_breaker.end(SUCCEEDED).id == "by-hand"
    assert breaker(opened_breaker).state == "open"


def test_each_command_has_its_own(ticking):
    die(ticking, 3)
    assert schedule_table.breaker(ticking.conn, "echo", "handle") == CLOSED


def test_the_operator_closes_all_of_a_plugin(opened_breaker):
    ticking = opened_breaker
    ticking.tick()
    with db.transaction(ticking.conn):
        assert schedule_table.clear_breakers(ticking.conn, "echo") == 1
        assert schedule_table.clear_breakers(ticking.conn, "other") == 0
    assert (schedule_table.breakers(ticking.conn), breaker(ticking)) == ({}, CLOSED)
    assert ticking.notes() == [ENQUEUED, f"info scheduled run no longer blocked {OPEN_UNTIL}"]


def test_a_clock_set_back_does_not_keep_it_open_for_ever(opened_breaker):
    ticking = opened_breaker
    ticking.clock.set(START.replace(year=2025))
    assert [ENQUEUED in note for note in (ticking.notes(), ticking.after(EVERY))].count(True) == 1
    assert breaker(ticking).state == "half_open"


def test_breakers_are_listed_by_plugin_and_command(ticking):
    die(ticking, 1)
    assert schedule_table.breakers(ticking.conn) == {("echo", "poll"): Breaker(state="closed", failure_count=1,
                                                                               opened_at=None)}


def test_a_probe_is_one_also_where_more_may_be_outstanding(opened_breaker):
    ticking = opened_breaker
    ticking.runtime = runtime(max_outstanding_polls=5)
    ticking.clock.move(RESET_AFTER)
    said = [ENQUEUED in ticking.after(EVERY) for _ in range(4)]
    assert said == [True, False, False, False]
    assert job_table.count_open(ticking.conn, "echo", "poll", Submitter.SCHEDULER) == 1
