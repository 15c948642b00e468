from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import pytest

from ductile.config.model import Schedule, Unit
from ductile.scheduler.schedule import Slot, advance, first, in_window, next_in_window, redraw_if_stalled
from scheduler.schedules import NOW, UTC, runs, schedule, utc

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SUNDAY = 6


# Windows


@pytest.mark.parametrize(
    "window, moment, inside",
    [
        ("06:00-22:00", "2026-02-08T05:59:59.999", False),
        ("06:00-22:00", "2026-02-08T06:00", True),
        ("06:00-22:00", "2026-02-08T21:59:59.999", True),
        ("06:00-22:00", "2026-02-08T22:00", False),
        ("22:00-06:00", "2026-02-08T21:59", False),
        ("22:00-06:00", "2026-02-08T22:00", True),
        ("22:00-06:00", "2026-02-09T00:00", True),
        ("22:00-06:00", "2026-02-09T05:59", True),
        ("22:00-06:00", "2026-02-09T06:00", False),
        ("18:00-00:00", "2026-02-08T23:59", True),
        ("18:00-00:00", "2026-02-09T00:00", False),
        ("00:00-00:00", "2026-02-09T00:00", True),
        ("00:00-00:00", "2026-02-09T13:00", True),
        (None, "2026-02-09T13:00", True),
    ],
)
def test_a_window_has_its_start_and_not_its_end(window, moment, inside):
    assert in_window(schedule("1h", window=window), utc(moment)) is inside


@pytest.mark.parametrize(
    "zone, window, moment, expected",
    [
        ("UTC", "06:00-22:00", "2026-02-08T10:00", "2026-02-08T10:00"),
        ("UTC", "06:00-22:00", "2026-02-08T05:00", "2026-02-08T06:00"),
        ("UTC", "06:00-22:00", "2026-02-08T22:00", "2026-02-09T06:00"),
        ("UTC", "22:00-06:00", "2026-02-08T12:00", "2026-02-08T22:00"),
        ("UTC", "22:00-06:00", "2026-02-08T03:00", "2026-02-08T03:00"),
        ("Australia/Sydney", "06:00-22:00", "2026-02-08T12:00", "2026-02-08T19:00"),
        # The start is missing: the end of the gap. The end is missing: likewise.
        ("Europe/Berlin", "02:30-04:00", "2026-03-28T23:00", "2026-03-29T01:00"),
        ("Europe/Berlin", "01:00-02:30", "2026-03-29T00:59", "2026-03-29T00:59"),
        ("Europe/Berlin", "01:00-02:30", "2026-03-29T01:00", "2026-03-29T23:00"),
        # Wholly in the gap: there is none on that day.
        ("Europe/Berlin", "02:10-02:50", "2026-03-28T23:00", "2026-03-30T00:10"),
        # The end comes twice: the first one ends it. The start comes twice: the first one begins it.
        ("Europe/Berlin", "01:00-02:30", "2026-10-25T00:29", "2026-10-25T00:29"),
        ("Europe/Berlin", "01:00-02:30", "2026-10-25T01:10", "2026-10-26T00:00"),
        ("Europe/Berlin", "02:30-04:00", "2026-10-25T00:00", "2026-10-25T00:30"),
        ("Europe/Berlin", "02:30-04:00", "2026-10-25T01:10", "2026-10-25T01:10"),
        ("Australia/Lord_Howe", "02:15-04:00", "2026-10-03T15:00", "2026-10-03T15:30"),
        # 29 December's window goes on to the end of the day that Apia skipped.
        ("Pacific/Apia", "22:00-06:00", "2011-12-30T09:00", "2011-12-30T09:00"),
        ("Pacific/Apia", "08:00-09:00", "2011-12-30T05:00", "2011-12-30T18:00"),
    ],
)
def test_a_time_outside_the_window_moves_to_its_next_start(zone, window, moment, expected):
    assert next_in_window(schedule("1h", zone=zone, window=window), utc(moment), Random(0)) == utc(expected)


def test_a_moved_time_is_spread_by_the_jitter():
    rng = Random(0)
    rule = schedule("1h", window="06:00-22:00", jitter=600)
    late = [(next_in_window(rule, utc("2026-02-08T03:00"), rng) - utc("2026-02-08T06:00")).total_seconds()
            for _ in range(300)]
    assert 0 <= min(late) < 30 and 570 < max(late) <= 600


def test_a_moved_time_never_passes_the_end_of_its_window():
    class Latest:
        def uniform(self, a: float, b: float) -> float:
            return b

    rule = schedule("1h", window="06:00-06:10", jitter=3600)
    assert next_in_window(rule, utc("2026-02-08T03:00"), Latest()) == utc("2026-02-08T06:09:59.999")


def test_a_window_catches_up_once_in_the_morning():
    due = runs(schedule("6h", window="06:00-22:00"), utc("2026-02-08T10:00"), 5)
    assert [f"{moment:%d %H:%M}" for moment in due] == ["08 10:00", "08 16:00", "09 06:00", "09 10:00", "09 16:00"]


ZONES = ["UTC", "Australia/Sydney", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
WINDOWS = [None, "06:00-22:00", "22:00-06:00", "02:10-02:50", "18:00-00:00", "00:00-00:00", "01:30-02:30"]


def any_schedule(rng: Random) -> Schedule:
    every = rng.choice(["1s", "5m", "1h", "6h", "25h", "daily", "3d", "weekly", "monthly"])
    calendar = every in ("daily", "3d", "weekly", "monthly")
    day = {"weekly": rng.choice([rng.randrange(7), (0, 2, 6)]), "monthly": rng.randrange(1, 32)}.get(every)
    at = rng.choice([None, "00:00", "01:45", "02:15", "02:30", "23:59", "01:45 02:30"]) if calendar else None
    return schedule(
        every,
        at=at,
        day=rng.choice([None, day]) if at else None,
        jitter=rng.choice([0, 1, 600, 7200, 90000]),
        zone=rng.choice(ZONES),
        window=rng.choice(WINDOWS),
    )


def any_moment(rng: Random) -> datetime:
    return utc("2025-12-01T00:00") + timedelta(seconds=rng.randrange(600 * 86400), milliseconds=rng.randrange(1000))


def test_no_run_is_ever_due_outside_its_window():
    rng = Random(0)
    for _ in range(200):
        rule = any_schedule(rng)
        for due in runs(rule, any_moment(rng), 5):
            assert in_window(rule, due), (rule, due)


def test_a_grid_always_moves_forward_and_into_the_future():
    rng = Random(0)
    for _ in range(200):
        rule, now = any_schedule(rng), any_moment(rng)
        slot = first(rule, now, rng)
        for _ in range(5):
            now += timedelta(seconds=rng.choice([0, 1, 3600, 86400, 10**7]))
            moved = advance(rule, slot, now, rng)
            assert moved.base_at > max(now, slot.base_at), (rule, now)
            slot = moved


# Clocks that jump


def test_a_slot_that_the_rule_gave_is_never_drawn_again_while_time_goes_on():
    rng = Random(0)
    for _ in range(200):
        rule, now = any_schedule(rng), any_moment(rng)
        slot = first(rule, now, rng)
        for _ in range(8):
            assert redraw_if_stalled(rule, slot, now, rng) is None, (rule, slot, now)
            now = max(now, slot.next_run_at)
            slot = advance(rule, slot, now, rng)


@pytest.mark.parametrize("set_back", [DAY, 30 * DAY, 365 * DAY, 36_500 * DAY])
@pytest.mark.parametrize("every", ["90s", "5m", "1h", "6h"])
def test_after_the_clock_was_set_back_the_next_run_is_one_step_away(every, set_back):
    rule = schedule(every)
    slot = advance(rule, first(rule, NOW, Random(0)), NOW, Random(0))
    redrawn = redraw_if_stalled(rule, slot, NOW - set_back, Random(0))
    step = timedelta(seconds=rule.every.seconds)
    assert redrawn is not None
    assert NOW - set_back < redrawn.next_run_at <= NOW - set_back + step
    assert (slot.base_at - redrawn.base_at) % step == timedelta(0)


@pytest.mark.parametrize(
    "every, day, now, expected",
    [
        ("daily", None, "2026-02-07T10:00:01", "2026-02-08T10:00"),
        ("daily", None, "2026-02-07T09:59:59", "2026-02-07T10:00"),
        ("weekly", SUNDAY, "2026-02-07T10:00:01", "2026-02-08T10:00"),
        ("monthly", 8, "2026-02-07T10:00:01", "2026-02-08T10:00"),
    ],
)
def test_a_calendar_grid_is_put_back_to_its_next_point(every, day, now, expected):
    rule = schedule(every, at="10:00", day=day)
    slot = advance(rule, first(rule, NOW - timedelta(minutes=1), Random(0)), NOW, Random(0))
    redrawn = redraw_if_stalled(rule, slot, utc(now), Random(0))
    assert redrawn == Slot(base_at=utc(expected), next_run_at=utc(expected), anchor=slot.anchor)


def test_a_run_drawn_early_does_not_make_the_next_one_look_stalled():
    rule = schedule("1h", jitter=3600)
    ran_at = NOW - HOUR / 2
    latest = Slot(base_at=NOW + HOUR, next_run_at=NOW + HOUR + HOUR / 2, anchor="")
    assert redraw_if_stalled(rule, latest, ran_at, Random(0)) is None
    assert redraw_if_stalled(rule, latest, ran_at - timedelta(milliseconds=1), Random(0)) is not None


def test_a_run_that_waits_for_its_window_is_not_stalled():
    rule = schedule("5m", window="06:00-22:00", jitter=600)
    waiting = Slot(base_at=utc("2026-02-08T22:00"), next_run_at=utc("2026-02-09T06:10"), anchor="")
    too_late = replace(waiting, next_run_at=utc("2026-02-09T06:10:00.001"))
    assert redraw_if_stalled(rule, waiting, utc("2026-02-08T21:58"), Random(0)) is None
    assert redraw_if_stalled(rule, too_late, utc("2026-02-08T21:58"), Random(0)) is not None
    assert redraw_if_stalled(rule, waiting, utc("2026-02-08T12:00"), Random(0)) is not None


def test_a_clock_a_year_ahead_and_back_again_runs_once_ahead_and_then_goes_on():
    rule = schedule("daily", at="10:00", zone="Europe/Berlin")
    slot = first(rule, NOW, Random(0))
    ahead = advance(rule, slot, NOW + 365 * DAY, Random(0))
    assert ahead.base_at == utc("2027-02-09T09:00")
    assert redraw_if_stalled(rule, ahead, NOW, Random(0)) == slot


def test_after_any_jump_of_the_clock_the_next_run_is_within_reach():
    rng = Random(0)
    for _ in range(300):
        rule = replace(any_schedule(rng), window=None)
        slot = advance(rule, first(rule, any_moment(rng), rng), any_moment(rng), rng)
        now = any_moment(rng)
        slot = redraw_if_stalled(rule, slot, now, rng) or slot
        longest = 31 * DAY if rule.every.unit is Unit.MONTHS else timedelta(seconds=rule.every.seconds)
        assert slot.next_run_at <= now + longest + HOUR + timedelta(seconds=rule.jitter), (rule, now)
        assert redraw_if_stalled(rule, slot, now, rng) is None, (rule, now)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("every", ["1s", "6h", "366d", "8784h", "daily", "weekly", "monthly"])
@pytest.mark.parametrize("window", [None, "22:00-06:00"])
def test_a_clock_at_either_end_of_the_calendar_still_gives_a_slot(every, zone, window):
    rule = schedule(every, zone=zone, jitter=86400, window=window)
    rng = Random(0)
    for now in (datetime.min.replace(tzinfo=UTC), utc("9998-06-01T00:00"), datetime.max.replace(tzinfo=UTC)):
        slot = first(rule, now, rng)
        for moment in (now, NOW, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), now):
            slot = advance(rule, slot, moment, rng)
            slot = redraw_if_stalled(rule, slot, NOW, rng) or slot
            assert slot.next_run_at <= NOW + 2 * 366 * DAY


def test_a_clock_in_the_year_9998_moves_on_as_ever():
    rule = schedule("daily", at="10:00")
    assert runs(rule, utc("9998-12-31T12:00"), 2) == [utc("9999-01-01T10:00"), utc("9999-01-02T10:00")]
    assert runs(schedule("monthly", at="10:00", day=31), utc("9998-12-31T12:00"), 2) == [
        utc("9999-01-31T10:00"),
        utc("9999-02-28T10:00"),
    ]
