"""Where the system's time zone comes from."""

from __future__ import annotations

import shutil
import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

import pytest

from config.config_files import SCHEDULE, load_text
from ductile.config.load import local_zone

SYDNEY = ZoneInfo("Australia/Sydney")
BERLIN = ZoneInfo("Europe/Berlin")
UTC = UTC
# As it is before any test has set another.
_DATABASE = TZPATH


def zone_file(name: str) -> Path:
    """Return the file of a zone in this system's database."""
    return next(Path(directory, name) for directory in _DATABASE if Path(directory, name).exists())


def shown(found: tuple[tzinfo, str | None]) -> tuple[str, str | None]:
    """Return a zone by its name: one that was read again is another object."""
    return str(found[0]), found[1]


@pytest.fixture
def sydney_link(tmp_path):
    link = tmp_path / "localtime"
    link.symlink_to(zone_file("Australia/Sydney"))
    return link


@pytest.mark.parametrize(
    ("value", "zone"), [("Europe/Berlin", BERLIN), (":Europe/Berlin", BERLIN), ("UTC", UTC), ("", UTC)],
)
def test_the_variable_comes_first(sydney_link, value, zone):
    assert shown(local_zone({"TZ": value}, sydney_link)) == shown((zone, None))


def test_the_variable_may_be_a_file(sydney_link, tmp_path):
    copy = tmp_path / "berlin"
    shutil.copy(zone_file("Europe/Berlin"), copy)
    zone, warning = local_zone({"TZ": f":{copy}"}, sydney_link)
    assert (datetime(2026, 7, 1, tzinfo=zone).utcoffset(), warning) == (timedelta(hours=2), None)


def test_a_linked_zone_has_its_name(sydney_link):
    assert shown(local_zone({}, sydney_link)) == shown((SYDNEY, None))


def test_a_copied_zone_has_its_rules_as_they_are_now(tmp_path):
    localtime = tmp_path / "localtime"
    shutil.copy(zone_file("Australia/Sydney"), localtime)
    zone, _ = local_zone({}, localtime)
    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(hours=10)
    shutil.copy(zone_file("Europe/Berlin"), localtime)
    zone, _ = local_zone({}, localtime)
    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(hours=2)


def test_a_system_without_a_zone_is_on_utc(tmp_path):
    assert local_zone({}, tmp_path / "localtime") == (UTC, None)


def test_a_file_that_is_no_zone_is_utc(tmp_path):
    (tmp_path / "localtime").write_text("not a zone\n")
    assert local_zone({}, tmp_path / "localtime") == (UTC, None)


@pytest.mark.parametrize("value", ["Mars/Olympus", "AEST-10AEDT,M10.1.0,M4.1.0/3", "../etc/passwd", "/dev/null"])
def test_a_variable_that_cannot_be_used_is_a_warning(sydney_link, value):
    assert shown(local_zone({"TZ": value}, sydney_link)) == (
        str(SYDNEY), f"TZ: expected a time zone such as Australia/Sydney, got {value!r}; it is ignored",
    )


@pytest.fixture
def zone_database(tmp_path):
    (tmp_path / "zones" / "Here").mkdir(parents=True)
    zoneinfo.reset_tzpath([tmp_path / "zones"])
    yield tmp_path / "zones"
    zoneinfo.reset_tzpath()
    ZoneInfo.clear_cache()


def test_zone_data_that_was_updated_is_read_anew_with_the_configuration(tmp_path, zone_database):
    files = [zone_file(name).read_bytes() for name in ("Australia/Sydney", "Europe/Berlin")]
    offsets = []
    for content in files:
        (zone_database / "Here" / "Now").write_bytes(content)
        loaded = load_text(tmp_path, SCHEDULE + "{every: daily, timezone: Here/Now}\n")
        [schedule] = loaded.config.plugins["echo"].schedules
        offsets.append(datetime(2026, 7, 1, tzinfo=schedule.zone).utcoffset())
    assert offsets == [timedelta(hours=10), timedelta(hours=2)]
