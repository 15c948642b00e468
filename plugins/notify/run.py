#!/usr/bin/env python3
"""Sends an event's message to a webhook, and never shows more of the webhook's url than its scheme and host."""

from __future__ import annotations

import os
import re
import sys
import time

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import (
    URL,
    ConfigError,
    Permanent,
    event_of,
    http,
    is_url,
    log,
    main,
    seconds_left,
    settings,
    where,
)
from message import FORMATS, compose, encode
from repeats import Repeats, is_duration, seconds

# In the place of a url: the message goes into Ductile's own log and nowhere else.
LOG = "log"
LONGEST_WAIT_SECONDS = 5
# What a service says to a message counts for nothing; more of it is not read.
LIMIT_BYTES = 1024 * 1024


KEYS = {
    "url": (lambda value: value == LOG or is_url(value), f"{URL}, or log"),
    "format": (tuple(FORMATS), None, "json"),
    "template": (lambda value: isinstance(value, str), "a text", None),
    "title": (lambda value: isinstance(value, str) and value.isprintable(), "one line of printable characters", ""),
    "token": (lambda value: isinstance(value, str) and re.fullmatch("[!-~]*", value), "ASCII without spaces", ""),
    "timeout": (lambda value: type(value) in (int, float) and 0 < value <= 3600, "seconds, over 0, at most 3600", 15),
    "repeat_after": (is_duration, "a duration such as 1h", None),
    "max_length": (lambda value: type(value) is int and value >= 3, "a whole number, 3 or more", None),
}


def checked(request: dict) -> dict:
    """Return the configuration with its defaults. Raises ConfigError."""
    config = settings(request, KEYS)
    if config["token"] and config["format"] not in ("ntfy", "gotify"):
        raise ConfigError(f"token: {config['format']} takes none, only ntfy and gotify do")
    return config if config["max_length"] else config | {"max_length": FORMATS[config["format"]][0]}


def deliver(request: dict, config: dict, text: str) -> int:
    """Return the status of the answer that took the message, sent again once after a short wait. Raises Failed."""
    body, headers = encode(text, config)
    answer = post(request, config, body, headers)
    wait = answer.retry_after
    left = seconds_left(request, spare=0.0, default=0.0)
    if answer.status == 429 and wait is not None and wait <= LONGEST_WAIT_SECONDS and wait < left:
        time.sleep(wait)
        answer = post(request, config, body, headers)
        wait = answer.retry_after
    if answer.ok:
        return answer.status
    if 300 <= answer.status < 400:
        raise answer.error(": redirects are not followed, give the url where it ends")
    raise answer.error("" if wait is None else f" and asks to wait {wait:.0f} s")


def post(request: dict, config: dict, body: bytes, headers: dict) -> object:
    timeout = min(config["timeout"], seconds_left(request, default=config["timeout"]))
    return http("POST", config["url"], headers=headers, body=body, timeout=timeout, limit=LIMIT_BYTES, cut=True)


def respond(request: dict) -> dict:
    config = checked(request)
    place = LOG if config["url"] == LOG else where(config["url"])
    if request.get("command") == "health":
        return {"status": "ok", "result": f"would send to {place} as {config['format']}"}
    if request.get("command") != "handle":
        raise Permanent("notify has no such command")
    event = event_of(request)
    payload = event.get("payload", {})
    text = compose(config, payload, request.get("context"))
    if not text.strip():
        raise Permanent("the message is empty, nothing was sent")
    repeats = None
    if config["repeat_after"] is not None:
        repeats = Repeats(request.get("state"), event, payload, text, seconds(config["repeat_after"]))
        if repeats.is_held:
            return {"status": "ok", "result": f"held back: sent less than {config['repeat_after']} ago",
                    "state_updates": repeats.updates()}
        if repeats.held:
            text = compose(config, payload, request.get("context"), note=repeats.note)
    return send(request, config, place, text) | ({} if repeats is None else {"state_updates": repeats.updates()})


def send(request: dict, config: dict, place: str, text: str) -> dict:
    if place == LOG:
        log(text, "warn")
        return {"status": "ok", "result": "written to the log",
                "events": [{"type": "notify.sent", "payload": {"service": LOG}}]}
    sent = {"status": deliver(request, config, text), "service": config["format"]}
    return {"status": "ok", "result": f"sent to {place}", "events": [{"type": "notify.sent", "payload": sent}]}


if __name__ == "__main__":
    main(respond)
