"""The summarize plugin with a model behind an HTTP endpoint: what it asks, and what it makes of any answer."""

from __future__ import annotations

import json
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
LECTURE = "Today we bake bread. It takes \"flour\", wäter & time."
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
    (made / "transcript.txt").write_text(LECTURE, encoding="utf-8")
    return made


def completion(content: object) -> Answer:
    """Answer as the API documents it."""
    message = {"role": "assistant", "content": content, "refusal": None}
    return said(200, {"id": "chatcmpl-1", "object": "chat.completion", "created": 1770544800, "model": "m-1",
                      "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
                      "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})


def ask(server: Server, workspace: Path, *answers: Answer, command: str = "handle", seconds_left: float = 60,
        **config: object) -> Response:
    server.answers = list(answers)
    config = {"endpoint": f"{server.host}/v1", "model": "m-1", "api_key": SECRET, **config}
    return steps.run(
        HERE, steps.request(workspace, config, command=command, seconds_left=seconds_left), workspace)


def refused(server: Server, workspace: Path, *answers: Answer, **config: object) -> tuple[str | None, bool]:
    """Return the error and whether it is tried again, after a look that nothing was written and all was asked."""
    result = failure(ask(server, workspace, *answers, **config))
    assert {path.name for path in workspace.iterdir()} == {"transcript.txt"}
    assert server.answers == []
    return result


# What is asked

def test_the_model_is_asked_as_the_api_documents_it(server, workspace):
    response = ask(server, workspace, completion(" It is about brëad. \n"), prompt="Be brief.")
    ((path, headers, body),) = server.requests
    assert (path, headers["authorization"]) == ("/v1/chat/completions", f"Bearer {SECRET}")
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"model": "m-1", "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": LECTURE}]}
    assert (workspace / "summary.txt").read_text(encoding="utf-8") == "It is about brëad.\n"
    (event,) = response.events
    assert (response.status, event.type, event.payload) == ("ok", "summary.ready", {
        "summary_path": str(workspace / "summary.txt"), "summary_words": 4, "summarizer": "http"})


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_there_is_no_authorization(server, workspace, key):
    assert ask(server, workspace, completion("done"), api_key=key).status == "ok"
    assert "authorization" not in server.requests[0][1]


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [("/v1/", "/v1/chat/completions"), ("", "/chat/completions"),
     ("/openai/v1?api-version=5", "/openai/v1/chat/completions?api-version=5")])
def test_the_endpoint_keeps_its_path_and_query(server, workspace, endpoint, path):
    assert ask(server, workspace, completion("done"), endpoint=f"{server.host}{endpoint}").status == "ok"
    assert server.requests[0][0] == path


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("a" * 60 + ". " + "b" * 30 + ". " + "c" * 60 + ".", "a" * 60 + ". " + "b" * 30 + "."),
        ("a" * 60 + ". " + "b" * 37 + "! c", "a" * 60 + ". " + "b" * 37 + "!"),
        ("a" * 60 + " " + "b" * 60, "a" * 60),
        ("a" * 100 + " b", "a" * 100),
        ("a" * 200, "a" * 100),
        ("a. " + "b" * 200, "a. " + "b" * 97),
        ("あ" * 70 + "。" + "い" * 70, "あ" * 70 + "。"),
        ("a" * 60 + "\n\n" + "b" * 60, "a" * 60),
    ],
)
def test_a_long_transcript_is_cut_at_the_end_of_a_sentence(server, workspace, text, sent):
    (workspace / "transcript.txt").write_text(text, encoding="utf-8")
    response = ask(server, workspace, completion("done"), max_characters=100)
    assert json.loads(server.requests[0][2])["messages"][1]["content"] == sent
    assert [line.message for line in response.logs] == [
        f"the transcript was cut from {len(text)} to {len(sent)} characters"]


def test_a_transcript_at_the_limit_is_sent_whole(server, workspace):
    (workspace / "transcript.txt").write_text("a b " * 25_000, encoding="utf-8")
    assert ask(server, workspace, completion("done")).logs == ()
    assert len(json.loads(server.requests[0][2])["messages"][1]["content"]) == 100_000


# What goes wrong

@pytest.mark.parametrize(
    ("status", "phrase", "retry"),
    [
        (400, "400 Bad Request", False), (401, "401 Unauthorized", False), (404, "404 Not Found", False),
        (429, "429 Too Many Requests", True), (500, "500 Internal Server Error", True),
        (503, "503 Service Unavailable", True),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_without_the_key(server, workspace, status, phrase, retry):
    error = {"message": f"Incorrect API key\n provided:\x1b {SECRET}.", "type": "x", "param": None, "code": "y"}
    assert refused(server, workspace, said(status, {"error": error}, Retry_After="0")) == (
        f"{server.host} answered {phrase}: Incorrect API key provided: ***.", retry)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [{}, [], "x", {"error": "x"}, {"error": {}}, {"error": {"message": 5}},
                                  {"error": {"message": " \n"}}])
def test_a_refusal_without_words_is_told_by_its_status(server, workspace, body):
    assert refused(server, workspace, said(400, body)) == (f"{server.host} answered 400 Bad Request", False)


def test_a_refusal_in_many_words_is_cut(server, workspace):
    assert refused(server, workspace, said(400, {"error": {"message": "x" * 5000}})) == (
        f"{server.host} answered 400 Bad Request: {'x' * 300}", False)


def test_a_redirect_is_not_followed(server, workspace):
    assert refused(server, workspace, answer(302, location=f"/{SECRET}")) == (
        f"{server.host} answered 302 Found: redirects are not followed, give the endpoint where it ends", False)


@pytest.mark.parametrize("content", [None, "", " \n", "...", 5, ["text"]])
def test_an_empty_summary_is_tried_again(server, workspace, content):
    assert refused(server, workspace, completion(content)) == ("the summary is empty, made with an endpoint", True)


@pytest.mark.parametrize("body", [{}, [], 5, {"choices": []}, {"choices": [{}]}, {"choices": {"0": {}}},
                                  {"choices": [{"message": "x"}]}, {"choices": [{"message": None}]}])
def test_another_answer_is_not_tried_again(server, workspace, body):
    text = f"{server.host} answered something else than a chat completion, look at the endpoint"
    assert refused(server, workspace, said(200, body)) == (text, False)


def test_an_answer_that_is_not_json_is_not_tried_again(server, workspace):
    text = f"{server.host} answered something else than a chat completion, look at the endpoint"
    for body in (b"<html>", b"\xff", b"[" * 100_000):
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        assert refused(server, workspace, raw(head + body)) == (text, False)


def test_a_summary_with_what_no_file_can_hold_is_kept(server, workspace):
    assert ask(server, workspace, completion("a\ud800b\0c")).status == "ok"
    assert (workspace / "summary.txt").read_text(encoding="utf-8") == "a?bc\n"


def test_a_server_that_takes_too_long_is_left_alone(server, workspace):
    assert refused(server, workspace, server.stall_in_the_body, timeout=0.2) == (
        f"{server.host} gave no whole answer within 0.2 s", True)


def test_an_exchange_ends_before_the_step_does(server, workspace):
    error, retry = refused(server, workspace, server.stall, seconds_left=2.3)
    assert re.fullmatch(rf"{server.host} gave no whole answer within 0(\.\d+)? s", error) and retry


def test_an_answer_that_breaks_off_is_tried_again(server, workspace):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    assert refused(server, workspace, raw(data)) == (f"{server.host} {GONE}", True)


def test_a_refused_connection_is_tried_again(server, workspace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert refused(server, workspace, endpoint=host) == (f"{host}: Connection refused", True)


def test_an_endless_answer_is_refused(server, workspace):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000
    assert refused(server, workspace, lambda handler: send_until_closed(handler, data)) == (
        f"{server.host} answered with more than 8 MiB", False)


def send_until_closed(handler, data: bytes) -> None:
    try:
        handler.wfile.write(data)
    except ConnectionError:
        return


# What is configured wrongly

URL = "endpoint: expected http://HOST/v1 or https://HOST/v1 in ASCII, without spaces, user or password"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        *(({"endpoint": wrong}, URL) for wrong in (
            5, "", "h/v1", "ftp://h/v1", f"https://u:{SECRET}@h/", "https://h/v 1", "https://h:x/", "https:///v1",
            "http://hé/")),
        ({"model": None}, "model: expected the name of a model, an endpoint needs one"),
        ({"model": " "}, "model: expected the name of a model"),
        ({"api_key": f"{SECRET}\r\nX: y"}, "api_key: expected ASCII without spaces"),
        ({"prompt": ""}, "prompt: expected a text"),
        *(({"max_characters": wrong}, "max_characters: expected a whole number, 100 or more")
          for wrong in (99, "1", True)),
        ({"sentences": 5}, "sentences: counts only without command or endpoint, take it out"),
    ],
)
def test_a_wrong_configuration_is_named_and_not_tried_again(server, workspace, config, error):
    for command in ("handle", "health"):
        assert refused(server, workspace, command=command, **config) == (error, False)
    assert server.requests == []


def test_health_says_whom_it_would_ask_and_asks_nobody(server, workspace):
    response = ask(server, workspace, command="health")
    assert (response.status, response.result) == ("ok", f"would sum up with m-1 at {server.host}")
    assert server.requests == []
