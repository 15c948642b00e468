"""The head of a webhook request: a strict parser, and the refusal of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

_LENGTH = re.compile("[0-9]{1,10}")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"    # RFC 9110, section 5.6.2
_FIELD = "(" + _TOKEN + r"):([\t -~\x80-\xff]*)\r\n"
_FIELDS = re.compile(_FIELD)
_HEAD = re.compile("(" + _TOKEN + r") ([!-~]+) (HTTP/1\.[0-9])\r\n((?:" + _FIELD + r")*)\r\n")
_TARGET = re.compile(rb"(?:\r\n)?[^ \r\n]+ ([^ \r\n]+) HTTP/")
# The absolute form of a target (RFC 9112, section 3.2.2).
_ORIGIN = re.compile("https?://[^/?#]*", re.IGNORECASE)
# RFC 9112, section 7.1. Nobody here knows an extension, so they are ignored.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,10})(?:[ \t]*;[\t -~\x80-\xff]*)?\r\n")
_TRAILER = re.compile(_FIELD.encode())
# Of a request that came through a proxy.
_FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip", "via")


class Refused(Exception):
    """A request is refused.

    `reason` is a constant text, so that equal refusals can be counted; `error` is the detail of this one. Both are for
    the log: the client gets the status and `headers`.
    """

    def __init__(self, status: HTTPStatus, reason: str, *, level: str = "info", error: str | None = None,
                 headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.level = level
        self.error = error
        self.headers = headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request without its body. `headers` are as received; `path` is raw, without the query."""

    method: str
    path: str
    query: str
    version: str
    headers: tuple[tuple[str, str], ...]
    _by_name: Mapping[str, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name: dict[str, list[str]] = {}
        for name, value in self.headers:
            by_name.setdefault(name.lower(), []).append(value)
        object.__setattr__(self, "_by_name", by_name)

    def values(self, name: str) -> list[str]:
        """Return every value of a header; `name` in lower case."""
        return self._by_name.get(name, [])

    def single(self, name: str) -> str | None:
        """Return the value of a header that appears exactly once, else None; `name` in lower case."""
        values = self.values(name)
        return values[0] if len(values) == 1 else None

    @property
    def is_forwarded(self) -> bool:
        """True if a proxy says that it has forwarded the request."""
        return any(map(self.values, _FORWARDED))

    @property
    def keeps_connection(self) -> bool:
        """True if the client may send another request on this connection (RFC 9112, section 9.3)."""
        if self.version == "HTTP/1.0":
            return False
        options = {option.strip().lower() for value in self.values("connection") for option in value.split(",")}
        return "close" not in options

    @property
    def expects_continue(self) -> bool:
        """True if the client sends the body only after an interim response (RFC 9110, section 10.1.1)."""
        return self.version != "HTTP/1.0" and (self.single("expect") or "").lower() == "100-continue"


def parse(data: bytes) -> Head | None:
    """Parse a head, from its first byte to the end of its empty line; None if it is malformed.

    Strict (RFC 9112, sections 3 and 5), and not left to the standard library: if two readers disagree on where a header
    ends, a request can be hidden from a proxy. Lines end in CR LF, each header has its name and value on one line, and
    neither contains control characters.
    """
    match = _HEAD.fullmatch(data.decode("latin-1"))
    if match is None:
        return None
    path, _, query = _origin_form(match[2]).partition("?")
    headers = tuple((name, value.strip(" \t")) for name, value in _FIELDS.findall(match[4]))
    return Head(method=match[1], path=path, query=query, version=match[3], headers=headers)


def _origin_form(target: str) -> str:
    origin = _ORIGIN.match(target)
    if origin is None:
        return target
    rest = target[origin.end():]
    return rest if rest.startswith("/") else f"/{rest}"


def path_of(data: bytes) -> str | None:
    """Return the path in the first line of a head, even if the rest is malformed; None if there is no path."""
    match = _TARGET.match(data)
    path = "" if match is None else _origin_form(match[1].decode("latin-1")).partition("?")[0]
    return path or None


def body_length(head: Head, limit: int) -> int | None:
    """Return the length of the body in bytes, None if it comes in chunks.

    Raises Refused: 411, 400, or 413 if it is over `limit`. Either the length is given once, in one to ten digits, or
    `Transfer-Encoding` is just `chunked` (RFC 9112, section 6). Both, or anything else, is refused, because two readers
    may disagree on where such a body ends.
    """
    lengths, codings = head.values("content-length"), head.values("transfer-encoding")
    if not lengths and not codings:
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != "chunked" or head.version == "HTTP/1.0":
            raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length or Transfer-Encoding is invalid")
        return None
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length or Transfer-Encoding is invalid")
    length = int(lengths[0])
    if length > limit:
        raise too_large()
    return length


def chunk_size(line: bytes) -> int:
    """Return the size in the first line of a chunk. Raises Refused (400)."""
    match = _CHUNK.fullmatch(line)
    if match is None:
        raise bad_chunk()
    return int(match[1], 16)


def check_trailer(line: bytes) -> None:
    """Raise Refused (400) unless a line after the last chunk is a header."""
    if _TRAILER.fullmatch(line) is None:
        raise bad_chunk()


def too_large() -> Refused:
    """Return the refusal of a large body."""
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is larger than max_body_size")


def bad_chunk() -> Refused:
    """Return the refusal of a body whose chunks are malformed."""
    return Refused(HTTPStatus.BAD_REQUEST, "a chunk of the body is malformed")
