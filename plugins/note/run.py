#!/usr/bin/env python3
"""Files the transcript and the summary of a job's workspace as a Markdown note, once however often the job runs."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import ConfigError, Permanent, Retry, log, main
from filing import file_note
from markdown import body, front_matter, identity, one_line, quoted, stem

LIMIT_BYTES = 4 * 1024 * 1024


def checked(config: object) -> tuple[str, list[str]]:
    """Return the directory, an absolute path, and the tags. Raises ConfigError."""
    if not isinstance(config, dict):
        raise ConfigError("config: expected a mapping")
    for key in config:
        if key not in ("directory", "tags"):
            raise ConfigError(f"config: unknown key {key!r}, expected one of directory, tags")
    directory = config.get("directory")
    directory = os.path.expanduser(directory) if isinstance(directory, str) and "\0" not in directory else ""
    if not os.path.isabs(directory):
        raise ConfigError("directory: expected an absolute path or one that starts with ~/")
    tags = config.get("tags")
    tags = [] if tags is None else tags
    if not isinstance(tags, list):
        raise ConfigError("tags: expected a list of texts")
    for index, tag in enumerate(tags):
        if not isinstance(tag, str) or not tag or tag != one_line(tag):
            raise ConfigError(f"tags[{index}]: expected a text of one line (a number needs quotes)")
    return os.path.normpath(directory), tags


def read(payload: dict, key: str, workspace: str, name: str) -> str:
    """Return the text that the payload's path names in the workspace, else that of `name`; empty where there is none.

    Raises Failed.
    """
    path = os.path.join(workspace, name)
    given = payload.get(key)
    if isinstance(given, str) and "\0" not in given:
        given = os.path.realpath(os.path.join(workspace, given))
        path = given if given.startswith(workspace + os.sep) else path
    shown = os.path.relpath(path, workspace)
    if not os.path.isfile(path):
        log(f"{shown}: there is no such file in the workspace", "warn")
        return ""
    try:
        with open(path, "rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise Retry(f"{shown}: {error.strerror}") from None
    if len(data) > LIMIT_BYTES:
        raise Permanent(f"{shown}: larger than {LIMIT_BYTES // 1024 // 1024} MiB, that is no text for a note")
    return data.decode("utf-8", "replace").removeprefix("\ufeff").replace("\0", "").strip()


def channel_of(payload: dict, workspace: str) -> str:
    """Return the video's channel from the payload, or from the video.json that youtube_transcript leaves."""
    if isinstance(payload.get("channel"), str):
        return payload["channel"]
    try:
        with open(os.path.join(workspace, "video.json"), "rb") as file:
            video = json.loads(file.read(LIMIT_BYTES))
    except (OSError, ValueError, RecursionError):
        return ""
    return video["channel"] if isinstance(video, dict) and isinstance(video.get("channel"), str) else ""


def when(event: dict) -> datetime:
    """Return the event's time in the zone of this machine; now where it has none."""
    try:
        return datetime.fromisoformat(event["timestamp"]).astimezone()
    except (KeyError, TypeError, ValueError, OverflowError):
        return datetime.now(UTC).astimezone()


def fields_of(request: dict, event: dict, payload: dict, tags: list[str]) -> dict[str, str | list[str]]:
    """Return what the front matter says beside the date; texts from strangers on one line."""
    def text(*values: object) -> str:
        lines = [one_line(value) for value in values if isinstance(value, str)]
        return next((line for line in lines if line), "")

    fields = {
        "title": text(payload.get("title"), payload.get("video_id"), payload.get("url"), "untitled"),
        "url": text(payload.get("url")),
        "channel": text(channel_of(payload, os.path.realpath(request.get("workspace_dir") or "."))),
        "source": text(payload.get("origin_plugin"), event.get("source")),
        # By these a second run of the job knows its own note.
        "ductile_job": text(payload.get("origin_job_id"), request.get("job_id")),
        "source_event": text(event.get("event_id")),
    }
    return {key: value for key, value in fields.items() if value} | ({"tags": tags} if tags else {})


def is_same(fields: dict, head: str) -> bool:
    """Say whether a note that begins with `head` tells of the same video in the same chain of events."""
    there = identity(head)
    keys = ("ductile_job", "url" if "url" in fields else "source_event")
    return all(key in fields and there.get(key) == quoted(fields[key]) for key in keys)


def health(directory: str) -> dict:
    place = directory
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise Permanent(f"directory: {place}: not a directory")
    if not os.access(place, os.W_OK | os.X_OK):
        raise Permanent(f"directory: {place}: cannot be written")
    return {"status": "ok", "result": f"would file notes in {directory}"}


def respond(request: dict) -> dict:
    directory, tags = checked(request.get("config"))
    if request.get("command") == "health":
        return health(directory)
    if request.get("command") != "handle":
        raise Permanent("note has no such command")
    event = request.get("event") if isinstance(request.get("event"), dict) else {}
    payload = event.get("payload") if isinstance(event.get("payload"), dict) else {}
    workspace = os.path.realpath(request.get("workspace_dir") or ".")
    job_id = request.get("job_id")
    if not isinstance(job_id, str) or not re.fullmatch("[A-Za-z0-9-]{1,64}", job_id):
        raise Permanent("job_id: expected letters, digits and hyphens")
    summary = read(payload, "summary_path", workspace, "summary.txt")
    transcript = read(payload, "transcript_path", workspace, "transcript.txt")
    if not summary and not transcript:
        raise Permanent("there is neither a summary nor a transcript in the workspace, no note was filed")
    fields, date = fields_of(request, event, payload, tags), when(event)
    text = (front_matter(fields, date.isoformat(timespec="seconds")) + "\n"
            + body(fields["title"], fields.get("url", ""), summary, transcript))
    name, is_new = file_note(directory, stem(date.date().isoformat(), fields["title"]), text, job_id=job_id,
                             is_same=lambda head: is_same(fields, head))
    filed = {"type": "note.filed", "payload": {"note_path": name, "note_title": fields["title"]}}
    return {"status": "ok", "result": f"{'filed as' if is_new else 'already filed as'} {name}", "events": [filed]}


if __name__ == "__main__":
    main(respond)
