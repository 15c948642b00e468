from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from ductile.clock import SystemClock
from ductile.errors import EXIT_DATA, DuctileError
from ductile.units import format_duration, parse_duration, parse_size, parse_utc, utc_text

UTC = UTC


@pytest.mark.parametrize("text, seconds", [
    ("0s", 0), ("1s", 1), ("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400), ("2w", 1209600),
    ("007s", 7), ("1h30m", 5400), ("1w2d3h4m5s", 788645), ("999999999s", 999_999_999),
])
def test_a_duration_is_a_number_and_a_unit(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", [
    "", "5", "s", "-5s", "+5s", "5 s", " 5s", "5s ", "5s\n", "1.5h", "5M", "5S", "5sec", "30m1h", "1h1h", "1h 30m",
    "1y", "1e3s",
    "1000000000s", "\u0665s", "\uff15s", "soon",
])
def test_any_other_text_is_no_duration(text):
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == f"expected a duration such as 30s, got {text!r}"


@pytest.mark.parametrize("seconds, text", [
    (0, "0s"), (0.9, "0s"), (1, "1s"), (59.9, "59s"), (60, "1m"), (61, "1m 1s"), (3600, "1h"), (3601, "1h 1s"),
    (7500, "2h 5m"), (90061, "1d 1h"), (86400 * 400, "400d"), (-5, "0s"),
])
def test_a_duration_for_people_has_its_two_largest_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize("text, size", [
    ("0B", 0), ("512B", 512), ("1KB", 1024), ("10MB", 10 * 1024**2), ("2GB", 2 * 1024**3),
    ("999999999999B", 999_999_999_999),
])
def test_a_size_is_counted_in_powers_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", [
    "", "5", "MB", "-1B", "1.5MB", "1 MB", "1mb", "1K", "1KiB", "1TB", "1MB\n", "1000000000000B",
])
def test_any_other_text_is_no_size(text):
    with pytest.raises(ValueError) as caught:
        parse_size(text)
    assert str(caught.value) == f"expected a size such as 512KB or 1MB, got {text!r}"


# Moments


@pytest.mark.parametrize("moment, text", [
    (datetime(2026, 2, 8, 10, 5, 7, tzinfo=UTC), "2026-02-08T10:05:07.000Z"),
    (datetime(2026, 2, 8, 10, 5, 7, 1000, tzinfo=UTC), "2026-02-08T10:05:07.001Z"),
    (datetime(2026, 2, 8, 10, 5, 7, 999_999, tzinfo=UTC), "2026-02-08T10:05:07.999Z"),
    (datetime(2026, 2, 8, 21, 5, tzinfo=ZoneInfo("Australia/Sydney")), "2026-02-08T10:05:00.000Z"),
    (datetime(2026, 2, 8, 5, 5, tzinfo=timezone(timedelta(hours=-5))), "2026-02-08T10:05:00.000Z"),
    (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "9999-12-31T23:59:59.999Z"),
])
def test_a_moment_is_utc_text_of_fixed_width(moment, text):
    assert utc_text(moment) == text
    assert abs(parse_utc(text) - moment) < timedelta(milliseconds=1)


def test_the_text_sorts_as_the_time_does():
    moments = [datetime(year, month, 1, hour, tzinfo=UTC, microsecond=1000)
               for year in (1, 99, 999, 2026, 9999) for month in (1, 9, 12) for hour in (0, 9, 23)]
    assert sorted(map(utc_text, moments)) == [utc_text(moment) for moment in moments]


def test_what_was_parsed_is_in_utc():
    assert parse_utc("2026-02-08T10:00:00.250Z") == datetime(2026, 2, 8, 10, 0, 0, 250_000, tzinfo=UTC)
    assert parse_utc("2026-02-08T10:00:00.250Z").utcoffset() == timedelta(0)


def test_a_moment_without_a_zone_has_no_text():
    with pytest.raises(ValueError, match="^a datetime without a zone has no UTC text$"):
        utc_text(datetime(2026, 2, 8))


@pytest.mark.parametrize("text", [
    "", "2026-02-08T10:00:00Z", "2026-02-08T10:00:00.000", "2026-02-08T10:00:00.000+00:00", "2026-02-08 10:00:00.000Z",
    "2026-02-08T10:00:00.0000Z", "2026-02-08T10:00:00.000Z\n", "2026-02-08",
])
def test_any_other_text_is_no_moment(text):
    with pytest.raises(ValueError) as caught:
        parse_utc(text)
    assert str(caught.value) == f"expected a UTC time such as 2026-02-08T10:00:00.000Z, got {text!r}"


@pytest.mark.parametrize("text", ["2026-02-30T10:00:00.000Z", "2026-13-01T10:00:00.000Z", "2026-02-08T25:00:00.000Z"])
def test_a_moment_that_no_calendar_has_is_refused(text):
    with pytest.raises(ValueError):
        parse_utc(text)


def test_the_machines_clocks_are_utc_and_never_go_back():
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()


# Errors


def test_an_error_has_a_line_for_each_thing_that_is_wrong():
    error = DuctileError("one is wrong", "two is wrong", exit_code=EXIT_DATA)
    assert (error.lines, str(error), error.exit_code) == (
        ("one is wrong", "two is wrong"), "one is wrong\ntwo is wrong", EXIT_DATA)
