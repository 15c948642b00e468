"""Tables on a terminal: cut to its width, with colours for what went well and what did not, and times seen from now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ductile.ctl import cells
from ductile.ctl.table import GAP, Page
from ductile.units import format_duration, parse_utc

_AS_WIDE_AS_IT_IS = 10_000
_PLAIN = "\x1b[0m"
_RED, _GREEN, _YELLOW, _CYAN = (f"\x1b[3{number}m" for number in (1, 2, 3, 6))
# By the first word of a cell, in columns with one of these titles alone: a plugin may be called anything.
_COLOURED = {"STATUS", "OUTCOME", "HEALTH"}
_COLOURS = {
    "dead": _RED, "failed": _RED, "timed_out": _RED, "unhealthy": _RED, "orphaned": _YELLOW, "interrupted": _YELLOW,
    "waiting": _YELLOW, "running": _CYAN, "succeeded": _GREEN, "healthy": _GREEN,
}


class Terminal(Page):
    """A terminal of so many columns, at one moment."""

    __slots__ = ("_columns", "_colours", "_ascii", "_now")

    def __init__(self, columns: int, *, colours: bool, ascii_only: bool, now: datetime) -> None:
        """`ascii_only` says that it knows no other characters."""
        self._columns, self._colours, self._ascii, self._now = columns, colours, ascii_only, now

    def grid(self, rows: Sequence[Sequence[str]]) -> str:
        """Return rows of cells as lines no longer than the terminal is wide: the widest columns are cut."""
        rows = [[cells.fit(text, _AS_WIDE_AS_IT_IS) for text in row] for row in rows]
        widths = [max(map(cells.count, column)) for column in zip(*rows)]
        widths = narrowed(widths, self._columns - len(GAP) * (len(widths) - 1))
        coloured = {index for index, title in enumerate(rows[0]) if title in _COLOURED and self._colours}
        return "".join(self._line(row, widths, coloured) for row in rows)

    def _line(self, row: Sequence[str], widths: Sequence[int], coloured: set[int]) -> str:
        last = len(row) - 1
        # What fills up the last column would only wrap.
        fitting = [cells.fit(text, width) if index == last else cells.pad(text, width)
                   for index, (text, width) in enumerate(zip(row, widths))]
        if self._ascii:
            fitting = [cells.ascii_only(text) for text in fitting]
        line = GAP.join(_paint(text, row[index]) if index in coloured else text for index, text in enumerate(fitting))
        return f"{line.rstrip()}\n"

    def time(self, moment: str | None) -> str | None:
        """Return a moment as `3m ago`, `in 2h` or `now`."""
        if moment is None:
            return None
        seconds = self._seconds_to(moment)
        if abs(seconds) < 1:
            return "now"
        return f"in {_roughly(seconds)}" if seconds > 0 else f"{_roughly(-seconds)} ago"

    def wait(self, moment: str) -> str:
        """Return `for 2h`, or that only its turn has to come."""
        seconds = self._seconds_to(moment)
        return f"for {_roughly(seconds)}" if seconds >= 1 else "for its turn"

    def _seconds_to(self, moment: str) -> float:
        return (parse_utc(moment) - self._now).total_seconds()


def narrowed(widths: Sequence[int], available: int) -> list[int]:
    """Return widths that take no more than what is available: what is widest gives first, and none goes under 1."""
    excess = sum(widths) - available
    widths = list(widths)
    while excess > 0:
        widest = max(widths)
        if widest <= 1:
            break
        tallest = [index for index, width in enumerate(widths) if width == widest]
        next_widest = max([width for width in widths if width < widest], default=1)
        step = max(1, min(widest - next_widest, excess // len(tallest)))
        for index in tallest:
            cut = min(step, excess)
            widths[index] -= cut
            excess -= cut
    return widths


def _roughly(seconds: float) -> str:
    return format_duration(seconds).split()[0]


def _paint(text: str, whole: str) -> str:
    colour = _COLOURS.get(whole.partition(" ")[0].rstrip(","))
    return text if colour is None else f"{colour}{text}{_PLAIN}"
