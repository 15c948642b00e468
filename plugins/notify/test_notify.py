"""The notify plugin: what it sends to a real HTTP server, and when that is a success."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ductile.protocol import LogLine
from support import in_process
from support.notified import ENVIRON, SECRET, Server, answer, encoded, failure, run, run_process, send
from support.plugin_runs import readme_config

HERE = Path(__file__).resolve().parent


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


# What is sent

JSON_TYPE = "application/json"
FORMATS = [
    ({"format": "discord"}, JSON_TYPE, {"content": "Hé <b> & \"x\"", "allowed_mentions": {"parse": []}}),
    ({"format": "discord", "title": "T"}, JSON_TYPE,
     {"content": "**T**\nHé <b> & \"x\"", "allowed_mentions": {"parse": []}}),
    ({"format": "slack"}, JSON_TYPE, {"text": "Hé &lt;b&gt; &amp; \"x\""}),
    ({"format": "slack", "title": "<T>"}, JSON_TYPE, {"text": "*<T>*\nHé &lt;b&gt; &amp; \"x\""}),
    ({"format": "mattermost"}, JSON_TYPE, {"text": "Hé <b> & \"x\""}),
    ({"format": "mattermost", "title": "T"}, JSON_TYPE, {"text": "**T**\nHé <b> & \"x\""}),
    ({"format": "gotify"}, JSON_TYPE, {"message": "Hé <b> & \"x\""}),
    ({"format": "gotify", "title": "T"}, JSON_TYPE, {"message": "Hé <b> & \"x\"", "title": "T"}),
    ({}, JSON_TYPE, {"message": "Hé <b> & \"x\""}),
    ({"format": "json", "title": "T"}, JSON_TYPE, {"message": "Hé <b> & \"x\"", "title": "T"}),
    ({"format": "ntfy"}, "text/plain; charset=utf-8", "Hé <b> & \"x\""),
]


@pytest.mark.parametrize(("config", "content_type", "body"), FORMATS)
def test_each_service_gets_the_form_it_takes(server, config, content_type, body):
    response = send(server, answer(200), payload={"message": "Hé <b> & \"x\""}, **config)
    assert (response.status, response.result) == ("ok", f"sent to {server.host}")
    ((path, headers, sent),) = server.requests
    assert (path, headers["content-type"]) == (f"/hooks/{SECRET}?key={SECRET}", content_type)
    assert (json.loads(sent) if content_type == JSON_TYPE else sent.decode()) == body
    assert not {"authorization", "x-gotify-key", "title"} & headers.keys()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"format": "gotify", "token": SECRET}, {"x-gotify-key": SECRET}),
        ({"format": "ntfy", "token": SECRET}, {"authorization": f"Bearer {SECRET}"}),
        ({"format": "ntfy", "title": "Türme ☃"}, {"title": "Türme ☃"}),
    ],
)
def test_tokens_and_titles_go_into_the_headers_of_the_service(server, config, expected):
    send(server, answer(200), **config)
    ((_, headers, _),) = server.requests
    found = {key: headers[key].encode("latin-1").decode() for key in headers.keys() & {
        "x-gotify-key", "authorization", "title"}}
    assert found == expected


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_is_a_success_and_an_event(server, status):
    response = send(server, answer(status), format="discord")
    (event,) = response.events
    assert (event.type, event.payload) == ("notify.sent", {"status": status, "service": "discord"})
    assert (response.result, response.logs) == (f"sent to {server.host}", ())


def test_a_proxy_of_the_environment_is_not_used(server):
    server.answers = [answer(204)]
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:9/")
    response = run_process(encoded({"url": server.url, "template": "{no}x"}, {}), environ=ENVIRON | proxies)
    assert (response.status, json.loads(server.requests[0][2])) == ("ok", {"message": "x"})
    assert [(line.level, line.message) for line in response.logs] == [("warn", "the payload has no 'no'")]


def test_a_url_without_a_path_is_the_root(server):
    server.answers = [answer(204)]
    run(encoded({"url": f"{server.host}?a=b"}, {}))
    assert server.requests[0][0] == "/?a=b"


# Templates

PAYLOAD = {"repository": {"full_name": "a/b", "private": True}, "commits": [{"id": 7}], "none": None, "message": "{x}",
           "text": "{message} {{", "__class__": "plain"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{repository.full_name}: {message}", "a/b: {x}"),
        ("{ repository.full_name }", "a/b"),
        ("{repository}", '{"full_name":"a/b","private":true}'),
        ("{repository.private} {commits.0.id} {commits}", 'true 7 [{"id":7}]'),
        ("<{none}>", "<>"),
        ("{text}", "{message} {{"),
        ("{{message}} {{{message}}}", "{message} {{x}}"),
        ("a { b } c", "a  c"),
        ("a { b", "a { b"),
        ("a } b", "a } b"),
        ("{__class__}", "plain"),
        ("no names", "no names"),
    ],
)
def test_a_template_takes_names_from_the_payload(server, template, text):
    response = send(server, answer(204), template=template, payload=PAYLOAD)
    assert response.status == "ok"
    assert json.loads(server.requests[0][2]) == {"message": text}


@pytest.mark.parametrize(
    "name",
    ["nobody", "repository.nobody", "repository.full_name.x", "commits.1", "commits.-1", "commits.id", "",
     "repository.__class__", "message.__len__", "message!r", "repository[full_name]", "message:>9",
     "commits." + "9" * 5000],
)
def test_a_name_that_is_not_there_is_empty_and_a_warning(server, name):
    response = send(server, answer(204), template=f"<{{{name}}}>", payload=PAYLOAD)
    assert json.loads(server.requests[0][2]) == {"message": "<>"}
    assert response.logs == (LogLine(level="warn", message=f"the payload has no {name!r}"),)


def test_a_name_that_is_null_is_empty_and_a_warning_unless_it_is_optional(server):
    response = send(server, answer(204), template="<{none}{none?}{nobody?}>", payload=PAYLOAD)
    assert json.loads(server.requests[0][2]) == {"message": "<>"}
    assert response.logs == (LogLine(level="warn", message="the payload has no 'none'"),)


def test_a_name_is_found_in_the_context_of_a_payload_that_is_no_object(server):
    server.answers = [answer(204)]
    request = json.loads(encoded({"url": server.url, "template": "{origin}"}, [1])) | {"context": {"origin": "ann"}}
    run(json.dumps(request).encode())
    assert json.loads(server.requests[0][2]) == {"message": "ann"}


@pytest.mark.parametrize("payload", [[1, "é"], 5, "words", {"a": {"b": None}}, {}, {"message": None}])
def test_without_template_and_message_the_payload_is_the_message(server, payload):
    send(server, answer(204), payload=payload)
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    assert json.loads(server.requests[0][2]) == {"message": text}


@pytest.mark.parametrize("config", [{"template": " "}, {"template": ""}, {"template": "{none}", "title": "T"}, {}])
def test_an_empty_message_is_not_sent(server, config):
    response = send(server, payload={"message": "", "none": None}, format="discord", **config)
    assert failure(response) == ("the message is empty, nothing was sent", False)
    assert server.requests == []


# Lengths

@pytest.mark.parametrize(
    ("config", "key", "limit"),
    [
        ({"format": "discord"}, "content", 2000),
        ({"format": "discord", "max_length": 5}, "content", 5),
        ({"format": "mattermost"}, "text", 16_383),
        ({"format": "slack"}, "text", 40_000),
        ({"format": "json", "max_length": 3}, "message", 3),
    ],
)
def test_a_long_message_is_cut_to_what_the_service_takes(server, config, key, limit):
    fits = send(server, answer(204), payload={"message": "é" * limit}, **config)
    longer = send(server, answer(204), payload={"message": "é" * (limit + 1)}, **config)
    assert [json.loads(body)[key] for _, _, body in server.requests] == ["é" * limit, "é" * (limit - 1) + "…"]
    assert fits.logs == ()
    assert longer.logs == (LogLine(level="info", message=f"the message was cut from {limit + 1} to {limit}"),)


def composed(payload: dict, **config: object) -> str:
    """Return the message that the plugin would send."""
    return in_process.load(HERE).compose({"title": "", **config}, payload, None)


def test_a_text_for_slack_is_never_cut_within_an_escape(server):
    send(server, answer(204), payload={"message": "x " + "R&D " * 6000}, format="slack")
    assert re.fullmatch("x (?:R&amp;D )+R?…", json.loads(server.requests[0][2])["text"])
    for limit in range(8, 24):
        text = composed({"message": "a&b<c>d&e<f"}, format="slack", max_length=limit)
        assert limit - 5 < len(text) <= limit
        assert re.fullmatch(r"(?:[a-f]|&amp;|&lt;|&gt;)+…", text)


@pytest.mark.parametrize("service", ["discord", "slack", "mattermost"])
def test_a_fenced_block_that_is_cut_is_closed(service):
    template = "Output:\n```\n{output}\n```\nBelow it"
    for limit in range(3, 45):
        text = composed({"output": "one\ntwo\nthree"}, template=template, format=service, max_length=limit)
        assert (len(text) <= limit, text.count("`") in (0, 6)) == (True, True), (limit, text)
        assert not re.search(r"```\s*…?\s*```", text), (limit, text)


@pytest.mark.parametrize("service", ["json", "gotify"])
def test_a_service_without_a_limit_gets_all(server, service):
    send(server, answer(204), payload={"message": "x" * 500_000}, format=service)
    assert json.loads(server.requests[0][2]) == {"message": "x" * 500_000}


@pytest.mark.parametrize(
    ("config", "message", "sent"),
    [
        ({}, "é" * 2048, "é" * 2048),
        ({}, "é" * 2049, "é" * 2046 + "…"),
        ({"max_length": 8}, "☃☃☃", "☃…"),
        ({"max_length": 3}, "abcd", "…"),
    ],
)
def test_for_ntfy_bytes_count_and_no_character_is_cut_in_two(server, config, message, sent):
    send(server, answer(204), payload={"message": message}, format="ntfy", **config)
    assert server.requests[0][2].decode() == sent


def test_a_message_for_the_log_is_a_warning_there_and_goes_nowhere_else(server):
    response = run(encoded({"url": "log", "template": "{plugin} died"}, {"plugin": "scale"}))
    assert (response.status, response.result) == ("ok", "written to the log")
    assert [(line.level, line.message) for line in response.logs] == [("warn", "scale died")]
    assert [(event.type, event.payload) for event in response.events] == [("notify.sent", {"service": "log"})]
    assert server.requests == []


def test_the_example_of_the_readme_is_a_good_configuration(tmp_path):
    assert readme_config(HERE, tmp_path, {"NOTIFY_URL": "https://example.net/x"})


# Messages that repeat each other

DEAD = {"plugin": "backup", "command": "poll", "error": "disk full"}


def told(event_type, payload, state, **config):
    """Write a message to the log, and return its response with the state after it."""
    given = {"url": "log", "template": "{plugin}: {error?}", "repeat_after": "1h", **config}
    request = json.loads(encoded(given, payload))
    request["event"]["type"] = event_type
    response = run(json.dumps(request | {"state": state}).encode())
    return [line.message for line in response.logs], {**state, **response.state_updates}


def aged(state, seconds):
    """Return the state as if everything in it had happened so much earlier."""
    return {"repeats": {key: {**value, "at": value["at"] - seconds} for key, value in state["repeats"].items()}}


def test_a_message_that_repeats_another_is_held_back_and_counted():
    sent, state = told("ductile.job.dead", DEAD | {"job_id": "1"}, {})
    assert sent == ["backup: disk full"]
    for number in (2, 3):
        sent, state = told("ductile.job.dead", DEAD | {"job_id": str(number), "error": "still"}, state)
        assert sent == []
    assert told("ductile.job.dead", DEAD | {"plugin": "other"}, state)[0] == ["other: disk full"]
    assert told("other.event", DEAD, state)[0] == ["backup: disk full"]
    (line,), state = told("ductile.job.dead", DEAD, aged(state, 3600))
    assert re.fullmatch(r"\(2 more since [-0-9]{10} [0-9:]{5} UTC\)\nbackup: disk full", line)
    assert told("ductile.job.dead", DEAD, aged(state, 3600))[0] == ["backup: disk full"]


def test_after_a_recovery_the_next_failure_is_news():
    _, state = told("ductile.job.dead", DEAD, {})
    sent, state = told("ductile.job.recovered", {"plugin": "backup", "command": "poll"}, state)
    assert sent == ["backup: "]
    assert told("ductile.job.dead", DEAD, state)[0] == ["backup: disk full"]


def test_other_events_repeat_each_other_if_their_messages_are_equal():
    _, state = told("door.open", DEAD, {})
    assert told("door.open", DEAD | {"more": 1}, state)[0] == []
    assert told("door.open", DEAD | {"error": "none"}, state)[0] == ["backup: none"]


@pytest.mark.parametrize("state", [{"repeats": 5}, {"repeats": {"a": 5, "b": {"at": "x", "held": 1}}}, {}])
def test_a_state_that_says_nothing_holds_nothing_back(state):
    sent, after = told("door.open", DEAD, state)
    assert (sent, len(after["repeats"])) == (["backup: disk full"], 1)


def test_a_message_that_was_not_sent_is_not_remembered(server):
    request = encoded({"url": server.url, "repeat_after": "1h"}, {"message": "x"})
    server.answers = [answer(500), answer(204)]
    assert (run(request).status, run(request).status) == ("error", "ok")
    assert len(server.requests) == 2
