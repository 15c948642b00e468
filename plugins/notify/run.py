#!/usr/bin/env python3
"""Sends an event's message to a webhook, and never shows more of the webhook's url than its scheme and host."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from urllib.parse import urlsplit

from delivery import Failed, deliver
from message import FORMATS, compose, encode


# In the place of a url: the message goes into Ductile's own log and nowhere else.
LOG = "log"


def is_url(value: object) -> bool:
    if value == LOG:
        return True
    try:
        parts = urlsplit(value)
        parts.hostname.encode("idna")
        return (parts.scheme in ("http", "https") and parts.port != 0 and "@" not in parts.netloc
                and re.fullmatch("[!-~]+", value) is not None)
    except (AttributeError, TypeError, ValueError):
        return False


KEYS = {
    "url": (is_url, "http://HOST/... or https://HOST/... in ASCII, without spaces, user or password, or log"),
    "format": (lambda value: value in tuple(FORMATS), f"one of {', '.join(FORMATS)}"),
    "template": (lambda value: isinstance(value, str), "a text"),
    "title": (lambda value: isinstance(value, str) and value.isprintable(), "one line of printable characters"),
    "token": (lambda value: isinstance(value, str) and re.fullmatch("[!-~]*", value), "ASCII without spaces"),
    "timeout": (lambda value: type(value) in (int, float) and 0 < value <= 3600, "seconds, over 0, at most 3600"),
    "max_length": (lambda value: type(value) is int and value >= 3, "a whole number, 3 or more"),
}


def checked(config: object) -> dict:
    """Return the configuration with its defaults; a null counts as absent. Raises Failed."""
    if not isinstance(config, dict):
        raise Failed("config: expected a mapping")
    config = {"url": None, "format": "json"} | {key: value for key, value in config.items() if value is not None}
    for key, value in config.items():
        if key not in KEYS:
            raise Failed(f"config: unknown key {key!r}, expected one of {', '.join(KEYS)}")
        if not KEYS[key][0](value):
            raise Failed(f"{key}: expected {KEYS[key][1]}")
    if config.get("token") and config["format"] not in ("ntfy", "gotify"):
        raise Failed(f"token: {config['format']} takes none, only ntfy and gotify do")
    return {"title": "", "token": "", "timeout": 15, "max_length": FORMATS[config["format"]][0]} | config


def respond(request: dict, logs: list) -> dict:
    config = checked(request.get("config"))
    parts = urlsplit(config["url"])
    where = LOG if config["url"] == LOG else f"{parts.scheme}://{parts.netloc}"
    if request.get("command") == "health":
        return {"status": "ok", "result": f"would send to {where} as {config['format']}"}
    if request.get("command") != "handle":
        raise Failed("notify has no such command")
    event = request.get("event")
    payload = event.get("payload", {}) if isinstance(event, dict) else {}
    text = compose(config, payload, logs)
    if not text.strip():
        raise Failed("the message is empty, nothing was sent")
    if where == LOG:
        logs.append({"level": "warn", "message": text})
        return {"status": "ok", "result": "written to the log",
                "events": [{"type": "notify.sent", "payload": {"service": LOG}}]}
    try:
        deadline = datetime.fromisoformat(request["deadline_at"]).timestamp()
    except (KeyError, TypeError, ValueError):
        deadline = 0.0
    status = deliver(config, where, *encode(text, config), deadline)
    sent = {"type": "notify.sent", "payload": {"status": status, "service": config["format"]}}
    return {"status": "ok", "result": f"sent to {where}", "events": [sent]}


def main() -> None:
    logs: list = []
    try:
        try:
            request = json.load(sys.stdin.buffer)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            raise Failed("the request is not a JSON object")
        answer = respond(request, logs)
    except (Failed, RecursionError) as error:
        answer = {"status": "error", "error": str(error), "retry": getattr(error, "retry", False)}
    print(json.dumps(answer | {"logs": logs}))


if __name__ == "__main__":
    main()
