"""One document over HTTP, from nowhere but the site that was configured and YouTube's own."""

from __future__ import annotations

import http.client
from urllib.parse import quote, urljoin, urlsplit

from video import Failed, one_line

LIMIT_BYTES = 20 * 1024 * 1024
MOST_REDIRECTS = 3
_HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; ductile)", "Accept-Language": "en",
    # Without it YouTube asks in Europe for consent, and shows that question in place of the video.
    "Cookie": "SOCS=CAI",
}
_PORTS = {"http": 80, "https": 443}
# What a url may hold, so that what stands in it already is not quoted again.
_SAFE = "%/:?#[]@!$&'()*+,;=~"


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


def get(url: str, base_url: str, timeout: float) -> tuple[int, str]:
    """Return the status, under 300 or over 399, and the text of the answer; redirects within the sites are followed.

    The caller sets the alarm that raises TimeoutError after `timeout` seconds, a limit on all of the work: one of a
    socket would begin anew with each byte. Raises Failed where there is no whole answer, where there may be another
    later (429, 5xx), and for a url that leads to another site.
    """
    where = ""
    for _ in range(1 + MOST_REDIRECTS):
        if not _is_followed(url, base_url):
            raise Failed(f"{base_url} leads to another site, which is not followed: {one_line(url, 200)}")
        where = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
        status, location, body = _get(url, where, timeout)
        if status == 429 or status >= 500:
            raise Failed(f"{where} {answered(status)}", retry=True)
        if not 300 <= status < 400:
            return status, body.decode("utf-8", "replace")
        url = joined(url, location or "")
    raise Failed(f"{where} redirects again and again")


def answered(status: int) -> str:
    return f"answered {status} {http.client.responses.get(status, '')}".rstrip()


def joined(url: str, reference: str) -> str:
    """Return where a reference on a page leads to, in ASCII; an empty text for one that is no url."""
    try:
        return quote(urljoin(url, reference), safe=_SAFE)
    except ValueError:
        return ""


def _is_followed(url: str, base_url: str) -> bool:
    """Say whether a url is of the configured site or of YouTube: a page must not send us into the local network."""
    try:
        parts, base = urlsplit(url), urlsplit(base_url)
        port = parts.port or _PORTS.get(parts.scheme)
        host = f".{parts.hostname or ''}"
        host[1:].encode("idna")
    except ValueError:
        return False
    ours = parts.scheme == base.scheme and port == (base.port or _PORTS[base.scheme])
    youtube = parts.scheme == "https" and port == 443
    return "@" not in parts.netloc and (
        (ours and host.endswith(f".{base.hostname}")) or (youtube and host.endswith(".youtube.com")))


def _get(url: str, where: str, timeout: float) -> tuple[int, str | None, bytes]:
    """Return the status, the Location and the body of one answer. Raises Failed where there is no whole one."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port or kind.default_port)
    connection.response_class = _Answer
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=_HEADERS)
        answer = connection.getresponse()
        body = answer.read(LIMIT_BYTES + 1)
        if len(body) > LIMIT_BYTES:
            raise Failed(f"{where} gave an answer of more than {LIMIT_BYTES // 1024 // 1024} MiB")
        if answer.length:
            raise http.client.IncompleteRead(b"")
        return answer.status, answer.getheader("Location"), body
    except TimeoutError:
        raise Failed(f"{where} gave no whole answer within {timeout:g} s", retry=True) from None
    except (http.client.HTTPException, ConnectionResetError, BrokenPipeError):
        raise Failed(f"{where} broke off in mid-answer, or its answer is not HTTP", retry=True) from None
    except OSError as error:
        raise Failed(f"{where}: {error.strerror or 'the connection failed'}", retry=True) from None
    finally:
        connection.close()
