#!/usr/bin/env python3
"""Writes what is said in a YouTube video into the workspace, from its captions."""

from __future__ import annotations

import json
import os
import re
import sys
import time

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

import page
import ytdlp
from ductile_plugin import Permanent, Retry, is_url, main, payload_of, seconds_left, settings, write_file
from video import Transcript, id_of

LANGUAGE = re.compile("[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")


def is_base_url(value: object) -> bool:
    return is_url(value) and "?" not in value and "#" not in value


def are_languages(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(
        isinstance(item, str) and LANGUAGE.fullmatch(item) is not None for item in value)


KEYS = {
    "languages": (are_languages, "a list of language codes such as en or pt-BR", ["en"]),
    "ytdlp": (lambda value: value is False or (isinstance(value, str) and value != "" and "\0" not in value),
              "the program's name or path, or false", None),
    "base_url": (is_base_url, "http://HOST or https://HOST in ASCII, without user, password and query",
                 "https://www.youtube.com"),
    "timeout": (lambda value: type(value) in (int, float) and 0 < value <= 3600, "seconds, over 0, at most 3600", 100),
}


def respond(request: dict) -> dict:
    config = settings(request, KEYS)
    config["base_url"] = config["base_url"].rstrip("/")
    program = ytdlp.find(config["ytdlp"])
    if request.get("command") == "health":
        return {"status": "ok", "result": f"would use {program or 'the watch page at ' + config['base_url']}"}
    if request.get("command") != "handle":
        raise Permanent("youtube_transcript has no such command")
    end = time.monotonic() + min(config["timeout"], seconds_left(request, default=config["timeout"]))
    workspace, video_id = request.get("workspace_dir"), id_of(payload_of(request).get("url"))
    if not isinstance(workspace, str) or not os.path.isabs(workspace):
        raise Permanent("workspace_dir: expected an absolute path")
    try:
        if program is None:
            transcript = page.read(video_id, config, end)
        else:
            transcript = ytdlp.read(video_id, program, config, workspace, end)
        words = len(transcript.text.split())
        if not words:
            raise Permanent(f"the captions of video {video_id} hold no words")
        about = json.dumps(described(transcript), ensure_ascii=False, indent=2) + "\n"
        write_file(f"{workspace}/transcript.txt", transcript.text.encode())
        write_file(f"{workspace}/video.json", about.encode())
    except OSError as error:
        raise Retry(f"the workspace cannot be used: {error.strerror}") from None
    made = {"video_id": video_id, "title": transcript.video.title, "transcript_path": f"{workspace}/transcript.txt",
            "language": transcript.track.language, "words": words}
    return {"status": "ok", "result": f"{words} words of video {video_id} in {transcript.track.language}",
            "events": [{"type": "youtube.transcript", "payload": made}]}


def described(transcript: Transcript) -> dict:
    """Return what video.json says."""
    video, track = transcript.video, transcript.track
    return {"id": video.id, "title": video.title, "channel": video.channel,
            "url": f"https://www.youtube.com/watch?v={video.id}", "duration_seconds": video.duration_seconds,
            "language": track.language, "captions": "automatic" if track.automatic else "manual",
            "source": transcript.source}


if __name__ == "__main__":
    main(respond)
