"""The message of an event, and the form in which each service takes it."""

from __future__ import annotations

import json
import re

from ductile_plugin import as_text, log
from ductile_plugin import text as fill

# What a message may measure (characters, for ntfy bytes of UTF-8) and what marks a title on a line of its own.
FORMATS = {"discord": (2000, "**"), "slack": (40_000, "*"), "mattermost": (16_383, "**"), "ntfy": (4096, None),
           "gotify": (None, None), "json": (None, None)}
# Slack's escapes, and what begins and ends a fenced block.
_UNDIVIDED = re.compile("&(?:amp|lt|gt);|`{3,}")
_CLOSING = "\n```"


def compose(config: dict, payload: object, context: object, note: str = "") -> str:
    """Return the text to send, cut to what the service takes. A name that is missing is empty, with a warning.

    `note` is a line before the message.
    """
    service, limit, mark = config["format"], config["max_length"], FORMATS[config["format"]][1]
    template = config.get("template")
    if template is None and isinstance(payload, dict) and payload.get("message") is not None:
        template = "{message}"
    escape = _escaped if service == "slack" else str
    text = escape(as_text(payload)) if template is None else fill(
        template, payload, context, escape=escape, missing=lambda name: log(f"the payload has no {name!r}", "warn"))
    if note:
        text = f"{note}\n{text}"
    if mark and config["title"] and text.strip():
        text = f"{mark}{config['title']}{mark}\n{text}"
    encoded = _utf8(text)
    size = len(encoded) if service == "ntfy" else len(text)
    if limit is None or size <= limit:
        return text
    log(f"the message was cut from {size} to {limit}")
    return encoded[:limit - 3].decode(errors="ignore") + "…" if service == "ntfy" else _cut(text, limit)


def _cut(text: str, limit: int) -> str:
    """Return the start of a text, at most `limit` characters, with an open fenced block closed."""
    start = _start(text, limit - 1)
    if start.count("```") % 2 == 0:
        return f"{start}…"
    start = _start(text, limit - 1 - len(_CLOSING))
    code = start.rpartition("```")[2]
    if start.count("```") % 2 and code.strip():
        return f"{start}…{_CLOSING}"
    # Nothing of the block fits.
    return f"{start.rstrip().rstrip('`')}…" if start.count("```") % 2 else f"{start}…"


def _start(text: str, end: int) -> str:
    """Return what is before `end`, without the half of an escape or of a fence."""
    divided = (part.start() for part in _UNDIVIDED.finditer(text) if part.start() < end < part.end())
    return text[:next(divided, end)]


def encode(text: str, config: dict) -> tuple[bytes, dict]:
    """Return the body and the headers that the service expects."""
    service, title, token = config["format"], config["title"], config["token"]
    headers = {"User-Agent": "ductile-notify", "Content-Type": "application/json"}
    if service == "ntfy":
        headers |= {"Content-Type": "text/plain; charset=utf-8"} | ({"Title": title.encode()} if title else {})
        return _utf8(text), headers | ({"Authorization": f"Bearer {token}"} if token else {})
    if service == "discord":
        # A stranger's `@everyone` stays a word.
        body = {"content": text, "allowed_mentions": {"parse": []}}
    elif service in ("slack", "mattermost"):
        body = {"text": text}
    else:
        body = {"message": text} | ({"title": title} if title else {})
    return json.dumps(body).encode(), headers | ({"X-Gotify-Key": token} if token else {})


def _escaped(text: str) -> str:
    # Slack would read `<!channel>` as a call to everybody.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
