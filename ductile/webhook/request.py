"""The event of a verified webhook: its payload, and what it says of the request."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from ductile.protocol import SIZE_LIMIT
from ductile.strictjson import JSONRefused, decode
from ductile.webhook.http_head import Head, Refused

DEFAULT_TYPE = "webhook"
# Headers whose value is a secret.
SECRET_HEADERS = frozenset({
    "api-key", "apikey", "authorization", "cf-webhook-auth", "cookie", "job-token", "private-token",
    "proxy-authorization", "x-access-token", "x-amz-security-token", "x-api-key", "x-api-token", "x-auth-token",
    "x-buildkite-token", "x-csrf-token", "x-forwarded-access-token", "x-gitlab-token", "x-goog-channel-token",
    "x-hook-secret", "x-secret", "x-shopify-access-token", "x-telegram-bot-api-secret-token", "x-token",
    "x-vault-token", "x-webhook-secret", "x-webhook-token",
})

_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 1000
_MOST_MEMBERS = 100
_BOM = b"\xef\xbb\xbf"
_GZIP = 16 + zlib.MAX_WBITS
_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a body says. `json` is its JSON value and `form` its fields, None if it has none.

    `fault` tells why a body that calls itself JSON or gzip is taken as it is.
    """

    payload: Any
    json: Any = None
    form: dict[str, Any] | None = None
    fault: str | None = None


def read_content(body: bytes, head: Head, limit: int) -> Content:
    """Return what a body says: a JSON object as it is, anything else under a key that names its kind.

    Raises Refused (413) for a gzip body that is larger than `limit` when unpacked.
    """
    packing = (head.single("content-encoding") or "").strip().lower()
    if packing in ("gzip", "x-gzip"):
        try:
            body = _unpack(body, limit)
        except zlib.error:
            return Content(payload=_plain(body), fault="the body is not gzip")
    kind = (head.single("content-type") or "").partition(";")[0].strip().lower()
    value, fault = _json(body)
    if kind == _FORM and not isinstance(value, dict | list) and (form := _form(body)) is not None:
        return Content(payload={"form": form}, form=form)
    if value is not _MISSING:
        return Content(payload=value if isinstance(value, dict) else {"body": value}, json=value)
    return Content(payload=_plain(body), fault=fault if kind == "application/json" or kind.endswith("+json") else None)


def _json(body: bytes) -> tuple[Any, str | None]:
    try:
        return decode(body.removeprefix(_BOM), limit=SIZE_LIMIT), None
    except JSONRefused as error:
        return _MISSING, str(error)


def _plain(body: bytes) -> dict[str, str]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return {"body_base64": base64.b64encode(body).decode("ascii")}
    return {"body": text}


def _form(body: bytes) -> dict[str, Any] | None:
    """Return the fields of a form, with a list for a repeated name; None if it is none.

    `payload` becomes the object that GitHub and others put there as JSON.
    """
    if b"=" not in body:
        return None
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        return None
    form: dict[str, Any] = {}
    for name, value in pairs:
        if "\0" in name or "\0" in value:
            return None
        if name not in form:
            form[name] = value
        elif isinstance(form[name], list):
            form[name].append(value)
        else:
            form[name] = [form[name], value]
    text = form.get("payload")
    decoded = _json(text.encode())[0] if isinstance(text, str) else None
    if isinstance(decoded, dict):
        form["payload"] = decoded
    return form


def _unpack(body: bytes, limit: int) -> bytes:
    """Unpack gzip, also of several members. Raises zlib.error, and Refused if the result is larger than `limit`."""
    unpacked = bytearray()
    for _ in range(_MOST_MEMBERS):
        stream = zlib.decompressobj(_GZIP)
        unpacked += stream.decompress(body, limit + 1 - len(unpacked))
        if len(unpacked) > limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the unpacked body is larger than max_body_size")
        if not stream.eof:
            raise zlib.error
        body = stream.unused_data
        if not body:
            return bytes(unpacked)
    raise zlib.error


def http_of(head: Head, signature_headers: Collection[str]) -> dict[str, Any]:
    """Return the event's `http` object, without credentials and signatures."""
    excluded = SECRET_HEADERS.union(map(str.lower, signature_headers))
    headers: dict[str, str] = {}
    for name, value in head.headers:
        name = name.lower()
        if name not in excluded:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return {"method": head.method, "path": head.path, "query": head.query,
            "content_type": headers.get("content-type", ""), "headers": headers}


def source_of(path: str) -> str:
    """Return the `source` of an endpoint's events."""
    return f"webhook:{path}"
