"""The discord_notify plugin: what it posts to a stand-in for Discord's API, and how often."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from ductile.protocol import Response
from support import in_process, steps
from support.notified import ENVIRON, SECRET, Answer, Server, answer, failure
from support.plugin_runs import readme_config
from support.steps import said

HERE = Path(__file__).resolve().parent
CHANNEL = "1162000000000000001"
# As the plugin sees it in the pipeline, with what all the steps before it said.
PAYLOAD = {"url": "https://www.youtube.com/watch?v=dQw4w9WgXcQ", "title": "How to bake", "channel_id": CHANNEL,
           "origin_user_id": "80351110224678912", "summarizer": "extractive", "summary_words": 4,
           "origin": {"not": "text"}, "nothing": None, "author": {"name": "Ann"}, "tags": ["a"]}
HEAD = "**How to bake**\n<https://www.youtube.com/watch?v=dQw4w9WgXcQ>\n\n"
# As Discord answers, in short.
POSTED = said(200, {"id": "1162047182345678999", "type": 0, "channel_id": CHANNEL, "content": "…"})
LATER = {"message": "The service is not available.", "code": 0}


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


def post(server: Server, workspace: Path, *answers: Answer, payload: object = None, job_id: str = "j-1",
         state: dict | None = None, **config: object) -> Response:
    """Have the plugin post to a server that answers so; all answers must be asked for."""
    server.answers = list(answers)
    config = {"bot_token": SECRET, "api_base": f"{server.host}/api/v10", **config}
    given = steps.request(workspace, config, PAYLOAD if payload is None else payload, job_id=job_id, state=state)
    response = steps.run(HERE, given, workspace)
    assert server.answers == []
    return response


def messages(server: Server) -> list[dict]:
    return [json.loads(body) for _, _, body in server.requests]


def contents(server: Server) -> list[str]:
    return [message["content"] for message in messages(server)]


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


# One message

def test_a_summary_is_posted_as_the_api_documents_it(server, workspace):
    response = post(server, workspace, POSTED)
    ((path, headers, body),) = server.requests
    assert (path, headers["authorization"]) == (f"/api/v10/channels/{CHANNEL}/messages", f"Bot {SECRET}")
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("DiscordBot (")
    message = json.loads(body)
    assert re.fullmatch("[0-9a-f]{24}", message.pop("nonce"))
    assert message == {
        "content": HEAD + "The short of it.", "allowed_mentions": {"parse": []}, "enforce_nonce": True}
    (event,) = response.events
    assert (response.status, response.result) == ("ok", f"posted to {server.host} in 1 part")
    assert (event.type, event.payload, response.state_updates) == ("discord_notify.sent", {"parts": 1}, {})


def test_a_webhook_needs_no_channel_and_knows_no_nonce(server, workspace):
    for query, sent in (("", "?wait=true"), ("?thread_id=5", "?thread_id=5&wait=true")):
        url = f"{server.host}/api/webhooks/5/{SECRET}{query}"
        response = post(server, workspace, POSTED, payload={}, bot_token=None, api_base=None, webhook_url=url)
        assert response.status == "ok"
        path, headers, body = server.requests.pop()
        assert (path, "authorization" in headers) == (f"/api/webhooks/5/{SECRET}{sent}", False)
        assert json.loads(body) == {"content": "The short of it.", "allowed_mentions": {"parse": []}}


@pytest.mark.parametrize("status", [200, 201, 204])
def test_every_2xx_is_a_success(server, workspace, status):
    assert post(server, workspace, answer(status)).status == "ok"


def test_a_nonce_is_that_of_the_job_and_the_text(server, workspace):
    post(server, workspace, POSTED)
    post(server, workspace, POSTED)
    post(server, workspace, POSTED, job_id="j-2")
    post(server, workspace, POSTED, template="x")
    first, again, other_job, other_text = (message["nonce"] for message in messages(server))
    assert first == again
    assert len({first, other_job, other_text}) == 3


def test_a_proxy_of_the_environment_is_not_used(server, workspace):
    server.answers = [POSTED]
    config = {"bot_token": SECRET, "api_base": server.host}
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:9/")
    given = steps.request(workspace, config, PAYLOAD)
    assert steps.run_process(HERE, given, workspace, environ=ENVIRON | proxies).status == "ok"
    assert server.requests[0][0] == f"/channels/{CHANNEL}/messages"


# What stands above

@pytest.mark.parametrize(
    ("template", "content"),
    [
        ("{title}", "How to bake\n\nThe short of it."),
        ("", "The short of it."),
        ("New:\n{title} {nothing}\n{origin}\n{ summary_words } words\n<{url}>",
         "New:\n{\"not\":\"text\"}\n4 words\n<https://www.youtube.com/watch?v=dQw4w9WgXcQ>\n\nThe short of it."),
        ("{ title } {{x}} {{{title}}} {no?}{", "How to bake {x} {How to bake} {\n\nThe short of it."),
        ("{author.name}: {tags.0}", "Ann: a\n\nThe short of it."),
    ],
)
def test_a_template_takes_texts_from_the_payload(server, workspace, template, content):
    assert post(server, workspace, POSTED, template=template).status == "ok"
    assert contents(server) == [content]


@pytest.mark.parametrize("title", [None, "", " \n"])
def test_a_line_whose_name_is_missing_is_left_out_with_a_warning(server, workspace, title):
    response = post(server, workspace, POSTED, payload=PAYLOAD | {"title": title})
    assert contents(server) == [HEAD.partition("\n")[2] + "The short of it."]
    assert [(line.level, line.message) for line in response.logs] == [
        ("warn", "the payload has no 'title', the line of the template is left out")]


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("@everyone <@5> **x** _y_ `z` ||s|| [a](https://b) ~~c~~ \\",
         r"@everyone \<@5\> \*\*x\*\* \_y\_ \`z\` \|\|s\|\| \[a\](https://b) \~\~c\~\~ " + "\\\\"),
        ("two\nlines\r\n# and\x00\x1b[31m more", r"two lines # and\[31m more"),
        ("https://a.b/c_d_e", "https://a.b/c_d_e"),
        ("{url} {title}", "{url} {title}"),
        ("# 1 in the charts", r"\# 1 in the charts"), ("### x", r"\### x"), ("-# x", r"\-# x"), ("- x", r"\- x"),
        ("+ x", r"\+ x"), ("12. May", r"12\. May"), ("3) x", r"3\) x"), ("#", r"\#"), ("> x", r"\> x"),
        ("#1 -2 C# 3.5", "#1 -2 C# 3.5"), ("-5 degrees", "-5 degrees"), ("1.5 km", "1.5 km"),
    ],
)
def test_a_title_stays_text_on_one_line(server, workspace, title, shown):
    assert post(server, workspace, POSTED, payload=PAYLOAD | {"title": title}, template="{title}").status == "ok"
    assert contents(server) == [f"{shown}\n\nThe short of it."]
    assert messages(server)[0]["allowed_mentions"] == {"parse": []}


# The summary

def test_the_payload_says_where_the_summary_is(server, workspace):
    (workspace / "other.md").write_text("# Other\r\n\r\n* one", encoding="utf-8")
    payload = PAYLOAD | {"summary_path": f"{workspace}/other.md"}
    assert post(server, workspace, POSTED, payload=payload).status == "ok"
    assert contents(server) == [f"{HEAD}# Other\n\n* one"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "{workspace}/../secret", "link", "a\0b", 5])
def test_a_path_out_of_the_workspace_is_not_followed(server, workspace, path):
    (workspace.parent / "secret").write_text("root:", encoding="utf-8")
    (workspace / "link").symlink_to("/etc/passwd")
    path = path.format(workspace=workspace) if isinstance(path, str) else path
    assert post(server, workspace, POSTED, payload=PAYLOAD | {"summary_path": path}).status == "ok"
    assert contents(server) == [f"{HEAD}The short of it."]


def test_a_missing_or_empty_summary_is_not_tried_again(server, workspace):
    (workspace / "summary.txt").write_text(" \n", encoding="utf-8")
    assert failure(post(server, workspace)) == ("the summary is empty, nothing was posted", False)
    (workspace / "summary.txt").unlink()
    assert failure(post(server, workspace)) == ("summary.txt: there is no such summary in the workspace", False)
    payload = PAYLOAD | {"summary_path": f"{workspace}/x/y"}
    assert failure(post(server, workspace, payload=payload)) == (
        "x/y: there is no such summary in the workspace", False)
    assert server.requests == []


@pytest.mark.parametrize("channel_id", ["", "5/../6", "../users/@me", "٣", "5\n", "-5", "5.0", "1" * 21, "general",
                                        5.5, True, [5], {"id": "5"}])
def test_a_channel_that_is_not_a_number_is_not_tried_again(server, workspace, channel_id):
    assert failure(post(server, workspace, payload=PAYLOAD | {"channel_id": channel_id})) == (
        "channel_id: expected the digits of a Discord channel", False)
    assert server.requests == []


@pytest.mark.parametrize("payload", [{}, [], "x", {"channel_id": None}])
def test_without_a_channel_nothing_is_posted(server, workspace, payload):
    assert failure(post(server, workspace, payload=payload)) == (
        "channel_id: the payload has none, only the event of a Discord message does", False)


def test_a_channel_may_be_a_json_number(server, workspace):
    assert post(server, workspace, POSTED, payload=PAYLOAD | {"channel_id": int(CHANNEL)}).status == "ok"
    assert server.requests[0][0] == f"/api/v10/channels/{CHANNEL}/messages"


# Parts

SENTENCE = "Some words make a sentence. "
LONG = [
    ("a" * 1500 + "\n\n" + "b" * 400 + "\n" + "c" * 600, ["a" * 1500, "b" * 400 + "\n" + "c" * 600]),
    ("a" * 1500 + "\n" + "b. " * 100 + "c" * 600, ["a" * 1500, "b. " * 100 + "c" * 600]),
    ("a" * 100 + "\n\n" + "b" * 1900, ["a" * 100 + "\n\n" + "b" * 1898, "bb"]),
    (SENTENCE * 100, [(SENTENCE * 71).strip(), (SENTENCE * 29).strip()]),
    ("x " * 1500, [("x " * 1000).strip(), ("x " * 500).strip()]),
    ("x" * 2000, ["x" * 2000]),
    ("x" * 2001, ["x" * 2000, "x"]),
    ("x" * 2000 + " y", ["x" * 2000, "y"]),
    ("😀" * 1000, ["😀" * 1000]),
    ("😀" * 1001, ["😀" * 1000, "😀"]),
    ("x" * 1999 + "😀", ["x" * 1999, "😀"]),
    ("x" * 1999 + "e\u0323\u0301" + "y", ["x" * 1999, "e\u0323\u0301y"]),
    ("x" * 1996 + "👩\u200d👩\u200d👧", ["x" * 1996, "👩\u200d👩\u200d👧"]),
    ("x" * 1997 + "👍🏽", ["x" * 1997, "👍🏽"]),
    ("x" * 1997 + "🇩🇪", ["x" * 1997, "🇩🇪"]),
    ("あ" * 1500 + "。" + "い" * 1000, ["あ" * 1500 + "。", "い" * 1000]),
]


@pytest.mark.parametrize(("text", "parts"), LONG, ids=range(len(LONG)))
def test_a_long_text_is_divided_where_it_hurts_least(server, workspace, text, parts):
    (workspace / "summary.txt").write_text(text, encoding="utf-8")
    response = post(server, workspace, *[POSTED] * len(parts), template="")
    assert contents(server) == parts
    assert (response.events[0].payload, response.state_updates) == ({"parts": len(parts)}, {})
    assert all(units(part) <= 2000 for part in parts)
    assert len({message["nonce"] for message in messages(server)}) == len(parts)


def lines_of_code(count: int, width: int = 60) -> str:
    return "".join(f"    line {number:03} {'.' * width}\n" for number in range(count))


def is_whole(part: str) -> bool:
    """Say whether each fenced block of a part is closed in it, with something in it."""
    pieces = part.split("```")
    return len(pieces) % 2 == 1 and all(piece.partition("\n")[2].strip() for piece in pieces[1::2])


@pytest.mark.parametrize("language", ["", "python", "c++"])
def test_a_fenced_block_is_closed_at_the_end_of_a_part_and_opened_again(server, workspace, language):
    text = f"Before.\n\n```{language}\n{lines_of_code(120)}```\nAfter."
    (workspace / "summary.txt").write_text(text, encoding="utf-8")
    assert post(server, workspace, *[POSTED] * 5, template="").status == "ok"
    parts = contents(server)
    assert [part.count("```") for part in parts] == [2] * 5
    assert all(is_whole(part) and units(part) <= 2000 for part in parts)
    assert all(part.startswith(f"```{language}\n    line") for part in parts[1:])
    assert parts[-1].endswith("```\nAfter.")
    code = "".join(f"{line}\n" for part in parts for line in part.split("\n") if line.startswith("    "))
    assert code == lines_of_code(120)


@pytest.mark.parametrize("text", ["{words}\n```py\n    code\n    more\n```\nAfter.", "```py\n{words}\n```\nAfter.",
                                  "{words} ```    code``` After.", "```{words}\n{words}```"])
def test_no_part_ends_or_begins_with_an_empty_block(text):
    split = in_process.load(HERE).split
    for before in range(1900, 2010):
        parts, _ = split(text.format(words=(SENTENCE * 80)[:before]))
        assert all(part.count("`") in (0, 6) and units(part) <= 2000 for part in parts), (before, parts)
        assert not any(re.search(r"```(py\n)?\s*```", part) for part in parts), (before, parts)


def test_the_language_of_a_block_has_its_bounds(server, workspace):
    text = f"```{'x' * 5000}\n{'y' * 3000}\n```"
    (workspace / "summary.txt").write_text(text, encoding="utf-8")
    assert post(server, workspace, *[POSTED] * 5, template="").status == "ok"
    assert all(units(part) <= 2000 for part in contents(server))


def test_no_part_ends_within_an_escape(server, workspace):
    (workspace / "summary.txt").write_text("x" * 1999 + r"\*y", encoding="utf-8")
    assert post(server, workspace, *[POSTED] * 2, template="").status == "ok"
    assert contents(server) == ["x" * 1999, r"\*y"]


def test_marks_without_end_are_divided_all_the_same(server, workspace):
    (workspace / "summary.txt").write_text("x" + "\u0301" * 5000, encoding="utf-8")
    assert post(server, workspace, *[POSTED] * 3, template="").status == "ok"
    assert unicodedata.combining(contents(server)[1][0])


def test_no_word_is_lost_between_parts(server, workspace):
    text = "".join(f"Word {n} of {n * n}.{' ' if n % 7 else chr(10) * (n % 3 + 1)}" for n in range(400))
    (workspace / "summary.txt").write_text(text, encoding="utf-8")
    assert post(server, workspace, *[POSTED] * 4, template="").status == "ok"
    assert " ".join(contents(server)).split() == text.split()


def test_a_text_without_end_is_posted_in_ten_parts(server, workspace):
    (workspace / "summary.txt").write_text("x " * 100_000, encoding="utf-8")
    response = post(server, workspace, *[POSTED] * 10)
    assert [(line.level, line.message) for line in response.logs] == [
        ("warn", "the summary is too long, only 10 parts of it are posted")]


# Once

def test_the_next_attempt_goes_on_where_one_failed(server, workspace):
    (workspace / "summary.txt").write_text("\n\n".join(char * 1900 for char in "abc"), encoding="utf-8")
    failed = post(server, workspace, POSTED, said(503, LATER), template="")
    assert failure(failed) == (
        f"part 2 of 3: {server.host} answered 503 Service Unavailable: The service is not available.", True)
    assert list(failed.state_updates["unfinished"]) == ["j-1"]
    again = post(server, workspace, POSTED, POSTED, template="", state=dict(failed.state_updates))
    assert [part[0] for part in contents(server)] == ["a", "b", "b", "c"]
    assert (again.status, again.state_updates) == ("ok", {"unfinished": {}})
    nonces = [message["nonce"] for message in messages(server)]
    assert nonces[1] == nonces[2]


def test_an_attempt_that_posted_nothing_new_changes_no_state(server, workspace):
    (workspace / "summary.txt").write_text("a" * 1900 + "\n\n" + "b" * 1900, encoding="utf-8")
    failed = post(server, workspace, POSTED, said(503), template="")
    assert post(server, workspace, said(503), template="", state=dict(failed.state_updates)).state_updates == {}
    assert post(server, workspace, said(503), template="").state_updates == {}


def test_a_text_that_has_changed_since_is_posted_whole(server, workspace):
    (workspace / "summary.txt").write_text("a" * 1900 + "\n\n" + "b" * 1900, encoding="utf-8")
    failed = post(server, workspace, POSTED, said(503), template="")
    response = post(server, workspace, POSTED, POSTED, template="T", state=dict(failed.state_updates))
    assert response.status == "ok"
    assert "".join(part[-1] for part in contents(server)) == "abab"


def test_the_state_keeps_the_last_twenty_unfinished_jobs(server, workspace):
    (workspace / "summary.txt").write_text("a" * 1900 + "\n\n" + "b" * 1900, encoding="utf-8")
    state = {"unfinished": {f"old-{n}": ["x"] for n in range(20)}}
    kept = post(server, workspace, POSTED, said(503), template="", state=state).state_updates["unfinished"]
    assert list(kept) == [f"old-{n}" for n in range(1, 20)] + ["j-1"]


@pytest.mark.parametrize("state", [{"unfinished": 5}, {"unfinished": {"j-1": 5}}, {"unfinished": []}])
def test_a_strange_state_is_no_hindrance(server, workspace, state):
    assert post(server, workspace, POSTED, state=state).status == "ok"


@pytest.mark.parametrize("command", ["poll", None, ["handle"]])
def test_another_command_is_refused(workspace, command):
    given = json.dumps({"config": {"bot_token": SECRET}, "command": command}).encode()
    assert failure(steps.run(HERE, given, workspace)) == ("discord_notify has no such command", False)


def test_the_example_of_the_readme_is_a_good_configuration(tmp_path):
    assert readme_config(HERE, tmp_path, {"DISCORD_BOT_TOKEN": SECRET})
