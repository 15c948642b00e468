"""A summary as Discord takes it: the line above it, and parts that are short enough."""

from __future__ import annotations

import re
import unicodedata

from ductile_plugin import log, text

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
_URL = re.compile(r"https?://[^\s<>]+")
# What begins a heading, small print or an item of a list.
_BEGINS_A_LINE = re.compile(r"(?:#{1,3}|-#?|\+)(?=\s|$)|(?P<number>[0-9]{1,9})(?=[.)](?:\s|$))")
# A fenced block begins and ends with one of these; at its beginning the language of the code may follow.
_FENCE = re.compile(r"`{3,}(?:(?P<language>[\w.+#-]{1,40})(?=\n))?")
_CLOSING = "\n```"


def heading(template: str, payload: dict, context: object) -> str:
    """Return the template with values from the payload, else the context, as ductile-plugin(7) describes it.

    A line with a name that is missing, null or blank is left out, with a warning; `{name?}` may be any of that.
    """
    # What is blank would leave its formatting behind.
    known = {key: None if isinstance(value, str) and not value.strip() else value for key, value in payload.items()}
    lines = []
    for line in template.split("\n"):
        missing: list[str] = []
        shown = text(line, known, context, missing=missing.append, escape=_shown)
        if not missing:
            lines.append(shown)
        for name in missing:
            log(f"the payload has no {name!r}, the line of the template is left out", "warn")
    return "\n".join(lines)


def split(text: str) -> tuple[list[str], bool]:
    """Return the text in parts of at most 2,000 units, and whether it was too long for that.

    A fenced block that goes on in the next part is closed at the end of one and opened again in the next.
    """
    rest, parts = _UNFIT.sub("", text.replace("\r\n", "\n")).strip(), []
    opening = ""
    while rest and len(parts) < MOST_PARTS:
        if _fitting(rest, LIMIT_UNITS - len(opening)) == len(rest):
            return [*parts, opening + rest], False
        end, next_opening = _end_of_part(rest, opening)
        part, rest = opening + rest[:end].rstrip(), rest[end:]
        parts.append(part + _CLOSING if next_opening else part)
        if next_opening and rest.lstrip().startswith("```"):
            # The block has just been closed.
            rest, next_opening = rest.lstrip().lstrip("`"), ""
        # What code is indented by belongs to it.
        rest = rest.lstrip("\n") if next_opening else rest.lstrip()
        opening = next_opening
    return parts, bool(rest)


def _end_of_part(text: str, opening: str) -> tuple[int, str]:
    """Return where the first part ends, and what opens the fenced block again in the next, if it ends within one."""
    room = LIMIT_UNITS - len(opening)
    end = _border(text, _fitting(text, room))
    if not _open_fence(text, end, opening)[0]:
        return end, ""
    end = _border(text, _fitting(text, room - len(_CLOSING)))
    next_opening, start, code = _open_fence(text, end, opening)
    if next_opening and start and not text[code:end].strip():
        # Nothing of the block is in this part.
        return start, ""
    return end, next_opening


def _open_fence(text: str, end: int, opening: str) -> tuple[str, int, int]:
    """Return what opened the fenced block that is open at `end`, or nothing, and where the last fence begins and ends.

    `opening` is what has opened the one in which the text begins.
    """
    start = code = 0
    for fence in _FENCE.finditer(text):
        if fence.start() >= end:
            break
        opening = "" if opening else f"```{fence['language'] or ''}\n"
        start, code = fence.span()
    return opening, start, code


def _shown(value: str) -> str:
    """Return a stranger's text so that it stays what it is: one line, with nothing in it that Discord would format."""
    line = " ".join(_UNFIT.sub("", value).split())
    if _URL.fullmatch(line):
        return line
    begin = _BEGINS_A_LINE.match(line)
    escaped = re.sub(r"([\\*_~`|<>\[\]])", r"\\\1", line)
    if begin is None:
        return escaped
    # Of a number it is the mark behind it: a backslash before a digit is shown.
    at = begin.end() if begin["number"] else 0
    return f"{escaped[:at]}\\{escaped[at:]}"


def _fitting(text: str, limit: int) -> int:
    """Return how many characters from the start are within so many units."""
    units = 0
    for index, char in enumerate(text):
        units += 2 if char > "\uffff" else 1
        if units > limit:
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
    """Say whether the characters on both sides of `index` are seen, or read, as one."""
    before, after = text[index - 1], text[index]
    return (unicodedata.category(after)[0] == "M" or after == _JOINER or before == _JOINER
            or "\U0001f3fb" <= after <= "\U0001f3ff"
            or (_is_flag(before) and _is_flag(after)) or before == "\\" or before == after == "`")


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
