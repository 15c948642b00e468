"""The charts of `report`: SVG that fits any width, in the colours of the page.

Places are percentages of the width, so nothing is distorted and letters keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ductile.ctl.markup import Markup, fill, joined
from ductile.ctl.report_facts import Counts, Spread

_AXIS = 18        # pixels for the labels below
_AT_END = 0.04    # a label that would stick out by a half begins or ends with the chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label below a chart; `at` is its place, a share of the width."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One colour in a bar: a class of the style sheet, and its share of the height."""

    colour: str
    share: float


def stack(counts: Counts, most: float) -> list[Piece]:
    """Return a bar of jobs by how they ended, the failed ones at the bottom."""
    parts = (("bad", counts.dead), ("late", counts.retried), ("ok", counts.succeeded), ("off", counts.cancelled))
    return [Piece(colour=colour, share=number / most) for colour, number in parts if number]


# What failed is at least so much of a cell, and what needed a retry, however much succeeded beside it.
_LEAST_FAILED = 0.3
_LEAST_RETRIED = 0.15


def cell(counts: Counts) -> list[Piece]:
    """Return a cell of a strip: full where jobs ran, from the bottom the share that failed and that was retried."""
    if not counts.ran:
        return [Piece(colour="none", share=1)]
    failed = max(_LEAST_FAILED, counts.dead / counts.ran) if counts.dead else 0.0
    retried = max(_LEAST_RETRIED, counts.retried / counts.ran) if counts.retried else 0.0
    retried = min(retried, 1 - failed)
    rest = "ok" if counts.succeeded else "late" if counts.retried else "off"
    shares = (("bad", failed), ("late", retried), (rest, 1 - failed - retried))
    return [Piece(colour=colour, share=share) for colour, share in shares if share > 0]


def bars(columns: Sequence[Sequence[Piece]], titles: Sequence[str], *, height: int, about: str,
         labels: Sequence[Label] = ()) -> Markup:
    """Return columns of stacked pieces side by side; each has a title for the pointer."""
    wide = 100 / len(columns)
    gap = min(0.6, wide * 0.12)
    drawn = []
    for number, (column, title) in enumerate(zip(columns, titles, strict=True)):
        bottom = float(height)
        pieces = []
        for piece in column:
            tall = piece.share * height
            bottom -= tall
            pieces.append(_rect(piece.colour, number * wide + gap / 2, wide - gap, bottom, tall))
        drawn.append(fill("<g><title>{title}</title>{pieces}</g>", title=title, pieces=joined(pieces)))
    return _svg(joined(drawn), height, about, labels)


def _rect(colour: str, left: float, wide: float, top: float, tall: float) -> Markup:
    return fill('<rect class="{colour}" x="{left}%" width="{wide}%" y="{top}" height="{tall}"/>', colour=colour,
                left=f"{left:.3f}", wide=f"{wide:.3f}", top=f"{top:.1f}", tall=f"{tall:.1f}")


def _svg(content: Markup, height: int, about: str, labels: Sequence[Label]) -> Markup:
    text = joined(_label(label, height + _AXIS - 4) for label in labels)
    return fill('<svg role="img" aria-label="{about}" height="{tall}">{content}{text}</svg>', about=about,
                tall=height + (_AXIS if labels else 0), content=content, text=text)


def _label(label: Label, y: int) -> Markup:
    end, at = "", label.at
    if at < _AT_END:
        end, at = "first", 0.0
    elif at > 1 - _AT_END:
        end, at = "last", 1.0
    return fill('<text class="{end}" x="{at}%" y="{y}">{text}</text>', end=end, at=f"{at * 100:.2f}", y=y,
                text=label.text)


def week(runs: Sequence[float], bands: Sequence[tuple[float, float]], midnights: Sequence[float], about: str) -> Markup:
    """Return one line of the week: a mark for each run, a band where there are too many. All are shares of it."""
    height = 22
    lines = joined(fill('<line class="grid" x1="{at}%" x2="{at}%" y1="0" y2="{height}"/>', at=f"{at * 100:.2f}",
                        height=height) for at in midnights)
    wide = joined(_rect("band", start * 100, (end - start) * 100, 4, height - 8) for start, end in bands)
    marks = joined(fill('<rect class="mark" x="{at}%" width="3" y="2" height="{tall}"/>', at=f"{at * 99.2:.2f}",
                        tall=height - 4) for at in runs)
    return _svg(joined((lines, wide, marks)), height, about, ())


_FASTEST = 0.001    # seconds; what is quicker is drawn there


class Logarithmic:
    """A scale of seconds on which a millisecond and an hour both have room."""

    def __init__(self, longest: float) -> None:
        self._decades = max(1, math.ceil(math.log10(max(longest, _FASTEST * 10) / _FASTEST)))

    def at(self, seconds: float) -> float:
        """Return the place of a duration, a share of the width."""
        return min(1.0, math.log10(max(seconds, _FASTEST) / _FASTEST) / self._decades)

    def ticks(self) -> list[tuple[float, float]]:
        """Return the durations that are marked, with their places."""
        return [(_FASTEST * 10 ** power, power / self._decades) for power in range(self._decades + 1)]


def span(spread: Spread, scale: Logarithmic, about: str) -> Markup:
    """Return a line from the median to the 95th percentile and a thin one to the longest."""
    height, middle = 18, 9
    median, high, longest = (scale.at(seconds) * 98 + 1 for seconds in (spread.median, spread.high, spread.longest))
    lines = joined(fill('<line class="grid" x1="{at}%" x2="{at}%" y1="0" y2="{height}"/>', at=f"{at * 98 + 1:.2f}",
                        height=height) for _, at in scale.ticks())
    drawn = fill('<line class="thin" x1="{high}%" x2="{longest}%" y1="{y}" y2="{y}"/>'
                 '<line class="thick" x1="{median}%" x2="{high}%" y1="{y}" y2="{y}"/>'
                 '<circle class="mark" cx="{median}%" cy="{y}" r="4.5"/>', y=middle, median=f"{median:.2f}",
                 high=f"{high:.2f}", longest=f"{longest:.2f}")
    return _svg(joined((lines, drawn)), height, about, ())
