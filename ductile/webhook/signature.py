"""Proves that a webhook was sent by somebody who knows the secret: HMAC-SHA256 in five formats."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ductile.config.values import key_of

# What is signed is joined with dots or colons, so none may stand in what comes before the body: with one, the
# same signature would hold for a request whose timestamp or id has eaten the beginning of its body.
_TIMESTAMP = re.compile("[0-9]+")
_ID = re.compile(r"[!-\-/-~]+")    # visible ASCII without the dot

# The headers that are signed with the body.
_ALSO = {"slack": ("X-Slack-Request-Timestamp",), "standard": ("webhook-id", "webhook-timestamp")}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """What a request says of itself: `signatures`, any of which may be right, over `prefix` and the body.

    `spell` writes a digest the way the signatures are written, so that texts of equal form are compared.
    """

    prefix: bytes = b""
    signatures: tuple[bytes, ...]
    spell: Callable[[bytes], bytes]


def headers_of(format: str, header: str) -> tuple[str, ...]:
    """Return the headers that a format needs, each exactly once; `header` is the one with the signature."""
    return (header, *_ALSO.get(format, ()))


def verify(body: bytes, headers: Sequence[tuple[str, str]], *, secrets: Sequence[str], header: str,
           format: str) -> bool:
    """Say whether one of `secrets` signed this request; never raises, whatever a stranger sends.

    `headers` are as received, names in any case; `header` is the one with the signature. It and those that the
    format prescribes must each come exactly once. `format` is `hex` or `base64` (of the body alone), `stripe`,
    `slack` or `standard` (Standard Webhooks); no other verifies. A secret that is empty or, after `whsec_`, no
    base64 verifies nothing. There is no time window: deduplication, not age, is what tells a repeated request.
    """
    claim = _claim(format, header.lower(), lambda name: _alone(headers, name))
    if claim is None:
        return False
    verified = False
    # Every secret is tried against every signature: how long it takes tells nobody which of them was right.
    for key in filter(None, [key_of(secret, format) for secret in secrets]):
        expected = claim.spell(hmac.digest(key, claim.prefix + body, "sha256"))
        for signature in claim.signatures:
            verified |= hmac.compare_digest(expected, signature)
    return verified


def _alone(headers: Sequence[tuple[str, str]], name: str) -> str | None:
    """Return the value of a header that comes once and is ASCII, None otherwise; `name` in lower case."""
    values = [value for each, value in headers if each.lower() == name]
    return values[0].strip(" \t") if len(values) == 1 and values[0].isascii() else None


def _claim(format: str, header: str, alone: Callable[[str], str | None]) -> _Claim | None:
    """Return what the request claims, None where a header is missing, doubled or not of the format."""
    value = alone(header)
    if value is None:
        return None
    match format:
        case "hex":
            return _Claim(signatures=(_hex_text(value.removeprefix("sha256=")),), spell=_hex)
        case "base64":
            return _Claim(signatures=(value.encode(),), spell=base64.b64encode)
        case "stripe":
            return _stripe(value)
        case "slack":
            return _slack(value, alone("x-slack-request-timestamp") or "")
        case "standard":
            return _standard(value, alone("webhook-id") or "", alone("webhook-timestamp") or "")
        case _:
            return None


def _stripe(value: str) -> _Claim | None:
    pairs = [item.partition("=") for item in value.split(",")]
    timestamps = [text for name, _, text in pairs if name == "t"]
    if len(timestamps) != 1 or not _TIMESTAMP.fullmatch(timestamps[0]):
        return None
    signatures = tuple(_hex_text(text) for name, _, text in pairs if name == "v1")
    return _Claim(prefix=f"{timestamps[0]}.".encode(), signatures=signatures, spell=_hex)


def _slack(value: str, timestamp: str) -> _Claim | None:
    version, _, text = value.partition("=")
    if version != "v0" or not _TIMESTAMP.fullmatch(timestamp):
        return None
    return _Claim(prefix=f"v0:{timestamp}:".encode(), signatures=(_hex_text(text),), spell=_hex)


def _standard(value: str, webhook_id: str, timestamp: str) -> _Claim | None:
    if not _ID.fullmatch(webhook_id) or not _TIMESTAMP.fullmatch(timestamp):
        return None
    pairs = [item.partition(",") for item in value.split(" ")]
    signatures = tuple(text.encode() for version, _, text in pairs if version == "v1")
    return _Claim(prefix=f"{webhook_id}.{timestamp}.".encode(), signatures=signatures, spell=base64.b64encode)


def _hex(digest: bytes) -> bytes:
    return digest.hex().encode()


def _hex_text(text: str) -> bytes:
    return text.lower().encode()
