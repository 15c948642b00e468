"""`schedule`: the next runs in the schedule's own zone, and why one will not start."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from ctl.desk import Desk, Said
from ductile import db
from ductile.ctl.schedule import schedule
from ductile.plugin import plugin_table
from ductile.scheduler import schedule_table
from ductile.scheduler.schedule import Slot
from ductile.scheduler.schedule_table import ScheduleEntry
from ductile.scheduler.silence import Silence
from ductile.units import parse_utc
from support.clock import START


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.plugin("echo", schedule={"every": "1h", "jitter": "10m"})
    with desk.ledger() as conn:
        desk.loaded(conn)
        yield conn


def put(conn: sqlite3.Connection, plugin: str, base: str, drawn: str, rule: str, schedule_id: str = "default",
        silence: Silence = Silence()) -> None:
    slot = Slot(base_at=parse_utc(f"2026-02-08T{base}:00.000Z"), next_run_at=parse_utc(f"2026-02-08T{drawn}:00.000Z"),
                anchor="")
    with db.transaction(conn):
        schedule_table.put_entry(conn, ScheduleEntry(plugin=plugin, schedule_id=schedule_id, slot=slot, rule=rule,
                                                       silence=silence))


def shown(desk: Desk, conn: sqlite3.Connection, count: int = 3, **fields: object) -> str:
    session = desk.session(conn=conn, **fields)
    assert schedule(session, plugin=None, count=count) == 0
    return session.out.getvalue()


def test_the_next_run_is_drawn_and_the_others_vary_by_the_jitter(conn: sqlite3.Connection, desk: Desk) -> None:
    put(conn, "echo", "11:00", "10:57", "every 3600 s")
    assert shown(desk, conn) == """\
echo poll, schedule default: every 1h, jitter 10m
  2026-02-08 10:57 +0000  in 57m
  2026-02-08 11:55 to 12:05 +0000  in 2h
  2026-02-08 12:55 to 13:05 +0000  in 3h
"""


def test_a_run_outside_its_window_is_drawn_from_the_start_of_the_next(desk: Desk) -> None:
    desk.plugin("echo", schedule={"every": "daily", "at": "23:50", "jitter": "40m",
                                  "preferred_window": {"start": "06:00", "end": "22:00"}})
    desk.plugin("late", schedule={"every": "daily", "at": "23:50", "jitter": "40m"})
    with desk.ledger() as conn:
        assert [line for line in shown(desk, conn, 1, utc=True).splitlines() if line.startswith("  ")] == [
            "  2026-02-09 06:00 to 06:40 +0000  in 20h",
            "  2026-02-08 23:30 +0000 to 2026-02-09 00:10 +0000  in 13h"]


def test_times_are_in_the_zone_of_the_schedule(desk: Desk) -> None:
    desk.plugin("echo", schedule={"every": "daily", "at": "07:30", "timezone": "Australia/Sydney",
                                  "preferred_window": {"start": "06:00", "end": "22:00"}})
    with desk.ledger() as conn:
        assert shown(desk, conn, 2) == """\
echo poll, schedule default: daily at 07:30 (Australia/Sydney), window 06:00-22:00
  2026-02-09 07:30 +1100  in 10h
  2026-02-10 07:30 +1100  in 1d
"""
        assert shown(desk, conn, 1, utc=True).splitlines()[1] == "  2026-02-08 20:30 +0000  in 10h"


def test_what_blocks_a_run_is_told(conn: sqlite3.Connection, desk: Desk) -> None:
    put(conn, "echo", "09:00", "09:00", "every 3600 s")
    plugin_table.pause(conn, "echo", START)
    assert shown(desk, conn, 1).splitlines()[1:] == [
        "  blocked: paused since 2026-02-08 10:00 +0000", "  2026-02-08 09:00 +0000  due now"]


@pytest.mark.parametrize(("success", "said"), [
    (None, "no success yet"), (START - timedelta(days=2), "last success 2026-02-06 10:00 +0000")])
def test_what_is_overdue_is_told(conn: sqlite3.Connection, desk: Desk, success: datetime | None, said: str) -> None:
    put(conn, "echo", "11:00", "11:00", "every 3600 s",
        silence=Silence(last_success_at=success, since=START - timedelta(days=3), overdue_at=START))
    assert shown(desk, conn, 1).splitlines()[1] == f"  overdue since 2026-02-08 10:00 +0000: {said}"
    assert desk.call("status").out.splitlines()[-1] == (
        "echo: schedule default is overdue since 2026-02-08 10:00 +0000, see ductilectl schedule echo")


@pytest.mark.parametrize(("fields", "said"), [
    ({"every": "90m"}, "every 1h 30m"), ({"every": "daily", "at": "07:30"}, "daily at 07:30"),
    ({"every": "weekly", "at": ["06:00", "18:00"], "day": ["mon", "fri"]}, "weekly on Mon, Fri at 06:00, 18:00"),
    ({"every": "monthly", "at": "00:00", "day": 31, "timezone": "UTC"}, "monthly on day 31 at 00:00 (UTC)")])
def test_a_rule_is_told_in_words(desk: Desk, fields: dict[str, object], said: str) -> None:
    desk.plugin("echo", schedule=fields)
    assert desk.call("schedule", "--json").json[0]["rule"] == said


def test_without_a_database_the_configuration_says_when(desk: Desk) -> None:
    desk.plugin("echo", schedule={"every": "1h"})
    desk.plugin("off", schedule={"every": "1h"}, enabled=False)
    found = desk.call("schedule", "--json", "--next", "2").json
    assert [(row["plugin"], row["held"], len(row["runs"])) for row in found] == [
        ("echo", [], 2), ("off", ["disabled"], 2)]


def test_a_plugin_without_a_schedule_says_so(desk: Desk) -> None:
    desk.plugin("echo")
    assert desk.call("schedule") == Said(code=0, out="no plugin has a schedule\n", err="")
    assert desk.call("schedule", "echo").out == "plugin echo has no schedule\n"
    assert desk.call("schedule", "ecko") == Said(
        code=66, out="", err="no plugin 'ecko' is configured (did you mean 'echo'?)\n")
