"""The mail_in plugin against a stand-in for an IMAP server that refuses, stalls, breaks off and talks nonsense."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from ductile.protocol import Response
from support import standin, steps
from support.imap import HANG_UP, STALL, Imap, keeping_mail
from support.notified import SECRET, failure

HERE = Path(__file__).resolve().parent


@pytest.fixture
def server() -> Iterator[Imap]:
    with keeping_mail(SECRET) as running:
        yield running


class Plugin:
    """The plugin with its state between runs, as the daemon keeps it, and a workspace for each run."""

    def __init__(self, server: Imap, workspace: Path) -> None:
        self.workspace, self.state, self.runs = workspace, {}, 0
        self.config = {"host": "127.0.0.1", "port": server.port, "security": "none", "username": "ann",
                       "password": SECRET}

    def run(self, command: str = "poll", *, is_kept: bool = True, **options: float) -> Response:
        self.runs += 1
        directory = self.workspace / str(self.runs)
        directory.mkdir()
        request = steps.request(directory, self.config, command=command, state=self.state, **options)
        response = steps.run(HERE, request, directory)
        if is_kept:
            self.state |= response.state_updates
        return response

    def poll(self) -> list[dict]:
        response = self.run()
        assert response.status == "ok", response
        assert {event.type for event in response.events} <= {"mail.received"}
        return [event.payload for event in response.events]


@pytest.fixture
def plugin(server: Imap, tmp_path: Path) -> Plugin:
    """A plugin that was polled before."""
    made = Plugin(server, tmp_path)
    server.arrives(mail("old"))
    assert made.poll() == []
    return made


def mail(subject: str = "Hello", text: str = "Hi", **headers: str) -> bytes:
    return made(subject, text, **headers).as_bytes().replace(b"\n", b"\r\n")


def made(subject: str = "Hello", text: str = "Hi", **headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {"From": "Bob B <bob@example.org>", "To": "ann@example.org", "Subject": subject,
                        "Message-ID": f"<{subject}@example.org>", "Date": "Mon, 30 Nov 2026 09:00:00 +0100",
                        **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
        message[name] = value
    message.set_content(text)
    return message


# What is emitted

def test_only_mails_that_arrive_after_the_first_poll_are_emitted(server, plugin):
    assert plugin.poll() == []
    uid = server.arrives(mail("Grüße ☃", "Guten Tag", Message_ID="<1@example.org>"))
    response = plugin.run()
    (event,) = response.events
    assert event.payload == {
        "message_id": "<1@example.org>", "subject": "Grüße ☃", "from": "bob@example.org", "from_name": "Bob B",
        "to": ["ann@example.org"], "cc": [], "reply_to": [], "in_reply_to": "", "list_id": "",
        "date": "2026-11-30T09:00:00+01:00", "received": "2026-11-30T10:00:00+00:00", "is_automatic": False,
        "text": "Guten Tag", "attachments": [], "uid": uid, "folder": "INBOX", "size": event.payload["size"]}
    assert event.dedupe_key.startswith("mail:ann:")
    assert plugin.poll() == []
    assert server.flags() == {1: set(), 2: set()}


def test_attachments_are_files_of_the_workspace(server, plugin):
    message = made()
    for name in ("a.pdf", "../../etc/passwd", "..\\x\\a.pdf", ".bashrc", "CON.txt", "n\u202ea.txt", "é" * 200 + ".txt"):
        message.add_attachment(b"\0" + name.encode(), maintype="application", subtype="pdf", filename=name)
    message.add_attachment(made("inner"))
    server.arrives(message.as_bytes())
    (payload,) = plugin.poll()
    directory = plugin.workspace / "2" / "mail-2"
    names = ["a.pdf", "passwd", "a-2.pdf", "bashrc", "file-CON.txt", "na.txt", "é" * 73 + ".txt", "attachment.eml"]
    assert [each["name"] for each in payload["attachments"]] == names
    assert sorted(path.name for path in directory.iterdir()) == sorted(names)
    assert payload["attachments"][0] == {"name": "a.pdf", "path": str(directory / "a.pdf"), "type": "application/pdf",
                                         "size": 6}
    assert (payload["text"], b"Subject: inner" in (directory / "attachment.eml").read_bytes()) == ("Hi", True)


def test_html_becomes_text_where_there_is_no_other(server, plugin):
    message = made()
    message.set_content("<head><title>x</title></head><style>y</style><p>One &amp; two</p>three<br>four",
                        subtype="html")
    server.arrives(message.as_bytes())
    both = made(text="plain")
    both.add_alternative("<p>rich</p>", subtype="html")
    server.arrives(both.as_bytes())
    assert [payload["text"] for payload in plugin.poll()] == ["One & two\nthree\nfour", "plain"]


@pytest.mark.parametrize(("data", "expected"), [
    (b"Message-ID: <[a]@[b]>\r\nSubject: =?x-none?q?=ff?=\r\n\r\nx", {"message_id": "<[a]@[b]>", "text": "x"}),
    (b"Content-Type: text/plain; charset=x-unknown\r\n\r\n\xfc", {"text": "ü"}),
    (b"Content-Type: text/plain; charset=\"utf-8\r\n\r\nx", {"from": ""}),
    (b"Date: yesterday\r\nFrom: \xff\r\nSubject: \xe9\r\n\r\n", {"date": None, "text": ""}),
    (b"Subject: =?iso-\x9f8859-1?q?x?=\r\n\r\n", {"text": ""}), (b"", {"subject": "", "to": []}),
    (b"\r\n\r\n\0", {"text": ""}),
    (b"Content-Type: multipart/mixed\r\n\r\nx", {"subject": ""}),
    (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", {"attachments": []}),
    (b"Content-Transfer-Encoding: base64\r\n\r\n!!!", {"subject": ""}),
    (b"Content-Type: message/rfc822\r\n\r\n\xff", {"subject": ""}),
])
def test_a_mail_that_is_hard_to_read_is_an_event_all_the_same(server, plugin, data, expected):
    server.arrives(data, arrived="99-Foo-0000 10:00:00 +0000")
    (payload,) = plugin.poll()
    assert expected.items() <= payload.items()
    assert payload["received"] is None


def test_a_mail_that_is_nested_too_deeply_is_an_event_all_the_same(server, plugin):
    head = "".join(f"Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n" for level in range(300))
    server.arrives(head.encode() + b"\r\nx")
    assert len(plugin.poll()) == 1


@pytest.mark.parametrize("data", [
    b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 40_000,
    b"Subject: x\r\nFrom: " + b"<a@" * 100_000 + b"\r\n\r\n", b"Subject: x\r\nTo: " + b"(" * 100_000 + b"\r\n\r\n",
    *(b"Subject: x\r\nContent-Type: text/html\r\n\r\n" + each * 60_000
      for each in (b"<!--", b"<![CDATA[", b"<a b=\"", b"<script>", b"</", b"&", b"<?", b"<p>")),
], ids=lambda data: data[-20:].decode().strip())
def test_a_mail_that_was_made_to_be_slow_is_read_in_time(server, plugin, data):
    server.arrives(data)
    begun = time.monotonic()
    assert [payload["subject"] for payload in plugin.poll()] == ["x"]
    assert time.monotonic() - begun < 20


def test_a_long_text_is_a_file(server, plugin):
    server.arrives(mail(text="word\n" * 20_000))
    (payload,) = plugin.poll()
    assert (len(payload["text"]), len(Path(payload["text_path"]).read_text())) == (50_000, 99_999)


def test_of_a_mail_that_is_too_large_only_the_headers_are_read(server, plugin):
    server.arrives(mail("big"), size=30 * 1024 * 1024)
    (payload,) = plugin.poll()
    assert (payload["subject"], payload["too_large"], payload["text"]) == ("big", True, "")


def test_many_mails_are_emitted_over_several_polls_and_none_twice(server, plugin):
    plugin.config["max_messages"] = 3
    uids = [server.arrives(mail(str(number))) for number in range(8)]
    del server.folders["INBOX"][-1]
    assert [[payload["uid"] for payload in plugin.poll()] for _ in range(4)] == [
        uids[:3], uids[3:6], uids[6:7], []]
    assert plugin.state["uid"] == uids[6]
    assert len(json.dumps(plugin.state)) < 1000


def test_a_folder_that_was_numbered_anew_repeats_nothing_and_loses_nothing(server, plugin):
    server.arrives(mail("known"))
    plugin.poll()
    server.arrives(mail("new"))
    server.folders["INBOX"].pop(0)
    server.renumber()
    assert [payload["subject"] for payload in plugin.poll()] == ["new"]
    server.arrives(mail("later"))
    assert [payload["subject"] for payload in plugin.poll()] == ["later"]


# Marking

@pytest.mark.parametrize(("kind", "flag"), [("seen", r"\Seen"), ("flagged", r"\Flagged")])
def test_a_mail_is_marked_only_when_its_event_is_stored(server, plugin, kind, flag):
    plugin.config["mark"] = kind
    uid = server.arrives(mail("x"))
    # The daemon was killed: the same mail again.
    plugin.run(is_kept=False)
    assert (len(plugin.poll()), server.flags()[uid]) == (1, set())
    plugin.poll()
    assert server.flags() == {1: set(), uid: {flag}}


@pytest.mark.parametrize(("capabilities", "left"), [("IMAP4rev1 MOVE", set()), ("IMAP4rev1 UIDPLUS", set()),
                                                    ("IMAP4rev1", {2})])
def test_a_mail_is_moved_with_what_the_server_can(server, plugin, capabilities, left):
    server.capabilities = capabilities
    plugin.config["move_to"] = "Done"
    server.folders["INBOX"][0].flags.add(r"\Deleted")
    server.arrives(mail())
    plugin.poll()
    logs = plugin.run().logs
    assert (set(server.flags()) - {1}, set(server.flags("Done"))) == (left, {2})
    assert [line.level for line in logs] == (["warn"] if left else [])
    assert plugin.poll() == []


def test_a_mark_that_fails_is_tried_again(server, plugin):
    plugin.config |= {"move_to": "Gone & away ☃"}
    server.arrives(mail())
    plugin.poll()
    assert [line.level for line in plugin.run().logs] == ["warn"]
    assert any('"Gone &- away &JgM-"' in line for line in server.lines)
    server.folders["Gone &- away &JgM-"] = []
    plugin.poll()
    assert set(server.flags("Gone &- away &JgM-")) == {2}


def test_a_mail_that_has_gone_is_none_to_mark(server, plugin):
    plugin.config["mark"] = "seen"
    server.arrives(mail())
    plugin.poll()
    server.folders["INBOX"].pop()
    plugin.poll()
    assert plugin.state["done"] == []


# Login

def test_a_token_is_fetched_kept_and_replaced(server, plugin):
    def give(asked: standin.Asked) -> standin.Reply:
        assert asked.form["grant_type"] == "refresh_token"
        number = asked.form["refresh_token"].removeprefix("r")
        server.tokens.add(f"t{number}")
        return 200, {"access_token": f"t{number}", "refresh_token": f"r{int(number) + 1}", "expires_in": 3600}

    with standin.serving(give) as service:
        del plugin.config["password"]
        plugin.config["oauth"] = {"token_url": f"{service.url}/token", "client_id": "c", "refresh_token": "r1"}
        for _ in range(2):
            assert plugin.poll() == []
        assert (len(service.asked), plugin.state["refresh_token"]) == (1, "r2")
        # The new refresh token is kept whatever follows.
        plugin.state["token_expires_at"] = 0
        server.answers["UID SEARCH"] = HANG_UP
        response = plugin.run()
        assert (response.status, plugin.state["refresh_token"]) == ("error", "r3")
        server.answers.clear()
        # One that was revoked is replaced by the next attempt, once.
        server.tokens.clear()
        assert failure_of(plugin)[1]
        assert plugin.poll() == []
        server.tokens.clear()
        service.faults = [(200, {"access_token": "not yet"}), (400, {"error": "invalid_grant"})]
        assert [failure_of(plugin)[1] for _ in range(2)] == [True, False]
        plugin.state["token_expires_at"] = 0
        assert failure_of(plugin) == (f"{service.url} refuses the refresh token: invalid_grant", False)


def failure_of(plugin: Plugin) -> tuple[str | None, bool]:
    response = plugin.run()
    assert response.status == "error"
    return response.error, response.retry


def test_a_login_that_is_refused_is_not_tried_again_and_shows_no_password(server, plugin):
    server.password = "other"
    error, retry = failure(plugin.run())
    assert (retry, "refuses the login" in error, "***" in error) == (False, True, True)
    server.answers["LOGIN"] = b"NO [UNAVAILABLE] later"
    assert failure(plugin.run())[1]


def test_health_logs_in_and_looks_at_the_folder(server, plugin):
    assert plugin.run("health").result == "127.0.0.1 accepts the login, INBOX is there"
    plugin.config["folder"] = "Nope"
    assert not failure(plugin.run("health"))[1]


# What goes wrong

@pytest.mark.parametrize(("word", "fault"), [
    *((word, fault) for word in ("", "LOGIN", "EXAMINE", "UID SEARCH", "UID FETCH")
      for fault in (HANG_UP, STALL, b"\x16\x03\x01")),
    ("", b"* BYE full"), ("UID SEARCH", b"BAD what"), ("UID FETCH", b"NO [UNAVAILABLE] later")])
def test_what_may_pass_is_retried_and_loses_nothing(server, plugin, word, fault):
    server.arrives(mail())
    server.answers[word] = fault
    response = plugin.run(seconds_left=1.1)
    assert (response.status, response.retry, response.state_updates) == ("error", True, {}), response
    server.answers.clear()
    assert len(plugin.poll()) == 1


def test_a_search_that_leaves_something_out_loses_nothing(server, plugin):
    server.arrives(mail())
    server.answers["UID SEARCH"] = b"OK what search"
    hidden, server.folders["INBOX"] = server.folders["INBOX"], []
    assert plugin.poll() == []
    server.folders["INBOX"] = hidden
    server.answers.clear()
    assert len(plugin.poll()) == 1


def test_a_mail_that_the_server_cannot_give_keeps_no_other_back(server, plugin):
    server.arrives(mail())
    server.answers["UID FETCH"] = b"NO it is broken"
    response = plugin.run()
    assert [event.payload["unreadable"] for event in response.events] == [
        f"127.0.0.1:{server.port} refuses FETCH: it is broken"]
    server.answers.clear()
    server.arrives(mail("next"))
    assert [payload["subject"] for payload in plugin.poll()] == ["next"]


def test_a_server_that_is_not_there_is_tried_again(plugin):
    with standin.refusing() as url:
        plugin.config["port"] = int(url.rpartition(":")[2])
        assert failure(plugin.run())[1]


def test_a_server_without_encryption_gets_no_password(server, plugin):
    plugin.config["security"] = "starttls"
    assert failure(plugin.run()) == (f"127.0.0.1:{server.port} offers no encryption", False)
    assert not any(line.startswith("LOGIN") for line in server.lines[-2:])


@pytest.mark.parametrize("config", [
    {"password": None}, {"oauth": {}}, {"host": "imap.example.org"}, {"mark": "read"}, {"max_messages": 0},
    {"folder": "a\nb"}, {"x": 1}, {"password": "é"}])
def test_a_wrong_configuration_is_an_error(server, plugin, config):
    before = len(server.lines)
    plugin.config |= config
    assert (failure(plugin.run())[1], len(server.lines)) == (False, before)


def test_it_runs_as_a_process(server, plugin, tmp_path):
    server.arrives(mail())
    request = steps.request(tmp_path, plugin.config, command="poll", state=plugin.state)
    assert len(steps.run_process(HERE, request, tmp_path).events) == 1
