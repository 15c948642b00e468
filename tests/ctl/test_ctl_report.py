"""`report`: one page that is safe to open, whatever plugins say, and a file that is whole or absent."""

from __future__ import annotations

import os
import sqlite3
from array import array
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ctl.desk import Desk, job_id, load
from ductile import db
from ductile.config.model import PluginConfig
from ductile.ctl import queries, report
from ductile.ctl.report_facts import Coming, coming, divide, spread
from ductile.errors import DuctileError
from ductile.scheduler.schedule import Slot
from ductile.units import utc_text
from scheduler.schedules import schedule
from support.clock import START, FakeClock
from support.ledger import opened, put_ended, steps

DAY = timedelta(days=1)
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)></pre>\x1b[31m\u202e{0}{name}'


def put(conn: sqlite3.Connection, number: int, *, status: str = "succeeded", plugin: str = "echo", attempt: int = 1,
        ended: datetime = START - DAY, seconds: float = 2.0, error: str | None = None, stderr: str | None = None,
        **fields: object) -> None:
    """Store a job that ended, with the log of its last attempt."""
    times = [utc_text(ended - timedelta(seconds=back)) for back in (seconds + 1, seconds, 0)]
    columns = {"id": job_id(number), "plugin": plugin, "command": "poll", "status": status, "attempt": attempt,
               "max_attempts": 4, "submitted_by": "cli", "created_at": times[0], "started_at": times[1],
               "completed_at": times[2], "last_error": error, "root_job_id": job_id(number), **fields}
    log = {"id": job_id(number), "job_id": job_id(number), "attempt": attempt, "plugin": plugin, "command": "poll",
           "status": "succeeded" if status == "succeeded" else "failed", "submitted_by": "cli",
           "created_at": times[0], "started_at": times[1], "completed_at": times[2], "last_error": error,
           "stderr": stderr}
    with db.transaction(conn, synced=False):
        for table, row in (("job_queue", columns), ("job_log", log)):
            if table == "job_queue" or status != "deduped":
                conn.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                             tuple(row.values()))


class Elements(HTMLParser):
    """What a browser would find in a document: elements with their attributes, and the text between them."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.plugin("echo", commands=("poll",), schedule={"every": "6h"})
    with desk.ledger() as conn:
        yield conn


def page(desk: Desk, conn: sqlite3.Connection, *, since: str = "7d", **options: int) -> str:
    session = desk.session(conn=conn, utc=True)
    assert report.report(session, since=since, output=None, **options) == 0
    return session.out.getvalue()


def test_the_page_says_what_ran_and_what_failed_and_why(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.loaded(conn)
    for number in range(3):
        put(conn, number, ended=START - DAY * number - timedelta(hours=1))
    put(conn, 3, attempt=2)
    for number in (4, 5):
        put(conn, number, plugin="backup", status="dead", error="no route to host", stderr="dialling\nno route",
            ended=START - timedelta(hours=number), pipeline_name="nightly", step_id="copy")
    put(conn, 6, status="dead", error="cancelled by operator")
    put(conn, 7, status="deduped")
    put(conn, 8, ended=START - 8 * DAY, plugin="too_old")
    text = Elements(page(desk, conn)).text
    assert "2026-02-01 10:00 to 2026-02-08 10:00 (UTC+0000)" in text
    assert "2 times from Sun 8 Feb 05:00 to Sun 8 Feb 06:00" in text
    for words in ("no route to host", "dialling\nno route", "pipeline nightly, step copy",
                  "ductilectl inspect 00000004", "2 jobs 2 failed", "1 cancelled besides", "1 duplicates besides",
                  "2.0 s / 2.0 s / 2.0 s", "waited 1.0 s / 1.0 s", "every 6h", "28 runs"):
        assert words in text
    assert "too_old" not in text
    # Those that fail come first.
    assert text.index("2 jobs 2 failed") < text.index("5 jobs")


def test_no_text_of_a_plugin_becomes_markup(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.configure(service={"name": "n" + HOSTILE})
    desk.loaded(conn, load("p" + HOSTILE, reason="r" + HOSTILE), load("q" + HOSTILE))
    put(conn, 1, status="dead", plugin="q" + HOSTILE, error="e" + HOSTILE, stderr="s" + HOSTILE, command="c" + HOSTILE,
        pipeline_name="l" + HOSTILE, step_id="t" + HOSTILE)
    document = page(desk, conn)
    found = Elements(document)
    assert found.tags <= {"html", "head", "meta", "title", "style", "body", "main", "footer", "header", "h1", "p",
                          "section", "h2", "div", "span", "b", "small", "figure", "figcaption", "i", "svg", "g", "rect",
                          "line", "circle", "text", "ul", "li", "pre", "details", "summary", "code"}
    assert found.attributes.isdisjoint({"onerror", "src", "href", "style", "srcset"})
    assert "http" not in document.replace("http-equiv", "")
    for first in "npqrescl":
        assert f'{first}"><script>alert(1)</script>' in found.text
    assert {"\x1b", "\u202e"}.isdisjoint(found.text)
    assert document.isascii()


def test_a_database_without_jobs_is_a_page(conn: sqlite3.Connection, desk: Desk) -> None:
    text = Elements(page(desk, conn)).text
    assert "No job ended in this time." in text
    assert "No job failed." in text


def test_durations_are_those_of_the_latest_attempts_and_the_page_says_so(conn: sqlite3.Connection, desk: Desk) -> None:
    for number in range(5):
        put(conn, number, ended=START - timedelta(hours=number + 1), plugin="elder" if number > 2 else "newer")
    short, whole = (Elements(page(desk, conn, limit=limit)).text for limit in (3, 6))
    assert ("newer poll" in short, "elder poll" in short, "elder poll" in whole) == (True, False, True)
    assert ("of the latest 3 attempts" in short, "of the latest" in whole) == (True, False)
    assert ("5 jobs" in short, "5 jobs" in whole) == (True, True)


@pytest.mark.parametrize("since", ["0s", "2099-01-01", "soon"])
def test_a_time_that_is_not_past_is_64(since: str, conn: sqlite3.Connection, desk: Desk) -> None:
    with pytest.raises(DuctileError) as caught:
        report.report(desk.session(conn=conn), since=since, output=None)
    assert caught.value.exit_code == 64


# The file

def written(desk: Desk, conn: sqlite3.Connection, file: Path) -> str:
    session = desk.session(conn=conn)
    report.report(session, since="7d", output=str(file))
    return session.out.getvalue()


def test_a_file_is_replaced_whole_and_keeps_nothing_beside_it(conn: sqlite3.Connection, desk: Desk,
                                                              tmp_path: Path) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    file, link = directory / "report.html", directory / "link.html"
    file.write_text("old")
    link.symlink_to(file)
    put(conn, 1, status="dead")
    said = written(desk, conn, link)
    assert said.startswith(f"{link}: ")
    assert said.endswith("1 job, 1 failed\n")
    assert file.read_text().endswith("</html>\n")
    assert link.is_symlink()
    assert {each.name for each in directory.iterdir()} == {"report.html", "link.html"}


def test_a_file_that_cannot_be_replaced_is_as_it_was(conn: sqlite3.Connection, desk: Desk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for target in (tmp_path / "fifo", tmp_path, tmp_path / "missing" / "report.html"):
        with pytest.raises(DuctileError) as caught:
            written(desk, conn, target)
        assert caught.value.exit_code == 74
        assert caught.value.lines[0].startswith(f"cannot write {target}: ")
    assert list(tmp_path.glob(".*")) == []


def test_a_disk_without_room_leaves_the_old_file(conn: sqlite3.Connection, desk: Desk) -> None:
    # A file that takes nothing stands for the disk: what is written goes to another name, and is not kept.
    with pytest.raises(DuctileError) as caught:
        written(desk, conn, Path("/dev/full"))
    assert caught.value.exit_code == 74
    assert not Path("/dev/full").is_file()


def test_it_is_read_with_a_broken_configuration(desk: Desk, conn: sqlite3.Connection) -> None:
    put(conn, 1, status="dead", error="why")
    config = desk.home / "config.yaml"
    config.write_text(config.read_text() + "\n}")
    done = desk.call("report", "--since", "2026-02-01")
    assert done.code == 0
    assert done.err.startswith("warning: ")
    assert "Nothing is scheduled." in Elements(done.out).text


def test_there_is_no_json(desk: Desk) -> None:
    assert desk.call("--json", "report").code == 64


# What is counted

def test_a_period_is_divided_at_local_midnights_and_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    until = datetime(2026, 3, 30, 12, tzinfo=UTC)
    days = divide(until - 3 * DAY, until, zone)
    assert [datetime.fromtimestamp(start, zone).isoformat() for start in days.starts] == [
        "2026-03-27T00:00:00+01:00", "2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00",
        "2026-03-30T00:00:00+02:00"]
    assert days.bounds(0) == ((until - 3 * DAY).timestamp(), days.starts[1])
    assert days.bounds(3) == (days.starts[3], until.timestamp())
    hours = divide(until - timedelta(hours=2, minutes=5), until, ZoneInfo("Asia/Kathmandu"))
    assert hours.step == "hour"
    assert [datetime.fromtimestamp(start, ZoneInfo("Asia/Kathmandu")).strftime("%H:%M") for start in hours.starts] == [
        "15:00", "16:00", "17:00"]
    years = divide(until - 3650 * DAY, until, zone)
    assert years.step == "59 days"
    assert len(years.starts) <= 62


def test_work_is_counted_on_the_day_on_which_it_is_done(conn: sqlite3.Connection) -> None:
    midnight = datetime(2026, 2, 8, tzinfo=UTC)
    period = divide(midnight - 3 * DAY, midnight + DAY, UTC)
    for number, (start, end) in enumerate(((60, 70), (-5, 30), (-3600, -3599), (-4 * 86400, -100_000))):
        put(conn, number, ended=midnight + timedelta(seconds=end), seconds=end - start)
    put(conn, 9, ended=midnight - DAY, seconds=0, status="dead")
    assert [queries.work_in(conn, *(datetime.fromtimestamp(at, UTC) for at in period.bounds(part)))
            for part in range(4)] == [(0, 86_400.0), (0, 72_800.0), (1, 6.0), (0, 40.0)]


def test_percentiles_are_values_that_occurred() -> None:
    found = spread(array("d", range(100, 0, -1)))
    assert (found.count, found.median, found.high, found.longest) == (100, 50.0, 95.0, 100.0)
    one = spread(array("d", [3.0]))
    assert (one.median, one.high, one.longest) == (3.0, 3.0, 3.0)


def test_the_week_follows_the_stored_grid_and_the_window() -> None:
    start = datetime(2026, 2, 9, 0, 0, tzinfo=UTC)
    daily = replace(schedule("1d", at="07:30"), id="daily")
    often = replace(schedule("1m", window="08:00-09:30"), id="often")
    plugins = {name: PluginConfig(name=name, uses=name, enabled=name == "on", schedules=(daily, often))
               for name in ("on", "off")}
    late = start - timedelta(hours=1)    # due, but blocked
    slots = {("on", "daily"): (daily.rule(), Slot(base_at=late, next_run_at=late, anchor="2026-02-08T07:30:00"))}
    found = coming(plugins, slots, start)
    assert [(each.plugin, each.schedule_id) for each in found] == [("on", "daily"), ("on", "often")]
    assert [datetime.fromtimestamp(run, UTC) for run in found[0].runs] == [
        start, *(start + timedelta(days=day, hours=7, minutes=30) for day in range(7))]
    assert (found[1].runs, found[1].count, len(found[1].bands)) == ((), 7 * 90, 7)
    assert found[1].bands[0] == ((start + timedelta(hours=8)).timestamp(),
                                 (start + timedelta(hours=9, minutes=30)).timestamp())
    assert isinstance(found[0], Coming)


def test_the_work_is_that_of_the_period_however_many_jobs_there_are(tmp_path: Path) -> None:
    since, now = START - 7 * DAY, START
    costs = []
    for number, more in enumerate((200, 5000)):
        directory = tmp_path / str(number)
        directory.mkdir()
        with opened(directory) as conn:
            put_ended(conn, range(100), at=utc_text(now - DAY))
            put_ended(conn, range(1000, 1000 + more), at=utc_text(since - DAY))
            with steps(conn) as counted:
                rows = [queries.ended_in(conn, since, now, cancelled="c"), queries.work_in(conn, since, now),
                        list(queries.attempts_in(conn, since, now, limit=1000)),
                        list(queries.dead_in(conn, since, now, cancelled="c", limit=1000))]
            assert rows[0] == [("echo", "succeeded", 0, 0, 100)]
            assert [len(each) for each in rows] == [1, 2, 100, 0]
            costs.append(counted[0])
    assert costs[1] <= costs[0] * 1.1 + 5


def test_the_clock_of_the_session_ends_the_period(conn: sqlite3.Connection, desk: Desk) -> None:
    put(conn, 1, ended=START + DAY, plugin="tomorrow")
    session = desk.session(conn=conn, clock=FakeClock(START))
    report.report(session, since="7d", output="-")
    assert "tomorrow" not in Elements(session.out.getvalue()).text
