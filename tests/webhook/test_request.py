from __future__ import annotations

import base64
import gzip
from typing import Any

import pytest

from ductile.webhook.http_head import Head, Refused
from ductile.webhook.request import Content, http_of, read_content, source_of

FORM = "application/x-www-form-urlencoded"


def content_of(body: bytes, *headers: tuple[str, str], limit: int = 1000) -> Content:
    head = Head(method="POST", path="/", query="", version="HTTP/1.1", headers=headers)
    return read_content(body, head, limit)


@pytest.mark.parametrize(("body", "payload"), [
    (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    (b"\xef\xbb\xbftext", {"body": "\ufefftext"}),
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
    assert content_of(body).payload == payload


@pytest.mark.parametrize(("body", "form"), [
    (b"a=1&b=2", {"a": "1", "b": "2"}),
    (b"a=1&a=2&a=3&b=", {"a": ["1", "2", "3"], "b": ""}),
    (b"text=gr%C3%BC%C3%9F+x&%C3%BC", {"text": "grüß x", "ü": ""}),
    (b"payload=%7B%22a%22%3A%201%7D&x=1", {"payload": {"a": 1}, "x": "1"}),
    (b"payload=%5B1%5D", {"payload": "[1]"}),
    (b"payload=%7Bbroken", {"payload": "{broken"}),
])
def test_a_form_becomes_its_fields(body: bytes, form: dict[str, Any]) -> None:
    content = content_of(body, ("Content-Type", f"{FORM}; charset=utf-8"))
    assert (content.payload, content.form) == ({"form": form}, form)


@pytest.mark.parametrize(("body", "payload"), [
    (b'{"a": 1}', {"a": 1}), (b"hello", {"body": "hello"}), (b"a=%FF", {"body": "a=%FF"}), (b"a=\0", None),
    (b"&".join([b"a=1"] * 1001), None),
])
def test_what_is_called_a_form_and_is_none_stays_what_it_is(body: bytes, payload: dict[str, Any] | None) -> None:
    content = content_of(body, ("Content-Type", FORM))
    assert content.form is None
    assert content.payload == payload or (payload is None and "form" not in content.payload)


@pytest.mark.parametrize("body", [gzip.compress(b'{"a": 1}'), gzip.compress(b'{"a"') + gzip.compress(b": 1}")])
def test_a_gzip_body_is_unpacked(body: bytes) -> None:
    assert content_of(body, ("Content-Encoding", "gzip")).payload == {"a": 1}


@pytest.mark.parametrize("body", [b"{}", gzip.compress(b"{}")[:-1], gzip.compress(b"{}") + b"x", b""])
def test_a_broken_gzip_body_is_kept_and_noted(body: bytes) -> None:
    content = content_of(body, ("Content-Encoding", "GZIP"))
    assert (content.json, content.fault) == (None, "the body is not gzip")


def test_a_gzip_body_may_not_grow_beyond_the_limit() -> None:
    body = gzip.compress(b"a" * 1000)
    assert content_of(body, ("Content-Encoding", "gzip"), limit=1000).payload == {"body": "a" * 1000}
    with pytest.raises(Refused) as caught:
        content_of(body, ("Content-Encoding", "gzip"), limit=999)
    assert caught.value.status == 413
    # Ten megabytes of members that hold nothing.
    assert content_of(gzip.compress(b"") * 500_000, ("Content-Encoding", "gzip")).fault == "the body is not gzip"


@pytest.mark.parametrize(("kind", "is_noted"), [
    ("application/json", True), ("application/cloudevents+json; charset=utf-8", True), ("text/plain", False),
])
def test_broken_json_is_text_and_noted_where_it_was_called_json(kind: str, is_noted: bool) -> None:
    content = content_of(b'{"a": }', ("Content-Type", kind))
    assert content.payload == {"body": '{"a": }'}
    assert content.fault == ("line 1, column 7: expected a value" if is_noted else None)


def test_json_of_more_values_than_memory_should_hold_is_text() -> None:
    body = b"[" + b"[]," * 600_000 + b"[]]"
    content = content_of(body, ("Content-Type", "application/json"))
    assert content.payload == {"body": body.decode()} and "values" in (content.fault or "")


def test_an_event_tells_the_request_without_credentials_and_signature() -> None:
    head = Head(method="POST", path="/hooks/a", query="b=c", version="HTTP/1.1", headers=(
        ("Host", "x"), ("Content-Type", "text/plain"), ("AUTHORIZATION", "Bearer s3cret"), ("Cookie", "s3cret"),
        ("Proxy-Authorization", "s3cret"), ("X-Sig", "s3cret"), ("X-Sig-2", "s3cret"), ("X-Gitlab-Token", "s3cret"),
        ("X-Telegram-Bot-Api-Secret-Token", "s3cret"), ("X-Many", "1"), ("x-many", "2"),
    ))
    assert http_of(head, ("x-SIG", "X-Sig-2")) == {
        "method": "POST", "path": "/hooks/a", "query": "b=c", "content_type": "text/plain",
        "headers": {"host": "x", "content-type": "text/plain", "x-many": "1, 2"},
    }


def test_a_request_without_a_content_type_has_an_empty_one() -> None:
    head = Head(method="POST", path="/", query="", version="HTTP/1.1", headers=())
    assert http_of(head, ("x-sig",)) == {"method": "POST", "path": "/", "query": "", "content_type": "", "headers": {}}


def test_a_source_names_the_path() -> None:
    assert source_of("/hooks/a") == "webhook:/hooks/a"
