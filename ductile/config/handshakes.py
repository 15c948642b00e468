"""Reads how an endpoint answers a sender that wants proof that the address is yours, before it sends anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ductile.config.model import Handshake, RequestPlace
from ductile.config.values import as_header
from ductile.validation import Section, as_choice, as_text, kind_of, nearest

METHODS = ("GET", "HEAD", "POST")
ANSWERS = ("text", "json", "header", "empty")
MACS = ("hex", "base64")
_NONE = "none"


def _place(text: str) -> RequestPlace:
    kind, _, name = text.partition(":")
    return RequestPlace(kind=kind, name=name)


_HUB = Handshake(method="GET", when=_place("query:hub.mode"), value="subscribe", take=_place("query:hub.challenge"),
                 token=_place("query:hub.verify_token"))
HANDSHAKES: Mapping[str, Handshake] = MappingProxyType({
    "asana": Handshake(method="POST", take=_place("header:X-Hook-Secret"), answer="header"),
    "dropbox": Handshake(method="GET", take=_place("query:challenge")),
    "front": Handshake(method="POST", take=_place("header:X-Front-Challenge"), signed=True),
    "graph": Handshake(method="POST", take=_place("query:validationToken")),
    "head": Handshake(method="HEAD", answer="empty"),
    "linkedin": Handshake(method="GET", take=_place("query:challengeCode"), answer="json", name="challengeCode",
                          mac="hex", mac_name="challengeResponse"),
    "meta": _HUB,
    "notion": Handshake(method="POST", take=_place("json:verification_token"), answer="empty", logs_challenge=True),
    "okta": Handshake(method="GET", take=_place("header:X-Okta-Verification-Challenge"), answer="json",
                      name="verification"),
    "oura": Handshake(method="GET", take=_place("query:challenge"), token=_place("query:verification_token"),
                      answer="json", name="challenge"),
    "slack": Handshake(method="POST", when=_place("json:type"), value="url_verification",
                       take=_place("json:challenge"), signed=True),
    "strava": replace(_HUB, answer="json", name="hub.challenge"),
    "twitch": Handshake(method="POST", when=_place("header:Twitch-Eventsub-Message-Type"),
                        value="webhook_callback_verification", take=_place("json:challenge"), signed=True),
    "woocommerce": Handshake(method="POST", take=_place("form:webhook_id"), answer="empty"),
    "x-crc": Handshake(method="GET", take=_place("query:crc_token"), answer="json", mac="base64",
                       mac_name="response_token", mac_prefix="sha256="),
    "zoom": Handshake(method="POST", when=_place("json:event"), value="endpoint.url_validation",
                      take=_place("json:payload.plainToken"), answer="json", name="plainToken", mac="hex",
                      mac_name="encryptedToken", signed=True),
})


def read_handshake(section: Section, default: str | None, *, has_token: bool) -> Handshake | None:
    """Return the handshake of an endpoint, `default` names that of its preset; None if it answers none.

    One with a verify token is off without one.
    """
    written = section.raw("handshake", default)
    if written is None or written == _NONE:
        return None
    if isinstance(written, dict):
        handshake = _read_keys(section.section("handshake"))
    else:
        handshake = section.read("handshake", HANDSHAKES.get(default or ""), _as_named)
    if handshake is None or handshake.token is None or has_token:
        return handshake
    if section.has("handshake"):
        section.wrong("handshake", f"expected the key 'verify_token' beside it, which {handshake.token} must have")
    return None


def _as_named(value: Any) -> Handshake:
    if value not in HANDSHAKES:
        hint = nearest(value, HANDSHAKES) if isinstance(value, str) else ""
        raise ValueError(f"expected one of {', '.join(HANDSHAKES)}, {_NONE}, or a mapping, got {kind_of(value)}{hint}")
    return HANDSHAKES[value]


def _read_keys(section: Section) -> Handshake | None:
    section.require("method")
    problems_before = len(section.problems)
    nothing: tuple[RequestPlace | None, str | None] = (None, None)
    when, value = section.read("when", nothing, _as_condition)
    mac = section.read("mac", None, lambda each: as_choice(each, MACS))
    handshake = Handshake(
        method=section.choice("method", "GET", METHODS), when=when, value=value,
        take=section.read("take", None, _as_place),
        answer=section.choice("answer", "text" if section.has("take") else "empty", ANSWERS),
        name=section.text("name"), mac=mac, mac_name=section.text("mac_name"),
        mac_prefix=section.text("mac_prefix"), token=section.read("token", None, _as_place),
        signed=section.boolean("signed", False))
    section.finish()
    if len(section.problems) == problems_before:
        _check(section, handshake)
    return handshake if len(section.problems) == problems_before else None


def _check(section: Section, handshake: Handshake) -> None:
    if handshake.take is None and handshake.answer != "empty":
        section.wrong("answer", f"expected 'take', the place of the challenge, with the answer {handshake.answer!r}")
    if handshake.take is None and handshake.when is None and handshake.method == "POST":
        section.wrong("method", "expected 'when' or 'take' with POST, or every delivery would be a handshake")
    if handshake.mac is not None and (handshake.answer != "json" or not handshake.mac_name):
        section.wrong("mac", "expected 'answer: json' and a 'mac_name' with it")
    if handshake.answer == "json" and handshake.mac is None and not handshake.name:
        section.wrong("answer", "expected a 'name' for the challenge with the answer 'json'")
    if handshake.answer == "header" and (handshake.take is None or handshake.take.kind != "header"):
        section.wrong("answer", "expected a header in 'take' with the answer 'header'")
    if handshake.signed and handshake.method != "POST":
        section.wrong("signed", f"expected 'method: POST' with it, as {handshake.method} has no body to sign")
    reads_body = [place for place in (handshake.when, handshake.take, handshake.token)
                  if place and place.kind in ("json", "form")]
    if reads_body and handshake.method != "POST":
        section.wrong("method", f"expected POST, as {reads_body[0]} is in a body, got {handshake.method!r}")


def _as_condition(value: Any) -> tuple[RequestPlace | None, str | None]:
    place, equals, text = as_text(value).partition("=")
    return _as_place(place.strip()), text.strip() if equals else None


def _as_place(value: Any) -> RequestPlace:
    kind, _, name = as_text(value).partition(":")
    if kind not in ("query", "json", "header", "form") or not name or not name.isprintable():
        raise ValueError(f"expected query:NAME, json:PATH, header:NAME or form:NAME, got {value!r}")
    return RequestPlace(kind=kind, name=as_header(name) if kind == "header" else name)
