"""Caption documents, WebVTT and YouTube's JSON, made into text to read."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Milliseconds without a word, after which a new paragraph begins.
PAUSE_MS = 3000

# <c>, </c>, <c.colorE5E5E5>, <v Name>, <00:00:01.000>; not the sign in `a < b`.
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[0-9][0-9:.]*>")
_STAMP = re.compile(r"<((?:[0-9]{1,6}:)?[0-9]{2}:[0-9]{2}\.[0-9]{3})>")
_TIME = r"(?:[0-9]{1,6}:)?[0-9]{1,2}:[0-9]{2}(?:[.,][0-9]{1,3})?"
_TIMING = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})(?:\s|$)")
_NO_CUE = re.compile(r"NOTE(?:\s|$)|(?:STYLE|REGION)\s*$", re.MULTILINE)
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
                        "\ud800-\udfff]")
# No caption shows more lines than that from the one before.
_MOST_ROLLING = 4


class NoCaptions(Exception):
    """The document is not one of captions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """Lines that are shown together. `begin` and `end` of what is spoken are milliseconds."""

    begin: int
    end: int
    lines: tuple[str, ...]


def as_text(document: str, *, automatic: bool) -> str:
    """Return what is said, a line for each paragraph and an empty one between them. Raises NoCaptions.

    Automatic WebVTT rolls: each cue shows the line before once more. Lines that repeat are taken for that there.
    """
    document = document.lstrip("\ufeff \t\r\n")
    if document.startswith("WEBVTT"):
        cues = _vtt(document)
        rolls = _rolls(cues, automatic=automatic, is_timed=_STAMP.search(document) is not None)
    elif document.startswith("{"):
        cues, rolls = _json3(document), False
    else:
        raise NoCaptions
    paragraphs: list[list[str]] = []
    shown: tuple[str, ...] = ()
    spoken_until = None
    for cue in cues:
        lines = _visible(cue)
        new = lines[_overlap(shown, lines) if rolls else 0:]
        shown = lines or shown
        if not new:
            continue
        if spoken_until is None or cue.begin - spoken_until >= PAUSE_MS:
            paragraphs.append([])
        paragraphs[-1] += new
        spoken_until = cue.end
    return "".join(f"{' '.join(lines)}\n\n" for lines in paragraphs).removesuffix("\n")


def _rolls(cues: Sequence[Cue], *, automatic: bool, is_timed: bool) -> bool:
    """Say whether a WebVTT document rolls: where two of three signs are there, as a refrain has any one of them.

    It is made by a machine; its words have times (`is_timed`); a cue shows a line of the one before above a new one.
    """
    shown = [lines for lines in map(_visible, cues) if lines]
    is_shifted = any(0 < _overlap(before, lines) < len(lines) for before, lines in pairwise(shown))
    return [automatic, is_timed, is_shifted].count(True) >= 2


def _visible(cue: Cue) -> tuple[str, ...]:
    return tuple(line for line in map(_clean, cue.lines) if line)


def _overlap(before: Sequence[str], lines: Sequence[str]) -> int:
    """Return how many of the first lines are the last ones of those before."""
    return next(count for count in range(min(len(before), len(lines), _MOST_ROLLING), -1, -1)
                if before[len(before) - count:] == lines[:count])


def _clean(line: str) -> str:
    return " ".join(_INVISIBLE.sub("", html.unescape(_TAG.sub("", line))).split())


def _vtt(document: str) -> list[Cue]:
    """Return the cues of a WebVTT document (https://www.w3.org/TR/webvtt1/); each line of times begins one."""
    cues: list[Cue] = []
    for block in re.split(r"\n{2,}", document.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.split("\n")
        starts = [index for index, line in enumerate(lines) if _TIMING.match(line)]
        if not starts and cues and not _NO_CUE.match(block):
            # The blank that YouTube puts on the first line of a cue is lost on the way through some programs.
            last = cues[-1]
            cues[-1] = Cue(begin=last.begin, end=last.end, lines=(*last.lines, *lines))
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=False):
            cues.append(_cue(lines[start], lines[start + 1:end]))
    return cues


def _cue(timing: str, lines: Sequence[str]) -> Cue:
    begin, end = _TIMING.match(timing).groups()
    stamps = _STAMP.findall("\n".join(lines))
    return Cue(begin=_milliseconds(begin), end=_milliseconds(stamps[-1] if stamps else end), lines=tuple(lines))


def _milliseconds(stamp: str) -> int:
    clock, _, thousandths = stamp.replace(",", ".").partition(".")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return seconds * 1000 + int(thousandths.ljust(3, "0"))


def _json3(document: str) -> list[Cue]:
    """Return the cues of the JSON that YouTube calls json3: events of timed segments. Raises NoCaptions."""
    try:
        events = json.loads(document)["events"]
        cues = []
        for event in events:
            segments = event.get("segs")
            if segments:
                begin = event.get("tStartMs", 0)
                offsets = [segment["tOffsetMs"] for segment in segments if "tOffsetMs" in segment]
                # Of automatic captions the duration is how long they are shown, which is longer than they are spoken.
                length = max(offsets) if offsets else event.get("dDurationMs", 0)
                text = "".join(segment.get("utf8", "") for segment in segments)
                cues.append(Cue(begin=int(begin), end=int(begin) + int(length), lines=tuple(text.split("\n"))))
        return cues
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise NoCaptions from None
