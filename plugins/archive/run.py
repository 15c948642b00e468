#!/usr/bin/env python3
"""Appends events to a JSONL, CSV or SQLite file, each once, and files what is in the workspace by date."""

from __future__ import annotations

import base64
import os
import re
import sys
from datetime import UTC, datetime
from hashlib import blake2b
from zoneinfo import ZoneInfo

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import (
    ZONE,
    ConfigError,
    Permanent,
    Retry,
    event_of,
    is_absolute,
    is_line,
    is_zone,
    main,
    seconds_left,
    settings,
    text,
    workspace_of,
)
from storing import file_away, locked, store_csv, store_jsonl, store_sqlite

# Ids of stored events that are remembered, beside those at the end of the file.
MOST_RECENT = 1000
ENDINGS = {"jsonl": "jsonl", "csv": "csv", "sqlite": "sqlite"}
PERIODS = {"never": "", "daily": "-%Y-%m-%d", "monthly": "-%Y-%m", "yearly": "-%Y"}


def is_columns(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(is_line, value)) and "event_id" not in value


def is_patterns(value: object) -> bool:
    return type(value) is bool or (isinstance(value, list) and all(map(is_line, value)))


KEYS = {
    "directory": (is_absolute, "an absolute path, or one that begins with ~"),
    "name": (lambda value: isinstance(value, str) and re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,99}", value),
             "letters, digits, hyphens and underscores", "events"),
    "format": (tuple(ENDINGS), None, "jsonl"),
    "rotate": (tuple(PERIODS), None, "monthly"),
    "timezone": (is_zone, ZONE, None),
    "columns": (is_columns, "a mapping of column names to templates; event_id is always the first column", None),
    "files": (is_patterns, "true, false or a list of patterns such as *.pdf", False),
}


def checked(request: dict) -> dict:
    config = settings(request, KEYS)
    if (config["format"] == "csv") is not (config["columns"] is not None):
        raise ConfigError("columns: needed for format: csv, and only there")
    return config | {"directory": os.path.expanduser(config["directory"])}


def local(timestamp: object, zone: str | None) -> datetime:
    """Return the time of an event in the configured zone; that of now where it has none."""
    try:
        found = datetime.fromisoformat(timestamp)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
    except (TypeError, ValueError):
        found = datetime.now(UTC)
    return found.astimezone(ZoneInfo(zone) if zone else None)


def target(config: dict, when: datetime) -> str:
    """Return the file for an event of this time: always the same, so that a repetition is found in it."""
    period = when.strftime(PERIODS[config["rotate"]])
    return os.path.join(config["directory"], f"{config['name']}{period}.{ENDINGS[config['format']]}")


def handle(request: dict, config: dict) -> dict:
    event = event_of(request)
    when = local(event.get("timestamp"), config["timezone"])
    record = {"event_id": str(event.get("event_id") or request.get("job_id")),
              "time": event.get("timestamp") or when.astimezone(UTC).isoformat(), "type": event.get("type"),
              "source": event.get("source"), "payload": event.get("payload", {})}
    recent = (request.get("state") or {}).get("recent")
    recent = recent if isinstance(recent, str) else ""
    mark = base64.b64encode(blake2b(record["event_id"].encode("utf-8", "replace"), digest_size=6).digest()).decode()
    path = target(config, when)
    with locked(config["directory"], config["name"], seconds_left(request)):
        files = filed(request, config, when)
        record["files"] = [os.path.relpath(path, config["directory"]) for path in files]
        if mark in (recent[start:start + 8] for start in range(0, len(recent), 8)):
            return {"status": "ok", "result": f"already in {path}"}
        path, is_new = store(path, config, record, request.get("context"))
    stored = {"file": path, "new": is_new, "files": files}
    return {"status": "ok", "result": f"{'added to' if is_new else 'already in'} {path}",
            "events": [{"type": "archive.stored", "payload": stored}],
            "state_updates": {"recent": (recent + mark)[-8 * MOST_RECENT:]}}


def filed(request: dict, config: dict, when: datetime) -> list[str]:
    patterns = ["*"] if config["files"] is True else config["files"]
    if not patterns:
        return []
    day = os.path.join(config["directory"], "files", when.strftime("%Y-%m-%d"))
    return file_away(workspace_of(request), patterns, day)


def store(path: str, config: dict, record: dict, context: object) -> tuple[str, bool]:
    if config["format"] == "jsonl":
        return path, store_jsonl(path, record)
    if config["format"] == "sqlite":
        return path, store_sqlite(path, record)
    known = {**(context if isinstance(context, dict) else {}), **record}
    return store_csv(path, record, text(config["columns"], record["payload"], known, name="columns"))


def respond(request: dict) -> dict:
    config = checked(request)
    if request.get("command") not in ("handle", "health"):
        raise Permanent("archive has no such command")
    if not os.path.isdir(config["directory"]):
        raise Retry(f"{config['directory']}: no such directory; create it, or mount its disk")
    if request.get("command") == "health":
        if not os.access(config["directory"], os.W_OK | os.X_OK):
            raise Retry(f"{config['directory']}: cannot be written")
        return {"status": "ok", "result": f"would append to {target(config, local(None, config['timezone']))}"}
    try:
        return handle(request, config)
    except OSError as error:
        raise Retry(f"{error.filename or config['directory']}: {error.strerror}") from None


if __name__ == "__main__":
    main(respond)
