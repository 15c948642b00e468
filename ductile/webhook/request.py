"""A verified webhook as an event."""

from __future__ import annotations

import base64
from typing import Any

from ductile.strictjson import JSONRefused, decode
from ductile.webhook.http_head import Head

DEFAULT_TYPE = "webhook"
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def payload_of(body: bytes) -> Any:
    """Return a body as an event's payload: a JSON object as it is, anything else under a key that says what it is."""
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
    """Return what the event tells of the request: no credentials, and not the signature."""
    left_out = _SECRET_HEADERS | {signature_header.lower()}
    headers: dict[str, str] = {}
    for name, value in head.headers:
        name = name.lower()
        if name not in left_out:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return {"method": head.method, "path": head.path, "query": head.query,
            "content_type": headers.get("content-type", ""), "headers": headers}


def source_of(path: str) -> str:
    """Return what names an endpoint as the source of events."""
    return f"webhook:{path}"
