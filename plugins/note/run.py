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

from ductile_plugin import (
    Permanent,
    event_of,
    is_absolute,
    main,
    payload_of,
    settings,
    workspace_of,
    workspace_text,
)
from filing import file_note
from markdown import body, front_matter, identity, one_line, quoted, stem

LIMIT_BYTES = 4 * 1024 * 1024


KEYS = {
    "directory": (is_absolute, "an absolute path or one that starts with ~/"),
    "tags": (lambda value: isinstance(value, list) and all(isinstance(tag, str) and tag and tag == one_line(tag)
                                                           for tag in value),
             "a list of strings, each on one line (a number needs quotes)", []),
}


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
        "channel": text(channel_of(payload, workspace_of(request))),
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
    config = settings(request, KEYS)
    directory, tags = os.path.normpath(os.path.expanduser(config["directory"])), config["tags"]
    if request.get("command") == "health":
        return health(directory)
    if request.get("command") != "handle":
        raise Permanent("note has no such command")
    event, payload = event_of(request), payload_of(request)
    job_id = request.get("job_id")
    if not isinstance(job_id, str) or not re.fullmatch("[A-Za-z0-9-]{1,64}", job_id):
        raise Permanent("job_id: expected letters, digits and hyphens")
    summary, transcript = (workspace_text(request, f"{name}_path", f"{name}.txt", "text", optional=True).strip()
                           for name in ("summary", "transcript"))
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
