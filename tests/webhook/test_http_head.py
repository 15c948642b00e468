from __future__ import annotations

import random

import pytest

from ductile.webhook.http_head import Head, Refused, body_length, parse, path_of

REQUEST = b"POST /hooks/a HTTP/1.1\r\n"
END = b"\r\n"


def head(*headers: tuple[str, str], version: str = "HTTP/1.1") -> Head:
    return Head(method="POST", path="/", query="", version=version, headers=headers)


def refused_status(*headers: tuple[str, str]) -> int:
    with pytest.raises(Refused) as refused:
        body_length(head(*headers), 10)
    return refused.value.status


@pytest.mark.parametrize(("target", "path", "query"), [
    (b"/hooks/a", "/hooks/a", ""),
    (b"/hooks/a?b=c?d", "/hooks/a", "b=c?d"),
    (b"//hooks/a", "//hooks/a", ""),
    (b"/hooks%2Fa", "/hooks%2Fa", ""),
    (b"/hooks/../a", "/hooks/../a", ""),
    (b"http://example.org/hooks/a", "/hooks/a", ""),
    (b"*", "*", ""),
])
def test_the_path_is_what_was_sent_without_the_query(target: bytes, path: str, query: str) -> None:
    assert parse(b"POST " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n") == Head(
        method="POST", path=path, query=query, version="HTTP/1.1", headers=(("Host", "x"),))


@pytest.mark.parametrize(("line", "header"), [
    (b"Host: example.org\r\n", ("Host", "example.org")),
    (b"X-Empty:\r\n", ("X-Empty", "")),
    (b"x-spaces: \t a  b\t \r\n", ("x-spaces", "a  b")),
    (b"X-Colons:a:b:\r\n", ("X-Colons", "a:b:")),
    (b"X-Latin: \xe9\xff\r\n", ("X-Latin", "éÿ")),
    (b"!#$%&'*+.^_`|~9: 1\r\n", ("!#$%&'*+.^_`|~9", "1")),
])
def test_a_header_is_read_without_the_space_around_its_value(line: bytes, header: tuple[str, str]) -> None:
    assert parse(REQUEST + line + END).headers == (header,)


@pytest.mark.parametrize("line", [
    b"X-A : 1\r\n", b"X-A\t: 1\r\n", b" X-A: 1\r\n", b"\tfolded\r\n", b" \r\n", b"X-A 1\r\n", b": 1\r\n",
    b"X(A): 1\r\n",
    b"X-A: 1\n", b"X-A: 1\r", b"X-A: 1\rX-B: 2\r\n", b"X-A: 1\0\r\n", b"X-A: 1\x0b2\r\n", b"X-A: \x7f\r\n",
    b"X-\xc3\xa9: 1\r\n", b"X-A\0: 1\r\n", b"X-A: 1\r\r\n",
])
def test_a_header_that_can_be_read_in_two_ways_is_refused(line: bytes) -> None:
    assert parse(REQUEST + line + END) is None
    assert parse(REQUEST + b"Host: x\r\n" + line + b"X-B: 2\r\n" + END) is None


@pytest.mark.parametrize("line", [
    b"POST /a HTTP/1.1\n", b"POST /a\r\n", b"GET /a\r\n", b"POST  /a HTTP/1.1\r\n", b"POST /a  HTTP/1.1\r\n",
    b"POST /a b HTTP/1.1\r\n", b" POST /a HTTP/1.1\r\n", b"POST /a HTTP/1.1 \r\n", b"POST\t/a HTTP/1.1\r\n",
    b"POST\x0b/a HTTP/1.1\r\n", b"POST /a HTTP/2.0\r\n", b"POST /a HTTP/1.10\r\n", b"POST /a http/1.1\r\n",
    b"POST /a HTTP/+1.1\r\n", b"POST /\xe9 HTTP/1.1\r\n", b"P(ST /a HTTP/1.1\r\n", b"POST /a\0b HTTP/1.1\r\n",
    b"POST /a\rb HTTP/1.1\r\n", b"\r\n", b"\x16\x03\x01\x02\x00\r\n",
])
def test_a_request_line_that_is_not_exact_is_refused(line: bytes) -> None:
    assert parse(line + b"Host: x\r\n" + END) is None


@pytest.mark.parametrize("data", [
    b"", END, REQUEST, REQUEST + b"Host: x\r\n", REQUEST + b"Host: x" + END[:1], REQUEST + END + END,
    REQUEST + END + b"Host: x\r\n", REQUEST + END + b"x", END + REQUEST + END, REQUEST[:-1] + END,
])
def test_a_head_is_whole_and_nothing_more(data: bytes) -> None:
    assert parse(REQUEST + END) is not None
    assert parse(data) is None


def test_a_long_value_of_spaces_is_read_in_one_pass() -> None:
    # Would take hours where each space is a new beginning.
    assert parse(REQUEST + b"X-A:" + b" " * 1_000_000 + b"\0\r\n" + END) is None
    assert parse(REQUEST + b"X-A:" + b" " * 1_000_000 + b"\r\n" + END).headers == (("X-A", ""),)


@pytest.mark.parametrize(("length", "expected"), [
    ("0", 0), ("4", 4), ("10", 10), ("0000000004", 4),
])
def test_a_length_in_one_to_ten_digits_is_good(length: str, expected: int) -> None:
    assert body_length(head(("Content-Length", length)), 10) == expected


@pytest.mark.parametrize("length", [
    "", "-4", "+4", "4 4", "4,4", "4, 4", "4.0", "0x4", "4e0", "1_0", "٤", "²", "four", "00000000004", "9" * 30,
])
def test_any_other_length_is_refused(length: str) -> None:
    assert refused_status(("Content-Length", length)) == 400


@pytest.mark.parametrize(("headers", "status"), [
    ([], 411),
    ([("Transfer-Encoding", "gzip")], 400),
    ([("Transfer-Encoding", "chunked, chunked")], 400),
    ([("Transfer-Encoding", "chunked"), ("transfer-encoding", "chunked")], 400),
    ([("Transfer-Encoding", "")], 400),
    ([("Content-Length", "4"), ("Content-Length", "4")], 400),
    ([("Content-Length", "4"), ("content-length", "5")], 400),
    ([("Content-Length", "4"), ("Transfer-Encoding", "chunked")], 400),
    ([("Content-Length", "4"), ("transfer-encoding", "identity")], 400),
    ([("Content-Length", "4"), ("Transfer-Encoding", "")], 400),
    ([("Content-Length", "11")], 413),
    ([("Content-Length", "9999999999")], 413),
])
def test_a_body_whose_end_is_unsure_or_too_far_is_refused(headers: list[tuple[str, str]], status: int) -> None:
    assert refused_status(*headers) == status


@pytest.mark.parametrize(("version", "headers", "wanted"), [
    ("HTTP/1.1", [], True),
    ("HTTP/1.1", [("Connection", "keep-alive")], True),
    ("HTTP/1.1", [("Connection", "close")], False),
    ("HTTP/1.1", [("connection", "X-A, Close")], False),
    ("HTTP/1.1", [("Connection", "keep-alive"), ("Connection", "close")], False),
    ("HTTP/1.0", [], False),
    ("HTTP/1.0", [("Connection", "keep-alive")], False),
])
def test_a_connection_is_kept_in_http_1_1_unless_the_client_says_close(
        version: str, headers: list[tuple[str, str]], wanted: bool) -> None:
    assert head(*headers, version=version).keeps_connection is wanted


@pytest.mark.parametrize(("version", "headers", "waits"), [
    ("HTTP/1.1", [("Expect", "100-Continue")], True),
    ("HTTP/1.1", [], False),
    ("HTTP/1.1", [("Expect", "something")], False),
    ("HTTP/1.0", [("Expect", "100-continue")], False),
])
def test_a_client_that_expects_continue_waits_for_it(version: str, headers: list[tuple[str, str]], waits: bool) -> None:
    assert head(*headers, version=version).expects_continue is waits


def test_a_repeated_header_is_not_single() -> None:
    twice = head(("X-A", "1"), ("x-a", "2"), ("X-B", "3"))
    assert twice.values("x-a") == ["1", "2"]
    assert [twice.single(name) for name in ("x-a", "x-b", "x-c")] == [None, "3", None]


def test_chunks_have_no_length() -> None:
    assert body_length(head(("Transfer-Encoding", "Chunked")), 10) is None
    with pytest.raises(Refused):
        body_length(head(("Transfer-Encoding", "chunked"), version="HTTP/1.0"), 10)


@pytest.mark.parametrize(("target", "path", "query"), [
    ("http://example.org:8081/a/b?c", "/a/b", "c"), ("HTTPS://[::1]/a", "/a", ""), ("http://example.org", "/", ""),
    ("http://example.org?a=b", "/", "a=b"), ("http:/a", "http:/a", ""), ("ftp://x/a", "ftp://x/a", ""),
    ("//example.org/a", "//example.org/a", ""),
])
def test_a_target_in_absolute_form_has_the_same_path(target: str, path: str, query: str) -> None:
    data = f"POST {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    found = parse(data)
    assert found is not None and (found.path, found.query, path_of(data)) == (path, query, path)


def test_no_head_makes_the_parser_raise_or_read_two_heads_as_one() -> None:
    rng = random.Random(7)
    start = (b"POST http://h/a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
             b"X-A: \xe9; b\r\nConnection: close\r\n\r\n")
    parts = [b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"chunked", b"Content-Length: 7\r\n", b"http://", b"?",
             b"\t", b","]
    good = 0
    for _ in range(50_000):
        data = bytearray(start)
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data))
            end = at + rng.choice((0, 1, 4, 20))
            data[at:end] = rng.choice(parts) if rng.random() < 0.7 else bytes([rng.randrange(256)])
        found = parse(bytes(data))
        path = path_of(bytes(data))
        if found is None:
            continue
        good += 1
        assert bytes(data).count(b"\r\n\r\n") == 1 and data.endswith(b"\r\n\r\n") and path == (found.path or None)
        try:
            assert body_length(found, 100) in (None, 4, 7)
        except Refused as refused:
            assert refused.status in (400, 411, 413)
    assert 1000 < good < 49_000
