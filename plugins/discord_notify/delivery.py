"""One message to Discord: the request as its API takes it, what the answer means, how long to wait."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from ductile_plugin import Retry, http, one_line

# Of an answer more than this is not Discord's: a message is a few KiB.
LIMIT_BYTES = 1024 * 1024
REASON_CHARACTERS = 200
# Of one message, all but the last answered with 429.
MOST_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where messages go. `url` may be a secret, and so are `headers`; `hints` say by status how to mend a refusal."""

    url: str
    headers: dict[str, str]
    hints: dict[int, str]
    secrets: tuple[str, ...]


def bot_target(api_base: str, token: str, channel_id: str) -> Target:
    """Return the channel as the bot with this token sees it (Discord's documentation: Create Message)."""
    return Target(
        url=f"{api_base.rstrip('/')}/channels/{channel_id}/messages",
        headers={"Authorization": f"Bot {token}"}, secrets=(token,),
        hints={401: "look at bot_token", 403: f"the bot may not post in channel {channel_id}",
               404: f"the bot sees no channel {channel_id}"})


def webhook_target(url: str) -> Target:
    """Return the webhook's channel (Discord's documentation: Execute Webhook)."""
    parts = urlsplit(url)
    # Without it a message that is not stored is answered like one that is.
    query = f"{parts.query}&wait=true" if parts.query else "wait=true"
    hint = "look at webhook_url"
    return Target(
        url=parts._replace(query=query, fragment="").geturl(), headers={},
        hints={401: hint, 403: hint, 404: hint},
        secrets=tuple(re.findall(r"[^/&=]+", f"{parts.path}&{parts.query}")))


def deliver(target: Target, message: dict, timeout: float, end: float) -> None:
    """Have the message posted, waiting as often and as long as Discord asks where there is time. Raises Failed.

    `timeout` is in seconds and for each exchange; `end`, of all of them, is a time of time.monotonic().
    """
    headers = {"User-Agent": "DiscordBot (ductile, 0.1.0)"} | target.headers
    for left in reversed(range(MOST_TRIES)):
        seconds = min(timeout, end - time.monotonic())
        if seconds <= 0:
            raise Retry("there is no time left to post, give the step a longer timeout")
        answer = http("POST", target.url, headers=headers, body=message, timeout=seconds, limit=LIMIT_BYTES, cut=True)
        if answer.ok:
            return
        wait = _seconds_to_wait(answer) if answer.status == 429 else None
        if wait is None or left == 0 or time.monotonic() + wait >= end:
            raise answer.error(_reason(target, answer, wait))
        time.sleep(wait)


def _said(data: bytes) -> dict:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _seconds_to_wait(answer: object) -> float | None:
    """Return what the header or the body asks for, the longer of both, or None where neither is understood."""
    waits = [] if answer.retry_after is None else [answer.retry_after]
    said = _said(answer.body).get("retry_after")
    if type(said) in (int, float) and 0 <= said < 1e9:
        waits.append(float(said))
    return max(waits, default=None)


def _reason(target: Target, answer: object, wait: float | None) -> str:
    """Return what there is to say about a refusal behind its status."""
    if 300 <= answer.status < 400:
        return ": redirects are not followed"
    if wait is not None:
        return f" and asks to wait {wait:.0f} s" if wait >= 100 else f" and asks to wait {wait:.3g} s"
    said = _said(answer.body)
    message, code = said.get("message"), said.get("code")
    text = ""
    # Who repeats a secret is not quoted.
    if isinstance(message, str) and not any(secret in message for secret in target.secrets):
        line = one_line(message, REASON_CHARACTERS)
        text += f": {line}" if line else ""
    if type(code) is int and code:
        text += f" (code {code})"
    return f"{text}; {target.hints[answer.status]}" if answer.status in target.hints else text
