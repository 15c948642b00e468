"""Rows as the operator reads them: a text table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ductile.text import one_line

GAP = "  "
NOTHING = "-"
_SHORT_ID = 8


class Page:
    """What a table is written on: a file or a pipe, as wide as it has to be, without colours, with whole times."""

    __slots__ = ()

    def grid(self, cells: Sequence[Sequence[str]]) -> str:
        """Return rows of cells, the header first, as lines, each column as wide as its widest cell."""
        widths = [max(map(len, column)) for column in zip(*cells)]
        return "".join(GAP.join(map(str.ljust, row, widths)).rstrip() + "\n" for row in cells)

    def below(self, cells: Sequence[Sequence[str]], column: int) -> str:
        """Return lines to stand below the grid, that tell in full what it has cut of a column. Nothing is cut here."""
        return ""

    def time(self, moment: str | None) -> str | None:
        """Return a moment, UTC text, as this page shows it."""
        return moment

    def wait(self, moment: str) -> str:
        """Return how long something waits that waits for a moment."""
        return f"until {moment}"


PLAIN = Page()


def lines(header: Sequence[str], rows: Iterable[Sequence[object]], *, page: Page = PLAIN,
          whole: str | None = None) -> str:
    """Return rows under a header in capitals, as the page takes them; `-` where there is nothing.

    What the page has to cut in the column with the title `whole` it tells in full below.
    """
    cells = [[title.upper() for title in header], *([cell(value) for value in row] for row in rows)]
    return page.grid(cells) if whole is None else page.grid(cells) + page.below(cells, header.index(whole))


def cell(value: object) -> str:
    """Return a value on one line, without control characters."""
    return NOTHING if value is None else one_line(str(value)) or NOTHING


def short(job_id: str) -> str:
    """Return as much of an id as tells jobs apart."""
    return job_id[:_SHORT_ID]


def block(text: str, indent: str) -> str:
    """Return a text of many lines, indented, each fit for a terminal."""
    return "".join(f"{indent}{_margin(line)}{one_line(line)}".rstrip() + "\n" for line in text.splitlines())


def _margin(line: str) -> str:
    return " " * (len(line) - len(line.lstrip(" ")))
