"""What the head of a webhook request says, and whether that may be believed."""

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
_TARGET = re.compile(rb"[^ \r\n]+ ([^ ?\r\n]+)[^ \r\n]* HTTP/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request up to its body. `headers` are as received; `path` is raw, without the query."""

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

    def alone(self, name: str) -> str | None:
        """Return the value of a header that comes exactly once, None otherwise; `name` in lower case."""
        values = self.values(name)
        return values[0] if len(values) == 1 else None

    @property
    def wants_more(self) -> bool:
        """Say whether the connection is to be kept for another request (RFC 9112, section 9.3)."""
        if self.version == "HTTP/1.0":
            return False
        options = {option.strip().lower() for value in self.values("connection") for option in value.split(",")}
        return "close" not in options

    @property
    def waits_for_leave(self) -> bool:
        """Say whether the body comes only after an interim answer (RFC 9110, section 10.1.1)."""
        return self.version != "HTTP/1.0" and (self.alone("expect") or "").lower() == "100-continue"


def parse(data: bytes) -> Head | None:
    """Return what a head says, from its first byte to the end of the empty line behind it; None where it is wrong.

    Strict (RFC 9112, sections 3 and 5), and not left to the standard library: whatever one reader takes for one
    header and another for two hides a request from a proxy. Lines end in CR LF, a header is a name and a value on
    one line, and no control character is in either.
    """
    match = _HEAD.fullmatch(data.decode("latin-1"))
    if match is None:
        return None
    path, _, query = match[2].partition("?")
    headers = tuple((name, value.strip(" \t")) for name, value in _FIELDS.findall(match[4]))
    return Head(method=match[1], path=path, query=query, version=match[3], headers=headers)


def path_of(data: bytes) -> str | None:
    """Return the path that the first line of a head asks for, also where the rest of it is wrong; None without one."""
    match = _TARGET.match(data)
    return None if match is None else match[1].decode("latin-1")


def body_length(head: Head, most: int) -> tuple[int, HTTPStatus | None]:
    """Return the bytes of the body that follows, or the status that refuses the request before it is read.

    The length is told once, in one to ten digits (RFC 9112, section 6.3); any `Transfer-Encoding` is refused, because
    two readers of one request may disagree on where such a body ends.
    """
    lengths = head.values("content-length")
    if not lengths:
        return 0, HTTPStatus.LENGTH_REQUIRED
    if head.values("transfer-encoding") or len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        return 0, HTTPStatus.BAD_REQUEST
    length = int(lengths[0])
    return length, HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length > most else None
