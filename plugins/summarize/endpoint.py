"""A summary by a model behind an OpenAI-compatible endpoint: one POST to its /chat/completions."""

from __future__ import annotations

import http.client
import json
import re
import signal
from urllib.parse import urlsplit

from failed import Failed

LIMIT_BYTES = 8 * 1024 * 1024
REASON_CHARACTERS = 300
_LAST_END = re.compile(r".*(?:[.!?…؟।][\"'”’»)\]]*(?=\s)|[。！？]|\n(?=\s*\n))", re.DOTALL)


def ask(config: dict, text: str, seconds: float) -> str:
    """Return the content of the answer's first choice. Raises Failed; no error ever shows the key."""
    parts = urlsplit(config["endpoint"])
    where = f"{parts.scheme}://{parts.netloc}"
    body = {"model": config["model"], "messages": [
        {"role": "system", "content": config["prompt"]}, {"role": "user", "content": text}]}
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "ductile-summarize"}
    if config["api_key"]:
        headers["Authorization"] = f"Bearer {config['api_key']}"
    status, data = _post(config["endpoint"], where, json.dumps(body).encode(), headers, seconds)
    if 200 <= status < 300:
        return _content(data, where)
    text = f"{where} answered {status} {http.client.responses.get(status, '')}".rstrip()
    if 300 <= status < 400:
        raise Failed(f"{text}: redirects are not followed, give the endpoint where it ends")
    raise Failed(text + _reason(data, config["api_key"]), retry=status == 429 or status >= 500)


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


def _post(url: str, where: str, body: bytes, headers: dict, seconds: float) -> tuple[int, bytes]:
    """Return the status of the answer and its body. Raises Failed where there is no whole answer."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port or kind.default_port)
    connection.response_class = _Answer
    path = parts.path.rstrip("/") + "/chat/completions" + (f"?{parts.query}" if parts.query else "")
    # One limit for all of it: a timeout of the socket would begin anew with each byte.
    signal.signal(signal.SIGALRM, _stalled)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        data = answer.read(LIMIT_BYTES + 1)
        if len(data) > LIMIT_BYTES:
            raise Failed(f"{where} answered with more than {LIMIT_BYTES // 1024 // 1024} MiB, that is no summary")
        if answer.length:
            raise http.client.IncompleteRead(b"")
        return answer.status, data
    except TimeoutError:
        raise Failed(f"{where} gave no whole answer within {seconds:.3g} s", retry=True) from None
    except (http.client.HTTPException, ConnectionResetError, BrokenPipeError):
        raise Failed(f"{where} broke off in mid-answer, or its answer is not HTTP", retry=True) from None
    except OSError as error:
        raise Failed(f"{where}: {error.strerror or 'the connection failed'}", retry=True) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.close()


def _content(data: bytes, where: str) -> str:
    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Failed(f"{where} answered something else than a chat completion, look at the endpoint") from None
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
    message = message.replace(key, "***") if key else message
    line = " ".join("".join(char if char.isprintable() else " " for char in message).split())
    return f": {line[:REASON_CHARACTERS]}" if line else ""
