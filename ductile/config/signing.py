"""Reads how the sender of an endpoint signs: from keys, from a preset, or from one of five formats by name."""

from __future__ import annotations

import base64
import re
from typing import Any

from ductile.config import misnamed
from ductile.config.model import Piece, PieceKind, Scheme
from ductile.config.presets import PRESETS, Preset
from ductile.config.values import as_header
from ductile.validation import Section, as_choice, as_text, kind_of, nearest

FORMATS = ("hex", "base64", "base64url")
SEPARATORS = {"none": None, "comma": ",", "semicolon": ";", "blank": " "}
ENCODINGS = ("text", "base64", "hex")
# The secret is text, or base64 if it starts with PREFIX. Only for `signature_format: standard`.
MARKED = "marked"
PREFIX = "whsec_"

_BODY = Piece(kind=PieceKind.BODY)
# A sender's whole scheme, by the name of its format. Its meaning never changes; a preset is the better way.
_NAMED = {
    "stripe": ("Stripe-Signature", "{part:t=}.{body}", "v1=", ",", "hex"),
    "slack": ("X-Slack-Signature", "v0:{header:X-Slack-Request-Timestamp}:{body}", "v0=", None, "hex"),
    "standard": ("webhook-signature", "{header:webhook-id}.{header:webhook-timestamp}.{body}", "v1,", " ", "base64"),
}
# These two take their header from the operator.
_PLAIN = {"hex": "sha256=", "base64": ""}
_NEW_KEYS = ("preset", "signed", "signature_prefix", "signature_separator", "secret_encoding", "url")
# Senders of Standard Webhooks have no choice of the header.
_FIXED_HEADER = ("standard", "svix", "polar")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}|([{}])")
_PRINTABLE = re.compile("[ -~]*")


def read_scheme(section: Section) -> tuple[Scheme, str, Preset | None]:
    """Return how an endpoint's requests are signed, the encoding of its secrets, and its preset if it has one."""
    preset = section.read("preset", None, _as_preset)
    header = section.value("signature_header")
    written = section.read("signature_format", None, _as_format)
    is_new = any(section.has(key) for key in _NEW_KEYS) or isinstance(header, list) or written == "base64url"
    if not is_new:
        scheme, encoding = _named_scheme(section, written or "hex")
        return scheme, encoding, None
    if written in _NAMED:
        section.wrong("signature_format", f"expected one of {', '.join(FORMATS)} beside the other keys, got"
                                          f" {written!r}; write preset: {written} alone")
        written = None
    return _read_new(section, preset or Preset(headers=(), senders=(), enter="", docs=""), written), section.read(
        "secret_encoding", preset.secret_encoding if preset else "text",
        lambda value: as_choice(value, ENCODINGS)), preset


def _named_scheme(section: Section, name: str) -> tuple[Scheme, str]:
    if name in _PLAIN:
        section.require("signature_header")
        header = section.read("signature_header", "", as_header)
        return Scheme(headers=(header,), prefix=_PLAIN[name], format=name, is_legacy=True), "text"
    default, signed, prefix, separator, format = _NAMED[name]
    scheme = Scheme(headers=(section.read("signature_header", default, as_header),), signed=parse_signed(signed),
                    prefix=prefix, separator=separator, format=format, is_legacy=True)
    return scheme, MARKED if name == "standard" else "text"


def _read_new(section: Section, preset: Preset, written: str | None) -> Scheme:
    if not preset.headers and not section.has("preset"):
        section.require("signature_header")
    headers = section.read("signature_header", preset.headers, _as_headers)
    separator = section.read("signature_separator", preset.separator, _as_separator)
    prefix = section.read("signature_prefix", preset.prefix, lambda value: _as_prefix(value, separator))
    url = section.read("url", None, _as_url)
    signed = _read_signed(section, preset, url)
    _refuse_what_never_verifies(section, headers, signed, separator)
    return Scheme(headers=headers, signed=signed, prefix=prefix, separator=separator, format=written or preset.format)


def _read_signed(section: Section, preset: Preset, url: str | None) -> tuple[Piece, ...]:
    text = section.value("signed") if section.has("signed") else preset.signed
    try:
        # A wrong address is reported as such, and not as missing.
        signed = parse_signed(text, "" if url is None and section.has("url") else url)
    except ValueError as error:
        # A preset needs nothing but the `url` from the operator.
        section.wrong("signed" if section.has("signed") else None, str(error))
        return (_BODY,)
    if url is not None and "{url}" not in text:
        section.wrong("url", "expected {url} in 'signed', which does not use this address, so leave 'url' out")
    return signed


def _refuse_what_never_verifies(section: Section, headers: tuple[str, ...], signed: tuple[Piece, ...],
                                separator: str | None) -> None:
    preset = section.value("preset")
    key = "signed" if section.has("signed") else None
    if (preset in _FIXED_HEADER and not section.has("signed")
            and [each.lower() for each in headers] != [each.lower() for each in PRESETS[preset].headers]):
        section.wrong("signature_header", f"no sender signs like that: preset {preset} has its signature in"
                                          f" {PRESETS[preset].headers[0]}; leave signature_header out, or use the"
                                          " preset of the sender")
    for piece in signed:
        if piece.kind is PieceKind.PART and separator is None:
            section.wrong(key, "expected a signature_separator (comma, semicolon or blank) beside it, got"
                               f" {{part:{piece.text}}} without one")
        elif piece.kind is PieceKind.PART and separator and separator in piece.text:
            section.wrong(key, f"expected a part without the separator in it, got {{part:{piece.text}}}")
        elif piece.kind is PieceKind.HEADER and piece.text.lower() in [each.lower() for each in headers]:
            section.wrong(key, f"expected another header than that of the signature, got {{header:{piece.text}}}")


def parse_signed(text: Any, url: str | None = None) -> tuple[Piece, ...]:
    """Return the pieces of a template such as `{header:X-Time}.{body}`. Raises ValueError.

    `{url}` becomes literal text.
    """
    text = as_text(text)
    pieces: list[Piece] = []
    position = 0
    for match in _PLACEHOLDER.finditer(text):
        _add_text(pieces, text[position:match.start()])
        position = match.end()
        if match[2]:
            raise ValueError(f"expected braces only around body, header:NAME, part:TEXT and url, got {text!r}")
        if match[1] == "url":
            if url is None:
                raise ValueError("the key 'url' is missing: {url} is the address as the sender knows it")
            _add_text(pieces, url)
        else:
            pieces.append(_placeholder(match[1]))
    _add_text(pieces, text[position:])
    if pieces.count(_BODY) != 1:
        raise ValueError(f"expected {{body}} exactly once, got {text!r}")
    return tuple(pieces)


def _add_text(pieces: list[Piece], text: str) -> None:
    if text and pieces and pieces[-1].kind is PieceKind.TEXT:
        pieces[-1] = Piece(kind=PieceKind.TEXT, text=pieces[-1].text + text)
    elif text:
        pieces.append(Piece(kind=PieceKind.TEXT, text=text))


def _placeholder(content: str) -> Piece:
    if content == "body":
        return _BODY
    kind, colon, name = content.partition(":")
    if kind == "header" and colon:
        return Piece(kind=PieceKind.HEADER, text=as_header(name))
    if kind == "part" and name and _PRINTABLE.fullmatch(name):
        return Piece(kind=PieceKind.PART, text=name)
    raise ValueError(f"expected {{body}}, {{header:NAME}}, {{part:TEXT}} or {{url}}, got '{{{content}}}'"
                     f"{nearest(kind, ('body', 'header', 'part', 'url'))}")


def decode_secret(secret: str, encoding: str) -> bytes | None:
    """Return the key that a secret encodes; None if it is not in its encoding, or empty after it.

    With `base64` the prefixes `whsec_` and `v1,whsec_` are removed and the padding may be missing.
    """
    if encoding == MARKED:
        encoding = "base64" if secret.startswith(PREFIX) else "text"
    try:
        if encoding == "text":
            return secret.encode("utf-8", "surrogatepass") or None
        if encoding == "hex":
            return bytes.fromhex(secret) if re.fullmatch("([0-9A-Fa-f]{2})+", secret) else None
        text = secret.removeprefix("v1,").removeprefix(PREFIX)
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True) or None
    except ValueError:
        return None


def _as_preset(value: Any) -> Preset:
    name = value.lower() if isinstance(value, str) else ""
    if name in misnamed.WITHOUT_HMAC:
        raise ValueError(f"expected a sender that signs with HMAC-SHA256, got {value!r}: {misnamed.WITHOUT_HMAC[name]}")
    if name in misnamed.SENDERS:
        raise ValueError(f"expected a preset, got {value!r}: write preset: {misnamed.SENDERS[name]}")
    if value not in PRESETS:
        raise ValueError(f"expected a preset, as `ductilectl webhook presets` lists them, got {kind_of(value)}"
                         f"{nearest(name, PRESETS)}")
    return PRESETS[value]


def _as_format(value: Any) -> str:
    known = (*FORMATS, *_NAMED)
    name = value.lower() if isinstance(value, str) else ""
    if value in known:
        return str(value)
    if name in misnamed.WITHOUT_HMAC:
        raise ValueError(f"expected a scheme of HMAC-SHA256, got {value!r}: {misnamed.WITHOUT_HMAC[name]}")
    if name in PRESETS or name in misnamed.SENDERS:
        preset = misnamed.SENDERS.get(name, name)
        raise ValueError(f"expected one of {', '.join(known)}, got {value!r}: write preset: {preset} in its place")
    if name in misnamed.SIGNATURE_FORMATS:
        raise ValueError(f"expected one of {', '.join(known)}, got {value!r}: write {misnamed.SIGNATURE_FORMATS[name]}")
    return as_choice(value, known)


def _as_headers(value: Any) -> tuple[str, ...]:
    names = tuple(map(as_header, value if isinstance(value, list) else [value]))
    if not names:
        raise ValueError("expected at least one header, got an empty list")
    if len({each.lower() for each in names}) < len(names):
        raise ValueError("expected each header once, got one that is repeated")
    return names


def _as_separator(value: Any) -> str | None:
    return SEPARATORS[as_choice(value, tuple(SEPARATORS))]


def _as_prefix(value: Any, separator: str | None) -> str:
    if value == "":
        return ""
    text = as_text(value)
    if not _PRINTABLE.fullmatch(text) or text != text.lstrip():
        raise ValueError(f"expected printable ASCII that starts with no blank, got {text!r}")
    if separator and separator in text.rstrip():
        raise ValueError(f"expected a prefix without the separator, got {text!r}")
    return text


def _as_url(value: Any) -> str:
    text = as_text(value)
    if not re.fullmatch("https?://[!-~]+", text):
        raise ValueError(f"expected an address such as https://example.org/hooks/a, got {text!r}")
    return text


def same_text(scheme: Scheme) -> tuple[Any, ...]:
    """Return a value that is equal for two schemes that sign the same text."""
    return tuple((piece.kind, piece.text.lower() if piece.kind is PieceKind.HEADER else piece.text)
                 for piece in scheme.signed)
