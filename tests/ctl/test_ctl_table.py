"""Tables on a terminal: as wide as it is, with colours for how it went, and times seen from now; piped, none of it."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest

from ductile.ctl import table, text_width
from ductile.ctl.output import terminal
from ductile.ctl.table import Terminal, narrowed, wrapped
from ductile.units import utc_text
from support.clock import START

HEADER = ("job", "plugin", "status", "says")
ROWS = [("1a2b3c4d", "echo", "dead", "a long text about what was wrong"), ("5e6f", "dead", None, "é" * 40),
        ("x", "y", "running", "日本語" * 10)]


def page(columns: int, *, colours: bool = False, ascii_only: bool = False) -> Terminal:
    return Terminal(columns, colours=colours, ascii_only=ascii_only, now=START)


def test_piped_a_table_is_as_wide_as_it_has_to_be() -> None:
    assert table.lines(HEADER, ROWS[:1]) == """\
JOB       PLUGIN  STATUS  SAYS
1a2b3c4d  echo    dead    a long text about what was wrong
"""


def test_a_table_that_fits_is_the_same_on_a_terminal() -> None:
    assert table.lines(HEADER, ROWS[:1], page=page(80)) == table.lines(HEADER, ROWS[:1])


def test_the_widest_column_is_cut() -> None:
    assert table.lines(HEADER, ROWS, page=page(50)) == """\
JOB       PLUGIN  STATUS   SAYS
1a2b3c4d  echo    dead     a long text about what…
5e6f      dead    -        éééééééééééééééééééééé…
x         y       running  日本語日本語日本語日本…
"""


@pytest.mark.parametrize("columns", range(7, 100))
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    for line in table.lines(HEADER, ROWS, page=page(columns), whole="says").splitlines():
        assert text_width.count(line) <= max(columns, 8)


@pytest.mark.parametrize("columns", range(1, 100))
def test_an_id_is_not_cut(columns: int) -> None:
    header = ("job", "plugin", "command", "status", "attempt", "age", "submitted by")
    rows = [("1a2b3c4d", "a-long-name", "handle", "waiting for 2h", "1/4", "1h 30m", "scheduler")]
    line = table.lines(header, rows, page=page(columns)).splitlines()[1]
    assert line.split()[0] == "1a2b3c4d"
    assert len(line) <= max(columns, 8)


def test_where_there_is_no_room_the_last_columns_are_left_out() -> None:
    assert table.lines(HEADER, ROWS[:1], page=page(16)) == """\
JOB       P…  S…
1a2b3c4d  e…  d…
"""
    assert table.lines(HEADER, ROWS[:1], page=page(7)) == "JOB\n1a2b3c4d\n"


def test_what_is_cut_of_the_column_that_matters_is_told_below() -> None:
    rows = [("one", "fine"), ("two", "a long text about what was wrong"), ("three", None)]
    assert table.lines(("plugin", "says"), rows, page=page(20), whole="says") == """\
PLUGIN  SAYS
one     fine
two     a long text…
three   -

two: a long text
  about what was
  wrong
"""


@pytest.mark.parametrize("columns", [42, 80])
def test_what_fits_is_not_told_again(columns: int) -> None:
    rows = [("one", "fine"), ("two", "a long text about what was wrong")]
    text = table.lines(("plugin", "says"), rows, page=page(columns), whole="says")
    assert text == table.lines(("plugin", "says"), rows)


def test_what_another_column_loses_is_not_told() -> None:
    rows = [("a long text about what was wrong", "fine")]
    assert table.lines(("plugin", "says"), rows, page=page(20), whole="says").splitlines()[2:] == []


def test_the_same_of_several_rows_is_told_once() -> None:
    rows = [("one", "x" * 30), ("one", "x" * 30), ("two", "x" * 30)]
    below = table.lines(("plugin", "says"), rows, page=page(36), whole="says").splitlines()[4:]
    assert below == ["", "one:", f"  {'x' * 30}", "two:", f"  {'x' * 30}"]


def test_a_column_that_is_left_out_is_told_too() -> None:
    rows = [("1a2b3c4d", "echo", None), ("1a2b3c4e", "echo", "wrong")]
    assert table.lines(("job", "plugin", "says"), rows, page=page(13), whole="says") == """\
JOB       PL…
1a2b3c4d  ec…
1a2b3c4e  ec…

1a2b3c4e:
  wrong
"""


def test_below_too_nothing_moves_the_cursor_and_ascii_is_all_there_is() -> None:
    rows = [("one", "\x1b[2J é " + "x" * 30)]
    text = table.lines(("plugin", "says"), rows, page=page(30, ascii_only=True), whole="says")
    assert text.splitlines()[2:] == ["", "one: \\x1b[2J ?", f"  {'x' * 28}", "  xx"]


@pytest.mark.parametrize(("text", "width", "expected"), [
    ("", 10, [""]), ("one two", 10, ["one two"]), ("one two", 9, ["one two"]), ("one two", 8, ["one", "  two"]),
    ("a /usr/local/lib b", 10, ["a", "  /usr/loc", "  al/lib b"]), ("one  two", 9, ["one ", "  two"]),
    ("日本語", 6, ["日本", "  語"]), ("日本", 1, ["日", "  本"]), ("ae\u0301i", 4, ["ae\u0301", "  i"]),
])
def test_a_text_is_broken_at_spaces(text: str, width: int, expected: list[str]) -> None:
    assert list(wrapped(text, width)) == expected


def test_wide_and_joined_characters_stand_in_columns() -> None:
    rows = [("日本", "|"), ("e\u0301e\u0301", "|"), ("ab", "|"), ("\u200f\U000e0001", "|")]
    lines = table.lines(("a", "b"), rows, page=page(80)).splitlines()
    assert {text_width.count(line[:line.index("|")]) for line in lines[1:]} == {18}


def test_a_terminal_that_knows_ascii_alone_gets_nothing_else() -> None:
    text = table.lines(HEADER, ROWS, page=page(50, ascii_only=True))
    assert text.isascii()
    assert text.splitlines()[1] == "1a2b3c4d  echo    dead     a long text about what~"
    assert len({line.rindex("  ") for line in text.splitlines()}) == 1


def test_what_says_how_it_went_is_coloured_and_nothing_else() -> None:
    lines = table.lines(HEADER, ROWS, page=page(80, colours=True)).splitlines()
    assert lines[0] == "JOB       PLUGIN  STATUS   SAYS"
    assert lines[1] == "1a2b3c4d  echo    \x1b[31mdead   \x1b[0m  a long text about what was wrong"
    assert lines[2] == f"5e6f      dead    -        {'é' * 40}"
    assert lines[3].startswith("x         y       \x1b[36mrunning\x1b[0m  ")


@pytest.mark.parametrize(("title", "text", "number"), [
    ("outcome", "failed", 1), ("outcome", "timed_out", 1), ("outcome", "orphaned", 3), ("outcome", "succeeded", 2),
    ("health", "unhealthy", 1), ("health", "healthy", 2), ("status", "waiting for 2h", 3), ("status", "queued", None),
    ("plugin", "dead", None),
])
def test_each_word_has_its_colour(title: str, text: str, number: int | None) -> None:
    line = table.lines((title,), [(text,)], page=page(80, colours=True)).splitlines()[1]
    assert line == (text if number is None else f"\x1b[3{number}m{text}\x1b[0m")


@pytest.mark.parametrize(("seconds", "expected"), [
    (-0.5, "now"), (0.9, "now"), (-1, "1s ago"), (-180, "3m ago"), (-7500, "2h ago"), (-90_000, "1d ago"),
    (59.9, "in 59s"), (7200, "in 2h"),
])
def test_a_time_is_seen_from_now(seconds: float, expected: str) -> None:
    assert page(80).time(utc_text(START + timedelta(seconds=seconds))) == expected
    assert page(80).time(None) is None
    assert table.PLAIN.time(utc_text(START)) == "2026-02-08 10:00 +0000"


@pytest.mark.parametrize(("seconds", "expected"), [(-9, "for its turn"), (0.5, "for its turn"), (7200, "for 2h")])
def test_a_wait_is_seen_from_now(seconds: float, expected: str) -> None:
    assert page(80).wait(utc_text(START + timedelta(seconds=seconds))) == expected
    assert table.PLAIN.wait(utc_text(START)) == "until 2026-02-08 10:00 +0000"


@pytest.mark.parametrize(("widths", "available", "expected"), [
    ([3, 4], 7, [3, 4]), ([3, 4], 10, [3, 4]), ([3, 10, 4], 12, [3, 5, 4]), ([10, 10], 15, [7, 8]),
    ([10, 9, 1], 5, [2, 2, 1]),
    ([5, 5, 5], 1, [1, 1, 1]), ([1000, 2], 10, [8, 2]), ([1], 0, [1]),
])
def test_the_widest_gives_first(widths: list[int], available: int, expected: list[int]) -> None:
    assert narrowed(widths, [1] * len(widths), available) == expected


@pytest.mark.parametrize(("widths", "least", "available", "expected"), [
    ([8, 9, 9], [8, 1, 1], 14, [8, 3, 3]), ([10, 10], [8, 1], 12, [8, 4]), ([10, 10], [8, 1], 18, [9, 9]),
    ([8, 5], [8, 5], 3, [8, 5]), ([9, 2], [8, 1], 9, [8, 1]),
])
def test_none_goes_under_its_least(widths: list[int], least: list[int], available: int, expected: list[int]) -> None:
    assert narrowed(widths, least, available) == expected


class Terminals(io.StringIO):
    """What takes no number of a file for a terminal's."""

    encoding = "utf-8"


@pytest.mark.parametrize(("environ", "coloured", "columns"), [
    ({"TERM": "xterm"}, True, 80), ({"TERM": "xterm", "NO_COLOR": "1"}, False, 80),
    ({"TERM": "xterm", "NO_COLOR": ""}, True, 80), ({"TERM": "dumb"}, False, 80), ({}, False, 80),
    ({"TERM": "xterm", "COLUMNS": "40"}, True, 40), ({"TERM": "xterm", "COLUMNS": "0"}, True, 80),
    ({"TERM": "xterm", "COLUMNS": "x"}, True, 80), ({"TERM": "xterm", "COLUMNS": "9" * 5000}, True, 80),
])
def test_the_environment_has_its_say(environ: dict[str, str], coloured: bool, columns: int) -> None:
    made = terminal(Terminals(), environ, START)
    text = table.lines(("status", "text"), [("dead", "x" * 200)], page=made)
    assert ("\x1b" in text) is coloured
    assert len(text.splitlines()[1].replace("\x1b[31m", "").replace("\x1b[0m", "")) == columns
