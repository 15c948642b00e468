"""Verifies and makes the signature of a webhook: HMAC-SHA256 over a text that has the raw body in it."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from datetime import datetime

from ductile.config.model import Piece, PieceKind, Scheme
from ductile.webhook.http_head import Head

# A signed value. None of these begins or ends a JSON object or list.
_VALUE = re.compile("[0-9A-Za-z:+/=._, -]{1,256}")
_VALUE_BYTES = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz:+/=._, -")
_VISIBLE = re.compile("[!-~]+")
# RFC 3339. Four digits of the year and nothing before them: the end of the value before it is where they start.
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")
_MOST_ITEMS = 32

_WRONG = "the signature is wrong"
_MALFORMED = "a signed value is malformed"
_BOUNDARY = "the body cannot be told from the signed value beside it"


class Unverified(Exception):
    """A request is not signed as it should be. The message is for the log, never for the client."""


def verify(body: bytes, head: Head, scheme: Scheme, keys: Sequence[bytes]) -> bytes:
    """Return the digest if one of `keys` signed this request, else raise Unverified.

    There is no time window: repeated requests are recognised by deduplication, not by age. A digest covers bytes and
    knows no fields, so the values beside the body are checked: a captured signature must not be valid for a request
    whose value includes the beginning of the body, or the reverse.
    """
    items = _items(head, scheme)
    signed = _signed_text(body, head, scheme, items)
    prefix, optional = scheme.prefix, scheme.is_legacy and scheme.format == "hex" and scheme.prefix == "sha256="
    candidates = [_candidate(item.removeprefix(prefix), scheme.format) for item in items
                  if optional or item.startswith(prefix)]
    found: bytes | None = None
    # Every key is tried against every signature, so that the time taken does not tell which one was valid.
    for key in keys:
        digest = hmac.digest(key, signed, "sha256")
        expected = _encode(digest, scheme.format)
        for candidate in candidates:
            if hmac.compare_digest(expected, candidate):
                found = digest
    if found is None:
        raise Unverified(_WRONG)
    return found


def sign(body: bytes, scheme: Scheme, key: bytes, now: datetime) -> dict[str, str]:
    """Return the headers with which a sender of this scheme would send a body, its times being `now`."""
    values = {index: _new_value(scheme, index, now) for index, piece in enumerate(scheme.signed)
              if piece.kind in (PieceKind.HEADER, PieceKind.PART)}
    texts = [body if piece.kind is PieceKind.BODY else values.get(index, piece.text).encode()
             for index, piece in enumerate(scheme.signed)]
    headers: dict[str, str] = {}
    items: list[str] = []
    for index, value in values.items():
        piece = scheme.signed[index]
        if piece.kind is PieceKind.HEADER:
            headers[piece.text] = value
        elif piece.text == "#1":
            items.insert(0, value)
        else:
            items.append(piece.text + value)
    digest = hmac.digest(key, b"".join(texts), "sha256")
    items.append(scheme.prefix + _encode(digest, scheme.format).decode())
    return {**headers, scheme.headers[0]: (scheme.separator or "").join(items)}


def _new_value(scheme: Scheme, index: int, now: datetime) -> str:
    """Return a signed value: a time, which is new enough each time to be an id as well."""
    if index > 0 and scheme.signed[index - 1].kind in (PieceKind.HEADER, PieceKind.PART):
        # Beside another value, only the form of a time tells where it begins.
        return now.strftime("%Y-%m-%dT%H:%M:%SZ")
    is_time = any(word in scheme.signed[index].text.lower() for word in ("time", "date", "t="))
    return str(int(now.timestamp())) if is_time else str(int(now.timestamp() * 1000))


def _single(head: Head, name: str) -> str:
    values = head.values(name.lower())
    if len(values) != 1:
        raise Unverified(f"the header {name} is {'repeated' if values else 'missing'}")
    if not values[0].isascii():
        raise Unverified(_WRONG)
    return values[0].strip(" \t")


def _items(head: Head, scheme: Scheme) -> list[str]:
    """Return the items of the signature headers that are there."""
    there = [name for name in scheme.headers if head.values(name.lower())]
    items: list[str] = []
    for name in there or scheme.headers[:1]:
        value = _single(head, name)
        if scheme.separator is None:
            items.append(value)
        else:
            items += [each for item in value.split(scheme.separator) if (each := item.strip(" \t"))]
    if len(items) > _MOST_ITEMS and not scheme.is_legacy:
        raise Unverified("the signature header has too many items")
    return items


def _signed_text(body: bytes, head: Head, scheme: Scheme, items: list[str]) -> bytes:
    if len(scheme.signed) == 1:
        return body
    texts = [body if piece.kind is PieceKind.BODY else _value(piece, head, items).encode() for piece in scheme.signed]
    for index, piece in enumerate(scheme.signed):
        if piece.kind in (PieceKind.HEADER, PieceKind.PART):
            _check(texts[index].decode(), scheme, index, body)
    return b"".join(texts)


def _value(piece: Piece, head: Head, items: list[str]) -> str:
    if piece.kind is PieceKind.TEXT:
        return piece.text
    if piece.kind is PieceKind.HEADER:
        return _single(head, piece.text)
    if piece.text == "#1":
        return items[0] if items else ""
    found = [item[len(piece.text):].strip(" \t") for item in items if item.startswith(piece.text)]
    if len(found) != 1:
        raise Unverified(f"the part {piece.text} of the signature header is {'repeated' if found else 'missing'}")
    return found[0]


def _check(value: str, scheme: Scheme, index: int, body: bytes) -> None:
    """Check that a signed value can be read in one way only. Raises Unverified."""
    if not (_VISIBLE if scheme.is_legacy else _VALUE).fullmatch(value):
        raise Unverified(_MALFORMED)
    if index > 0:
        left = scheme.signed[index - 1]
        if left.kind is PieceKind.TEXT:
            _must(left.text[-1] not in value)
        elif left.kind is PieceKind.BODY:
            _must_end(body[-1:])
        else:
            _must(_TIME.fullmatch(value) is not None)
    if index + 1 < len(scheme.signed):
        right = scheme.signed[index + 1]
        if right.kind is PieceKind.TEXT:
            _must(right.text[0] not in value)
        elif right.kind is PieceKind.BODY:
            _must_end(body[:1])


def _must(holds: bool) -> None:
    if not holds:
        raise Unverified(_MALFORMED)


def _must_end(touching: bytes) -> None:
    """Check the byte of the body beside a value: no value could go on with it, and it is there."""
    if not touching or touching[0] in _VALUE_BYTES:
        raise Unverified(_BOUNDARY)


def _candidate(text: str, format: str) -> bytes:
    if format == "hex":
        return text.lower().encode()
    return text.removesuffix("=").encode() if format == "base64url" else text.encode()


def _encode(digest: bytes, format: str) -> bytes:
    if format == "hex":
        return digest.hex().encode()
    return base64.b64encode(digest) if format == "base64" else base64.urlsafe_b64encode(digest).rstrip(b"=")
