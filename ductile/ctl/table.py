"""Rows as the operator reads them: a text table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ductile.text import one_line

_GAP = "  "
_NOTHING = "-"
_SHORT_ID = 8


def lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows under a header in capitals, each column as wide as its widest cell; `-` where there is nothing."""
    cells = [[title.upper() for title in header], *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "".join(_GAP.join(map(str.ljust, row, widths)).rstrip() + "\n" for row in cells)


def cell(value: object) -> str:
    """Return a value on one line, without control characters."""
    return _NOTHING if value is None else one_line(str(value)) or _NOTHING


def short(job_id: str) -> str:
    """Return as much of an id as tells jobs apart."""
    return job_id[:_SHORT_ID]


def block(text: str, indent: str) -> str:
    """Return a text of many lines, indented, each fit for a terminal."""
    return "".join(f"{indent}{_margin(line)}{one_line(line)}".rstrip() + "\n" for line in text.splitlines())


def _margin(line: str) -> str:
    return " " * (len(line) - len(line.lstrip(" ")))
