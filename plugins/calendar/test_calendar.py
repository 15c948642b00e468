"""The calendar plugin: rules, zones, and what is announced when, from a file and from a stand-in."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ductile.protocol import Response
from support import in_process, standin, steps
from support.notified import SECRET, failure

HERE = Path(__file__).resolve().parent
run = in_process.load(HERE)
ics, rules = run.ics, run.ics.rules
BERLIN = ZoneInfo("Europe/Berlin")


# Rules

def days(rule: str, start: str, *, after: str | None = None, most: int = 6) -> list[str]:
    """Return the first days that a rule gives, as `2026-11-30`, or with a time where the start has one."""
    at = datetime.fromisoformat(start)
    first = at if after is None else datetime.fromisoformat(after)
    found = rules.occurrences(rules.parse(rule, ics._until(rule)), at, first, datetime(2050, 1, 1))
    form = "%Y-%m-%d" if len(start) == 10 else "%Y-%m-%d %H:%M"
    return [each.strftime(form) for each, _ in zip(found, range(most), strict=False)]


@pytest.mark.parametrize(("rule", "start", "expected"), [
    ("FREQ=DAILY;COUNT=3", "1997-09-02", ["1997-09-02", "1997-09-03", "1997-09-04"]),
    ("FREQ=DAILY;INTERVAL=10;COUNT=3", "1997-09-02", ["1997-09-02", "1997-09-12", "1997-09-22"]),
    ("FREQ=DAILY;UNTIL=19970904", "1997-09-02", ["1997-09-02", "1997-09-03", "1997-09-04"]),
    ("FREQ=DAILY;BYMONTH=1;COUNT=2", "1998-01-31", ["1998-01-31", "1999-01-01"]),
    ("FREQ=WEEKLY;INTERVAL=2;WKST=SU;COUNT=3", "1997-09-02", ["1997-09-02", "1997-09-16", "1997-09-30"]),
    ("FREQ=WEEKLY;BYDAY=TU,TH;COUNT=4", "1997-09-02", ["1997-09-02", "1997-09-04", "1997-09-09", "1997-09-11"]),
    # The first day of the week decides where weeks are left out (RFC 5545, 3.8.5.3).
    ("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO", "1997-08-05",
     ["1997-08-05", "1997-08-10", "1997-08-19", "1997-08-24"]),
    ("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU", "1997-08-05",
     ["1997-08-05", "1997-08-17", "1997-08-19", "1997-08-31"]),
    ("FREQ=MONTHLY;COUNT=3;BYDAY=1FR", "1997-09-05", ["1997-09-05", "1997-10-03", "1997-11-07"]),
    ("FREQ=MONTHLY;COUNT=3;BYDAY=-2MO", "1997-09-22", ["1997-09-22", "1997-10-20", "1997-11-17"]),
    ("FREQ=MONTHLY;COUNT=3;BYMONTHDAY=-3", "1997-09-28", ["1997-09-28", "1997-10-29", "1997-11-28"]),
    ("FREQ=MONTHLY;COUNT=3", "1997-01-31", ["1997-01-31", "1997-03-31", "1997-05-31"]),
    ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "1998-02-13", ["1998-02-13", "1998-03-13", "1998-11-13"]),
    ("FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3", "1997-09-04", ["1997-09-04", "1997-10-07", "1997-11-06"]),
    ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2", "1997-09-29", ["1997-09-29", "1997-10-30", "1997-11-27"]),
    ("FREQ=MONTHLY;BYMONTH=6,7;COUNT=3", "1997-06-10", ["1997-06-10", "1997-07-10", "1998-06-10"]),
    ("FREQ=YEARLY", "2024-02-29", ["2024-02-29", "2028-02-29", "2032-02-29"]),
    ("FREQ=YEARLY;BYDAY=20MO", "1997-05-19", ["1997-05-19", "1998-05-18", "1999-05-17"]),
    ("FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU", "1997-03-30", ["1997-03-30", "1998-03-29", "1999-03-28"]),
    ("FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8", "1996-11-05",
     ["1996-11-05", "2000-11-07", "2004-11-02"]),
    ("FREQ=YEARLY;BYYEARDAY=1,-1;COUNT=3", "1997-01-01", ["1997-01-01", "1997-12-31", "1998-01-01"]),
    ("FREQ=DAILY;BYHOUR=9,12;BYMINUTE=0,30;COUNT=5", "1997-09-02T09:00",
     ["1997-09-02 09:00", "1997-09-02 09:30", "1997-09-02 12:00", "1997-09-02 12:30", "1997-09-03 09:00"]),
    ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "1997-02-01", []),
])
def test_a_rule_gives_its_days(rule, start, expected):
    assert days(rule, start)[:len(expected) or 1] == expected


@pytest.mark.parametrize(("rule", "start"), [
    ("FREQ=DAILY;INTERVAL=3", "2009-01-01"), ("FREQ=WEEKLY;INTERVAL=2;BYDAY=SU;WKST=SU", "2008-08-31"),
    ("FREQ=WEEKLY;INTERVAL=3;BYDAY=SU,MO", "2008-08-31"), ("FREQ=MONTHLY;INTERVAL=5", "1990-01-31"),
    ("FREQ=YEARLY;BYMONTH=3", "1900-03-01"), ("FREQ=DAILY;COUNT=2000", "2009-01-01")])
def test_a_rule_that_began_long_ago_gives_the_same_days(rule, start):
    every = days(rule, start, most=2000)
    for after in ("2011-11-28", "2011-11-30", "2012-02-01"):
        (found,) = days(rule, start, after=after, most=1)
        assert found == next(day for day in every if day >= after)


@pytest.mark.parametrize("rule", ["", "FREQ=HOURLY", "FREQ=DAILY;BYDAY=XX", "FREQ=YEARLY;BYWEEKNO=5",
                                  "FREQ=DAILY;INTERVAL=0", "FREQ=DAILY;COUNT=-1", "FREQ=DAILY;BYMONTH=13",
                                  "FREQ=DAILY;COUNT=99999999999", "FREQ=DAILY;X=1"])
def test_a_rule_that_is_not_understood_is_named(rule):
    with pytest.raises(rules.Unsupported):
        rules.parse(rule, None)


# Zones

VTIMEZONE = """BEGIN:VTIMEZONE
TZID:Our Office
BEGIN:STANDARD
DTSTART:16011028T030000
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:16010325T020000
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
END:DAYLIGHT
END:VTIMEZONE
"""


def calendar(*events: str, more: str = "") -> bytes:
    """Return a calendar of events, each the lines of one."""
    parts = [f"BEGIN:VEVENT\n{event}\nEND:VEVENT\n" for event in events]
    return f"BEGIN:VCALENDAR\nX-WR-CALNAME:Mine\n{more}{''.join(parts)}END:VCALENDAR\n".replace(
        "\n", "\r\n").encode()


def starts(data: bytes, after: str, before: str) -> list[str]:
    """Return the starts within a span, in UTC."""
    parsed, warnings = ics.parse(data), []
    span = [datetime.fromisoformat(edge).replace(tzinfo=UTC) for edge in (after, before)]
    found = ics.occurrences(parsed, ics.Zones(parsed, BERLIN), *span, warnings)
    assert warnings == []
    return sorted(each.start.astimezone(UTC).strftime("%m-%d %H:%M") for each in found)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "W. Europe Standard Time", "Our Office",
                                  "/mozilla.org/20050126_1/Europe/Berlin", "Nowhere/At_All"])
def test_an_event_keeps_its_hour_when_the_clock_changes(zone):
    event = f"UID:1\nDTSTART;TZID=\"{zone}\":20260301T090000\nRRULE:FREQ=WEEKLY"
    assert starts(calendar(event, more=VTIMEZONE), "2026-03-20", "2026-04-06") == [
        "03-22 08:00", "03-29 07:00", "04-05 07:00"]
    assert starts(calendar(event, more=VTIMEZONE), "2026-10-18", "2026-11-02") == [
        "10-18 07:00", "10-25 08:00", "11-01 08:00"]


def test_times_in_utc_and_without_a_zone_are_what_they_say():
    data = calendar("UID:1\nDTSTART:20260601T090000Z", "UID:2\nDTSTART:20260601T090000",
                    "UID:3\nDTSTART;VALUE=DATE:20260602")
    assert starts(data, "2026-05-31", "2026-06-03") == ["06-01 07:00", "06-01 09:00", "06-01 22:00"]


def test_times_are_left_out_added_and_replaced():
    data = calendar(
        "UID:1\nDTSTART;TZID=Europe/Berlin:20260601T090000\nRRULE:FREQ=DAILY;UNTIL=20260607T070000Z\n"
        "EXDATE;TZID=Europe/Berlin:20260602T090000,20260603T090000\nEXDATE;VALUE=DATE:20260604\n"
        "RDATE:20260620T100000Z",
        "UID:1\nRECURRENCE-ID:20260605T070000Z\nDTSTART:20260605T150000Z",
        "UID:1\nRECURRENCE-ID;TZID=Europe/Berlin:20260606T090000\nDTSTART:20260606T070000Z\nSTATUS:CANCELLED")
    assert starts(data, "2026-06-01", "2026-07-01") == ["06-01 07:00", "06-05 15:00", "06-07 07:00", "06-20 10:00"]


def test_of_several_versions_the_latest_counts():
    data = calendar("UID:1\nSEQUENCE:2\nDTSTART:20260601T110000Z", "UID:1\nSEQUENCE:1\nDTSTART:20260601T100000Z")
    assert starts(data, "2026-06-01", "2026-06-02") == ["06-01 11:00"]


# What is announced

class Plugin:
    """The plugin with its state between runs, on a calendar file."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self.state = workspace, {}
        self.path = workspace / "calendar.ics"
        self.config = {"path": os.fspath(self.path), "timezone": "UTC"}

    def has(self, *events: str, more: str = "") -> None:
        self.path.write_bytes(calendar(*events, more=more))

    def run(self, command: str = "poll", *, is_kept: bool = True, **options: float) -> Response:
        request = steps.request(self.workspace, self.config, command=command, state=self.state, **options)
        response = steps.run(HERE, request, self.workspace)
        if is_kept:
            self.state |= response.state_updates
        return response

    def poll(self, **options: bool) -> list[dict]:
        response = self.run(**options)
        assert response.status == "ok", response
        return [event.payload for event in response.events]

    def polled(self, minutes: int) -> None:
        """Have the last poll been so many minutes ago."""
        self.state["polled_at"] = int((datetime.now(UTC) - timedelta(minutes=minutes)).timestamp())


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    return Plugin(tmp_path)


def at(minutes: float, uid: str = "1", more: str = "", form: str = "%Y%m%dT%H%M%SZ") -> str:
    """Return an event that starts in so many minutes."""
    start = datetime.now(UTC) + timedelta(minutes=minutes)
    return f"UID:{uid}\nSUMMARY:Event {uid}\nDTSTART:{start.strftime(form)}{more}"


def test_an_event_is_announced_once_shortly_before_it_starts(plugin):
    plugin.has(at(10, more="\nDURATION:PT1H\nLOCATION:Room 5\\, left\nDESCRIPTION:one\\ntwo\n three\nURL:https://x/"),
               at(30, "2"), at(-5, "3"))
    response = plugin.run()
    (event,) = response.events
    start = datetime.fromisoformat(event.payload["start"])
    assert event.payload == {
        "uid": "1", "summary": "Event 1", "location": "Room 5, left", "description": "one\ntwothree",
        "url": "https://x/", "calendar": "Mine", "start": start.isoformat(),
        "end": (start + timedelta(hours=1)).isoformat(), "all_day": False, "recurring": False, "late": False,
        "minutes": 10, "message": f"Event 1, {start:%Y-%m-%d %H:%M}, Room 5, left"}
    assert (event.type, event.dedupe_key) == ("calendar.starts_soon", f"calendar:1|{start.isoformat()}")
    assert plugin.poll() == []
    plugin.config["ahead"] = "1h"
    assert [payload["uid"] for payload in plugin.poll()] == ["2"]


def test_what_started_while_nothing_was_polled_is_announced_late(plugin):
    plugin.has(at(-30), at(-60 * 30, "2"))
    assert plugin.poll() == []
    plugin.polled(60 * 48)
    (late,) = plugin.poll()
    assert (late["uid"], late["late"], late["minutes"]) == ("1", True, -30)
    assert plugin.poll() == []


def test_a_run_that_was_killed_announces_the_same_again(plugin):
    plugin.has(at(10))
    assert plugin.poll(is_kept=False) == plugin.poll()


def test_an_event_that_was_put_in_late_or_moved_is_announced(plugin):
    plugin.has()
    assert plugin.poll() == []
    plugin.has(at(2))
    assert len(plugin.poll()) == 1
    plugin.has(at(9))
    assert [payload["minutes"] for payload in plugin.poll()] == [9]


def test_a_day_is_announced_on_its_day_at_its_time(plugin):
    today = f"UID:1\nDTSTART;VALUE=DATE:{datetime.now(UTC):%Y%m%d}"
    plugin.has(today)
    plugin.config["all_day_at"] = "00:00"
    (payload,) = plugin.poll()
    assert (payload["start"], payload["end"], payload["all_day"], payload["late"], payload["summary"]) == (
        f"{datetime.now(UTC):%Y-%m-%d}", f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}", True, False, "(no title)")
    tomorrow = f"UID:2\nDTSTART;VALUE=DATE:{datetime.now(UTC) + timedelta(days=1):%Y%m%d}"
    plugin.has(today, tomorrow)
    plugin.config["ahead"] = "3d"
    assert plugin.poll() == []


def test_many_events_are_announced_over_several_polls_and_old_ones_forgotten(plugin):
    plugin.has(*(at(10, str(number)) for number in range(150)))
    found = [payload["uid"] for _ in range(3) for payload in plugin.poll()]
    assert (len(found), len(set(found))) == (150, 150)
    plugin.state["announced"] = dict.fromkeys(plugin.state["announced"], 5)
    plugin.has()
    plugin.poll()
    assert len(json.dumps(plugin.state)) < 100


def test_what_is_not_understood_is_a_warning_and_hides_no_others(plugin):
    plugin.has("UID:a\nDTSTART:soon", "UID:b\nDTSTART:20261399T000000Z", "SUMMARY:none", at(5, "c", "\nDTEND:x"),
               at(5, "d", "\nRRULE:FREQ=SECONDLY"), at(5, "e"),
               "BEGIN:VALARM\nTRIGGER:-PT5M\nEND:VALARM\n" + at(5, "f"),
               at(5, "g", "\nDURATION:P1W\nRRULE:FREQ=DAILY;UNTIL=99991231"))
    response = plugin.run()
    assert [event.payload["uid"] for event in response.events] == ["d", "e", "f", "g"]
    assert [line.level for line in response.logs] == ["warn"] * 5
    # They are logged once.
    assert plugin.run().logs == ()
    plugin.has("UID:a\nDTSTART:soon")
    assert len(plugin.run().logs) == 1


def test_a_rule_that_never_gives_anything_costs_little(plugin):
    plugin.has(*(f"UID:{number}\nDTSTART:19700101T000000Z\nRRULE:FREQ={freq};BYMONTH=2;BYMONTHDAY=30"
                 for number in range(200) for freq in ("DAILY", "MONTHLY", "YEARLY")))
    begun = time.monotonic()
    assert plugin.poll() == []
    assert time.monotonic() - begun < 10


def test_health_counts_the_events(plugin):
    plugin.has(at(5), at(6))
    assert plugin.run("health").result == f"{plugin.path} has 2 events"


@pytest.mark.parametrize("data", [b"", b"<html>", b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nUID:1", b"BEGIN:VCALENDAR\n" * 50,
                                  calendar(at(5))[:-20]])
def test_what_is_no_whole_calendar_is_retried(plugin, data):
    plugin.path.write_bytes(data)
    assert failure(plugin.run()) == (f"{plugin.path} is no whole calendar", True)


def test_a_file_that_is_none_is_an_error(plugin, tmp_path):
    assert failure(plugin.run())[1]
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        plugin.config["path"] = os.fspath(path)
        assert plugin.run().status == "error"


# From an address

@pytest.fixture
def service() -> Iterator[standin.Service]:
    with standin.serving(lambda asked: (200, calendar(at(5)))) as running:
        yield running


def test_an_address_is_read_with_a_login_and_never_shown(plugin, service):
    plugin.config |= {"url": f"{service.url}/{SECRET}/basic.ics", "path": None, "username": "ann", "password": SECRET}
    assert [payload["uid"] for payload in plugin.poll()] == ["1"]
    assert service.asked[0].headers["authorization"].startswith("Basic ")
    with standin.serving(lambda asked: (200, calendar())) as other:
        service.faults = [(302, "", {"Location": f"{other.url}/x"})]
        plugin.poll()
        assert "authorization" not in other.asked[0].headers
    service.faults = [404]
    assert failure(plugin.run()) == (f"{service.url} answered 404 Not Found", False)


@pytest.mark.parametrize("fault", [*standin.PASSING, standin.HTML])
def test_what_may_pass_is_retried_and_changes_nothing(plugin, service, fault):
    plugin.config |= {"url": service.url, "path": None}
    service.faults = [fault]
    response = plugin.run(seconds_left=1.1)
    assert (response.status, response.retry, response.state_updates) == ("error", True, {})
    service.faults.clear()
    assert len(plugin.poll()) == 1


@pytest.mark.parametrize("config", [
    {"path": None}, {"url": "https://x/"}, {"path": "x.ics"}, {"path": None, "url": "ftp://x"}, {"ahead": "15"},
    {"ahead": "99d"}, {"all_day_at": "7:00"}, {"timezone": "Mars"}, {"username": "a"}, {"x": 1}])
def test_a_wrong_configuration_is_an_error(plugin, config):
    plugin.has()
    plugin.config |= config
    assert not failure(plugin.run())[1]


def test_webcal_addresses_are_https(plugin):
    plugin.config |= {"url": "webcal://example.org/x.ics", "path": None}
    assert run.checked({"config": plugin.config})["url"] == "https://example.org/x.ics"


def test_it_runs_as_a_process(plugin, tmp_path):
    plugin.has(at(5))
    request = steps.request(tmp_path, plugin.config, command="poll")
    assert len(steps.run_process(HERE, request, tmp_path).events) == 1
