"""Rows as the operator reads them: a text table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from typing import Any

from ductile.ctl import text_width, times
from ductile.text import one_line

GAP = "  "
NOTHING = "-"
_SHORT_ID = 8
# Of a string in JSON, in characters.
_LONG_STRING = 100
_STRING_SHOWN = 80
_MOST_JSON_LINES = 200


class Page:
    """Where a table is written: a file or a pipe, of any width, without colours, with whole times."""

    __slots__ = ("zone",)

    def __init__(self, zone: tzinfo | None = None) -> None:
        """Show times in a zone; None is the system's."""
        self.zone = zone

    def grid(self, cells: Sequence[Sequence[str]]) -> str:
        """Return rows of cells, the header first, as lines, each column as wide as its widest cell."""
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "".join(GAP.join(map(str.ljust, row, widths)).rstrip() + "\n" for row in cells)

    def below(self, cells: Sequence[Sequence[str]], column: int) -> str:
        """Return lines for below the grid, with the full text of what it cut of a column. Nothing is cut here."""
        return ""

    def clock(self, moment: str, *, seconds: bool = False) -> str:
        """Return a moment, UTC text, as local time with its offset."""
        return times.local(moment, self.zone, seconds=seconds)

    def paragraph(self, text: str) -> str:
        """Return a line of text that may be long."""
        return f"{one_line(text)}\n"

    def time(self, moment: str | None) -> str | None:
        """Return a moment, UTC text, as a cell shows it."""
        return None if moment is None else self.clock(moment)

    def wait(self, moment: str) -> str:
        """Return how long something waits that is due at a moment."""
        return f"until {self.clock(moment)}"


PLAIN = Page()


def lines(header: Sequence[str], rows: Iterable[Sequence[object]], *, page: Page = PLAIN,
          whole: str | None = None) -> str:
    """Return rows under a header in capitals; `-` for None.

    What the page cuts in the column titled `whole` is shown in full below.
    """
    cells = [[title.upper() for title in header], *([cell(value) for value in row] for row in rows)]
    return page.grid(cells) if whole is None else page.grid(cells) + page.below(cells, header.index(whole))


def cell(value: object) -> str:
    """Return a value on one line, without control characters."""
    return NOTHING if value is None else one_line(str(value)) or NOTHING


def short(job_id: str) -> str:
    """Return the first characters of a job id, enough to tell jobs apart."""
    return job_id[:_SHORT_ID]


def block(text: str, indent: str) -> str:
    """Return a text of many lines, indented, each without control characters."""
    return "".join(f"{indent}{_margin(line)}{one_line(line)}".rstrip() + "\n" for line in text.splitlines())


def shortened(value: Any) -> Any:
    """Return a JSON value with long strings cut; the cut ones end with their length."""
    if isinstance(value, str) and len(value) > _LONG_STRING:
        return f"{value[:_STRING_SHOWN]}… ({len(value):,} characters)"
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    return [shortened(item) for item in value] if isinstance(value, list) else value


def json_text(value: Any) -> str:
    """Return a JSON value as indented lines, with long strings cut, and what is beyond the first lines counted."""
    lines = json.dumps(shortened(value), indent=2, ensure_ascii=False).splitlines()
    if len(lines) > _MOST_JSON_LINES:
        lines = [*lines[:_MOST_JSON_LINES], f"and {len(lines) - _MOST_JSON_LINES:,} lines more: use --json"]
    return "\n".join(lines)


def _margin(line: str) -> str:
    return " " * (len(line) - len(line.lstrip(" ")))


_AS_WIDE_AS_IT_IS = 10_000
_INDENT = "  "
# Columns with these titles keep so many cells: a command does not take a shorter id.
_LEAST = {"JOB": 8}
_PLAIN = "\x1b[0m"
_RED, _GREEN, _YELLOW, _CYAN = (f"\x1b[3{number}m" for number in (1, 2, 3, 6))
# Colours by the first word of a cell, in these columns only: a plugin may have any name.
_COLOURED = {"STATUS", "OUTCOME", "HEALTH"}
_COLOURS = {
    "dead": _RED, "failed": _RED, "timed_out": _RED, "unhealthy": _RED, "orphaned": _YELLOW, "interrupted": _YELLOW,
    "waiting": _YELLOW, "running": _CYAN, "succeeded": _GREEN, "healthy": _GREEN,
}


class Terminal(Page):
    """A terminal of a given width, at one moment."""

    __slots__ = ("_ascii", "_colours", "_columns", "_now")

    def __init__(self, columns: int, *, colours: bool, ascii_only: bool, now: datetime,
                 zone: tzinfo | None = None) -> None:
        """`ascii_only` is for terminals that show no other characters."""
        super().__init__(zone)
        self._columns, self._colours, self._ascii, self._now = columns, colours, ascii_only, now

    def grid(self, rows: Sequence[Sequence[str]]) -> str:
        """Return rows of cells as lines that fit the terminal.

        The widest columns are cut first; if that is not enough, the last ones are left out.
        """
        rows = _harmless(rows)
        widths = self._widths(rows)
        coloured = {index for index, title in enumerate(rows[0]) if title in _COLOURED and self._colours}
        return "".join(self._line(row, widths, coloured) for row in rows)

    def below(self, rows: Sequence[Sequence[str]], column: int) -> str:
        """Return, after an empty line, what `grid` cut of a column, each after the first cell of its row."""
        header, *rows = _harmless(rows)
        widths = self._widths([header, *rows])
        room = widths[column] if column < len(widths) else 0
        cut = [f"{row[0]}: {row[column]}" for row in rows
               if row[column] != NOTHING and text_width.count(row[column]) > room]
        # Several rows may have the same text.
        found = [line for text in dict.fromkeys(cut) for line in wrapped(text, self._columns)]
        return "".join(f"{self._known(line)}\n" for line in ["", *found]) if found else ""

    def _widths(self, rows: Sequence[Sequence[str]]) -> list[int]:
        """Return the width of each column that fits; the first row is the header."""
        widths = [max(map(text_width.count, column)) for column in zip(*rows, strict=True)]
        least = [min(width, _LEAST.get(title, 1)) for width, title in zip(widths, rows[0], strict=True)]
        while len(least) > 1 and sum(least) + len(GAP) * (len(least) - 1) > self._columns:
            least.pop()
        return narrowed(widths[:len(least)], least, self._columns - len(GAP) * (len(least) - 1))

    def _known(self, text: str) -> str:
        return text_width.ascii_only(text) if self._ascii else text

    def _line(self, row: Sequence[str], widths: Sequence[int], coloured: set[int]) -> str:
        last = len(widths) - 1
        # Padding in the last column would only wrap.
        fitting = [self._known(text_width.fit(text, width) if index == last else text_width.pad(text, width))
                   for index, (text, width) in enumerate(zip(row, widths, strict=False))]
        line = GAP.join(_paint(text, row[index]) if index in coloured else text for index, text in enumerate(fitting))
        return f"{line.rstrip()}\n"

    def paragraph(self, text: str) -> str:
        """Return a text as lines that fit."""
        (harmless,), = _harmless([[text]])
        return "".join(f"{self._known(line)}\n" for line in wrapped(harmless, self._columns))

    def time(self, moment: str | None) -> str | None:
        """Return a moment as `times.relative` does."""
        return None if moment is None else times.relative(moment, self._now)

    def wait(self, moment: str) -> str:
        """Return `for 2h`, or `for its turn` if that is past."""
        left = times.relative(moment, self._now)
        return f"for {left.removeprefix('in ')}" if left.startswith("in ") else "for its turn"


def narrowed(widths: Sequence[int], least: Sequence[int], available: int) -> list[int]:
    """Return widths that fit into what is available: the widest shrinks first, and none below its least."""
    excess = sum(widths) - available
    widths = list(widths)
    while excess > 0:
        giving = [index for index, width in enumerate(widths) if width > least[index]]
        if not giving:
            break
        widest = max(widths[index] for index in giving)
        tallest = [index for index in giving if widths[index] == widest]
        limits = [widths[index] for index in giving if widths[index] < widest] + [least[index] for index in tallest]
        step = max(1, min(widest - max(limits), excess // len(tallest)))
        for index in tallest:
            cut = min(step, excess)
            widths[index] -= cut
            excess -= cut
    return widths


def wrapped(text: str, width: int) -> Iterator[str]:
    """Yield the result of `text_width.fit` as lines of at most `width` cells, those after the first indented.

    Lines are broken at spaces, and inside a word only if it is longer than a line.
    """
    room = max(1, width - len(_INDENT))
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if text_width.count(longer) <= room:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for char in word:
            if lines[-1] and text_width.count(lines[-1] + char) > room:
                lines.append("")
            lines[-1] += char
    yield lines[0]
    yield from (f"{_INDENT}{line}" for line in lines[1:])


def _harmless(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[text_width.fit(text, _AS_WIDE_AS_IT_IS) for text in row] for row in rows]


def _paint(text: str, whole: str) -> str:
    colour = _COLOURS.get(whole.partition(" ")[0].rstrip(","))
    return text if colour is None else f"{colour}{text}{_PLAIN}"
