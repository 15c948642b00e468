"""Cells: hostile texts are made harmless, and never take more of a line than they were given."""

from __future__ import annotations

import ctypes
import locale
import unicodedata
from itertools import chain

import pytest

from ctl.sights import HOSTILE
from ductile.ctl.text_width import ascii_only, count, fit, pad

OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(("text", "width", "expected"), [
    ("echo", 4, "echo"), ("echo", 3, "ec…"), ("echo", 1, "…"), ("echo", 0, ""), ("", 0, ""), ("x", -1, ""),
    ("a\tb\nc\rd", 20, "a\\tb\\nc\\rd"),
    ("\x1b[2J\x07\x9b\x7f", 40, "\\x1b[2J\\x07\\x9b\\x7f"),
    ("\u202etxt\u200f\u2066", 40, "\\u202etxt\\u200f\\u2066"),
    ("\u2028\ufeff\ud800\ue000\uffff\U000e0041", 60, "\\u2028\\ufeff\\ud800\\ue000\\uffff\\U000e0041"),
    ("日本語", 6, "日本語"), ("日本語", 5, "日本…"), ("日本語", 4, "日…"), ("日本語", 2, "…"),
    ("e\u0301e\u0301e", 3, "e\u0301e\u0301e"), ("e\u0301e\u0301e", 2, "e\u0301…"),
    ("a" + "\u0300" * 9 + "b", 2, "a\u0300\u0300b"),
    ("\u0301x", 9, " \u0301x"), ("\n\u0301", 9, "\\n\u0301"),
    ("👩\ufe0f\u200d👧", 99, "👩\\u200d👧"), ("각\u11a8", 2, "각\u11a8"),
    ("ab\x1bcd", 5, "ab…"), ("ab\x1bcd", 7, "ab\\x1b…"), ("ab\x1bcd", 8, "ab\\x1bcd"),
])
def test_a_text_is_harmless_and_cut_by_its_width(text: str, width: int, expected: str) -> None:
    assert fit(text, width) == expected


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_takes_more_than_its_cells_or_has_a_character_that_is_obeyed(text: str) -> None:
    for width in range(60):
        shown = fit(text, width)
        assert count(shown) <= width
        assert {unicodedata.category(char) for char in shown} & OBEYED == set()
        assert count(pad(text, width)) == width
        assert (fit(shown, width), fit(shown, 10_000)) == (shown, shown)


@pytest.mark.parametrize("text", HOSTILE)
def test_in_ascii_a_text_takes_as_many_cells(text: str) -> None:
    shown = fit(text, 40)
    assert ascii_only(shown).isascii()
    assert len(ascii_only(shown)) == count(shown)


def test_in_ascii_what_is_unknown_is_marked() -> None:
    assert ascii_only(fit("né日 x" + "y" * 9, 9)) == "n??? xyy~"


def test_trigrams_and_counting_rods_are_wide_whatever_this_python_knows() -> None:
    assert [count(char) for char in "\u262f\u2630\u2637\u268a\u4dc0\U0001d300\U0001d376"] == [1, 2, 2, 2, 2, 2, 2]


def test_the_terminal_counts_as_we_do() -> None:
    libc = ctypes.CDLL(None)
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        pytest.skip("there is no locale C.UTF-8 to ask")
    try:
        wrong, is_newer = [], False
        # Left out are Han and Hangul, of one width all, private characters, and what is not assigned.
        for char in map(chr, chain(range(0x4E10), range(0x9FF0, 0xAC10), range(0xD790, 0xE010), range(0xF8F0, 0x17010),
                                   range(0x18CD0, 0x20000))):
            shown = fit("a" + char, 20)
            widths = [libc.wcwidth(ctypes.c_uint32(ord(each))) for each in shown]
            is_newer = is_newer or (unicodedata.category(char) == "Cn"
                                    and libc.wcwidth(ctypes.c_uint32(ord(char))) > 0)
            # Of a character that this C library is too old to know nothing can be said.
            if sum(widths) > count(shown) or min(widths) < 0:
                wrong.append(hex(ord(char)))
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    # Each version of Unicode widens some characters, which a Python older than the C library cannot know.
    if not is_newer or len(wrong) > 200:
        assert wrong == []
