"""The yt-dlp program, where it is installed: it gets at captions that the watch page does not give."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile

from captions import NoCaptions, as_text
from ductile_plugin import ConfigError, Failed, Retry, collect, start
from fetch import LIMIT_BYTES
from video import Track, Transcript, Video, choose, one_line

SOURCE = "yt-dlp"
# From what yt-dlp says when it fails: what may be over later, and what of the rest will not.
_PASSING = re.compile("HTTP Error 429|try again later|rate-limited|not a bot", re.IGNORECASE)
_FOR_GOOD = re.compile("private video|video unavailable|not available|been removed|terminated|members-only|"
                       "join this channel|confirm your age|does not exist", re.IGNORECASE)


def find(program: str | bool | None) -> str | None:
    """Return the path of yt-dlp, None where there is none or it is switched off. Raises ConfigError for a named one."""
    if program is False:
        return None
    path = shutil.which(program or "yt-dlp")
    if program and not path:
        raise ConfigError(f"ytdlp: {program} is not found or not executable: install it, or set ytdlp: false")
    return path


def read(video_id: str, program: str, config: dict, workspace: str, end: float) -> Transcript:
    """Return what the captions say that yt-dlp finds in the configured languages. Raises Failed, OSError."""
    with tempfile.TemporaryDirectory(prefix=".yt-dlp-", dir=workspace) as place:
        _run(video_id, program, config, place, end)
        try:
            info = json.loads(_content(f"{place}/{video_id}.info.json"))
        except (FileNotFoundError, ValueError, RecursionError):
            info = None
        if not isinstance(info, dict):
            raise Retry(f"yt-dlp left no readable {video_id}.info.json")
        by_hand = info.get("subtitles") if isinstance(info.get("subtitles"), dict) else {}
        found = re.findall(rf"^{video_id}\.(.+)\.vtt$", "\n".join(sorted(os.listdir(place))), re.MULTILINE)
        tracks = [Track(language=name, automatic=name not in by_hand, place=f"{place}/{video_id}.{name}.vtt")
                  for name in found]
        track = choose(video_id, tracks, config["languages"], [name for name in by_hand if name != "live_chat"])
        try:
            text = as_text(_content(track.place), automatic=track.automatic)
        except NoCaptions:
            raise Retry(f"yt-dlp left no captions in {os.path.basename(track.place)}") from None
    length = info.get("duration")
    video = Video(
        id=video_id, title=one_line(info.get("title")), channel=one_line(info.get("channel") or info.get("uploader")),
        duration_seconds=int(length) if type(length) in (int, float) and 0 <= length < 1e9 else None)
    return Transcript(video=video, track=track, text=text, source=SOURCE)


def _run(video_id: str, program: str, config: dict, place: str, end: float) -> None:
    """Have yt-dlp leave its files in a directory. Raises Failed."""
    # `en` and its countries; without the inner flag also `en-de`, what a machine made of the German track.
    languages = ",".join(f"{language}(?-i:-[A-Z]{{2}})?" for language in config["languages"])
    argv = [program, "--ignore-config", "--no-playlist", "--no-progress", "--skip-download",
            "--write-subs", "--write-auto-subs", "--sub-langs", languages, "--sub-format", "vtt", "--write-info-json",
            "-o", f"{place.replace('%', '%%')}/%(id)s.%(ext)s", "--", f"https://www.youtube.com/watch?v={video_id}"]
    try:
        child = start(argv, b"")
    except Failed as error:
        raise Retry(str(error)) from None
    with child:
        try:
            said = collect(child, cut=True, end=end)[2].decode("utf-8", "replace").split("\n")
        except TimeoutError:
            raise Retry(f"yt-dlp was not done within {config['timeout']:g} s") from None
        finally:
            child.kill()
    code = child.returncode
    if code != 0:
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
        text = one_line(errors[-1]) if errors else f"exited {code}" if code > 0 else f"was ended by signal {-code}"
        raise Failed(f"yt-dlp: {text}", retry=bool(_PASSING.search(text) or not _FOR_GOOD.search(text)))


def _content(path: str) -> str:
    """Return a file's text, up to what a document may measure."""
    with open(path, "rb") as file:
        return file.read(LIMIT_BYTES).decode("utf-8", "replace")
