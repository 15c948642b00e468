"""The library's `http` against servers that refuse, stall, redirect, flood and lie."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from support.in_process import library
from support.notified import SECRET, Server, answer, raw
from support.steps import said

lib = library()
GONE = "broke off in mid-answer, or its answer is not HTTP"
AUTH = {"Authorization": f"Bearer {SECRET}", "X-Token": SECRET, "Accept": "text/x", "Cookie": SECRET}


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def other() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def failed(kind: type[Exception], server: Server, *answers, method: str = "GET", url: str | None = None,
           **options) -> str:
    """Return the text of a failure, in which nothing of the secret is told."""
    server.answers = list(answers)
    with pytest.raises(kind) as caught:
        lib.http(method, url or server.url, **options)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def zipped(data: bytes, *, coding: str = "gzip") -> bytes:
    return (f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(data)}\r\n\r\n").encode() + data


# What is asked

def test_a_request_is_sent_as_it_was_given(server):
    server.answers = [said(201, {"a": 1}, X_One="1")]
    found = lib.http("POST", server.url, headers=AUTH | {"Title": "Türme ☃".encode()}, body=b"\x00body")
    ((path, headers, body),) = server.requests
    assert (path, body) == (f"/hooks/{SECRET}?key={SECRET}", b"\x00body")
    assert (headers["authorization"], headers["accept"]) == (f"Bearer {SECRET}", "text/x")
    assert headers["title"].encode("latin-1").decode() == "Türme ☃"
    assert (headers["user-agent"], headers["accept-encoding"]) == ("ductile-plugin", "gzip")
    assert (found.status, found.ok, found.json(), found.headers["x-one"], found.url) == (
        201, True, {"a": 1}, "1", server.url)


@pytest.mark.parametrize(
    ("body", "sent", "kind"),
    [("é", "é".encode(), None), ({"a": ["é"]}, rb'{"a": ["\u00e9"]}', "application/json"),
     ([], b"[]", "application/json"), (0, b"0", "application/json"), (b"", b"", None)])
def test_a_body_is_bytes_a_string_or_json(server, body, sent, kind):
    server.answers = [answer(204)]
    lib.http("PUT", server.host, body=body)
    ((_, headers, given),) = server.requests
    assert (given, headers.get("content-type"), server.methods) == (sent, kind, ["PUT"])


def test_a_content_type_of_one_s_own_wins(server):
    server.answers = [answer(204)]
    lib.http("POST", server.host, body={}, headers={"Content-type": "application/x"})
    assert server.requests[0][1]["content-type"] == "application/x"


def test_a_url_without_a_path_is_the_root_and_a_fragment_stays_here(server):
    server.answers = [answer(204)]
    lib.http("GET", f"{server.host}?a=b#{SECRET}")
    assert server.requests[0][0] == "/?a=b"


def test_a_proxy_of_the_environment_is_not_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    server.answers = [answer(204)]
    assert lib.http("GET", server.url).status == 204


@pytest.mark.parametrize(
    "url",
    [5, None, "", "x", f"ftp://h/{SECRET}", f"file:///{SECRET}", f"https:{SECRET}", f"//h/{SECRET}",
     f"https:///{SECRET}", f"https://u:{SECRET}@h/", f"https://{SECRET}@h/", f"https://h/{SECRET} x",
     f"https://h/{SECRET}\n", f"https://h/{SECRET}é", f"https://hé/{SECRET}", f"https://h:x/{SECRET}",
     f"https://h:99999/{SECRET}", f"https://h:0/{SECRET}", f"https://[::1/{SECRET}", f"https://a..b/{SECRET}",
     f"https://{'a' * 64}/{SECRET}"])
def test_what_is_no_url_is_refused_without_showing_it(server, url):
    assert not lib.is_url(url)
    with pytest.raises(lib.Permanent) as caught:
        lib.http("GET", url)
    assert str(caught.value) == f"url: expected {lib.URL}"


@pytest.mark.parametrize(("headers", "method", "text"), [
    ({"X": f"{SECRET}\r\nY: z"}, "GET", "headers: X: expected one line of text"),
    ({"X": 5}, "GET", "headers: X: expected one line of text"),
    ({f"X: {SECRET}\r\n": "y"}, "GET", "headers: expected names of letters, digits and hyphens"),
    ({}, f"GET /{SECRET}", "method: expected capital letters, such as GET"),
])
def test_headers_and_method_cannot_smuggle_anything(server, headers, method, text):
    assert failed(lib.Permanent, server, method=method, headers=headers) == text
    assert server.requests == []


@pytest.mark.parametrize(("url", "shown"), [
    (f"https://h:8443/{SECRET}?{SECRET}#{SECRET}", "https://h:8443"), (f"http://u:{SECRET}@h/", "http://h")])
def test_only_scheme_and_host_of_a_url_are_shown(url, shown):
    assert lib.where(url) == shown


# What is answered

@pytest.mark.parametrize(
    ("status", "phrase", "retry"),
    [(400, "400 Bad Request", False), (401, "401 Unauthorized", False), (404, "404 Not Found", False),
     (499, "499", False), (408, "408 Request Timeout", True),
     (429, "429 Too Many Requests", True), (500, "500 Internal Server Error", True),
     (503, "503 Service Unavailable", True)])
def test_a_refusal_is_an_answer_that_says_whether_it_may_pass(server, status, phrase, retry):
    server.answers = [answer(status)]
    found = lib.http("GET", server.url)
    error = found.error("; look at the key")
    assert (found.ok, found.retryable, error.retry) == (False, retry, retry)
    assert str(error) == f"{server.host} answered {phrase}; look at the key"


@pytest.mark.parametrize(("kind", "body", "text"), [
    ("text/plain", "é".encode(), "é"), ("text/plain", b"\xe9\x80", "é€"), ("text/plain; charset=koi8-r", b"\xc1", "а"),
    ('text/x; charset="ISO-8859-1"', b"\x80", "€"), ("text/x; charset=none", "é".encode(), "é"),
    ("text/x; charset=utf-8", b"\xe9", "é"), ("text/x; charset=koi8-r", b"\xef\xbb\xbf\xc3\xa9", "é"),
    ("text/x; charset=utf-8", b"\xff\xfea\0", "a"), ("text/x; charset=hex", b"61", "61"), (None, b"\x81", "\ufffd")])
def test_a_text_is_read_in_the_charset_that_fits(kind, body, text):
    headers = {} if kind is None else {"content-type": kind}
    assert lib.Answer(status=200, headers=headers, body=body, url="http://h/").text == text


def http_date(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(("given", "low", "high"), [
    ("0", 0, 0), ("3600", 3600, 3600), ("0.25", 0.25, 0.25), (100, 60, 100), (-9, 0, 0)])
def test_a_retry_after_is_seconds_or_a_date(server, given, low, high):
    server.answers = [answer(429, retry_after=given if isinstance(given, str) else http_date(given))]
    assert low <= lib.http("GET", server.url).retry_after <= high


@pytest.mark.parametrize("given", [None, "soon", "", "-1", "9" * 5000, "nan", "1e9"])
def test_any_other_retry_after_is_none(server, given):
    server.answers = [answer(429, retry_after=given)]
    assert lib.http("GET", server.url).retry_after is None


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b"", b"[" * 100_000, b"NaN", b"[1e999]", b"9" * 400,
                                  b"[" * 91 + b"]" * 91])
def test_json_that_is_none_may_pass(server, body):
    server.answers = [raw(b"HTTP/1.1 200 OK\r\n\r\n" + body)]
    with pytest.raises(lib.Retry) as caught:
        lib.http("GET", server.url).json()
    assert str(caught.value) == f"{server.host} answered something that is not JSON"


def test_json_keeps_its_numbers(server):
    server.answers = [raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 88 + b'[1, -2, 1.0, 12345678901234567890]' + b"]" * 88)]
    found = lib.http("GET", server.url).json()
    for _ in range(88):
        (found,) = found
    assert [(type(each), each) for each in found] == [(int, 1), (int, -2), (float, 1.0), (int, 12345678901234567890)]


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b""), (b"HTTP/1.1 200 OK\n\nok", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000, b"x" * 200_000),
    ],
)
def test_a_whole_answer_in_any_form_is_good(server, data, body):
    server.answers = [raw(data)]
    assert lib.http("GET", server.url).body == body


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_answer_without_a_body_is_whole(server, method):
    server.answers = [raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: gzip\r\n\r\n" if method == "HEAD"
                          else b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nContent-Encoding: gzip\r\n\r\n")]
    assert lib.http(method, server.url).body == b""


@pytest.mark.parametrize(
    "data",
    [
        b"", b"HTT", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Ty",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"SSH-2.0-" + SECRET.encode() + b"\r\n",
        b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
        zipped(gzip.compress(b"abc" * 100)[:-9]), zipped(b"\x1f\x8b"), zipped(b"no gzip at all"),
    ],
)
def test_an_answer_that_breaks_off_may_pass(server, data):
    assert failed(lib.Retry, server, raw(data)) == f"{server.host} {GONE}"


@pytest.mark.parametrize("behaviour", ["stall", "stall_in_the_body", "trickle", "trickle_a_head"])
def test_the_timeout_is_for_the_whole_exchange(server, behaviour):
    text = failed(lib.Retry, server, getattr(server, behaviour), timeout=0.2)
    assert text == f"{server.host} gave no whole answer within 0.2 s"


def test_a_server_that_reads_nothing_is_left_alone():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        host = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(lib.Retry) as caught:
            lib.http("POST", host, body=b"x" * 30_000_000, timeout=0.2)
    assert str(caught.value) == f"{host} gave no whole answer within 0.2 s"


def test_without_any_time_nobody_is_asked(server):
    assert failed(lib.Retry, server, timeout=-1.0) == f"{server.host} gave no whole answer within -1 s"
    assert server.requests == []


def test_a_refused_connection_may_pass():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(lib.Retry) as caught:
            lib.http("GET", f"{host}/{SECRET}")
    assert str(caught.value).startswith(f"{host}: ") and SECRET not in str(caught.value)


def test_a_server_without_tls_is_no_place_for_https(server):
    host = server.host.replace("http:", "https:")
    assert failed(lib.Retry, server, url=f"{host}/{SECRET}").startswith(f"{host}")
    assert server.requests == []


# How much is taken

@pytest.mark.parametrize("framing", ["Content-Length: 99999999", "Transfer-Encoding: chunked", "X-Nothing: at all"])
def test_a_body_past_the_limit_is_refused_or_cut(server, framing):
    def flood(handler: object) -> None:
        handler.wfile.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        block = b"x" * 0x10000
        try:
            for _ in range(200):
                handler.wfile.write(b"10000\r\n" + block + b"\r\n" if "chunked" in framing else block)
        except ConnectionError:
            return

    assert failed(lib.Permanent, server, flood, limit=lib.MIB) == f"{server.host} answered with more than 1 MiB"
    server.answers = [flood]
    assert lib.http("GET", server.url, limit=1000, cut=True).body == b"x" * 1000


@pytest.mark.parametrize(("size", "taken"), [(1000, True), (1001, False)])
def test_the_limit_is_the_last_size_that_is_taken(server, size, taken):
    data = raw(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size)
    if taken:
        server.answers = [data]
        assert len(lib.http("GET", server.url, limit=1000).body) == size
    else:
        assert failed(lib.Permanent, server, data, limit=1000) == f"{server.host} answered with more than 1000 bytes"


@pytest.mark.parametrize("data", [
    gzip.compress(b"ab" * 500_000), gzip.compress(b"ab" * 250_000) + gzip.compress(b"ab" * 250_000)])
@pytest.mark.parametrize("coding", ["gzip", " X-GZIP"])
def test_gzip_is_taken_apart(server, data, coding):
    server.answers = [raw(zipped(data, coding=coding))]
    assert lib.http("GET", server.url).body == b"ab" * 500_000


def test_a_bomb_is_met_by_the_limit(server):
    bomb = gzip.compress(bytes(64 * lib.MIB))
    assert failed(lib.Permanent, server, raw(zipped(bomb)), limit=lib.MIB) == (
        f"{server.host} answered with more than 1 MiB")


def test_a_coding_that_was_not_asked_for_is_refused(server):
    assert failed(lib.Permanent, server, raw(zipped(b"x", coding="br"))) == (
        f"{server.host} answered in a content encoding that was not asked for")


# Redirects

@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_where_none_is_followed(server, status):
    server.answers = [answer(status, location=f"/{SECRET}")]
    found = lib.http("GET", server.url)
    assert (found.status, found.retryable, len(server.requests)) == (status, False, 1)


@pytest.mark.parametrize(
    ("status", "method", "then", "keeps"),
    [(301, "POST", "GET", False), (302, "POST", "GET", False), (303, "PUT", "GET", False), (307, "POST", "POST", True),
     (308, "PUT", "PUT", True), (303, "HEAD", "HEAD", False), (302, "PUT", "PUT", True)])
def test_a_redirect_within_the_origin_keeps_the_credentials(server, status, method, then, keeps):
    server.answers = [answer(status, location="there?x"), said(200)]
    found = lib.http(method, server.url, headers=AUTH, body=None if method == "HEAD" else {"a": 1}, redirects=3)
    assert (server.methods, found.url) == ([method, then], f"{server.host}/hooks/there?x")
    _, headers, body = server.requests[1]
    assert (headers["authorization"], body, "content-type" in headers) == (
        f"Bearer {SECRET}", b'{"a": 1}' if keeps else b"", keeps)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_credential_follows_to_another_origin(server, other, status):
    server.answers, other.answers = [answer(status, location=f"{other.host}/x")], [said(200)]
    assert lib.http("GET", server.url, headers=AUTH, redirects=3).url == f"{other.host}/x"
    ((path, headers, body),) = other.requests
    assert (path, body, headers["accept"]) == ("/x", b"", "text/x")
    assert SECRET not in str(headers)
    assert headers.keys() == {"host", "accept", "accept-encoding", "user-agent"}


def test_credentials_do_not_come_back_from_another_origin(server, other):
    server.answers = [answer(302, location=f"{other.host}/x"), said(200)]
    other.answers = [answer(302, location=f"{server.host}/y")]
    lib.http("GET", server.url, headers=AUTH, redirects=3)
    assert SECRET not in str(server.requests[1])


@pytest.mark.parametrize("status", [307, 308])
def test_no_body_follows_to_another_origin(server, other, status):
    assert failed(lib.Permanent, server, answer(status, location=f"{other.host}/{SECRET}"), method="POST",
                  body=f"refresh_token={SECRET}", redirects=3) == (
        f"{server.host} redirects to {other.host}, where the body is not sent")
    assert other.requests == []


@pytest.mark.parametrize("location", [
    "file:///etc/passwd", "ftp://h/x", "data:text/plain,x", "http://u:p@h/", "http://[::1", "http://h:0/",
    "javascript:x"])
def test_a_redirect_to_what_is_no_url_is_refused(server, location):
    assert failed(lib.Permanent, server, answer(302, location=location), redirects=3) == (
        f"{server.host} redirects to what is no http or https url")


def test_https_does_not_lead_to_http():
    found = lib.Answer(status=302, headers={}, body=b"", url="https://a.example/x")
    with pytest.raises(lib.Permanent) as caught:
        lib._redirected(found, "http://a.example/x", "GET", {}, None, None)
    assert str(caught.value) == "https://a.example redirects from https to http, which is not followed"
    assert lib._redirected(found, "https://b.example/é x", "GET", {}, None, None)[1] == "https://b.example/%C3%A9%20x"


@pytest.mark.parametrize("most", [1, 3])
def test_redirects_without_end_are_refused(server, most):
    assert failed(lib.Permanent, server, *[answer(302, location="/again")] * (most + 1), redirects=most) == (
        f"{server.host} redirects again and again")
    assert len(server.requests) == most + 1


def test_the_caller_s_check_sees_each_url_before_it_is_asked(server, other):
    seen = []

    def check(url: str) -> None:
        seen.append(url)
        if url.startswith(other.host):
            raise lib.Permanent("not there")

    assert failed(lib.Permanent, server, answer(302, location="/x"), answer(302, location=f"{other.host}/y"),
                  redirects=3, check=check) == "not there"
    assert (seen, other.requests) == ([server.url, f"{server.host}/x", f"{other.host}/y"], [])


def test_the_timeout_is_for_all_redirects_together(server):
    assert failed(lib.Retry, server, answer(302, location="/x"), server.stall, timeout=0.2, redirects=3) == (
        f"{server.host} gave no whole answer within 0.2 s")
