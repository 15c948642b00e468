"""The discord plugin, in this process and as one of its own: a message of Discord's in, an event for each link out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ductile.protocol import Response, encode_request
from support import steps
from support.notified import failure
from support.plugin_runs import readme_config

HERE = Path(__file__).resolve().parent
VIDEO = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"

# As Discord's API gives it, with what the plugin does not look at.
MESSAGE = {
    "type": 0, "id": "1162047182345678901", "channel_id": "1162000000000000001", "guild_id": "1161000000000000009",
    "author": {"id": "80351110224678912", "username": "nelly", "global_name": "Nelly", "avatar": None},
    "content": VIDEO, "timestamp": "2026-02-08T09:59:58.123000+00:00", "edited_timestamp": None, "tts": False,
    "mention_everyone": False, "mentions": [], "attachments": [],
    "embeds": [{"type": "video", "url": VIDEO, "thumbnail": {"url": "https://i.ytimg.com/vi/dQw4w9WgXcQ/0.jpg"}}],
}


def encoded(payload: object, config: object, command: str) -> bytes:
    """Return the request of a webhook's job as Ductile writes it."""
    return encode_request(
        protocol=2, job_id="j-1", command=command, config=config, state={},
        event={"type": "webhook", "payload": payload, "source": "webhook:/webhooks/discord",
               "http": {"method": "POST", "path": "/webhooks/discord"}},
        deadline_at="2026-02-08T10:00:00.000Z", context={}, workspace_dir="/ws/j-1")


def run(request: bytes) -> Response:
    return steps.run(HERE, request, HERE)


def handle(payload: object, **config: object) -> Response:
    return run(encoded(payload, config, "handle"))


def links(content: str, **config: object) -> list[str]:
    """Return the urls of the events that a message with this content gives rise to."""
    response = handle({**MESSAGE, "content": content}, **config)
    assert response.status == "ok"
    return [event.payload["url"] for event in response.events]


def test_a_link_is_an_event_that_knows_where_it_came_from():
    response = steps.run_process(HERE, encoded(MESSAGE, {}, "handle"), HERE)
    (event,) = response.events
    assert (response.status, response.result, event.type) == ("ok", "1 link", "discord.link")
    assert event.dedupe_key == f"discord:1162047182345678901:{VIDEO}"
    assert event.payload == {
        "url": VIDEO, "channel_id": "1162000000000000001", "origin_user_id": "80351110224678912",
        "message_id": "1162047182345678901", "content": VIDEO,
    }


@pytest.mark.parametrize(
    ("content", "urls"),
    [
        (f"look: <{VIDEO}>", [VIDEO]),
        (f"[the talk]({VIDEO}) is good", [VIDEO]),
        (f"[the talk](<{VIDEO}>)", [VIDEO]),
        (f'[the talk]({VIDEO} "a title")', [VIDEO]),
        (f"[https://example.org/decoy]({VIDEO})", [VIDEO]),
        (f"see {VIDEO}, or {VIDEO}!", [VIDEO]),
        ("(https://a.example/x). https://a.example/y?", ["https://a.example/x", "https://a.example/y"]),
        ("https://en.wikipedia.org/wiki/Ductility_(physics)", ["https://en.wikipedia.org/wiki/Ductility_(physics)"]),
        ("(https://en.wikipedia.org/wiki/A_(b))", ["https://en.wikipedia.org/wiki/A_(b)"]),
        ("[x](https://en.wikipedia.org/wiki/A_(b)).", ["https://en.wikipedia.org/wiki/A_(b)"]),
        ("**https://a.example/x** ||https://a.example/y|| ~~https://a.example/z~~",
         ["https://a.example/x", "https://a.example/y", "https://a.example/z"]),
        ("_https://a.example/x_ __https://a.example/y__", ["https://a.example/x", "https://a.example/y"]),
        ("https://youtu.be/abcdefghij_", ["https://youtu.be/abcdefghij_"]),
        ("https://youtu.be/abcdefghij-", ["https://youtu.be/abcdefghij-"]),
        ("https://a.example/?a[]=1&b=2#c", ["https://a.example/?a[]=1&b=2#c"]),
        ("HTTPS://A.Example/X\nhttp://b.example", ["HTTPS://A.Example/X", "http://b.example"]),
        ("https://a.example/ö/☃", ["https://a.example/ö/☃"]),
        ("“https://a.example/1” «https://a.example/2» ‘https://a.example/3’ 「https://a.example/4」",
         [f"https://a.example/{number}" for number in range(1, 5)]),
        (f"{VIDEO}\u200b {VIDEO}\u2060. \ufeff{VIDEO}\ufeff", [VIDEO]),
        ("`https://a.example/1` ``https://a.example/2`` ```sh\ncurl https://a.example/3\n``` https://a.example/4",
         ["https://a.example/4"]),
        ("an open ` and https://a.example/5", ["https://a.example/5"]),
        ("https:// https://? http://[::1 ftp://a.example file:///etc/passwd javascript:alert(1) a.example", []),
        ("no link", []),
        ("", []),
    ],
)
def test_links_are_what_discord_shows_as_links(content, urls):
    assert links(content) == urls


def test_a_message_without_a_link_is_no_failure():
    response = handle({**MESSAGE, "content": "good morning"})
    assert (response.status, response.result, response.events) == ("ok", "no link in the message", ())


@pytest.mark.parametrize("written_by", [{"author": MESSAGE["author"] | {"bot": True}}, {"webhook_id": "1163"}])
def test_a_message_of_a_bot_starts_nothing_unless_it_is_asked_for(written_by):
    response = handle(MESSAGE | written_by)
    assert (response.status, response.result, response.events) == ("ok", "the message is a bot's", ())
    assert len(handle(MESSAGE | written_by, bots=True).events) == 1


@pytest.mark.parametrize("written_by", [{"author": MESSAGE["author"] | {"bot": False}}, {"webhook_id": None}])
def test_a_message_that_is_said_not_to_be_a_bots_counts(written_by):
    assert len(handle(MESSAGE | written_by).events) == 1


def test_a_link_in_an_embed_alone_does_not_count():
    assert links("good morning") == []


def test_a_message_delivered_again_has_the_same_keys_and_each_link_its_own():
    twice = [handle({**MESSAGE, "content": "https://a.example/1 https://a.example/2"}) for _ in range(2)]
    keys = [[event.dedupe_key for event in response.events] for response in twice]
    assert keys[0] == keys[1]
    assert keys[0] == [f"discord:{MESSAGE['id']}:https://a.example/{number}" for number in (1, 2)]
    assert twice[0].result == "2 links"


HOSTS = ["youtube.com", "YouTu.be"]


@pytest.mark.parametrize(
    ("url", "counts"),
    [
        ("https://youtube.com/watch?v=a", True), ("https://www.youtube.com/watch?v=a", True),
        ("https://m.YouTube.com/watch?v=a", True), ("https://youtu.be/a", True), ("https://youtube.com:443/a", True),
        ("https://youtube.com./a", True), ("https://example.org/", False), ("https://notyoutube.com/a", False),
        ("https://youtube.com.example.org/", False), ("https://youtube.com@example.org/", False),
        ("https://example.org\\@youtube.com/", False), ("https://example.org/youtube.com", False),
    ],
)
def test_only_links_to_the_hosts_count(url, counts):
    assert links(url, hosts=HOSTS) == ([url] if counts else [])


NOT_ONE = "the payload is not a Discord message: "


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({key: MESSAGE[key] for key in MESSAGE if key != "channel_id"}, "channel_id missing"),
        ({**MESSAGE, "channel_id": None}, "channel_id missing"),
        ({**MESSAGE, "channel_id": ""}, "channel_id missing"),
        ({**MESSAGE, "author": None}, "author.id missing"),
        ({**MESSAGE, "author": {"username": "nelly"}}, "author.id missing"),
        ({"id": "1", "channel_id": "2", "author": {"id": "3"}}, "content missing"),
        ({"zen": "Design for failure."}, "id, channel_id, content, author.id missing"),
        ({"body": "words"}, "id, channel_id, content, author.id missing"),
        ({**MESSAGE, "id": 1162047182345678901}, "id is not a string"),
        ({**MESSAGE, "content": ["a"]}, "content is not a string"),
        ({**MESSAGE, "content": "https://a.example/ " * 600}, "content is longer than 10,000 characters"),
        ([MESSAGE], "expected a JSON object"), ("words", "expected a JSON object"), (None, "expected a JSON object"),
    ],
)
def test_what_is_no_message_is_named_and_not_tried_again(payload, error):
    assert failure(handle(payload)) == (NOT_ONE + error, False)


def test_a_job_without_an_event_has_no_message():
    request = json.dumps({"command": "handle", "config": {}}).encode()
    assert failure(run(request)) == (f"{NOT_ONE}expected a JSON object", False)


@pytest.mark.parametrize("part", ["`", "``` `` ` ", "[", "[a](", "https://", "https://a.example/((", "."])
def test_a_hostile_text_is_no_burden(part):
    content = "https://a.example/" + part * (9000 // len(part))
    assert len(links(content)) <= 2


def test_as_many_links_as_fit_are_events():
    urls = [f"https://a.example/{number}" for number in range(400)]
    assert links(" ".join(urls)) == urls


# What is configured wrongly

A_LIST = "hosts: expected a list of host names such as youtube.com"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ([], "config: expected a mapping"),
        ({"host": ["a"]}, "config: unknown key 'host', expected one of bots, hosts"),
        ({"hosts": "youtube.com"}, A_LIST), ({"hosts": []}, A_LIST), ({"hosts": {"a": 1}}, A_LIST),
        ({"hosts": ["youtube.com", 5]}, A_LIST),
        ({"hosts": ["https://youtube.com"]}, A_LIST),
        ({"bots": "no"}, "bots: expected true or false"),
        ({"hosts": ["*.youtube.com"]}, A_LIST), ({"hosts": [""]}, A_LIST),
    ],
)
def test_a_wrong_configuration_is_named_and_not_tried_again(config, error):
    for command in ("handle", "health"):
        assert failure(run(encoded(MESSAGE, config, command))) == (error, False)


def test_a_wrong_configuration_exits_with_78():
    given = encoded(MESSAGE, {"hosts": []}, "handle")
    assert failure(steps.run_process(HERE, given, HERE, code=78)) == (A_LIST, False)


@pytest.mark.parametrize(("config", "hosts"), [({}, "any host"), ({"hosts": None}, "any host"),
                                               ({"hosts": HOSTS}, "youtube.com, youtu.be")])
def test_health_says_which_links_count(config, hosts):
    response = run(encoded(None, config, "health"))
    assert (response.status, response.result, response.events) == ("ok", f"would take links to {hosts}", ())


@pytest.mark.parametrize("request_", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_request_is_refused(request_):
    assert failure(run(request_)) == ("the request is not a JSON object", False)


def test_a_process_without_a_request_refuses():
    assert failure(steps.run_process(HERE, b"", HERE)) == ("the request is not a JSON object", False)


def test_another_command_is_refused():
    assert failure(run(encoded(MESSAGE, {}, "poll"))) == ("discord has no such command", False)


def test_the_example_of_the_readme_is_a_good_configuration(tmp_path):
    assert readme_config(HERE, tmp_path, {"DISCORD_RELAY_SECRET": "long enough for no warning"})
