"""Verifies the signature of a webhook: HMAC-SHA256 in five formats."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ductile.config.values import key_of

# Signed values are joined with dots or colons, so the values before the body may not contain them: otherwise the same
# signature would be valid for a request whose timestamp or id includes the beginning of the body.
_TIMESTAMP = re.compile("[0-9]+")
_ID = re.compile(r"[!-\-/-~]+")    # visible ASCII without the dot

# Headers that are signed together with the body.
_ALSO = {"slack": ("X-Slack-Request-Timestamp",), "standard": ("webhook-id", "webhook-timestamp")}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """The signatures of a request, any of which may be valid, over `prefix` and the body.

    `encode` writes a digest in the form of the signatures.
    """

    prefix: bytes = b""
    signatures: tuple[bytes, ...]
    encode: Callable[[bytes], bytes]


def headers_of(format: str, header: str) -> tuple[str, ...]:
    """Return the headers that a format requires exactly once; `header` is the one with the signature."""
    return (header, *_ALSO.get(format, ()))


def verify(body: bytes, headers: Sequence[tuple[str, str]], *, secrets: Sequence[str], header: str,
           format: str) -> bool:
    """True if one of `secrets` signed this request; never raises.

    `headers` are as received, names in any case; `header` is the one with the signature. It and the other headers of
    the format must each appear exactly once. `format` is `hex` or `base64` (of the body alone), `stripe`, `slack` or
    `standard` (Standard Webhooks); with any other nothing is valid. A secret that is empty, or is not base64 after
    `whsec_`, verifies nothing. There is no time window: repeated requests are recognised by deduplication, not by age.
    """
    signed = _parse(format, header.lower(), lambda name: _single(headers, name))
    if signed is None:
        return False
    verified = False
    # Every secret is tried against every signature, so that the time taken does not tell which one was valid.
    for key in filter(None, [key_of(secret, format) for secret in secrets]):
        expected = signed.encode(hmac.digest(key, signed.prefix + body, "sha256"))
        for signature in signed.signatures:
            verified |= hmac.compare_digest(expected, signature)
    return verified


def _single(headers: Sequence[tuple[str, str]], name: str) -> str | None:
    """Return the value of a header that appears once and is ASCII, else None; `name` in lower case."""
    values = [value for each, value in headers if each.lower() == name]
    return values[0].strip(" \t") if len(values) == 1 and values[0].isascii() else None


def _parse(format: str, header: str, single: Callable[[str], str | None]) -> _Signed | None:
    """Return the signatures of the request; None if a header is missing, repeated or malformed."""
    value = single(header)
    if value is None:
        return None
    match format:
        case "hex":
            return _Signed(signatures=(_hex_text(value.removeprefix("sha256=")),), encode=_hex)
        case "base64":
            return _Signed(signatures=(value.encode(),), encode=base64.b64encode)
        case "stripe":
            return _stripe(value)
        case "slack":
            return _slack(value, single("x-slack-request-timestamp") or "")
        case "standard":
            return _standard(value, single("webhook-id") or "", single("webhook-timestamp") or "")
        case _:
            return None


def _stripe(value: str) -> _Signed | None:
    pairs = [item.partition("=") for item in value.split(",")]
    timestamps = [text for name, _, text in pairs if name == "t"]
    if len(timestamps) != 1 or not _TIMESTAMP.fullmatch(timestamps[0]):
        return None
    signatures = tuple(_hex_text(text) for name, _, text in pairs if name == "v1")
    return _Signed(prefix=f"{timestamps[0]}.".encode(), signatures=signatures, encode=_hex)


def _slack(value: str, timestamp: str) -> _Signed | None:
    version, _, text = value.partition("=")
    if version != "v0" or not _TIMESTAMP.fullmatch(timestamp):
        return None
    return _Signed(prefix=f"v0:{timestamp}:".encode(), signatures=(_hex_text(text),), encode=_hex)


def _standard(value: str, webhook_id: str, timestamp: str) -> _Signed | None:
    if not _ID.fullmatch(webhook_id) or not _TIMESTAMP.fullmatch(timestamp):
        return None
    pairs = [item.partition(",") for item in value.split(" ")]
    signatures = tuple(text.encode() for version, _, text in pairs if version == "v1")
    return _Signed(prefix=f"{webhook_id}.{timestamp}.".encode(), signatures=signatures, encode=base64.b64encode)


def _hex(digest: bytes) -> bytes:
    return digest.hex().encode()


def _hex_text(text: str) -> bytes:
    return text.lower().encode()
