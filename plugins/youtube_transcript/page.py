"""The watch page of a video: what it says of the video, and the caption track that it lists."""

from __future__ import annotations

import json
import re

from captions import NoCaptions, as_text
from ductile_plugin import Failed, Permanent, Retry
from fetch import get, joined
from video import Track, Transcript, Video, choose, one_line

SOURCE = "watch page"
# The track in the order in which its forms are asked for.
FORMS = ("json3", "vtt")
_PLAYER = re.compile(r"ytInitialPlayerResponse(?:[\"']\])?\s*=\s*(?=\{)")


def read(video_id: str, config: dict, end: float) -> Transcript:
    """Return what the track says that the watch page lists and the configured languages choose. Raises Failed."""
    url = f"{config['base_url']}/watch?v={video_id}&hl=en"
    player = _player(video_id, url, config, end)
    status = _find(player, "playabilityStatus", "status")
    if status not in (None, "OK"):
        raise _refusal(video_id, status, _find(player, "playabilityStatus", "reason"))
    tracks = _tracks(player, url)
    track = choose(video_id, tracks, config["languages"], [track.language for track in tracks])
    details = _find(player, "videoDetails")
    length = _find(details, "lengthSeconds")
    video = Video(
        id=video_id, title=one_line(_find(details, "title")), channel=one_line(_find(details, "author")),
        duration_seconds=int(length) if isinstance(length, str) and re.fullmatch("[0-9]{1,9}", length) else None)
    return Transcript(video=video, track=track, text=_text(video_id, track, config, end),
                      source=SOURCE)


def _player(video_id: str, url: str, config: dict, end: float) -> object:
    """Return what the page gives its player to work with."""
    answer = get(url, config["base_url"], end)
    if answer.status != 200:
        raise Permanent(f"video {video_id} is not available: {answer.error()}")
    page = answer.text
    for place in _PLAYER.finditer(page):
        try:
            return json.JSONDecoder().raw_decode(page, place.end())[0]
        except (ValueError, RecursionError):
            continue
    raise Retry(f"the watch page of video {video_id} has no data for a player: YouTube may have changed it, "
                "install yt-dlp")


def _refusal(video_id: str, status: object, reason: object) -> Failed:
    text = one_line(reason) or one_line(status) or "no reason given"
    if status == "LOGIN_REQUIRED" or "private" in text.lower():
        # What YouTube asks of a place from which much is asked may be over later.
        return Failed(f"video {video_id} is private or wants a login: {text}", retry="not a bot" in text)
    return Permanent(f"video {video_id} is not available: {text}")


def _tracks(player: object, url: str) -> list[Track]:
    listed = _find(player, "captions", "playerCaptionsTracklistRenderer", "captionTracks")
    tracks = []
    for item in listed if isinstance(listed, list) else ():
        language, base_url = one_line(_find(item, "languageCode"), 40), _find(item, "baseUrl")
        if language and isinstance(base_url, str):
            tracks.append(Track(language=language, automatic=_find(item, "kind") == "asr", place=joined(url, base_url)))
    return tracks


def _text(video_id: str, track: Track, config: dict, end: float) -> str:
    """Return the text of a track from the first of its forms that is one of captions."""
    for form in FORMS:
        answer = get(_in_form(track.place, form), config["base_url"], end)
        if answer.status != 200:
            continue
        try:
            return as_text(answer.text, automatic=track.automatic)
        except NoCaptions:
            continue
    if answer.status != 200:
        raise Permanent(f"the captions of video {video_id} cannot be had: {answer.error()}")
    raise Retry(f"the captions of video {video_id} came empty or in an unknown form: install yt-dlp if they go on so")


def _in_form(url: str, form: str) -> str:
    """Return a track's url with `fmt` set, and the rest as it is: it is signed."""
    path, _, query = url.partition("?")
    return f"{path}?{'&'.join([*(part for part in query.split('&') if part and part[:4] != 'fmt='), f'fmt={form}'])}"


def _find(value: object, *keys: str) -> object:
    """Return what stands under the keys, one below the other; None where there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
