from __future__ import annotations

import pytest

from ductile.text import one_line


@pytest.mark.parametrize(("text", "expected"), [
    ("plain text", "plain text"),
    ("  \n around\n", "around"),
    ("two\nlines", "two\\nlines"),
    ("a\tb\rc", "a\\tb\\rc"),
    ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
    ("del\x7f c1\x9b.", "del\\x7f c1\\x9b."),
    ("sep\u2028par\u2029.", "sep\\u2028par\\u2029."),
    ("right\u202eleft", "right\\u202eleft"),
    ("half\ud800", "half\\ud800"),
    ("café 中文 😀", "café 中文 😀"),
    ("", ""),
])
def test_a_control_character_is_escaped_and_all_else_stays(text: str, expected: str) -> None:
    assert one_line(text) == expected


@pytest.mark.parametrize(("text", "limit", "expected"), [
    ("abcde", 5, "abcde"),
    ("abcdef", 5, "abcd…"),
    ("ab\x00", 5, "ab\\x…"),
    ("x" * 1000, 1000, "x" * 1000),
    ("x" * 1001, 1000, "x" * 999 + "…"),
    ("\n" + "x" * 10_000_000, 3, "xx…"),
])
def test_what_is_over_the_limit_is_cut_visibly(text: str, limit: int, expected: str) -> None:
    assert one_line(text, limit) == expected
