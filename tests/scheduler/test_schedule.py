from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, datetime, time, timedelta, timezone
from random import Random
from zoneinfo import ZoneInfo

import pytest

from ductile.config.model import Every, Schedule, Unit, Window
from ductile.config.schedules import parse_every
from ductile.scheduler.schedule import advance, first
from scheduler.schedules import NOW, UTC, local, runs, schedule, utc

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONDAY, SUNDAY = 0, 6


# Intervals


@pytest.mark.parametrize(
    "text, count, unit, seconds",
    [
        ("1s", 1, Unit.SECONDS, 1),
        ("90s", 90, Unit.SECONDS, 90),
        ("5m", 300, Unit.SECONDS, 300),
        ("15m", 900, Unit.SECONDS, 900),
        ("30m", 1800, Unit.SECONDS, 1800),
        ("hourly", 3600, Unit.SECONDS, 3600),
        ("2h", 7200, Unit.SECONDS, 7200),
        ("6h", 21600, Unit.SECONDS, 21600),
        ("24h", 86400, Unit.SECONDS, 86400),
        ("1d", 1, Unit.DAYS, 86400),
        ("daily", 1, Unit.DAYS, 86400),
        ("366d", 366, Unit.DAYS, 366 * 86400),
        ("1w", 1, Unit.WEEKS, 7 * 86400),
        ("2w", 2, Unit.WEEKS, 14 * 86400),
        ("weekly", 1, Unit.WEEKS, 7 * 86400),
        ("monthly", 1, Unit.MONTHS, 28 * 86400),
    ],
)
def test_an_interval_is_read(text, count, unit, seconds):
    assert parse_every(text) == Every(count=count, unit=unit)
    assert parse_every(text).seconds == seconds


@pytest.mark.parametrize(
    "value, message",
    [
        ("soon", "expected an interval such as 5m, 6h, daily or monthly, got 'soon'"),
        ("", "expected an interval such as 5m, 6h, daily or monthly, got ''"),
        ("5 m", "expected an interval such as 5m, 6h, daily or monthly, got '5 m'"),
        ("-5m", "expected an interval such as 5m, 6h, daily or monthly, got '-5m'"),
        ("Daily", "expected an interval such as 5m, 6h, daily or monthly, got 'Daily'"),
        ("1month", "expected an interval such as 5m, 6h, daily or monthly, got '1month'"),
        (300, "expected an interval such as 5m, 6h, daily or monthly, got 300"),
        (["5m"], "expected an interval such as 5m, 6h, daily or monthly, got a list"),
        ("0s", "expected an interval from 1s to 366d, got '0s'"),
        ("0d", "expected an interval from 1s to 366d, got '0d'"),
        ("367d", "expected an interval from 1s to 366d, got '367d'"),
        ("53w", "expected an interval from 1s to 366d, got '53w'"),
        ("999999999w", "expected an interval from 1s to 366d, got '999999999w'"),
    ],
)
def test_another_text_is_no_interval(value, message):
    with pytest.raises(ValueError) as caught:
        parse_every(value)
    assert str(caught.value) == message


def test_the_rule_says_what_the_grid_depends_on():
    plain = Schedule(id="main", every=parse_every("hourly"), zone=UTC)
    assert plain.rule() == "every 3600 s"
    monthly = schedule("monthly", at="07:30", day=31, zone="Europe/Berlin")
    assert monthly.rule() == "every 1 month at 07:30:00 day 31 in Europe/Berlin"


def test_several_times_and_days_are_in_the_rule():
    rule = schedule("weekly", at="07:30 19:30", day=(0, 2))
    assert rule.rule() == "every 1 w at 07:30:00,19:30:00 day 0,2 in UTC"


def test_jitter_window_and_command_do_not_change_the_rule():
    plain = schedule("daily", at="07:30")
    assert replace(plain, jitter=60, command="sync", window=Window(start=time(6), end=time(22))).rule() == plain.rule()


# The first slot


@pytest.mark.parametrize("every", ["1s", "5m", "hourly", "daily", "2w", "monthly"])
def test_a_new_schedule_without_jitter_is_due_at_once(every):
    slot = first(schedule(every), NOW, Random(0))
    assert (slot.base_at, slot.next_run_at) == (NOW, NOW)


@pytest.mark.parametrize("every", ["1h", "daily"])
def test_a_new_schedule_begins_within_the_jitter(every):
    rng = Random(0)
    slots = [first(schedule(every, jitter=600), NOW, rng) for _ in range(300)]
    assert all(slot.next_run_at == slot.base_at for slot in slots)
    late = [(slot.base_at - NOW).total_seconds() for slot in slots]
    assert 0 <= min(late) < 30 and 570 < max(late) <= 600


@pytest.mark.parametrize("every, anchor", [("1h", ""), ("daily", "2026-02-08T21:00:00")])
def test_only_a_calendar_grid_has_an_anchor(every, anchor):
    assert first(schedule(every, zone="Australia/Sydney"), NOW, Random(0)).anchor == anchor


def test_moments_are_cut_to_the_millisecond_that_is_stored():
    slot = first(schedule("daily", jitter=600), NOW + timedelta(microseconds=1), Random(0))
    for _ in range(20):
        assert slot.base_at.microsecond % 1000 == 0 and slot.next_run_at.microsecond % 1000 == 0
        slot = advance(schedule("daily", jitter=600), slot, slot.next_run_at, Random(0))


@pytest.mark.parametrize(
    "every, day, at, now, expected",
    [
        ("daily", None, "10:01", "2026-02-08T10:00", "2026-02-08T10:01"),
        ("daily", None, "10:00", "2026-02-08T10:00", "2026-02-09T10:00"),    # strictly after now
        ("daily", None, "09:00", "2026-02-08T10:00", "2026-02-09T09:00"),
        ("2d", None, "09:00", "2026-02-08T10:00", "2026-02-09T09:00"),
        ("weekly", None, "09:00", "2026-02-08T10:00", "2026-02-09T09:00"),
        ("weekly", SUNDAY, "11:00", "2026-02-08T10:00", "2026-02-08T11:00"),
        ("weekly", SUNDAY, "09:00", "2026-02-08T10:00", "2026-02-15T09:00"),
        ("weekly", MONDAY, "09:00", "2026-02-08T10:00", "2026-02-09T09:00"),
        ("monthly", None, "09:00", "2026-02-08T10:00", "2026-02-09T09:00"),
        ("monthly", 8, "11:00", "2026-02-08T10:00", "2026-02-08T11:00"),
        ("monthly", 8, "09:00", "2026-02-08T10:00", "2026-03-08T09:00"),
        ("monthly", 1, "00:00", "2026-12-08T10:00", "2027-01-01T00:00"),
        ("monthly", 31, "09:00", "2026-02-08T10:00", "2026-02-28T09:00"),
        ("monthly", 31, "09:00", "2028-02-28T10:00", "2028-02-29T09:00"),
        ("monthly", 31, "09:00", "2026-02-28T09:00", "2026-03-31T09:00"),
    ],
)
def test_with_a_time_of_day_the_grid_begins_at_the_next_such_time(every, day, at, now, expected):
    slot = first(schedule(every, at=at, day=day), utc(now), Random(0))
    assert (slot.base_at, slot.next_run_at) == (utc(expected), utc(expected))


def test_the_time_of_day_is_the_zones():
    slot = first(schedule("daily", at="07:30", zone="Australia/Sydney"), utc("2026-02-08T10:00"), Random(0))
    assert slot.base_at == utc("2026-02-08T20:30")


# The calendar

YEAR_OF_CHANGES = [
    # zone, at, the day whose time is missing and when it runs, the day whose time is doubled and its first
    ("Australia/Sydney", "02:30", "2026-10-04", "03:00", "2026-04-05", "2026-04-04T15:30"),
    ("Europe/Berlin", "02:30", "2026-03-29", "03:00", "2026-10-25", "2026-10-25T00:30"),
    ("Europe/Berlin", "02:00", "2026-03-29", "03:00", "2026-10-25", "2026-10-25T00:00"),
    ("America/New_York", "02:30", "2026-03-08", "03:00", None, None),
    ("America/New_York", "01:30", None, None, "2026-11-01", "2026-11-01T05:30"),
    ("Australia/Lord_Howe", "02:15", "2026-10-04", "02:30", None, None),
    ("Australia/Lord_Howe", "01:45", None, None, "2026-04-05", "2026-04-04T14:45"),
    ("Europe/Berlin", "03:00", None, None, None, None),
    ("Europe/Berlin", "23:59", None, None, None, None),
    ("Australia/Sydney", "00:00", None, None, None, None),
]


@pytest.mark.parametrize("zone, at, missing, runs_at, doubled, first_of_two", YEAR_OF_CHANGES)
def test_a_daily_run_keeps_its_wall_time_through_a_year(zone, at, missing, runs_at, doubled, first_of_two):
    start = datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(minutes=1)
    due = runs(schedule("daily", at=at, zone=zone), start, 365)
    days = [date(2026, 1, 1) + n * DAY for n in range(365)]
    expected = [f"{day} {runs_at if str(day) == missing else at}" for day in days]
    assert local(due, zone) == expected
    if doubled is not None:
        assert [moment for moment in due if local([moment], zone)[0].startswith(doubled)] == [utc(first_of_two)]


@pytest.mark.parametrize("zone", sorted({row[0] for row in YEAR_OF_CHANGES}))
def test_a_jittered_daily_run_comes_once_a_local_day(zone):
    start = datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(minutes=1)
    due = runs(schedule("daily", at="12:00", jitter=6 * 3600, zone=zone), start, 365)
    assert Counter(text[:10] for text in local(due, zone)) == {
        str(date(2026, 1, 1) + n * DAY): 1 for n in range(365)
    }


@pytest.mark.parametrize("zone", ["UTC", "Australia/Sydney", "America/New_York"])
def test_a_daily_grid_without_a_time_of_day_keeps_the_wall_time_that_it_began_at(zone):
    start = datetime(2026, 1, 1, 14, 5, 7, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    due = runs(schedule("daily", zone=zone), start, 400)
    assert {f"{moment.astimezone(ZoneInfo(zone)):%H:%M:%S}" for moment in due} == {"14:05:07"}


def test_elapsed_hours_do_not_follow_the_wall_clock():
    due = runs(schedule("24h", zone="Europe/Berlin"), utc("2026-03-28T11:00"), 3)
    assert local(due, "Europe/Berlin") == ["2026-03-28 12:00", "2026-03-29 13:00", "2026-03-30 13:00"]


def test_a_weekly_run_keeps_weekday_and_wall_time():
    due = runs(schedule("weekly", at="07:30", day=2, zone="America/New_York"), utc("2026-01-01T00:00"), 53)
    assert {f"{moment.astimezone(ZoneInfo('America/New_York')):%a %H:%M}" for moment in due} == {"Wed 07:30"}
    assert due[-1] - due[0] == 52 * 7 * DAY


def test_several_times_of_day_are_one_grid():
    due = runs(schedule("daily", at="07:30 19:30", zone="Europe/Berlin"), utc("2026-03-28T12:00"), 4)
    # The clock goes forward in the second night.
    assert local(due, "Europe/Berlin") == [
        "2026-03-28 19:30", "2026-03-29 07:30", "2026-03-29 19:30", "2026-03-30 07:30"]


def test_times_that_a_clock_change_joins_are_one_run():
    due = runs(schedule("daily", at="02:15 02:45 03:00", zone="Europe/Berlin"), utc("2026-03-28T12:00"), 3)
    assert local(due, "Europe/Berlin") == ["2026-03-29 03:00", "2026-03-30 02:15", "2026-03-30 02:45"]


def test_several_weekdays_and_times_are_one_grid():
    # NOW is a Sunday.
    due = runs(schedule("weekly", at="07:30 18:00", day=(0, 2, 4)), NOW, 7)
    assert local(due, "UTC") == [
        "2026-02-09 07:30", "2026-02-09 18:00", "2026-02-11 07:30", "2026-02-11 18:00", "2026-02-13 07:30",
        "2026-02-13 18:00", "2026-02-16 07:30"]


def test_the_weekdays_of_every_second_week_are_in_the_same_week():
    # A Wednesday: the first week is the one that begins with what is left of it.
    due = runs(schedule("2w", at="07:30", day=(0, 4)), utc("2026-02-11T12:00"), 4)
    assert local(due, "UTC") == ["2026-02-13 07:30", "2026-02-23 07:30", "2026-02-27 07:30", "2026-03-09 07:30"]


def test_several_times_on_a_day_of_the_month_take_the_last_day_of_a_short_month():
    due = runs(schedule("monthly", at="06:00 18:00", day=31), utc("2026-01-31T12:00"), 4)
    assert local(due, "UTC") == ["2026-01-31 18:00", "2026-02-28 06:00", "2026-02-28 18:00", "2026-03-31 06:00"]


def test_after_a_time_off_several_times_are_caught_up_once():
    rule = schedule("daily", at="07:30 19:30")
    slot = first(rule, utc("2026-02-08T06:00"), Random(0))
    assert local([advance(rule, slot, utc("2026-02-20T08:00"), Random(0)).next_run_at], "UTC") == ["2026-02-20 19:30"]


def test_every_second_day_keeps_its_parity_over_months():
    due = runs(schedule("2d", at="09:00"), utc("2026-01-01T00:00"), 100)
    assert due == [utc("2026-01-01T09:00") + 2 * n * DAY for n in range(100)]


@pytest.mark.parametrize(
    "day, start, expected",
    [
        (31, "2026-01-01", "01-31 02-28 03-31 04-30 05-31 06-30 07-31 08-31 09-30 10-31 11-30 12-31 01-31"),
        (31, "2028-02-01", "02-29 03-31 04-30"),
        (31, "2026-02-01", "02-28 03-31 04-30"),
        (30, "2026-01-31", "02-28 03-30 04-30"),
        (29, "2027-01-30", "02-28 03-29 04-29"),
        (1, "2026-11-15", "12-01 01-01 02-01"),
    ],
)
def test_a_monthly_run_takes_the_last_day_of_a_short_month_and_keeps_its_own(day, start, expected):
    expected = expected.split()
    due = runs(schedule("monthly", at="02:30", day=day), utc(start), len(expected))
    assert [f"{moment:%m-%d}" for moment in due] == expected


def test_a_month_grid_that_begins_on_a_31st_without_a_day_given_keeps_it():
    due = runs(schedule("monthly"), utc("2026-01-31T10:00"), 4)
    assert [f"{moment:%m-%d %H:%M}" for moment in due] == ["01-31 10:00", "02-28 10:00", "03-31 10:00", "04-30 10:00"]


@pytest.mark.parametrize(
    "at, expected",
    [
        ("05:00", ["2011-12-29 05:00", "2011-12-31 00:00", "2011-12-31 05:00", "2012-01-01 05:00"]),
        ("00:00", ["2011-12-29 00:00", "2011-12-31 00:00", "2012-01-01 00:00", "2012-01-02 00:00"]),
    ],
)
def test_a_day_that_a_zone_skipped_runs_at_the_end_of_the_gap_and_never_twice_at_one_moment(at, expected):
    due = runs(schedule("daily", at=at, zone="Pacific/Apia"), utc("2011-12-29T09:00"), 4)
    assert local(due, "Pacific/Apia") == expected


def test_a_fixed_zone_of_the_standard_library_is_a_zone_too():
    rule = Schedule(id="main", every=parse_every("daily"), at=(time(7),), zone=timezone(timedelta(hours=5, minutes=45)))
    assert first(rule, NOW, Random(0)).base_at == utc("2026-02-09T01:15")


# Moving on


@pytest.mark.parametrize("every, at", [("90s", None), ("5m", None), ("6h", None), ("daily", "10:00"), ("daily", None)])
def test_after_a_year_off_one_run_is_caught_up_and_the_grid_is_kept(every, at):
    rule = schedule(every, at=at)
    slot = first(rule, NOW - 400 * DAY, Random(0))
    caught_up = advance(rule, slot, NOW, Random(0))
    step = timedelta(seconds=rule.every.seconds)
    assert NOW < caught_up.base_at <= NOW + step
    assert (caught_up.base_at - slot.base_at) % step == timedelta(0)
    assert caught_up.next_run_at == caught_up.base_at


def test_after_months_off_the_31st_is_kept():
    rule = schedule("monthly", at="02:30", day=31)
    slot = first(rule, utc("2024-01-01T00:00"), Random(0))
    assert advance(rule, slot, utc("2026-06-30T02:29"), Random(0)).base_at == utc("2026-06-30T02:30")
    assert advance(rule, slot, utc("2026-06-30T02:30"), Random(0)).base_at == utc("2026-07-31T02:30")


def test_a_run_enqueued_late_moves_past_now_and_no_further():
    rule = schedule("1h")
    slot = first(rule, NOW, Random(0))
    assert advance(rule, slot, NOW + HOUR - timedelta(milliseconds=1), Random(0)).base_at == NOW + HOUR
    assert advance(rule, slot, NOW + HOUR, Random(0)).base_at == NOW + 2 * HOUR
    assert advance(rule, slot, NOW + HOUR + timedelta(seconds=1), Random(0)).base_at == NOW + 2 * HOUR


@pytest.mark.parametrize("every, at", [("1h", None), ("daily", "10:30"), ("weekly", "10:30"), ("monthly", "10:30")])
def test_a_run_drawn_before_its_base_moves_past_that_base(every, at):
    rule = schedule(every, at=at, jitter=1800)
    slot = first(rule, NOW, Random(0))
    early = advance(rule, slot, slot.base_at - timedelta(seconds=900), Random(0))
    assert early.base_at - slot.base_at >= timedelta(seconds=rule.every.seconds)


def test_the_draw_is_half_the_jitter_to_each_side():
    rule = schedule("1h", jitter=600)
    rng = Random(0)
    slot = first(rule, NOW, rng)
    offsets = []
    for _ in range(500):
        slot = advance(rule, slot, slot.next_run_at, rng)
        offsets.append((slot.next_run_at - slot.base_at).total_seconds())
    assert -300 <= min(offsets) < -280 and 280 < max(offsets) <= 300


def test_ten_thousand_jittered_hours_do_not_drift():
    rule = schedule("1h", jitter=3600)
    rng = Random(0)
    start = slot = first(rule, NOW, rng)
    for step in range(1, 10_001):
        slot = advance(rule, slot, slot.next_run_at, rng)
        assert slot.base_at == start.base_at + step * HOUR
        assert abs(slot.next_run_at - slot.base_at) <= HOUR / 2


def test_ten_thousand_jittered_days_do_not_drift():
    zone = ZoneInfo("Australia/Sydney")
    rule = schedule("daily", at="02:30", jitter=3600, zone="Australia/Sydney")
    rng = Random(0)
    slot = first(rule, NOW, rng)
    day = slot.base_at.astimezone(zone).date()
    for step in range(10_000):
        wall = slot.base_at.astimezone(zone)
        assert wall.date() == day + step * DAY
        assert wall.time() in (time(2, 30), time(3, 0))
        slot = advance(rule, slot, slot.next_run_at, rng)
    assert slot.anchor == "2026-02-09T02:30:00"
