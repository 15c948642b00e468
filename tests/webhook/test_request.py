from __future__ import annotations

import base64
from typing import Any

import pytest

from ductile.webhook.http_head import Head
from ductile.webhook.request import http_of, payload_of, source_of


@pytest.mark.parametrize(("body", "payload"), [
    (b'{"a": {"b": [1]}}', {"a": {"b": [1]}}),
    (b" {} ", {}),
    (b'{"body": 1}', {"body": 1}),
    (b"[1, 2]", {"body": [1, 2]}),
    (b'"text"', {"body": "text"}),
    (b"1.5", {"body": 1.5}),
    (b"null", {"body": None}),
    (b"", {"body": ""}),
    (b"a=1&b=2", {"body": "a=1&b=2"}),
    ("Grüße 🙂".encode(), {"body": "Grüße 🙂"}),
    (b"NaN", {"body": "NaN"}),
    (b'{"a": Infinity}', {"body": '{"a": Infinity}'}),
    (b'{"a": 1e999}', {"body": '{"a": 1e999}'}),
    (b'{"a": 1, "a": 2}', {"body": '{"a": 1, "a": 2}'}),
    (b'{"a": "\\ud800"}', {"body": '{"a": "\\ud800"}'}),
    (b'{"a": "\\u0000"}', {"body": '{"a": "\\u0000"}'}),
    (b"[" * 5000, {"body": "[" * 5000}),
    (b"\xff\xfe", {"body_base64": base64.b64encode(b"\xff\xfe").decode()}),
    (b'{"a": "\xff"}', {"body_base64": base64.b64encode(b'{"a": "\xff"}').decode()}),
    (b"text\0", {"body_base64": base64.b64encode(b"text\0").decode()}),
])
def test_a_body_becomes_an_object_that_loses_nothing(body: bytes, payload: dict[str, Any]) -> None:
    assert payload_of(body) == payload


def test_an_event_tells_the_request_without_credentials_and_signature() -> None:
    head = Head(method="POST", path="/hooks/a", query="b=c", version="HTTP/1.1", headers=(
        ("Host", "x"), ("Content-Type", "text/plain"), ("AUTHORIZATION", "Bearer s3cret"), ("Cookie", "s3cret"),
        ("Proxy-Authorization", "s3cret"), ("X-Sig", "s3cret"), ("X-Many", "1"), ("x-many", "2"),
    ))
    assert http_of(head, "x-SIG") == {
        "method": "POST", "path": "/hooks/a", "query": "b=c", "content_type": "text/plain",
        "headers": {"host": "x", "content-type": "text/plain", "x-many": "1, 2"},
    }


def test_a_request_without_a_content_type_has_an_empty_one() -> None:
    head = Head(method="POST", path="/", query="", version="HTTP/1.1", headers=())
    assert http_of(head, "x-sig") == {"method": "POST", "path": "/", "query": "", "content_type": "", "headers": {}}


def test_a_source_names_the_path() -> None:
    assert source_of("/hooks/a") == "webhook:/hooks/a"
