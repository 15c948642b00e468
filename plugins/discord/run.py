#!/usr/bin/env python3
"""Finds the links in a Discord message and emits an event for each, once however often the message is delivered."""

from __future__ import annotations

import os
import re
import sys

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import Permanent, counted, main, settings
from links import find

# Discord allows 4,000 characters. Every event carries the content: a longer one with many links would never end.
LONGEST_CONTENT = 10_000
HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)


KEYS = {
    "bots": ((True, False), "true or false", False),
    "hosts": (lambda value: isinstance(value, list) and value != [] and all(
        isinstance(host, str) and HOST_NAME.fullmatch(host) for host in value),
        "a list of host names such as youtube.com", []),
}


def message_of(event: object) -> dict:
    """Return what counts of the message that an event carries. Raises Permanent, naming all that is missing."""
    payload = event.get("payload") if isinstance(event, dict) else None
    if not isinstance(payload, dict):
        raise Permanent("the payload is not a Discord message: expected a JSON object")
    author = payload.get("author")
    parts = {"id": payload.get("id"), "channel_id": payload.get("channel_id"), "content": payload.get("content"),
             "author.id": author.get("id") if isinstance(author, dict) else None}
    missing = [name for name, value in parts.items() if value is None or (value == "" and name != "content")]
    if missing:
        raise Permanent(f"the payload is not a Discord message: {', '.join(missing)} missing")
    for name, value in parts.items():
        if not isinstance(value, str):
            raise Permanent(f"the payload is not a Discord message: {name} is not a string")
    if len(parts["content"]) > LONGEST_CONTENT:
        raise Permanent(f"the payload is not a Discord message: content is longer than {LONGEST_CONTENT:,} characters")
    return parts


def is_of_a_bot(message: dict) -> bool:
    """Say whether a program wrote the message: a bot's user, or a webhook of Discord's."""
    return message["author"].get("bot") is True or message.get("webhook_id") is not None


def respond(request: dict) -> dict:
    config = settings(request, KEYS)
    hosts = [host.lower() for host in config["hosts"]]
    if request.get("command") == "health":
        return {"status": "ok", "result": f"would take links to {', '.join(hosts) or 'any host'}"}
    if request.get("command") != "handle":
        raise Permanent("discord has no such command")
    message = message_of(request.get("event"))
    if not config["bots"] and is_of_a_bot(request["event"]["payload"]):
        # An answer that was posted to the channel with a link in it would be answered again, for ever.
        return {"status": "ok", "result": "the message is a bot's", "events": []}
    # The url and not its place is in the key: an edited message may be delivered again with one link more.
    events = [
        {"type": "discord.link", "dedupe_key": f"discord:{message['id']}:{url}",
         "payload": {"url": url, "channel_id": message["channel_id"], "origin_user_id": message["author.id"],
                     "message_id": message["id"], "content": message["content"]}}
        for url in find(message["content"], hosts)]
    result = counted(len(events), "link") if events else "no link in the message"
    return {"status": "ok", "result": result, "events": events}


if __name__ == "__main__":
    main(respond)
