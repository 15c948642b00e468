"""Answers a sender that wants proof that the address is yours. It has no effect, and never signs what is a delivery."""

from __future__ import annotations

import base64
import hmac
import re
from http import HTTPStatus

from ductile.config.model import Handshake
from ductile.strictjson import encode
from ductile.webhook.http_head import Head, Refused
from ductile.webhook.places import find
from ductile.webhook.request import Content

# No brace, bracket, colon or blank: so no answer is the signature of a JSON object or list, or of a text with a colon.
_SIGNABLE = re.compile("[0-9A-Za-z._~+/=-]{1,256}")
_ECHO_CHARACTERS = 1024
_NOT_ECHOED = frozenset("<>&\"'{}")
_NO_SNIFF = ("X-Content-Type-Options", "nosniff")

Answer = tuple[bytes, tuple[tuple[str, str], ...]]


def is_asked(handshake: Handshake, head: Head, content: Content) -> bool:
    """Return whether a request is this handshake: its method fits, and what it needs is at its places."""
    if head.method != handshake.method:
        return False
    if handshake.when is not None:
        found = find(handshake.when, head, content)
        if found is None or handshake.value not in (None, found):
            return False
    return handshake.take is None or find(handshake.take, head, content) is not None


def answer(handshake: Handshake, head: Head, content: Content, *, key: bytes, token: bytes | None) -> Answer:
    """Return the body and the headers of the answer to a handshake that `is_asked`.

    `key` makes the MAC of the challenge. Raises Refused: 403 for a wrong verify token, 400 for a challenge that is not
    echoed or signed.
    """
    if handshake.token is not None:
        given = (find(handshake.token, head, content) or "").encode("utf-8", "surrogatepass")
        if token is None or not hmac.compare_digest(given, token):
            raise Refused(HTTPStatus.FORBIDDEN, "the verify token is wrong")
    challenge = "" if handshake.take is None else find(handshake.take, head, content) or ""
    _guard(handshake, challenge)
    match handshake.answer:
        case "text":
            return challenge.encode(), (("Content-Type", "text/plain; charset=utf-8"), _NO_SNIFF)
        case "json":
            document = {handshake.name: challenge} if handshake.name else {}
            if handshake.mac is not None:
                document[handshake.mac_name] = handshake.mac_prefix + _mac(key, challenge, handshake.mac)
            return encode(document).encode(), (("Content-Type", "application/json"), _NO_SNIFF)
        case "header":
            assert handshake.take is not None
            return b"", ((handshake.take.name, challenge),)
        case _:
            return b"", ()


def _guard(handshake: Handshake, challenge: str) -> None:
    if handshake.mac is not None:
        if not _SIGNABLE.fullmatch(challenge):
            raise Refused(HTTPStatus.BAD_REQUEST, "the challenge is not one that is signed")
    elif len(challenge) > _ECHO_CHARACTERS or not challenge.isprintable() or not _NOT_ECHOED.isdisjoint(challenge):
        raise Refused(HTTPStatus.BAD_REQUEST, "the challenge is not one that is echoed")


def _mac(key: bytes, challenge: str, form: str) -> str:
    digest = hmac.digest(key, challenge.encode(), "sha256")
    return digest.hex() if form == "hex" else base64.b64encode(digest).decode()
