"""`monitor` on a bare terminal: how it begins, how it ends, and that the terminal is afterwards as it was."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Iterator

import pytest

from ctl.desk import Desk, Said, job_id
from ctl.terminals import terminal
from ductile import db
from ductile.queue.job import Status
from support.ledger import put_job

COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-7]m")
KEYS = "q quit"


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.plugin("echo")
    with desk.ledger() as conn:
        desk.loaded(conn)
        put_job(conn, job_id(1), Status.DEAD)
        yield conn


# Without a terminal


@pytest.mark.parametrize(("term", "expected"), [
    ({"TERM": "dumb"}, "TERM is 'dumb'"), ({"TERM": ""}, "TERM is not set"),
    ({"TERM": "no-such\x1bterminal"}, "TERM is 'no-such\\x1bterminal'"), ({"TERM": "é"}, "TERM is '\\xe9'"),
])
def test_a_terminal_that_cannot_move_its_cursor_is_64(desk: Desk, conn: sqlite3.Connection, term: dict[str, str],
                                                      expected: str) -> None:
    with terminal(desk.home, "monitor", environ=term) as tty:
        assert tty.ends() == (64, f"monitor needs a terminal that can move its cursor, and {expected}: set TERM to the"
                                  " terminal's name, or see ductilectl status\n")
        assert tty.shown == b""


def test_without_a_terminal_it_is_64(desk: Desk, conn: sqlite3.Connection) -> None:
    assert desk.process("monitor", env={"TERM": "xterm"}) == Said(
        code=64, out="", err="monitor needs a terminal, and standard input is none; see ductilectl status\n")


def test_json_is_not_for_a_screen(desk: Desk) -> None:
    assert desk.call("monitor", "--json") == desk.call("--json", "monitor") == Said(
        code=64, out="",
        err="ductilectl monitor: --json is for commands that show a document; see ductilectl status\n")


def test_without_a_database_it_says_so(desk: Desk) -> None:
    with terminal(desk.home, "monitor") as tty:
        assert tty.ends() == (0, "")
        text = f"ductiled has not run yet: there is no database at {desk.database}\r\n"
        assert tty.shown == text.encode()
        assert not desk.database.parent.exists()


# How it ends


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)])
def test_a_key_ends_it(desk: Desk, conn: sqlite3.Connection, key: str, code: int) -> None:
    with terminal(desk.home, "monitor") as tty:
        tty.await_text(KEYS)
        assert not tty.is_as_it_was
        tty.type(key)
        assert tty.ends() == (code, "")
        assert tty.is_as_it_was


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_it(desk: Desk, conn: sqlite3.Connection, number: int, code: int) -> None:
    with terminal(desk.home, "monitor") as tty:
        tty.await_text(KEYS)
        tty.process.send_signal(number)
        assert tty.ends() == (code, "")
        assert tty.is_as_it_was


@pytest.mark.parametrize("controls", [True, False])
def test_a_terminal_that_goes_away_ends_it_quietly(desk: Desk, conn: sqlite3.Connection, controls: bool) -> None:
    with terminal(desk.home, "monitor", controls=controls) as tty:
        tty.await_text(KEYS)
        tty.go_away()
        assert tty.ends() == (129, "")


def test_a_keyboard_that_goes_away_ends_it_though_the_screen_stays(desk: Desk, conn: sqlite3.Connection) -> None:
    master, keyboard = os.openpty()
    with terminal(desk.home, "monitor", controls=False, keyboard=keyboard) as tty:
        os.close(keyboard)
        tty.await_text(KEYS)
        os.close(master)
        assert tty.ends() == (129, "")


def test_an_error_gives_the_terminal_back_before_it_is_told(desk: Desk, conn: sqlite3.Connection) -> None:
    with terminal(desk.home, "monitor") as tty:
        tty.await_text(KEYS)
        desk.database.rename(desk.home / "elsewhere.db")
        assert tty.ends() == (
            74, f"the database {desk.database} is another file now: start ductilectl monitor again\n")
        assert tty.is_as_it_was


def test_a_bug_gives_the_terminal_back_and_keeps_its_traceback(desk: Desk, conn: sqlite3.Connection) -> None:
    with terminal(desk.home, "monitor") as tty:
        tty.await_text(KEYS)
        with db.transaction(conn):
            conn.execute("UPDATE job_queue SET created_at = 'no time', completed_at = 'no time'")
        code, err = tty.ends()
        assert (code, err.splitlines()[0], "no time" in err.splitlines()[-1]) == (
            1, "Traceback (most recent call last):", True)
        assert tty.is_as_it_was


# What it writes


def test_only_what_has_changed_is_written(desk: Desk, conn: sqlite3.Connection) -> None:
    for number in range(2, 60):
        put_job(conn, job_id(number), Status.SUCCEEDED)
    with terminal(desk.home, "monitor", columns=200, rows=60) as tty:
        first = tty.await_text(KEYS)
        put_job(conn, job_id(0xabc))
        tty.type("\t\t")
        more = tty.await_text("00000abc", after=len(first))
        assert b"\x1b[2J" not in more and b"\x1b[H\x1b[J" not in more
        assert len(more) < len(first) / 2


@pytest.mark.parametrize(("environ", "expected"), [
    ({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "vt100"}, False),
])
def test_colours_are_there_where_they_are_known_and_wanted(desk: Desk, conn: sqlite3.Connection,
                                                           environ: dict[str, str], expected: bool) -> None:
    with terminal(desk.home, "monitor", environ=environ) as tty:
        shown = tty.await_text(KEYS)
        assert (COLOUR.search(shown) is not None) is expected
        assert b"x 00000001 echo" in re.sub(rb"\x1b[^a-zA-Z]*[a-zA-Z]|[\x0e\x0f]|\$<\d+>", b"", shown)
        tty.type("q")
        assert tty.ends() == (0, "")


@pytest.mark.parametrize(("locale", "expected"), [("C.UTF-8", "x\\x1b[2J日本"), ("C", "x\\x1b[2J????")])
def test_no_terminal_is_given_what_it_would_obey_or_does_not_know(desk: Desk, conn: sqlite3.Connection, locale: str,
                                                                  expected: str) -> None:
    with db.transaction(conn):
        conn.execute("UPDATE job_queue SET last_error = ?", ("x\x1b[2J日本\x9b\u202e",))
    with terminal(desk.home, "monitor", columns=160, environ={"LC_ALL": locale, "LANG": locale}) as tty:
        shown = tty.await_text(expected) + tty.await_text(KEYS)
        assert b"x\x1b[2J" not in shown
        assert b"\xc2\x9b" not in shown and "\u202e".encode() not in shown
        assert locale == "C.UTF-8" or shown.isascii()


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (2, 2), (39, 9), (500, 200)])
def test_it_lives_on_terminals_of_any_size(desk: Desk, conn: sqlite3.Connection, columns: int, rows: int) -> None:
    with terminal(desk.home, "monitor") as tty:
        first = len(tty.await_text(KEYS))
        tty.resize(columns, rows)
        tty.resize(80, 24)
        tty.await_text(KEYS, after=first)
        tty.resize(columns, rows)
        tty.type("j?jjq")
        tty.type("q")
        assert tty.ends() == (0, "")
        assert tty.is_as_it_was


def test_a_question_is_not_answered_by_what_was_typed_before_it_was_seen(desk: Desk, conn: sqlite3.Connection) -> None:
    put_job(conn, job_id(2))
    with terminal(desk.home, "monitor") as tty:
        tty.await_text(KEYS)
        tty.type("jcy")
        tty.await_text("cancel job 00000002 (echo poll)? y/n")
        tty.type("n")
        tty.await_text("nothing was changed")
        assert conn.execute("SELECT status FROM job_queue WHERE id = ?", (job_id(2),)).fetchone() == ("queued",)
        tty.type("q")
        assert tty.ends() == (0, "")
