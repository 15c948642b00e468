"""One document over HTTP, from nowhere but the site that was configured and YouTube's own."""

from __future__ import annotations

import time
from urllib.parse import quote, urljoin, urlsplit

from ductile_plugin import SAFE, Permanent, http
from video import one_line

LIMIT_BYTES = 20 * 1024 * 1024
MOST_REDIRECTS = 3
_HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; ductile)", "Accept-Language": "en",
    # Without it YouTube asks in Europe for consent, and shows that question in place of the video.
    "Cookie": "SOCS=CAI",
}
_PORTS = {"http": 80, "https": 443}


def get(url: str, base_url: str, end: float) -> object:
    """Return the answer, under 300 or over 399; redirects within the sites are followed.

    `end` is a time of time.monotonic(). Raises Failed where there is no whole answer, where there may be another later
    (429, 5xx), and for a url that leads to another site.
    """
    def check(url: str) -> None:
        if not _is_followed(url, base_url):
            raise Permanent(f"{base_url} leads to another site, which is not followed: {one_line(url, 200)}")

    answer = http("GET", url, headers=_HEADERS, timeout=end - time.monotonic(), limit=LIMIT_BYTES,
                  redirects=MOST_REDIRECTS, check=check)
    if answer.retryable:
        raise answer.error()
    return answer


def joined(url: str, reference: str) -> str:
    """Return where a reference on a page leads to, in ASCII; an empty text for one that is no url."""
    try:
        return quote(urljoin(url, reference), safe=SAFE)
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
