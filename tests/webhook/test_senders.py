"""Every sender that has a preset: a delivery as its own library signs it, and what must not verify."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ductile.config.model import PieceKind, Scheme
from ductile.config.presets import PRESETS
from ductile.config.signing import decode_secret, read_scheme
from ductile.validation import Problem, Section
from ductile.webhook.http_head import Head
from ductile.webhook.signature import Unverified, verify

Headers = tuple[tuple[str, str], ...]

_VALUES = (PieceKind.HEADER, PieceKind.PART)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """A signed delivery, and the endpoint that takes it."""

    sender: str
    preset: str
    secret: str
    body: bytes
    headers: Headers
    scheme: Scheme
    key: bytes

    def verifies(self, *, body: bytes | None = None, headers: Headers | None = None, key: bytes | None = None,
                 scheme: Scheme | None = None) -> bool:
        """Return whether the delivery is verified, with these things in it changed."""
        head = Head(method="POST", path="/", query="", version="HTTP/1.1",
                    headers=(("Host", "x"), *(self.headers if headers is None else headers)))
        try:
            verify(self.body if body is None else body, head, scheme or self.scheme, [key or self.key])
        except Unverified:
            return False
        return True

    def with_header(self, name: str, *values: str) -> Headers:
        """Return the headers with these values of one of them."""
        others = tuple(each for each in self.headers if each[0].lower() != name.lower())
        return (*others, *((name, value) for value in values))

    @property
    def signed_headers(self) -> list[str]:
        """The headers with the signature, and those that it covers."""
        names = {name.lower() for name in self.scheme.headers}
        names |= {piece.text.lower() for piece in self.scheme.signed if piece.kind is PieceKind.HEADER}
        return [name for name, _ in self.headers if name.lower() in names]


def scheme_of(**keys: Any) -> tuple[Scheme, str]:
    """Return the scheme of an endpoint with these keys, and the encoding of its secrets."""
    problems: list[Problem] = []
    scheme, encoding, _ = read_scheme(Section(keys, (), problems))
    assert problems == []
    return scheme, encoding


def _vectors() -> Iterator[Vector]:
    for line in Path(__file__).with_name("vectors.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        url = {"url": row["url"]} if "url" in row else {}
        scheme, encoding = scheme_of(preset=row["preset"], **url)
        key = decode_secret(row["secret"], encoding)
        assert key is not None
        yield Vector(sender=row["sender"], preset=row["preset"], secret=row["secret"], body=row["body"].encode(),
                     headers=tuple(row["headers"].items()), scheme=scheme, key=key)


VECTORS = list(_vectors())
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=[each.sender for each in VECTORS])


def test_every_preset_has_a_delivery() -> None:
    assert (len(VECTORS), {each.preset for each in VECTORS}) == (74, set(PRESETS))


@each_vector
def test_a_delivery_verifies_and_nothing_near_it_does(vector: Vector) -> None:
    assert vector.verifies()
    changed = [vector.body + b" ", b" " + vector.body, vector.body[:-1], b"", vector.body.replace(b"e", b"f", 1)]
    assert [body for body in changed if body != vector.body and vector.verifies(body=body)] == []
    assert not vector.verifies(key=vector.key + b"x")


@each_vector
def test_each_signed_header_must_be_there_once_and_as_it_was(vector: Vector) -> None:
    names = vector.signed_headers
    # Box and others may sign with two secrets in two headers, of which one is enough.
    spare = len([name for name in names if name in vector.scheme.headers]) > 1
    for name in names:
        [value] = [value for each, value in vector.headers if each == name]
        for values in ((value, value), (value, "x"), ("é" + value,)):
            assert not vector.verifies(headers=vector.with_header(name, *values)) or (spare and len(values) == 1)
        if not (spare and name in vector.scheme.headers):
            assert not vector.verifies(headers=vector.with_header(name))
            assert not vector.verifies(headers=vector.with_header(name, ""))
            if name not in vector.scheme.headers:
                assert not vector.verifies(headers=vector.with_header(name, "1" + value))
        assert vector.verifies(headers=vector.with_header(name.upper(), f" {value}\t"))


def test_the_secret_of_stripe_is_never_decoded() -> None:
    [stripe] = [each for each in VECTORS if each.preset == "stripe"]
    assert stripe.key == stripe.secret.encode()
    decoded = base64.b64decode(stripe.secret.removeprefix("whsec_") + "==")
    assert not stripe.verifies(key=decoded)


def cuts(scheme: Scheme, signed: bytes) -> Iterator[list[bytes]]:
    """Yield every way to read a signed text as the pieces of a scheme."""
    def rest(index: int, start: int) -> Iterator[list[bytes]]:
        if index == len(scheme.signed):
            if start == len(signed):
                yield []
            return
        piece = scheme.signed[index]
        if piece.kind is PieceKind.TEXT:
            text = piece.text.encode()
            ends = [start + len(text)] if signed.startswith(text, start) else []
        elif index + 1 == len(scheme.signed):
            ends = [len(signed)]
        else:
            ends = list(range(start, len(signed) + 1))
        for end in ends:
            for others in rest(index + 1, end):
                yield [signed[start:end], *others]

    return rest(0, 0)


def moved(vector: Vector) -> Iterator[tuple[bytes, Headers]]:
    """Yield every other reading of a signed text as a request with the same signature."""
    true = [vector.body if piece.kind is PieceKind.BODY else _true_value(vector, piece.text, piece.kind)
            for piece in vector.scheme.signed]
    for pieces in cuts(vector.scheme, b"".join(true)):
        if pieces == true:
            continue
        body, headers = b"", vector.headers
        for piece, value in zip(vector.scheme.signed, pieces, strict=True):
            if piece.kind is PieceKind.BODY:
                body = value
            elif piece.kind in _VALUES:
                headers = _with_value(vector, headers, piece.text, piece.kind, value.decode("latin-1"))
        yield body, headers


def _true_value(vector: Vector, text: str, kind: PieceKind) -> bytes:
    if kind is PieceKind.TEXT:
        return text.encode()
    if kind is PieceKind.HEADER:
        return next(value for name, value in vector.headers if name.lower() == text.lower()).encode()
    items = _signature(vector).split(vector.scheme.separator)
    return (items[0] if text == "#1" else next(
        item.strip().removeprefix(text) for item in items if item.strip().startswith(text))).encode()


def _signature(vector: Vector) -> str:
    return next(value for name, value in vector.headers if name.lower() == vector.scheme.headers[0].lower())


def _with_value(vector: Vector, headers: Headers, text: str, kind: PieceKind, value: str) -> Headers:
    if kind is PieceKind.HEADER:
        return tuple((name, value if name.lower() == text.lower() else old) for name, old in headers)
    separator = vector.scheme.separator or ""
    items = _signature(vector).split(separator)
    place = 0 if text == "#1" else next(n for n, item in enumerate(items) if item.strip().startswith(text))
    items[place] = value if text == "#1" else f"{text}{value}"
    name = vector.scheme.headers[0].lower()
    return tuple((each, separator.join(items) if each.lower() == name else old) for each, old in headers)


def test_no_signature_is_valid_with_the_boundary_between_value_and_body_moved() -> None:
    tried = 0
    for vector in VECTORS:
        if not any(piece.kind in _VALUES for piece in vector.scheme.signed):
            continue
        for body, headers in moved(vector):
            tried += 1
            assert not vector.verifies(body=body, headers=headers), (vector.sender, body, headers)
    assert tried == 4391


def signed(scheme: Scheme, key: bytes, text: bytes) -> str:
    digest = hmac.digest(key, text, "sha256")
    return scheme.prefix + (digest.hex() if scheme.format == "hex" else base64.b64encode(digest).decode())


def check(body: bytes, headers: Headers, text: bytes, **keys: Any) -> bool:
    """Return whether a request is verified whose signature is that of `text`."""
    scheme, _ = scheme_of(signature_header="X-Sig", **keys)
    head = Head(method="POST", path="/", query="", version="HTTP/1.1",
                headers=(*headers, ("X-Sig", signed(scheme, b"key", text))))
    try:
        verify(body, head, scheme, [b"key"])
    except Unverified:
        return False
    return True


@pytest.mark.parametrize(("value", "is_good"), [
    ("a" * 256, True), ("a" * 257, False), ("", False), ("Mon, 30 Nov 2026 19:08:20 GMT", True), ("aZ09:+/=._-", True),
    *[(f"a{each}", False) for each in "{}[]\"'&;|<>\x7f"],
])
def test_a_value_is_1_to_256_characters_of_a_few_kinds(value: str, is_good: bool) -> None:
    assert check(b"{}", (("X-T", value),), f"#{value}#{{}}".encode(), signed="#{header:X-T}#{body}") is is_good


@pytest.mark.parametrize(("body", "is_good"), [
    (b"{}", True), (b"[]", True), (b"", False), (b"payload=1", False), (b"1", False), (b' {"a": 1}', False),
    (b"\xff", True), (b'"a"', True),
])
def test_beside_a_value_the_body_begins_with_what_no_value_has(body: bytes, is_good: bool) -> None:
    assert check(body, (("X-T", "1"),), b"1" + body, signed="{header:X-T}{body}") is is_good
    assert check(body, (("X-T", "1"),), b"1|" + body, signed="{header:X-T}|{body}")


@pytest.mark.parametrize(("time", "is_good"), [
    ("2026-11-30T19:08:20Z", True), ("2026-11-30T19:08:20.123456789Z", True), ("2026-11-30T11:08:20-08:00", True),
    ("12026-11-30T19:08:20Z", False), ("026-11-30T19:08:20Z", False), ("1796065700", False),
    ("2026-11-30 19:08:20Z", False), ("2026-11-30T19:08:20", False), ("", False),
])
def test_of_two_values_side_by_side_the_second_is_a_time(time: str, is_good: bool) -> None:
    headers = (("X-Id", "a1"), ("X-T", time))
    assert check(b"{}", headers, f"a1{time}{{}}".encode(), signed="{header:X-Id}{header:X-T}{body}") is is_good


def test_more_than_32_items_are_refused() -> None:
    scheme, _ = scheme_of(signature_header="X-Sig", signature_separator="comma")
    good = signed(scheme, b"key", b"{}")
    for count, is_good in ((31, True), (32, False)):
        head = Head(method="POST", path="/", query="", version="HTTP/1.1",
                    headers=(("X-Sig", ",".join(["0"] * count + [good])),))
        try:
            verify(b"{}", head, scheme, [b"key"])
            assert is_good
        except Unverified:
            assert not is_good


def test_a_part_must_be_found_once() -> None:
    [stripe] = [each for each in VECTORS if each.preset == "stripe"]
    value = _signature(stripe)
    for changed in (f"{value},t=1796065700", value.replace("t=1796065700,", "")):
        assert not stripe.verifies(headers=(("Stripe-Signature", changed),))


@pytest.mark.parametrize(("secret", "encoding", "key"), [
    ("whsec_c2VjcmV0", "base64", b"secret"), ("v1,whsec_c2VjcmV0", "base64", b"secret"),
    ("c2VjcmV0cw", "base64", b"secrets"), ("whsec_c2VjcmV0", "text", b"whsec_c2VjcmV0"), ("5365", "hex", b"Se"),
    ("", "base64", None), ("whsec_", "base64", None), ("%%%", "base64", None), ("c2Vj cmV0", "base64", None),
    ("c2Vjc", "base64", None), ("536", "hex", None), ("53 65", "hex", None), ("zz", "hex", None), ("", "text", None),
])
def test_a_secret_is_decoded_strictly(secret: str, encoding: str, key: bytes | None) -> None:
    assert decode_secret(secret, encoding) == key
