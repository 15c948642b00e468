"""A summary as Discord takes it: the line above it, and parts that are short enough."""

from __future__ import annotations

import re
import unicodedata

# Discord's limit of a message's content. Its API counts code points, its own programs UTF-16 units: parts are
# measured in units, of which there are never fewer, so that they are short enough either way.
LIMIT_UNITS = 2000
# A summary is short. Of what is none, this much is posted.
MOST_PARTS = 10
# A user sees at most so many code points as one character before one is cut in two.
CLUSTER_LIMIT = 64

# Where a text is best divided, in this order; the first that leaves a part at least half full is taken.
_BORDERS = (re.compile(r"(?=\n\s*\n)"), re.compile(r"(?=\n)"),
            re.compile(r"(?<=[.!?…؟।])[\"'”’»)\]]*(?=\s)|(?<=[。！？])"), re.compile(r"(?=\s)"))
_JOINER = "\u200d"
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_NAME = re.compile(r"\{\{|\}\}|\{\s*(\w+)\s*\}")
_URL = re.compile(r"https?://[^\s<>]+")


def heading(template: str, payload: dict) -> str:
    """Return the template with the payload's texts and numbers in it, {{ and }} as braces.

    A line that names what the payload lacks is left out.
    """
    def value_of(match: re.Match) -> str:
        return match[0][0] if match[1] is None else _shown(str(payload[match[1]]))

    lines = [line for line in template.split("\n")
             if all(_has(payload, match[1]) for match in _NAME.finditer(line) if match[1] is not None)]
    return "\n".join(_NAME.sub(value_of, line) for line in lines)


def split(text: str) -> tuple[list[str], bool]:
    """Return the text in parts of at most 2,000 units, and whether it was too long for that."""
    rest, parts = _UNFIT.sub("", text.replace("\r\n", "\n")).strip(), []
    while rest and len(parts) < MOST_PARTS:
        fits = _fitting(rest)
        end = len(rest) if fits == len(rest) else _border(rest, fits)
        parts.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return parts, bool(rest)


def _has(payload: dict, name: str) -> bool:
    value = payload.get(name)
    return value.strip() != "" if isinstance(value, str) else type(value) in (int, float)


def _shown(value: str) -> str:
    """Return a stranger's text so that it stays what it is: one line, with nothing in it that Discord would format."""
    line = " ".join(_UNFIT.sub("", value).split())
    return line if _URL.fullmatch(line) else re.sub(r"([\\*_~`|<>\[\]])", r"\\\1", line)


def _fitting(text: str) -> int:
    """Return how many characters from the start are within the limit."""
    units = 0
    for index, char in enumerate(text):
        units += 2 if char > "\uffff" else 1
        if units > LIMIT_UNITS:
            return index
    return len(text)


def _border(text: str, fits: int) -> int:
    """Return where the first part ends, at most `fits`."""
    for border in _BORDERS:
        ends = (match.end() for match in border.finditer(text, 0, fits + 1))
        last = max((end for end in ends if end <= fits), default=0)
        if last >= fits // 2:
            return last
    for end in range(fits, max(0, fits - CLUSTER_LIMIT), -1):
        if not _is_joined(text, end):
            return end
    return fits


def _is_joined(text: str, index: int) -> bool:
    """Say whether the characters on both sides of `index` are seen as one."""
    before, after = text[index - 1], text[index]
    return (unicodedata.category(after)[0] == "M" or after == _JOINER or before == _JOINER
            or "\U0001f3fb" <= after <= "\U0001f3ff"
            or (_is_flag(before) and _is_flag(after)))


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
