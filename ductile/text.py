"""Makes strings from outside printable on one line."""

from __future__ import annotations

import re

# C0, DEL and C1 control the terminal; the others break a line, change the direction of text or cannot be encoded.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def one_line(text: str, limit: int = 1000) -> str:
    """Return `text` on one line of at most `limit` characters, control characters escaped visibly.

    White space at both ends is removed, and a cut is marked by a final `…`. The result can always be encoded as UTF-8.
    """
    text = text.strip()
    if len(text) > limit:
        text = text[:limit] + "…"
    text = _UNFIT.sub(lambda match: escaped(match[0]), text)
    return text if len(text) <= limit else text[:limit - 1] + "…"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 job`, `1,234 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def escaped(char: str) -> str:
    """Return a character as an escape: `\\n`, `\\x1b`, `\\u2028`."""
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else
                                f"\\U{code:08x}")
