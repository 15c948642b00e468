"""`status`: one look says what runs, what waits, and why something will not run."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ctl.desk import Desk, job_id, load, run
from ductile import db, runtime_config
from ductile.config import load_table
from ductile.config.model import BreakerRule, PluginConfig
from ductile.ctl import queries
from ductile.ctl.queries import _oldest_waiting
from ductile.ctl.status import read, text
from ductile.ctl.table import Page
from ductile.pidfile import PidLock, pid_file
from ductile.plugin import plugin_table
from ductile.queue.job import Status
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import Breaker
from ductile.scheduler.schedule import Schedule, Slot
from ductile.scheduler.schedule_table import ScheduleEntry
from ductile.state import state_table
from ductile.units import format_size, parse_utc
from scheduler.schedules import schedule
from support.clock import START
from support.daemon import RealDaemon
from support.ledger import put_ended, put_job, steps

NOW = START + timedelta(minutes=5)
DUE = START + timedelta(hours=1)
OPEN = Breaker(state="open", failure_count=3, opened_at=START)

@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    with desk.ledger() as conn:
        yield conn


def entry(plugin: str, held: str | None = None, schedule_id: str = "default") -> ScheduleEntry:
    return ScheduleEntry(plugin=plugin, schedule_id=schedule_id, rule="every 3600 s", held_reason=held,
                 slot=Slot(base_at=DUE, next_run_at=DUE, anchor=""))


def fill(conn: sqlite3.Connection) -> None:
    """Store a plugin for each reason that there is, and a job for each status."""
    reasons = {"a-disabled": {"enabled": False}, "b-missing": {"version": None, "reason": "not\nthere"},
               "c-fresh": {"needs_init": "f1"}, "d-tripped": {}, "e-probed": {}, "f-guarded": {},
               "g-well": {"needs_init": "f2"}}
    with db.transaction(conn):
        load_table.add(conn, digest="0", errors=(), now=START)
        plugin_table.replace_loads(conn, [load(name, **fields) for name, fields in reasons.items()], START)
        plugin_table.put_init(conn, "c-fresh", fingerprint="f0", ok=True, job_id=job_id(1), now=START)
        plugin_table.put_init(conn, "g-well", fingerprint="f2", ok=True, job_id=job_id(2), now=START)
        for plugin, breaker in (("d-tripped", OPEN), ("e-probed", replace(OPEN, state="half_open")),
                                ("g-well", Breaker(state="closed", failure_count=1, opened_at=None))):
            schedule_table.put_breaker(conn, plugin, "poll", breaker, START)
        for each in (entry("a-disabled"), entry("b-missing", "not loaded: earlier"),
                     entry("d-tripped", "breaker open until x"), entry("f-guarded", "poll guard: 1 outstanding"),
                     entry("g-well")):
            schedule_table.put_entry(conn, each)
        state_table.put(conn, "g-well", {"é": 1}, START)
    for number, (state, fields) in enumerate({
        Status.QUEUED: {}, Status.RUNNING: {"plugin": "g-well"}, Status.DEAD: {}, Status.SUCCEEDED: {},
        Status.DEDUPED: {},
    }.items()):
        put_job(conn, job_id(16 + number), state, **fields)
    waiting = put_job(conn, job_id(32), Status.QUEUED, now=START - timedelta(days=1))
    conn.execute("UPDATE job_queue SET next_retry_at = '2026-02-08T11:00:00.000Z' WHERE id = ?", (waiting.id,))
    conn.execute(
        "INSERT INTO job_log (id, job_id, attempt, plugin, command, status, submitted_by, created_at, completed_at,"
        " last_error) VALUES ('x', ?, 1, 'g-well', 'poll', 'failed', 'cli', ?, ?, 'out of luck')",
        (job_id(16), "2026-02-08T10:00:00.000Z", "2026-02-08T10:01:00.000Z"))


def settings(name: str, reset_after: int, *schedules: Schedule) -> PluginConfig:
    return PluginConfig(name=name, uses=name, schedules=schedules, breaker=BreakerRule(reset_after=reset_after))


def look(conn: sqlite3.Connection, desk: Desk, *, as_json: bool = False, resets: dict[str, int] | None = None) -> str:
    known = {name: settings(name, seconds) for name, seconds in ({"d-tripped": 1800}
                                                                 if resets is None else resets).items()}
    found = read(conn, state_path=desk.database, plugins=known, now=NOW)
    return json.dumps(found) if as_json else text(found, NOW, Page())


@contextmanager
def running(desk: Desk) -> Iterator[None]:
    """Have this process hold the daemon's lock."""
    lock = PidLock(pid_file(desk.database))
    lock.write()
    try:
        yield
    finally:
        lock.release()


TEXT = """\
daemon: not running
configuration: loaded at 2026-02-08 10:00 +0000
queue: 1 queued, 1 waiting for a retry, 1 running; oldest waiting since 2026-02-08 10:00 +0000 (5m)
running: 00000011 g-well poll, attempt 1, 5m
last 24h: 1 succeeded, 1 dead, 1 deduped; busy 0.3%

PLUGIN      LAST RUN                OUTCOME  NEXT RUN                STATE  BLOCKED
a-disabled  -                       -        -                       0 B    disabled
b-missing   -                       -        2026-02-08 11:00 +0000  0 B    not loaded: not\\nthere
c-fresh     -                       -        -                       0 B    unhealthy: init has not succeeded
d-tripped   -                       -        2026-02-08 11:00 +0000  0 B    breaker of poll open until 2026-02-08 10:30 +0000
e-probed    -                       -        -                       0 B    breaker of poll half-open: a probe is out
f-guarded   -                       -        2026-02-08 11:00 +0000  0 B    poll guard: 1 outstanding
g-well      2026-02-08 10:01 +0000  failed   2026-02-08 11:00 +0000  12 B   -

g-well: failed 4m ago (job 00000010): out of luck
"""


def test_the_text_says_everything_at_a_glance(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    assert look(conn, desk) == TEXT


def test_a_log_that_a_reader_holds_is_shown(conn: sqlite3.Connection, desk: Desk,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "LARGE_LOG_BYTES", 100_000)
    with closing(sqlite3.connect(desk.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM job_queue").fetchone()
        put_ended(conn, range(500), at="2026-02-08T10:00:00.000Z")
        size = desk.database.with_name("state.db-wal").stat().st_size
        assert json.loads(look(conn, desk, as_json=True))["held_log_bytes"] == size
        assert (f"write-ahead log: {format_size(size)}; it grows as long as another program reads the database in one"
                " transaction\n") in look(conn, desk)
    assert json.loads(look(conn, desk, as_json=True))["held_log_bytes"] is None


def test_the_document_has_what_the_text_has(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    found = json.loads(look(conn, desk, as_json=True))
    assert found["daemon"] == {"running": False, "pid": None, "since": None, "listen": None}
    assert found["config_load"] == {"loaded_at": "2026-02-08T10:00:00.000Z", "ok": True, "errors": None,
                                    "edited_at": None}
    assert found["queue"] == {"queued": 1, "waiting": 1, "running": 1}
    assert found["oldest_waiting"] == "2026-02-08T10:00:00.000Z"
    assert found["ended_24h"] == {"succeeded": 1, "dead": 1, "deduped": 1}
    assert found["running"] == [{"job_id": job_id(17), "plugin": "g-well", "command": "poll", "attempt": 1,
                                 "started_at": "2026-02-08T10:00:00.000Z"}]
    assert {row["plugin"]: row["held"] for row in found["plugins"]} == {
        "a-disabled": ["disabled"], "b-missing": ["not loaded: not\nthere"],
        "c-fresh": ["unhealthy: init has not succeeded"],
        "d-tripped": ["breaker of poll open until 2026-02-08T10:30:00.000Z"],
        "e-probed": ["breaker of poll half-open: a probe is out"], "f-guarded": ["poll guard: 1 outstanding"],
        "g-well": [],
    }
    assert found["plugins"][-1] == {
        "plugin": "g-well", "version": "0.1.0", "enabled": True, "last_run": "2026-02-08T10:01:00.000Z",
        "last_outcome": "failed", "last_error": "out of luck", "last_job_id": job_id(16),
        "next_run": "2026-02-08T11:00:00.000Z", "held": [], "state_bytes": 12, "paused_since": None,
        "schedules": [{"schedule_id": "default", "next_run_at": "2026-02-08T11:00:00.000Z", "last_run_at": None,
                       "held_reason": None, "overdue_at": None}],
        "breakers": [{"command": "poll", "state": "closed", "failure_count": 1, "opened_at": None}],
    }


@pytest.mark.parametrize(("resets", "expected"), [
    ({"d-tripped": 300}, []),
    ({"d-tripped": 301}, ["breaker of poll open until 2026-02-08T10:05:01.000Z"]),
    ({}, ["breaker of poll open since 2026-02-08T10:00:00.000Z"]),
])
def test_a_breaker_holds_back_until_it_lets_a_probe_through(conn: sqlite3.Connection, desk: Desk,
                                                            resets: dict[str, int], expected: list[str]) -> None:
    fill(conn)
    found = json.loads(look(conn, desk, as_json=True, resets=resets))
    assert [row["held"] for row in found["plugins"] if row["plugin"] == "d-tripped"] == [expected]


@pytest.mark.parametrize(("due", "other_due", "window", "expected"), [
    # Past due, and held back: the probe runs when the breaker lets it.
    ("10:01", "23:00", None, "10:30"),
    # What falls due later runs then.
    ("10:45", "23:00", None, "10:45"),
    # Another command's breaker is closed.
    ("10:01", "10:10", None, "10:10"),
    # Not outside its window.
    ("10:01", "23:00", "22:00-23:00", "22:00"),
])
def test_with_an_open_breaker_the_next_run_is_the_probe(
        conn: sqlite3.Connection, desk: Desk, due: str, other_due: str, window: str | None,
        expected: str) -> None:
    desk.loaded(conn, load("echo"))
    with db.transaction(conn):
        schedule_table.put_breaker(conn, "echo", "poll", OPEN, START)
        for name, at in (("main", due), ("other", other_due)):
            slot = Slot(base_at=DUE, next_run_at=parse_utc(f"2026-02-08T{at}:00.000Z"), anchor="")
            schedule_table.put_entry(conn, replace(entry("echo", schedule_id=name), slot=slot))
    known = settings("echo", 1800, schedule("1h", window=window), replace(schedule("1h", command="sync"), id="other"))
    found = read(conn, state_path=desk.database, plugins={"echo": known}, now=NOW)
    assert found["plugins"][0]["next_run"] == f"2026-02-08T{expected}:00.000Z"


def test_of_several_schedules_each_is_named(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.loaded(conn, load("echo"))
    with db.transaction(conn):
        schedule_table.put_entry(conn, entry("echo", "queue full", "day"))
        schedule_table.put_entry(conn, entry("echo", "outside its preferred window", "night"))
    found = json.loads(look(conn, desk, as_json=True))
    assert found["plugins"][0]["held"] == ["day: queue full", "night: outside its preferred window"]


@pytest.mark.parametrize("waiting_for_retry", [(), (1,), (2,), (1, 2, 3)])
def test_the_oldest_that_waits_was_enqueued_first(conn: sqlite3.Connection, desk: Desk,
                                                  waiting_for_retry: tuple[int, ...]) -> None:
    put_job(conn, job_id(0), Status.RUNNING)
    for number, plugin in ((1, "z"), (2, "a"), (3, "m")):
        put_job(conn, job_id(number), plugin=plugin, now=START + timedelta(seconds=number))
    for number in waiting_for_retry:
        conn.execute("UPDATE job_queue SET next_retry_at = '2026-02-08T12:00:00.000Z' WHERE id = ?", (job_id(number),))
    assert json.loads(look(conn, desk, as_json=True))["oldest_waiting"] == "2026-02-08T10:00:01.000Z"


def test_the_work_of_a_look_does_not_grow_with_what_waits(conn: sqlite3.Connection) -> None:
    for number in range(300):
        put_job(conn, job_id(number))
    with steps(conn) as few:
        _oldest_waiting(conn)
    for number in range(300, 1200):
        put_job(conn, job_id(number))
    with steps(conn) as many:
        _oldest_waiting(conn)
    assert many[0] <= few[0] + 2


def test_a_refused_configuration_shows_its_errors(conn: sqlite3.Connection, desk: Desk) -> None:
    with db.transaction(conn):
        load_table.add(conn, digest="0", errors=("one\x1b", "two"), now=START)
    assert look(conn, desk).splitlines()[1:4] == [
        "configuration: rejected at 2026-02-08 10:00 +0000; still using the previous one", "  one\\x1b", "  two"]


def test_a_running_daemon_is_seen_by_its_lock(conn: sqlite3.Connection, desk: Desk) -> None:
    with running(desk):
        found = json.loads(look(conn, desk, as_json=True))["daemon"]
    assert (found["running"], found["pid"] is not None, found["since"] is not None) == (True, True, True)
    assert found["listen"] is None
    assert json.loads(look(conn, desk, as_json=True))["daemon"]["running"] is False


def test_where_the_daemon_listens_is_what_it_took_last(conn: sqlite3.Connection, desk: Desk) -> None:
    with db.transaction(conn):
        load_table.add(conn, digest="0", errors=(), listen="127.0.0.1:8080", now=START)
        load_table.add(conn, digest="1", errors=(), listen="127.0.0.1:8081", now=START)
        load_table.add(conn, digest="2", errors=("no",), now=START)
    with running(desk):
        assert look(conn, desk).splitlines()[1] == "webhooks: listening on 127.0.0.1:8081"
        assert json.loads(look(conn, desk, as_json=True))["daemon"]["listen"] == "127.0.0.1:8081"
    assert "listening" not in look(conn, desk)
    assert json.loads(look(conn, desk, as_json=True))["daemon"]["listen"] is None


def test_the_breaker_is_asked_of_the_configuration(desk: Desk) -> None:
    desk.plugin("echo", circuit_breaker={"reset_after": "36500d"})
    with desk.ledger() as conn:
        desk.loaded(conn)
        with db.transaction(conn):
            schedule_table.put_breaker(conn, "echo", "poll", OPEN, START)
    held = desk.call("status", "--json").json["plugins"][0]["held"]
    assert held == ["breaker of poll open until 2126-01-15T10:00:00.000Z"]


def test_3_says_that_the_daemon_is_down(desk: Desk) -> None:
    assert (desk.call("status").code, desk.call("status", "--json").code) == (3, 3)
    with desk.ledger() as conn:
        desk.loaded(conn)
    assert desk.call("status").code == 3
    with running(desk):
        assert desk.call("status").code == 0


def edited(desk: Desk, act: Callable[[], object], *, digest: str = "") -> tuple[str | None, str]:
    """Return what `status` says of the files after an act since the daemon has read them."""
    with desk.ledger() as conn, running(desk):
        read_here = runtime_config.read(desk.home / "config.yaml", {}).runtime.digest
        with db.transaction(conn):
            load_table.add(conn, digest=digest or read_here, errors=(), now=datetime.now(UTC) + timedelta(seconds=3))
        act()
        # As if the daemon had read them a moment ago.
        conn.execute("UPDATE config_loads SET loaded_at = '2026-02-08T10:00:00.000Z'")
        found = desk.call("status", "--json").json["config_load"]["edited_at"]
        return found, next(line for line in desk.call("status").out.splitlines() if line.startswith("configuration"))


@pytest.mark.parametrize("act", [
    lambda desk: desk.configure(service={"name": "other"}),
    lambda desk: (desk.home / "config.yaml").write_text("a: ["),
    lambda desk: (desk.home / "plugins" / "echo" / "manifest.yaml").unlink(),
])
def test_files_that_were_edited_and_not_reloaded_are_told(desk: Desk, act: Callable[[Desk], object]) -> None:
    desk.plugin("echo")
    at, line = edited(desk, lambda: act(desk))
    assert at is not None
    assert re.fullmatch(r"configuration: loaded at 2026-02-08 10:00 \+0000; edited (now|.*s ago), not reloaded", line)


def test_a_file_that_was_only_touched_is_not_edited(desk: Desk) -> None:
    desk.plugin("echo")
    assert edited(desk, (desk.home / "config.yaml").touch) == (
        None, "configuration: loaded at 2026-02-08 10:00 +0000")


def test_the_busy_share_is_of_the_last_24_hours(conn: sqlite3.Connection) -> None:
    put_ended(conn, range(3), at="2026-02-08T09:00:00.000Z")
    for seq, started, ended in ((1, "2026-02-08T09:00:00.000Z", "2026-02-08T12:00:00.000Z"),
                                (2, "2026-02-07T11:00:00.000Z", "2026-02-07T13:00:00.000Z"),
                                (3, "2026-02-06T11:00:00.000Z", "2026-02-06T13:00:00.000Z")):
        conn.execute("UPDATE job_log SET started_at = ?, completed_at = ? WHERE seq = ?", (started, ended, seq))
    put_job(conn, job_id(9), Status.RUNNING, now=parse_utc("2026-02-08T10:00:00.000Z"))
    # Three hours, one of the two that began before, and two of the job that runs.
    assert queries._busy(conn, parse_utc("2026-02-07T12:00:00.000Z"), parse_utc("2026-02-08T12:00:00.000Z")) == 0.25


def test_the_real_daemon_is_up_since_its_start(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    found = run("status", "--json", home=daemon.home).json
    assert (found["daemon"]["running"], found["daemon"]["pid"]) == (True, daemon.pid)
    assert found["config_load"]["ok"] is True
    assert [(row["plugin"], row["held"]) for row in found["plugins"]] == [("ok", [])]
    daemon.stop()
