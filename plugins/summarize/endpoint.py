"""A summary by a model behind an OpenAI-compatible endpoint: one POST to its /chat/completions."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from ductile_plugin import Permanent, http, one_line, where

LIMIT_BYTES = 8 * 1024 * 1024
REASON_CHARACTERS = 300
_LAST_END = re.compile(r".*(?:[.!?…؟।][\"'”’»)\]]*(?=\s)|[。！？]|\n(?=\s*\n))", re.DOTALL)


def ask(config: dict, text: str, seconds: float) -> str:
    """Return the content of the answer's first choice. Raises Failed; no error ever shows the key."""
    parts, key = urlsplit(config["endpoint"]), config["api_key"]
    url = parts._replace(path=parts.path.rstrip("/") + "/chat/completions").geturl()
    body = {"model": config["model"], "messages": [
        {"role": "system", "content": config["prompt"]}, {"role": "user", "content": text}]}
    headers = {"Accept": "application/json", "User-Agent": "ductile-summarize"} | (
        {"Authorization": f"Bearer {key}"} if key else {})
    answer = http("POST", url, headers=headers, body=body, timeout=seconds, limit=LIMIT_BYTES)
    if answer.ok:
        return _content(answer.body, where(url))
    if 300 <= answer.status < 400:
        raise answer.error(": redirects are not followed, give the endpoint where it ends")
    raise answer.error(_reason(answer.body, key))


def shortened(text: str, limit: int) -> str:
    """Return the start of `text`, at most `limit` characters, up to the end of a sentence or at least of a word."""
    if len(text) <= limit:
        return text
    start = text[:limit + 1]
    whole = _LAST_END.match(start)
    if whole and whole.end() > limit // 2:
        return start[:whole.end()].rstrip()
    word = start[:limit].rfind(" ") if not start[limit].isspace() else limit
    return start[:word if word > limit // 2 else limit].rstrip()


def _content(data: bytes, place: str) -> str:
    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Permanent(f"{place} answered something else than a chat completion, look at the endpoint") from None
    # A model that has nothing to say, or only calls a tool, says null.
    return content if isinstance(content, str) else ""


def _reason(data: bytes, key: str) -> str:
    """Return the server's error.message as the end of a line, without the key, which some servers repeat."""
    try:
        message = json.loads(data)["error"]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    if not isinstance(message, str):
        return ""
    line = one_line(message, REASON_CHARACTERS, secrets=(key,))
    return f": {line}" if line else ""
