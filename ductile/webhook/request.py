"""The event of a verified webhook: its payload, and what it says of the request."""

from __future__ import annotations

import base64
from typing import Any

from ductile.strictjson import JSONRefused, decode
from ductile.webhook.http_head import Head

DEFAULT_TYPE = "webhook"
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def payload_of(body: bytes) -> Any:
    """Return the payload for a body: a JSON object as it is, anything else under a key that names its kind."""
    try:
        value = decode(body)
        return value if isinstance(value, dict) else {"body": value}
    except JSONRefused:
        pass
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return {"body_base64": base64.b64encode(body).decode("ascii")}
    return {"body": text}


def http_of(head: Head, signature_header: str) -> dict[str, Any]:
    """Return the event's `http` object, without credentials and the signature."""
    excluded = _SECRET_HEADERS | {signature_header.lower()}
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
