"""The notify plugin where the server misbehaves or the configuration is wrong: what it says and never tells."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus

import pytest

from support.notified import SECRET, Server, answer, encoded, failure, raw, run, run_process, send

GONE = "broke off in mid-answer, or its answer is not HTTP"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


# What goes wrong

@pytest.mark.parametrize(
    ("status", "phrase", "retry"),
    [
        (400, "400 Bad Request", False), (401, "401 Unauthorized", False), (404, "404 Not Found", False),
        (413, f"413 {HTTPStatus(413).phrase}", False), (499, "499", False), (500, "500 Internal Server Error", True),
        (502, "502 Bad Gateway", True), (503, "503 Service Unavailable", True), (429, "429 Too Many Requests", True),
    ],
)
def test_a_refusal_is_named_and_tried_again_where_it_may_pass(server, status, phrase, retry):
    assert failure(send(server, answer(status))) == (f"{server.host} answered {phrase}", retry)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server, status):
    for location in (f"/{SECRET}", f"https://{SECRET}.example/", None):
        error, retry = failure(send(server, answer(status, location=location)))
        says = "redirects are not followed, give the url where it ends"
        assert re.fullmatch(rf"{server.host} answered {status} [A-Za-z ]+: {says}", error)
        assert not retry
    assert [path for path, _, _ in server.requests] == [f"/hooks/{SECRET}?key={SECRET}"] * 3


def http_date(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    "retry_after", [lambda: "0", lambda: "0.25", lambda: http_date(1), lambda: http_date(-9)])
def test_a_short_wait_is_waited_and_the_message_sent_again(server, retry_after):
    response = send(server, answer(429, retry_after=retry_after()), answer(204))
    assert (response.status, len(server.requests)) == ("ok", 2)
    assert server.requests[0][2] == server.requests[1][2]


def test_the_message_is_sent_again_only_once(server):
    busy = answer(429, retry_after="0")
    assert failure(send(server, busy, busy, busy)) == (
        f"{server.host} answered 429 Too Many Requests and asks to wait 0 s", True)
    assert len(server.requests) == 2


def test_what_the_second_answer_says_counts(server):
    assert failure(send(server, answer(429, retry_after="0"), answer(404))) == (
        f"{server.host} answered 404 Not Found", False)


@pytest.mark.parametrize(
    ("retry_after", "text"),
    [
        (lambda: "6", r" and asks to wait 6 s"),
        (lambda: "3600", r" and asks to wait 3600 s"),
        (lambda: http_date(100), r" and asks to wait (9\d|100) s"),
        (lambda: "soon", ""), (lambda: "", ""), (lambda: "-1", ""), (lambda: "9" * 5000, ""), (lambda: "nan", ""),
    ],
)
def test_a_long_or_unclear_wait_is_left_to_the_queue(server, retry_after, text):
    error, retry = failure(send(server, answer(429, retry_after=retry_after())))
    assert re.fullmatch(rf"{server.host} answered 429 Too Many Requests{text}", error)
    assert (retry, len(server.requests)) == (True, 1)


def test_a_wait_beyond_the_deadline_is_left_to_the_queue(server):
    assert failure(send(server, answer(429, retry_after="4"), seconds_left=3)) == (
        f"{server.host} answered 429 Too Many Requests and asks to wait 4 s", True)
    assert len(server.requests) == 1


def test_a_server_that_takes_too_long_is_left_alone(server):
    assert failure(send(server, server.stall_in_the_body, timeout=0.2)) == (
        f"{server.host} gave no whole answer within 0.2 s", True)


def test_an_answer_that_breaks_off_is_tried_again(server):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
    assert failure(send(server, raw(data))) == (f"{server.host} {GONE}", True)


def test_a_refused_connection_is_tried_again():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        response = run(encoded({"url": f"http://127.0.0.1:{port}/{SECRET}"}, {}))
    assert failure(response) == (f"http://127.0.0.1:{port}: Connection refused", True)


# What is configured wrongly

BAD_URL = "url: expected http://HOST/... or https://HOST/... in ASCII, without spaces, user or password, or log"
BAD_CONFIGS = [
    ([], "config: expected a mapping"),
    ({}, "config: url missing"),
    *(({"url": url}, BAD_URL) for url in (
        5, "", f"ftp://h/{SECRET}", f"https://u:{SECRET}@h/", f"https://h/{SECRET} x")),
    ({"format": "teams"}, "format: expected one of discord, slack, mattermost, ntfy, gotify, json"),
    ({"format": []}, "format: expected one of discord, slack, mattermost, ntfy, gotify, json"),
    ({"template": 5}, "template: expected a text"),
    ({"title": "a\nb"}, "title: expected one line of printable characters"),
    ({"title": 5}, "title: expected one line of printable characters"),
    ({"token": f"{SECRET}\r\nX: y", "format": "gotify"}, "token: expected ASCII without spaces"),
    ({"token": 5, "format": "gotify"}, "token: expected ASCII without spaces"),
    ({"token": SECRET, "format": "discord"}, "token: discord takes none, only ntfy and gotify do"),
    ({"token": SECRET}, "token: json takes none, only ntfy and gotify do"),
    *(({"timeout": wrong}, "timeout: expected seconds, over 0, at most 3600") for wrong in (0, -1, "5s", True, 1e300)),
    *(({"max_length": wrong}, "max_length: expected a whole number, 3 or more")
      for wrong in (2, 0, -1, 3.5, "9", True)),
    *(({"repeat_after": wrong}, "repeat_after: expected a duration such as 1h")
      for wrong in ("1 hour", "", 5, "h", True)),
    ({"tempalte": "x"}, "config: unknown key 'tempalte', expected one of "
                        "url, format, template, title, token, timeout, repeat_after, max_length"),
]


@pytest.mark.parametrize(("config", "error"), BAD_CONFIGS)
def test_a_wrong_configuration_is_named_and_not_tried_again(config, error):
    if isinstance(config, dict) and config:
        config = {"url": "http://127.0.0.1:9/"} | config
    assert failure(run(encoded(config, {}))) == (error, False)


def test_health_names_what_is_wrong_too():
    assert failure(run(encoded({"url": SECRET}, {}, command="health"))) == (BAD_URL, False)


def test_health_shows_where_it_would_send_and_sends_nothing(server):
    response = run(encoded({"url": server.url, "format": "slack", "title": None}, {}, command="health"))
    assert (response.status, response.result) == ("ok", f"would send to {server.host} as slack")
    assert server.requests == []


@pytest.mark.parametrize(
    "request_", [b"", b"[]"])
def test_what_is_no_request_is_refused(request_):
    assert failure(run(request_)) == ("the request is not a JSON object", False)


# As a process of its own

def test_a_broken_request_has_an_answer():
    assert failure(run_process(b'{"config": ')) == ("the request is not a JSON object", False)


def test_a_wrong_configuration_exits_with_78():
    assert failure(run_process(encoded({"url": SECRET}, {}), code=78)) == (BAD_URL, False)


def test_a_refusal_exits_with_0(server):
    server.answers = [answer(503, retry_after="9")]
    assert failure(run_process(encoded({"url": server.url}, {}))) == (
        f"{server.host} answered 503 Service Unavailable and asks to wait 9 s", True)


def test_a_stalled_server_is_left_alone_before_the_deadline(server):
    server.answers = [server.stall]
    error, retry = failure(run_process(encoded({"url": server.url}, {}, seconds_left=2)))
    assert re.fullmatch(rf"{server.host} gave no whole answer within [01](\.\d+)? s", error) and retry


@pytest.mark.parametrize("command", ["poll", None, ["handle"]])
def test_another_command_is_refused(command):
    request = json.dumps({"config": {"url": "http://h/"}, "command": command}).encode()
    assert failure(run(request)) == ("notify has no such command", False)


def test_a_request_without_event_and_deadline_is_served(server):
    server.answers = [answer(429, retry_after="0")]
    error, retry = failure(run(json.dumps({"config": {"url": server.url}, "command": "handle"}).encode()))
    assert (error, retry) == (f"{server.host} answered 429 Too Many Requests and asks to wait 0 s", True)
    assert json.loads(server.requests[0][2]) == {"message": "{}"}
