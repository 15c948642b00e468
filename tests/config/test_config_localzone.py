"""Where the system's time zone comes from."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

import pytest

from ductile.config.localzone import local_zone

SYDNEY = ZoneInfo("Australia/Sydney")
BERLIN = ZoneInfo("Europe/Berlin")
UTC = timezone.utc


def zone_file(name: str) -> Path:
    """Return the file of a zone in this system's database."""
    return next(Path(directory, name) for directory in TZPATH if Path(directory, name).exists())


@pytest.fixture
def sydney_link(tmp_path):
    link = tmp_path / "localtime"
    link.symlink_to(zone_file("Australia/Sydney"))
    return link


@pytest.mark.parametrize(
    ("value", "zone"), [("Europe/Berlin", BERLIN), (":Europe/Berlin", BERLIN), ("UTC", UTC), ("", UTC)],
)
def test_the_variable_comes_first(sydney_link, value, zone):
    assert local_zone({"TZ": value}, sydney_link) == (zone, None)


def test_the_variable_may_be_a_file(sydney_link, tmp_path):
    copy = tmp_path / "berlin"
    shutil.copy(zone_file("Europe/Berlin"), copy)
    zone, warning = local_zone({"TZ": f":{copy}"}, sydney_link)
    assert (datetime(2026, 7, 1, tzinfo=zone).utcoffset(), warning) == (timedelta(hours=2), None)


def test_a_linked_zone_has_its_name(sydney_link):
    assert local_zone({}, sydney_link) == (SYDNEY, None)


def test_a_copied_zone_has_its_rules_and_stays_the_same_object(tmp_path):
    localtime = tmp_path / "localtime"
    shutil.copy(zone_file("Australia/Sydney"), localtime)
    zone, _ = local_zone({}, localtime)
    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(hours=10)
    assert local_zone({}, localtime) == (zone, None)


def test_a_system_without_a_zone_is_on_utc(tmp_path):
    assert local_zone({}, tmp_path / "localtime") == (UTC, None)


def test_a_file_that_is_no_zone_is_utc(tmp_path):
    (tmp_path / "localtime").write_text("not a zone\n")
    assert local_zone({}, tmp_path / "localtime") == (UTC, None)


@pytest.mark.parametrize("value", ["Mars/Olympus", "AEST-10AEDT,M10.1.0,M4.1.0/3", "../etc/passwd", "/dev/null"])
def test_a_variable_that_cannot_be_used_is_a_warning(sydney_link, value):
    assert local_zone({"TZ": value}, sydney_link) == (
        SYDNEY, f"TZ: expected a time zone such as Australia/Sydney, got {value!r}; it is ignored",
    )
