"""Moments as people read and write them."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from ductile.ctl import times
from ductile.units import utc_text

BERLIN = ZoneInfo("Europe/Berlin")
# 13:30 in Berlin, in the winter.
NOW = datetime(2026, 12, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(("moment", "expected"), [
    ("2026-12-01T06:30:59.999Z", "2026-12-01 07:30 +0100"), ("2026-07-01T23:00:00.000Z", "2026-07-02 01:00 +0200"),
])
def test_people_read_local_time_with_its_offset(moment: str, expected: str) -> None:
    assert times.local(moment, BERLIN) == expected
    assert times.local(moment, BERLIN, seconds=True) == f"{expected[:16]}:{moment[17:19]}{expected[16:]}"


def test_utc_is_a_zone_like_any_other() -> None:
    assert times.local("2026-12-01T06:30:00.000Z", UTC) == "2026-12-01 06:30 +0000"


@pytest.mark.parametrize(("text", "expected"), [
    ("1d", "2026-11-30T12:30:00.000Z"), ("90s", "2026-12-01T12:28:30.000Z"), ("now", "2026-12-01T12:30:00.000Z"),
    ("07:30", "2026-12-01T06:30:00.000Z"), ("7:30:05", "2026-12-01T06:30:05.000Z"),
    ("13:30", "2026-12-01T12:30:00.000Z"), ("13:31", "2026-11-30T12:31:00.000Z"),
    ("2026-11-30", "2026-11-29T23:00:00.000Z"), ("2026-11-30 07:30", "2026-11-30T06:30:00.000Z"),
    ("2026-07-01T00:00:00", "2026-06-30T22:00:00.000Z"), ("2026-11-30T07:30Z", "2026-11-30T07:30:00.000Z"),
    ("2026-11-30 07:30+02:00", "2026-11-30T05:30:00.000Z"), ("today", "2026-11-30T23:00:00.000Z"),
    ("Yesterday", "2026-11-29T23:00:00.000Z"),
])
def test_people_write_local_time(text: str, expected: str) -> None:
    assert utc_text(times.parse_moment(text, NOW, BERLIN)) == expected


@pytest.mark.parametrize("text", ["", "soon", "25:00", "7:60", "2026-13-01", "1 d", "0001-01-01", "9999999999d"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 1d"):
        times.parse_moment(text, NOW, BERLIN)


def test_without_a_zone_the_system_s_is_taken() -> None:
    assert times.parse_moment("07:30", NOW, None) == datetime(2026, 12, 1, 7, 30, tzinfo=UTC)
    assert times.local("2026-12-01T06:30:00.000Z", None) == "2026-12-01 06:30 +0000"
