"""A video's link, what is known of it, and which of its caption tracks is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from ductile_plugin import Permanent

_HOSTS = re.compile(r"([a-z0-9-]+\.)?(youtube|youtube-nocookie)\.com|(www\.)?youtu\.be")
# What follows it, a closing quote, an invisible space or a second question mark, came along when it was copied.
_ID = re.compile("([A-Za-z0-9_-]{11})(?![A-Za-z0-9_-])")
_AROUND_A_LINK = " \t\r\n\"'<>\u200b\u2018\u2019\u201c\u201d\u2060\ufeff"
# Control characters, marks that turn the direction of the text, and halves of characters.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_BEFORE_AN_ID = ("shorts", "embed", "live", "v")
# A player of a playlist and one of a channel: words of eleven letters in the place of an id.
_NO_VIDEOS = ("videoseries", "live_stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """What is known of a video; None where its source does not say."""

    id: str
    title: str | None
    channel: str | None
    duration_seconds: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One caption track; `place` is the url or the file name where it is found."""

    language: str
    automatic: bool
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What is said in a video; `source` is what it came through."""

    video: Video
    track: Track
    text: str
    source: str


def id_of(url: object) -> str:
    """Return the id of the video that a link leads to. Raises Failed."""
    if not isinstance(url, str):
        raise Permanent("the payload has no url")
    try:
        parts = urlsplit(url.strip(_AROUND_A_LINK))
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not _HOSTS.fullmatch(host):
        raise Permanent(f"not a link to YouTube: {one_line(url, 200)}")
    words = parts.path.strip("/").split("/")
    if words == ["watch"]:
        found = parse_qs(parts.query).get("v", [""])[0]
    elif host.endswith("youtu.be"):
        found = words[0]
    else:
        found = words[1] if words[0] in _BEFORE_AN_ID and len(words) > 1 else ""
    match = _ID.match(found)
    if match is None or (words[0] == "embed" and match[1] in _NO_VIDEOS):
        raise Permanent(f"the link leads to no video of YouTube: {one_line(url, 200)}")
    return match[1]


def choose(video_id: str, tracks: Sequence[Track], languages: Sequence[str], offered: Sequence[str]) -> Track:
    """Return the track to read: by the order of the languages, of one language the manual before the automatic.

    `en` is also found as `en-GB`. `offered` are the languages that a failure names. Raises Failed.
    """
    for wanted in languages:
        found = [track for track in tracks if f"{track.language}-".lower().startswith(f"{wanted}-".lower())]
        if found:
            return min(found, key=lambda track: (track.automatic, track.language.lower() != wanted.lower()))
    if not offered:
        raise Permanent(f"video {video_id} has no captions")
    named = ", ".join(offered[:10]) + (" and more" if len(offered) > 10 else "")
    raise Permanent(f"video {video_id} has no captions in {', '.join(languages)}, only in {one_line(named, 200)}: "
                    "add one of them to languages")


def one_line(value: object, limit: int = 300) -> str | None:
    """Return a stranger's text fit for one line and for JSON, cut to `limit` characters; None where it is no text."""
    if not isinstance(value, str):
        return None
    text = " ".join(_UNFIT.sub(" ", value).split())
    return text if len(text) <= limit else text[:limit - 1] + "…"
