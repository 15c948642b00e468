"""The discord_notify plugin where Discord refuses, stalls or asks to wait: what it says, and never tells."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ductile.protocol import Response
from support import steps
from support.notified import SECRET, Answer, Server, answer, failure, raw
from support.steps import said

HERE = Path(__file__).resolve().parent
CHANNEL = "1162000000000000001"
PAYLOAD = {"url": "https://a.example/v", "title": "How to bake", "channel_id": CHANNEL}
POSTED = said(200, {"id": "1162047182345678999"})
LIMITED = {"message": "You are being rate limited.", "retry_after": 0.02, "global": False}
GONE = "broke off in mid-answer, or its answer is not HTTP"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    (made / "summary.txt").write_text("The short of it.\n", encoding="utf-8")
    return made


def post(server: Server, workspace: Path, *answers: Answer, seconds_left: float = 60, command: str = "handle",
         **config: object) -> Response:
    """Have the plugin post to a server that answers so; all answers must be asked for."""
    server.answers = list(answers)
    config = {"bot_token": SECRET, "api_base": server.host, **config}
    given = steps.request(workspace, config, PAYLOAD, command=command, seconds_left=seconds_left)
    response = steps.run(HERE, given, workspace)
    assert server.answers == []
    return response


def by_webhook(server: Server) -> dict[str, object]:
    return {"bot_token": None, "api_base": None, "webhook_url": f"{server.host}/webhooks/55555/{SECRET}"}


# Refused

@pytest.mark.parametrize(
    ("status", "said_", "phrase", "retry"),
    [
        (400, {"message": "Invalid Form Body", "code": 50035},
         "400 Bad Request: Invalid Form Body (code 50035)", False),
        (401, {"message": "401: Unauthorized", "code": 0},
         "401 Unauthorized: 401: Unauthorized; look at bot_token", False),
        (403, {"message": "Missing Access", "code": 50001},
         f"403 Forbidden: Missing Access (code 50001); the bot may not post in channel {CHANNEL}", False),
        (404, {"message": "Unknown Channel", "code": 10003},
         f"404 Not Found: Unknown Channel (code 10003); the bot sees no channel {CHANNEL}", False),
        (500, {}, "500 Internal Server Error", True), (502, "x", "502 Bad Gateway", True),
        (503, [], "503 Service Unavailable", True), (429, {}, "429 Too Many Requests", True),
        (418, {"message": 5, "code": "x"}, "418 I'm a Teapot", False),
        (400, {"message": "a\nb\x1b[1m" + "c" * 500}, f"400 Bad Request: a b [1m{'c' * 193}", False),
        (401, {"message": f"no {SECRET}"}, "401 Unauthorized; look at bot_token", False),
    ],
)
def test_a_refusal_is_told_in_discords_words(server, workspace, status, said_, phrase, retry):
    assert failure(post(server, workspace, said(status, said_))) == (f"{server.host} answered {phrase}", retry)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_webhook_is_told_without_its_url(server, workspace, status):
    for message, told in (("Unknown Webhook", ": Unknown Webhook"), (f"no {SECRET}", ""), ("no webhook 55555", "")):
        error, retry = failure(post(server, workspace, said(status, {"message": message, "code": 10015}),
                                    **by_webhook(server)))
        text = rf"{server.host} answered {status} [A-Za-z ]+{told} \(code 10015\); look at webhook_url"
        assert re.fullmatch(text, error) and not retry


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(server, workspace, status):
    error, retry = failure(post(server, workspace, answer(status, location=f"/{SECRET}")))
    assert re.fullmatch(rf"{server.host} answered {status} [A-Za-z ]+: redirects are not followed", error) and not retry
    assert len(server.requests) == 1


# Asked to wait

@pytest.mark.parametrize(
    "limited",
    [said(429, LIMITED), said(429, {}, Retry_After="0"), said(429, LIMITED, Retry_After="0.03"),
     said(429, {"retry_after": 0}, Retry_After="soon"), answer(429, retry_after="0.01")])
def test_a_wait_is_waited_and_the_same_message_sent_again(server, workspace, limited):
    assert post(server, workspace, limited, limited, POSTED).status == "ok"
    assert len(server.requests) == 3
    assert len({body for _, _, body in server.requests}) == 1


def test_discord_is_asked_five_times_at_most(server, workspace):
    assert failure(post(server, workspace, *[said(429, LIMITED)] * 5)) == (
        f"{server.host} answered 429 Too Many Requests and asks to wait 0.02 s", True)


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (LIMITED | {"retry_after": 64.57}, {}, " and asks to wait 64.6 s"),
        (LIMITED, {"Retry_After": "3600"}, " and asks to wait 3600 s"),
        (LIMITED | {"retry_after": 90}, {"Retry_After": "1"}, " and asks to wait 90 s"),
        ({"retry_after": "5"}, {}, ""), ({"retry_after": -1}, {}, ""), ({"retry_after": True}, {}, ""),
        ({"retry_after": 1e9}, {"Retry_After": "9" * 500}, ""),
        ({}, {"Retry_After": "in a moment"}, ""),
    ],
)
def test_a_wait_beyond_the_deadline_or_unclear_is_left_to_the_queue(server, workspace, body, headers, text):
    assert failure(post(server, workspace, said(429, body, **headers), seconds_left=30)) == (
        f"{server.host} answered 429 Too Many Requests{text}", True)


def test_a_webhook_is_waited_for_too(server, workspace):
    assert post(server, workspace, said(429, LIMITED), POSTED, **by_webhook(server)).status == "ok"


# No answer

def test_a_server_that_takes_too_long_is_left_alone(server, workspace):
    assert failure(post(server, workspace, server.stall_in_the_body, timeout=0.2)) == (
        f"{server.host} gave no whole answer within 0.2 s", True)


def test_an_exchange_ends_before_the_step_does(server, workspace):
    error, retry = failure(post(server, workspace, server.stall, seconds_left=1.3))
    assert re.fullmatch(rf"{server.host} gave no whole answer within 0(\.\d+)? s", error) and retry
    assert failure(post(server, workspace, seconds_left=0)) == (
        "there is no time left to post, give the step a longer timeout", True)


def test_an_answer_that_breaks_off_is_tried_again(server, workspace):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    assert failure(post(server, workspace, raw(data))) == (f"{server.host} {GONE}", True)


def test_a_refused_connection_is_tried_again(server, workspace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert failure(post(server, workspace, api_base=host)) == (f"{host}: Connection refused", True)


# What is configured wrongly

WEBHOOK = "webhook_url: expected http://HOST/... or https://HOST/... in ASCII, without spaces, user or password"
API = "api_base: expected http://HOST/... or https://HOST/... in ASCII, without spaces, user, password or query"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"bot_token": None}, "config: expected bot_token or webhook_url, got neither"),
        ({"webhook_url": f"https://h/{SECRET}"}, "config: expected bot_token or webhook_url, got both"),
        ({"bot_token": None, "webhook_url": f"https://h/{SECRET}"},
         "api_base: counts only with a bot_token, take it out"),
        *(({"bot_token": wrong}, "bot_token: expected the bot's token, in ASCII without spaces")
          for wrong in ("", 5, f"{SECRET}\r\nX: y", f"Bot {SECRET}", f"{SECRET}é")),
        *(({"webhook_url": wrong}, WEBHOOK) for wrong in (
            5, "", SECRET, f"ftp://h/{SECRET}", f"https://{SECRET}@h/", f"https://h/{SECRET} x",
            f"https://h:x/{SECRET}")),
        *(({"api_base": wrong}, API) for wrong in (5, "", "h", "https://h/?a=b", "https://h/#a", "https:///x")),
        ({"template": 5}, "template: expected a text"),
        *(({"timeout": wrong}, "timeout: expected seconds, over 0, at most 3600") for wrong in (0, "5s", True, 1e300)),
        ({"token": SECRET}, "config: unknown key 'token', expected one of "
                            "bot_token, webhook_url, api_base, template, timeout"),
    ],
)
def test_a_wrong_configuration_is_named_and_not_tried_again(server, workspace, config, error):
    for command in ("handle", "health"):
        assert failure(post(server, workspace, command=command, **config)) == (error, False)
    assert server.requests == []


def test_health_shows_where_it_would_post_and_posts_nothing(server, workspace):
    assert post(server, workspace, command="health").result == f"would post to {server.host} as a bot"
    assert post(server, workspace, command="health", **by_webhook(server)).result == (
        f"would post to {server.host} by a webhook")
    assert post(server, workspace, command="health", api_base=None).result == (
        "would post to https://discord.com as a bot")
    assert server.requests == []


@pytest.mark.parametrize("given", [b"", b'{"config": '])
def test_what_is_no_request_is_refused(workspace, given):
    assert failure(steps.run_process(HERE, given, workspace)) == ("the request is not a JSON object", False)


def test_a_wrong_configuration_exits_with_78(workspace):
    given = steps.request(workspace, {"bot_token": 5}, PAYLOAD)
    assert failure(steps.run_process(HERE, given, workspace, code=78)) == (
        "bot_token: expected the bot's token, in ASCII without spaces", False)


def test_a_process_that_failed_between_two_parts_says_which_were_posted(server, workspace):
    (workspace / "summary.txt").write_text("a" * 1900 + "\n\n" + "b" * 1900, encoding="utf-8")
    server.answers = [POSTED, said(503)]
    given = steps.request(workspace, {"bot_token": SECRET, "api_base": server.host}, PAYLOAD)
    response = steps.run_process(HERE, given, workspace)
    assert failure(response) == (f"part 2 of 2: {server.host} answered 503 Service Unavailable", True)
    assert len(response.state_updates["unfinished"]["j-1"]) == 1


def test_a_process_leaves_a_stalled_server_before_its_deadline(server, workspace):
    server.answers = [server.stall]
    given = steps.request(workspace, {"bot_token": SECRET, "api_base": server.host}, PAYLOAD, seconds_left=2)
    error, retry = failure(steps.run_process(HERE, given, workspace))
    assert re.fullmatch(rf"{server.host} gave no whole answer within [01](\.\d+)? s", error) and retry


def test_a_configuration_that_is_no_mapping_is_refused(workspace):
    given = steps.request(workspace, [], PAYLOAD)
    assert failure(steps.run(HERE, given, workspace)) == ("config: expected a mapping", False)
