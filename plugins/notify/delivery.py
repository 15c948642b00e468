"""One message to one webhook: the request, what its answer means, and when to try again."""

from __future__ import annotations

import http.client
import re
import signal
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

LONGEST_WAIT_SECONDS = 5


class Failed(Exception):
    """The message was not sent; `retry` says whether it may be sent later."""

    def __init__(self, text: str, *, retry: bool = False) -> None:
        super().__init__(text)
        self.retry = retry


def deliver(config: dict, where: str, body: bytes, headers: dict, deadline: float) -> int:
    """Return the status of the answer that took the message, sent again once after a short wait. Raises Failed."""
    status, retry_after = _post(config, where, body, headers)
    wait = _seconds_to_wait(retry_after)
    if status == 429 and wait is not None and wait <= LONGEST_WAIT_SECONDS and time.time() + wait < deadline:
        time.sleep(wait)
        status, retry_after = _post(config, where, body, headers)
        wait = _seconds_to_wait(retry_after)
    if 200 <= status < 300:
        return status
    text = f"{where} answered {status} {http.client.responses.get(status, '')}".rstrip()
    if 300 <= status < 400:
        text += ": redirects are not followed, give the url where it ends"
    elif wait is not None:
        text += f" and asks to wait {wait:.0f} s"
    raise Failed(text, retry=status == 429 or status >= 500)


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


def _post(config: dict, where: str, body: bytes, headers: dict) -> tuple[int, str | None]:
    """Return the status of the answer and its Retry-After. Raises Failed where there is no whole answer."""
    parts = urlsplit(config["url"])
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port or kind.default_port)
    connection.response_class = _Answer
    # One limit for all of it: a timeout of the socket would begin anew with each byte.
    signal.signal(signal.SIGALRM, _stalled)
    signal.setitimer(signal.ITIMER_REAL, config["timeout"])
    try:
        connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
        answer = connection.getresponse()
        while answer.read(65536):
            pass
        if answer.length:
            raise http.client.IncompleteRead(b"")
        return answer.status, answer.getheader("Retry-After")
    except TimeoutError:
        raise Failed(f"{where} gave no whole answer within {config['timeout']:g} s", retry=True) from None
    except (http.client.HTTPException, ConnectionResetError, BrokenPipeError):
        raise Failed(f"{where} broke off in mid-answer, or its answer is not HTTP", retry=True) from None
    except OSError as error:
        raise Failed(f"{where}: {error.strerror or 'the connection failed'}", retry=True) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.close()


def _seconds_to_wait(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After (RFC 9110, 10.2.3) asks for, or None where it is not understood."""
    try:
        return float(retry_after) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", retry_after) else max(
            0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
