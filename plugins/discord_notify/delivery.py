"""One message to Discord: the request as its API takes it, what the answer means, how long to wait."""

from __future__ import annotations

import http.client
import json
import re
import signal
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from failed import Failed

# Of an answer more than this is not Discord's: a message is a few KiB.
LIMIT_BYTES = 1024 * 1024
REASON_CHARACTERS = 200
# Of one message, all but the last answered with 429.
MOST_TRIES = 5
# Kept at the end of the attempt: to answer, to end.
SPARE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where messages go. `url` may be a secret, and so are `headers`; `hints` say by status how to mend a refusal."""

    url: str
    where: str
    headers: dict[str, str]
    hints: dict[int, str]
    secrets: tuple[str, ...]


def bot_target(api_base: str, token: str, channel_id: str) -> Target:
    """Return the channel as the bot with this token sees it (Discord's documentation: Create Message)."""
    parts = urlsplit(api_base)
    return Target(
        url=f"{api_base.rstrip('/')}/channels/{channel_id}/messages", where=f"{parts.scheme}://{parts.netloc}",
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
        url=parts._replace(query=query, fragment="").geturl(), where=f"{parts.scheme}://{parts.netloc}", headers={},
        hints={401: hint, 403: hint, 404: hint},
        secrets=tuple(re.findall(r"[^/&=]+", f"{parts.path}&{parts.query}")))


def deliver(target: Target, message: dict, timeout: float, deadline: float) -> None:
    """Have the message posted, waiting as often and as long as Discord asks where the deadline allows. Raises Failed.

    `timeout` is in seconds and for each exchange; `deadline`, of all of them, in seconds since 1970.
    """
    body = json.dumps(message).encode()
    for left in reversed(range(MOST_TRIES)):
        status, retry_after, data = _post(target, body, min(timeout, deadline - SPARE_SECONDS - time.time()))
        if 200 <= status < 300:
            return
        wait = _seconds_to_wait(retry_after, data) if status == 429 else None
        if wait is None or left == 0 or time.time() + wait + SPARE_SECONDS >= deadline:
            raise Failed(_refusal(target, status, wait, data), retry=status == 429 or status >= 500)
        time.sleep(wait)


class _Answer(http.client.HTTPResponse):
    """An answer whose head must be whole: the standard library takes one that was cut off for a short one."""

    def begin(self) -> None:
        last, readline = b"", self.fp.readline

        def noted(limit: int) -> bytes:
            nonlocal last
            last = readline(limit)
            return last

        self.fp.readline = noted
        super().begin()
        if last not in (b"\r\n", b"\n"):
            raise http.client.IncompleteRead(b"")


def _stalled(*_: object) -> None:
    raise TimeoutError


def _post(target: Target, body: bytes, seconds: float) -> tuple[int, str | None, bytes]:
    """Return the answer's status, its Retry-After and the start of its body. Raises Failed without a whole answer."""
    if seconds <= 0:
        raise Failed("there is no time left to post, give the step a longer timeout", retry=True)
    parts = urlsplit(target.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port or kind.default_port)
    connection.response_class = _Answer
    headers = {"Content-Type": "application/json", "User-Agent": "DiscordBot (ductile, 0.1.0)"} | target.headers
    # One limit for all of it: a timeout of the socket would begin anew with each byte.
    signal.signal(signal.SIGALRM, _stalled)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        connection.request("POST", parts._replace(scheme="", netloc="").geturl(), body, headers)
        answer = connection.getresponse()
        data = answer.read(LIMIT_BYTES)
        while answer.read(65536):
            pass
        if answer.length:
            raise http.client.IncompleteRead(b"")
        return answer.status, answer.getheader("Retry-After"), data
    except TimeoutError:
        raise Failed(f"{target.where} gave no whole answer within {seconds:.3g} s", retry=True) from None
    except (http.client.HTTPException, ConnectionResetError, BrokenPipeError):
        raise Failed(f"{target.where} broke off in mid-answer, or its answer is not HTTP", retry=True) from None
    except OSError as error:
        raise Failed(f"{target.where}: {error.strerror or 'the connection failed'}", retry=True) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.close()


def _said(data: bytes) -> dict:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _seconds_to_wait(retry_after: str | None, data: bytes) -> float | None:
    """Return what the header or the body asks for, the longer of both, or None where neither is understood."""
    waits = [float(retry_after)] if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", retry_after or "") else []
    said = _said(data).get("retry_after")
    if type(said) in (int, float) and 0 <= said < 1e9:
        waits.append(float(said))
    return max(waits, default=None)


def _refusal(target: Target, status: int, wait: float | None, data: bytes) -> str:
    text = f"{target.where} answered {status} {http.client.responses.get(status, '')}".rstrip()
    if 300 <= status < 400:
        return f"{text}: redirects are not followed"
    if wait is not None:
        return f"{text} and asks to wait {wait:.3g} s"
    said = _said(data)
    message, code = said.get("message"), said.get("code")
    # Who repeats a secret is not quoted.
    if isinstance(message, str) and not any(secret in message for secret in target.secrets):
        line = " ".join("".join(char if char.isprintable() else " " for char in message).split())
        text += f": {line[:REASON_CHARACTERS]}" if line else ""
    if type(code) is int and code:
        text += f" (code {code})"
    return f"{text}; {target.hints[status]}" if status in target.hints else text
