"""What goes to a terminal, to a file, to a pipe, and to a pipe that nobody reads from."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ctl.desk import PATIENCE_SECONDS, Desk, job_id, load, start
from ctl.terminals import terminal
from ductile import db
from ductile.ctl.output import progress
from ductile.queue.job import Status
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import Breaker
from support.clock import START
from support.ledger import put_job

TABLES = (("status",), ("queue",), ("plugins",), ("health",), ("pipelines",))
SHOWING = (("status",), ("status", "--json"), ("queue",), ("plugins",), ("pipelines",), ("logs",), ("--help",),
           ("inspect", job_id(1)))
NAME = "a-plugin-with-a-name-that-is-rather-long-for-a-terminal"


@pytest.fixture
def filled(desk: Desk) -> Desk:
    """A job that waits for a retry, and one that is dead."""
    desk.plugin(NAME)
    (desk.home / "pipelines").mkdir()
    (desk.home / "pipelines" / "p.yaml").write_text(f"name: {NAME}\non: {NAME}.made\nsteps: [{{uses: {NAME}}}]\n")
    with desk.ledger() as conn:
        desk.loaded(conn)
        now = datetime.now(UTC)
        put_job(conn, job_id(1), Status.QUEUED, plugin=NAME, now=now - timedelta(minutes=90))
        conn.execute("UPDATE job_queue SET next_retry_at = ?",
                     ((now + timedelta(minutes=150)).isoformat(timespec="milliseconds").replace("+00:00", "Z"),))
    return desk


def shown(command: Sequence[str]) -> int:
    """The exit code of a command that shows something: that of `status` says that the daemon is down."""
    return 3 if command[0] == "status" else 0


def on_terminal(desk: Desk, *arguments: str, **settings: object) -> list[str]:
    with terminal(desk.home, *arguments, **settings) as pty:
        code, err = pty.ends()
        assert (code, err) == (shown(arguments), "")
        return pty.shown.decode().splitlines()


@pytest.mark.parametrize("command", TABLES)
def test_on_a_terminal_tables_fit(filled: Desk, command: tuple[str, ...]) -> None:
    lines = on_terminal(filled, *command, columns=60)
    rows = lines[lines.index("") + 1:] if command == ("status",) else lines
    plain = [line.replace("\x1b[32m", "").replace("\x1b[33m", "").replace("\x1b[0m", "") for line in rows]
    assert max(map(len, plain)) <= 60
    assert any("a-plu" in line and "…" in line for line in plain)


def test_on_a_terminal_times_are_seen_from_now(filled: Desk) -> None:
    (row,) = on_terminal(filled, "queue", columns=200)[1:]
    assert "  \x1b[33mwaiting for 2h\x1b[0m  " in row
    assert "waiting until 2" in filled.process("queue").out


@pytest.fixture
def held(desk: Desk) -> Desk:
    """A plugin whose breaker is open, and one whose entrypoint is missing."""
    desk.plugin("brk", circuit_breaker={"reset_after": "36500d"})
    (desk.plugin("gone") / "run").unlink()
    reason = f"{desk.home}/plugins/gone/run: the entrypoint is missing; put it there, or mend 'entrypoint'"
    with desk.ledger() as conn:
        desk.loaded(conn, load("brk"), load("gone", version=None, reason=reason))
        with db.transaction(conn):
            schedule_table.put_breaker(conn, "brk", "poll", Breaker(state="open", failure_count=3, opened_at=START),
                                       START)
    return desk


def told_below(lines: list[str]) -> str:
    """What stands below a table, with its broken lines joined again."""
    below = lines[len(lines) - lines[::-1].index(""):]
    return "\n".join(below).replace("\n  ", " ")


@pytest.mark.parametrize("columns", [80, 60, 30])
def test_why_a_plugin_is_held_back_is_told_in_full(held: Desk, columns: int) -> None:
    lines = on_terminal(held, "status", columns=columns)
    whys = {row["plugin"]: row["held"][0] for row in held.process("status", "--json").json["plugins"]}
    assert whys["brk"] == "breaker of poll open until 2126-01-15T10:00:00.000Z"
    assert max(map(len, lines[lines.index(""):])) <= columns
    # A path may be longer than a line.
    breaker = "breaker of poll open until 2126-01-15 10:00 +0000"
    assert told_below(lines).replace(" ", "") == f"brk: {breaker}\ngone: {whys['gone']}".replace(" ", "")


@pytest.mark.parametrize("columns", [80, 60, 30])
def test_why_a_plugin_is_not_loaded_is_told_in_full(held: Desk, columns: int) -> None:
    lines = on_terminal(held, "plugins", columns=columns)
    (why,) = (row["not_loaded"] for row in held.process("plugins", "--json").json if row["not_loaded"])
    assert max(map(len, lines)) <= columns
    assert told_below(lines).replace(" ", "") == f"gone: {why}".replace(" ", "")


@pytest.mark.parametrize("command", ["status", "plugins"])
def test_what_is_not_cut_is_not_told_twice(held: Desk, command: str) -> None:
    assert "".join(on_terminal(held, command, columns=500)).count("the entrypoint is missing") == 1
    assert held.process(command).out.count("the entrypoint is missing") == 1


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_ids_are_long_enough_to_be_used(filled: Desk, columns: int) -> None:
    lines = on_terminal(filled, "queue", columns=columns, environ={"NO_COLOR": "1"})
    assert max(map(len, lines)) <= columns
    assert filled.process("inspect", lines[1].split()[0]).code == 0
    assert lines[1].split()[0] == job_id(1)[:8]


def test_without_colours_there_are_none(filled: Desk) -> None:
    assert "\x1b" not in "".join(on_terminal(filled, "queue", environ={"NO_COLOR": "1"}))
    assert "\x1b" not in "".join(on_terminal(filled, "queue", environ={"TERM": "dumb"}))


def test_columns_are_what_the_environment_says(filled: Desk) -> None:
    lines = on_terminal(filled, "plugins", columns=200, environ={"COLUMNS": "50"})
    assert max(map(len, lines)) == 50


@pytest.mark.parametrize("command", TABLES)
def test_piped_nothing_is_cut_or_coloured(filled: Desk, command: tuple[str, ...]) -> None:
    said = filled.process(*command, env={"TERM": "xterm", "COLUMNS": "20"})
    assert (said.code, NAME in said.out, "…" in said.out, "\x1b" in said.out) == (
        shown(command), True, False, False)


@pytest.mark.parametrize("command", SHOWING)
def test_a_file_gets_what_a_pipe_gets(filled: Desk, command: tuple[str, ...], tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+") as file:
        assert filled.process(*command, stdout=file).code == shown(command)
        file.seek(0)
        lines, piped = file.read().splitlines(), filled.process(*command).out.splitlines()
    # But for the time that has gone by meanwhile.
    assert (len(lines), lines[0]) == (len(piped), piped[0])


@pytest.mark.parametrize("command", SHOWING)
def test_a_reader_that_has_gone_ends_it_quietly(filled: Desk, command: tuple[str, ...]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = start(*command, home=filled.home, stdout=theirs)
    os.close(theirs)
    assert process.communicate(timeout=PATIENCE_SECONDS) == (None, "")
    assert process.returncode == 0


@pytest.mark.parametrize(("closed", "out"), [([0], True), ([1], False), ([2], True), ([0, 1, 2], False)])
def test_streams_that_are_closed_are_no_fault(filled: Desk, closed: list[int], out: bool) -> None:
    said = filled.process("status", closed=closed)
    assert (said.code, said.out.startswith("daemon: not running\n"), said.err) == (3, out, "")


def test_an_input_that_is_closed_is_empty_and_so_it_is_in_a_program_that_is_executed(filled: Desk) -> None:
    for settings in ({"closed": [0]}, {"become": ("sh", "-c", 'exec "$@" <&-', "sh")}):
        said = filled.process("state", NAME, "--set", "-", **settings)
        assert (said.code, said.err) == (
            65, "standard input: not strict JSON: line 1, column 1: expected a value\n")


def test_following_ends_when_the_terminal_goes_away(filled: Desk) -> None:
    with terminal(filled.home, "logs", "-f") as pty:
        pty.go_away()
        code, err = pty.ends()
    assert (code, err) in ((0, ""), (-1, ""))


# The line of progress


class Screen(io.StringIO):
    """A terminal that says when it is written to."""

    def __init__(self, *, is_terminal: bool = True) -> None:
        super().__init__()
        self.written = threading.Event()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


def test_what_takes_long_says_so_on_one_line_that_goes_again() -> None:
    screen = Screen()
    with progress("checking", screen):
        assert screen.written.wait(PATIENCE_SECONDS)
        assert screen.getvalue() == "\rchecking …"
    assert screen.getvalue() == "\rchecking …\r\x1b[K"


def test_what_is_done_at_once_says_nothing() -> None:
    screen = Screen()
    with progress("checking", screen):
        pass
    assert screen.getvalue() == ""


def test_what_is_no_terminal_gets_no_progress() -> None:
    screen, threads = Screen(is_terminal=False), threading.active_count()
    with progress("checking", screen):
        assert threading.active_count() == threads
    assert screen.getvalue() == ""


def test_an_error_takes_the_line_away_too() -> None:
    screen = Screen()
    with pytest.raises(ZeroDivisionError), progress("checking", screen):
        assert screen.written.wait(PATIENCE_SECONDS)
        raise ZeroDivisionError
    assert screen.getvalue().endswith("\r\x1b[K")
