"""Looks at the database: each sees one moment, holds nothing afterwards, and costs nothing while nothing happens."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TextIO

import pytest

from ctl.desk import Desk, job_id, load
from ductile import db
from ductile.config import load_table
from ductile.config.load import load as load_config
from ductile.config.model import PluginConfig
from ductile.ctl import queries
from ductile.ctl.monitor.state import Paper, State
from ductile.ctl.monitor.watch import Watch, filled
from ductile.errors import DuctileError
from ductile.pidfile import PidLock, pid_file
from ductile.queue.job import Status
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import Breaker
from ductile.units import utc_text
from support.clock import START, FakeClock
from support.failing import connect
from support.ledger import put_ended, put_job

IDLE = ["PRAGMA data_version"]


@pytest.fixture
def ledger(desk: Desk) -> Iterator[sqlite3.Connection]:
    """The daemon's connection."""
    desk.plugin("echo", timeouts={"poll": "7s"}, circuit_breaker={"reset_after": "1h"})
    with desk.ledger() as conn:
        desk.loaded(conn)
        yield conn


class Looks:
    """A watch over a desk's database, with a clock that stands still and a count of what was asked."""

    def __init__(self, desk: Desk, conn: sqlite3.Connection,
                 plugins: Callable[[], Mapping[str, PluginConfig]] | None = None) -> None:
        self.clock = FakeClock(START)
        self.readings = 0
        self.statements: list[str] = []
        self.conn = conn
        self._plugins = plugins or (lambda: load_config(desk.home / "config.yaml", {}, keep_unset=True).config.plugins)
        self.watch = Watch(conn, state_path=desk.database, plugins=self._read, now=self.clock.now)
        conn.set_trace_callback(self.statements.append)

    def _read(self) -> Mapping[str, PluginConfig]:
        self.readings += 1
        return self._plugins()

    def costs(self, seen: State = State()) -> list[str]:
        """Look, and return the statements that it took."""
        self.statements.clear()
        self.watch.look(seen)
        assert not self.conn.in_transaction
        return list(self.statements)


@pytest.fixture
def looks(desk: Desk, ledger: sqlite3.Connection) -> Iterator[Looks]:
    conn = db.open_for_operator(desk.database, failed=74)
    yield Looks(desk, conn)
    conn.close()


@contextmanager
def running(desk: Desk) -> Iterator[None]:
    """Have this process hold the daemon's lock."""
    lock = PidLock(pid_file(desk.database))
    lock.write()
    try:
        yield
    finally:
        lock.release()


def test_an_idle_database_is_asked_for_its_version_alone(looks: Looks) -> None:
    assert len(looks.costs()) > 5
    assert [looks.costs(), looks.costs()] == [IDLE, IDLE]


def test_what_somebody_writes_is_seen_at_the_next_look(looks: Looks, ledger: sqlite3.Connection) -> None:
    looks.costs()
    put_job(ledger, job_id(1))
    sight = looks.watch.look(State())
    assert [row["job_id"] for row in sight.open] == [job_id(1)]
    assert (sight.status["queue"], sight.chain["job_id"]) == ({"queued": 1, "waiting": 0, "running": 0}, job_id(1))
    assert looks.costs() == IDLE


def test_another_job_that_is_chosen_is_read(looks: Looks, ledger: sqlite3.Connection) -> None:
    for number in (1, 2):
        put_job(ledger, job_id(number))
    looks.costs()
    chosen = State(job=job_id(2))
    assert looks.watch.look(chosen).chain["job_id"] == job_id(2)
    assert looks.costs(chosen) == IDLE
    assert looks.watch.look(State(job=job_id(3))).chain is None


def test_time_goes_on_without_the_tables(looks: Looks, ledger: sqlite3.Connection) -> None:
    put_job(ledger, job_id(1), Status.RUNNING)
    looks.costs()
    looks.clock.move(59)
    assert looks.watch.look(State()).now == START + timedelta(seconds=59)
    assert looks.costs() == IDLE
    looks.clock.move(1)
    assert len(looks.costs()) > 5
    assert looks.costs() == IDLE
    # Set back, the clock must not keep an old sight for ever.
    looks.clock.set(START - timedelta(days=1))
    assert len(looks.costs()) > 5


def test_a_daemon_that_comes_or_goes_is_seen_though_it_writes_nothing(looks: Looks, desk: Desk) -> None:
    assert looks.watch.look(State()).status["daemon"]["running"] is False
    with running(desk):
        found = looks.watch.look(State()).status["daemon"]
        assert (found["running"], found["pid"]) == (True, os.getpid())
    assert looks.watch.look(State()).status["daemon"]["running"] is False


def test_nothing_is_held_between_two_looks(looks: Looks, ledger: sqlite3.Connection) -> None:
    for number in range(5):
        looks.costs()
        put_job(ledger, job_id(number))
        # Busy (1) where a reader still needs the log.
        assert ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def test_one_look_sees_one_moment(looks: Looks, ledger: sqlite3.Connection) -> None:
    put_job(ledger, job_id(1))
    reads: list[str] = []

    def write_before_the_second(statement: str) -> None:
        if "FROM job_queue" in statement:
            reads.append(statement)
            if len(reads) == 2:
                put_job(ledger, job_id(2))

    looks.conn.set_trace_callback(write_before_the_second)
    sight = looks.watch.look(State())
    assert (len(reads) > 2, len(sight.open), sight.status["queue"]["queued"]) == (True, 1, 1)
    assert len(looks.watch.look(State()).open) == 2


def test_how_long_a_job_may_take_comes_from_the_configuration(looks: Looks, ledger: sqlite3.Connection) -> None:
    put_job(ledger, job_id(1), Status.RUNNING)
    put_job(ledger, job_id(2), Status.RUNNING, plugin="gone")
    put_job(ledger, job_id(3))
    assert looks.watch.look(State()).timeouts == {job_id(1): 7}


def test_the_configuration_is_read_once_for_each_that_the_daemon_has_read(looks: Looks, desk: Desk,
                                                                         ledger: sqlite3.Connection) -> None:
    put_job(ledger, job_id(1), Status.RUNNING)
    looks.costs()
    put_job(ledger, job_id(2))
    looks.costs()
    assert looks.readings == 1
    desk.configure(plugins={"echo": {"timeouts": {"poll": "9s"}}})
    with db.transaction(ledger):
        load_table.add(ledger, digest="1", errors=(), now=START)
    assert looks.watch.look(State()).timeouts == {job_id(1): 9}
    assert looks.readings == 2


def test_without_a_configuration_the_rest_is_shown(looks: Looks, desk: Desk, ledger: sqlite3.Connection) -> None:
    (desk.home / "config.yaml").write_text("a: [\n")
    put_job(ledger, job_id(1), Status.RUNNING)
    sight = looks.watch.look(State())
    assert (len(sight.open), sight.timeouts) == (1, {})


def test_a_breaker_is_open_for_as_long_as_the_configuration_says(looks: Looks, ledger: sqlite3.Connection) -> None:
    with db.transaction(ledger):
        breaker = Breaker(state="open", failure_count=3, opened_at=START)
        schedule_table.put_breaker(ledger, "echo", "poll", breaker, START)
    assert looks.watch.look(State()).status["plugins"][0]["held"] == [
        "breaker of poll open until 2026-02-08T11:00:00.000Z"]
    looks.clock.move(3600)
    assert looks.watch.look(State()).status["plugins"][0]["held"] == []


@pytest.mark.parametrize("replaced", [True, False])
def test_another_database_in_its_place_ends_it_with_what_to_do(looks: Looks, desk: Desk, replaced: bool) -> None:
    looks.costs()
    desk.database.rename(desk.home / "old.db")
    if replaced:
        desk.database.write_bytes(b"")
    with pytest.raises(DuctileError) as caught:
        looks.watch.look(State())
    assert (caught.value.exit_code, caught.value.lines) == (
        74, (f"the database {desk.database} is another file now: start ductilectl monitor again",))


@pytest.mark.parametrize(("code", "expected"), [
    (sqlite3.SQLITE_BUSY, db.NotWritten), (sqlite3.SQLITE_CORRUPT, db.Damaged), (sqlite3.SQLITE_IOERR, db.FateUnknown),
])
def test_a_look_that_fails_is_an_error_that_says_so_and_leaves_nothing_open(
        desk: Desk, ledger: sqlite3.Connection, code: int, expected: type[Exception]) -> None:
    conn = connect(desk.database)
    try:
        looks = Looks(desk, conn)
        looks.costs()
        number, failed = 0, True
        while failed:
            number += 1
            # Written to, so that the tables are read again.
            desk.loaded(ledger, load("echo"), load(f"another-{number}"))
            conn.fail_from(number, code)
            try:
                looks.watch.look(State())
            except expected:
                assert not conn.in_transaction
            failed = conn.failed
            conn.mend()
        assert number > 10
        assert len(looks.watch.look(State()).status["plugins"]) == 2
    finally:
        conn.close()


def test_while_nothing_is_chosen_the_chain_is_that_of_what_runs(looks: Looks, ledger: sqlite3.Connection) -> None:
    put_job(ledger, job_id(1), Status.SUCCEEDED)
    assert looks.watch.look(State()).chain["job_id"] == job_id(1)
    put_job(ledger, job_id(2), Status.RUNNING)
    assert looks.watch.look(State()).chain["job_id"] == job_id(2)


# The last day, and open texts


def test_the_last_day_is_counted_by_hours_and_not_at_each_look(ledger: sqlite3.Connection, looks: Looks) -> None:
    put_ended(ledger, range(3), at=utc_text(START - timedelta(minutes=30)))
    put_ended(ledger, range(10, 12), at=utc_text(START - timedelta(hours=23, minutes=30)))
    put_ended(ledger, range(20, 24), at=utc_text(START - timedelta(hours=25)))
    ledger.execute("UPDATE job_log SET status = 'failed' WHERE job_id LIKE '00000010%'")
    assert queries.activity(ledger, START) == {"echo": [(2, 1), *[(0, 0)] * 22, (3, 0)]}
    assert looks.watch.look(State()).activity["echo"][23] == (3, 0)
    put_ended(ledger, range(30, 31), at=utc_text(START))
    assert not any("AS hour" in statement for statement in looks.costs())
    looks.clock.move(61)
    assert any("AS hour" in statement for statement in looks.costs())


def test_an_open_text_is_what_the_commands_print_and_follows_its_end() -> None:
    printed = ["one", "a \x1b long line"]

    def command(arguments: Sequence[str], out: TextIO) -> int:
        out.write("".join(f"{line}\n" for line in printed))
        if arguments == ("wrong",):
            raise SystemExit(66)
        return 0

    paper = filled(command, Paper(title="job", commands=(("inspect",), ("wrong",))), 8, 3)
    assert paper.lines == ("one", "a \\x1b l", "ong line", "", "one", "a \\x1b l", "ong line")
    assert paper.line == 0
    printed.append("more")
    assert filled(command, replace(paper, line=2), 8, 3).line == 2
    at_end = filled(command, replace(paper, line=4), 8, 3)
    assert (at_end.line, at_end.lines[-1]) == (6, "more")
