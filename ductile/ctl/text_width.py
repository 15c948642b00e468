"""Texts of strangers as cells of a terminal: made harmless, measured, cut and filled up to a width."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from ductile.text import escaped

# Controls, formats (they turn the direction, join or hide), lone surrogates, private and unassigned code points, and
# separators of lines and paragraphs: terminals obey them, or agree on neither their look nor their width.
_UNFIT = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_MARKS = {"Mn", "Me"}
_MOST_MARKS = 2       # on one character: more would reach over the lines above and below
_CUT = "…"
_WIDE_BY_NOW = (("\u2630", "\u2637"), ("\u268a", "\u268f"), ("\u3248", "\u324f"), ("\u4dc0", "\u4dff"),
                ("\U0001d300", "\U0001d356"), ("\U0001d360", "\U0001d376"))


def fit(text: str, width: int) -> str:
    """Return `text` in at most `width` cells, what is unfit escaped visibly; what is cut off shows as a last `…`."""
    if text.isascii() and text.isprintable():
        return text if len(text) <= width else text[:max(0, width - 1)] + _CUT[:max(0, width)]
    shown: list[tuple[str, int]] = []
    used = 0
    for piece, cells in _pieces(text):
        if used + cells > width:
            while shown and used > width - 1:
                used -= shown.pop()[1]
            return "".join(each for each, _ in shown) + _CUT[:max(0, width)]
        shown.append((piece, cells))
        used += cells
    return "".join(piece for piece, _ in shown)


def wrap(text: str, width: int) -> Iterator[str]:
    """Yield `text` in lines of at most `width` cells, at least one; what is unfit is escaped visibly."""
    line, used = "", 0
    for piece, cells in _pieces(text):
        if used + cells > width and line:
            yield line
            line, used = "", 0
        line += piece
        used += cells
    yield line


def pad(text: str, width: int) -> str:
    """Return `text` in exactly `width` cells."""
    fitting = fit(text, width)
    return fitting + " " * (width - count(fitting))


def count(text: str) -> int:
    """Return how many cells a text takes that `fit` has returned."""
    return len(text) if text.isascii() else sum(cells for _, cells in _pieces(text))


def ascii_only(text: str) -> str:
    """Return a text that `fit` has returned in as many cells, for a terminal that knows ASCII alone."""
    if text.isascii():
        return text
    return "".join(piece if piece.isascii() else "~" if piece == _CUT else "?" * cells
                   for piece, cells in _pieces(text))


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """Yield what cannot be divided, each with its width: a character with its marks, or an escape."""
    piece, cells, marks = "", 0, 0
    for char in text:
        if _is_mark(char):
            # One that begins a text would change the character before it on the screen.
            piece, cells = piece or " ", cells or 1
            marks += 1
            # Selectors are left out: they make a character wider in some terminals only.
            if marks <= _MOST_MARKS and not _is_selector(char):
                piece += char
            continue
        if piece:
            yield piece, cells
        piece, cells = _piece(char)
        marks = 0
    if piece:
        yield piece, cells


def _piece(char: str) -> tuple[str, int]:
    if " " <= char <= "~":
        return char, 1
    if unicodedata.category(char) in _UNFIT:
        escape = escaped(char)
        return escape, len(escape)
    return char, 2 if unicodedata.east_asian_width(char) in "WF" or _is_wide_by_now(char) else 1


def _is_mark(char: str) -> bool:
    if char <= "\x7f":
        return False
    category = unicodedata.category(char)
    # The vowels and finals of Hangul that join the syllable before them are letters by category.
    return category in _MARKS or (category == "Lo" and ("\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7fb"))


def _is_wide_by_now(char: str) -> bool:
    # Numbers on black squares, and the hexagrams, trigrams and counting rods that Unicode 16 made wide: wide to C
    # libraries and terminals before this Python's Unicode says so.
    return any(first <= char <= last for first, last in _WIDE_BY_NOW)


def _is_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
