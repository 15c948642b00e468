"""The mail_out plugin against a stand-in for an SMTP server that refuses, stalls, breaks off and talks nonsense."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ductile.protocol import Response
from support import in_process, standin, steps
from support.notified import ENVIRON, SECRET, failure
from support.smtp import HANG_UP, STALL, Smtp, certificate, taking_mail

HERE = Path(__file__).resolve().parent
ANN = "ann@example.org"


@pytest.fixture
def server() -> Iterator[Smtp]:
    with taking_mail() as running:
        yield running


def send(server: Smtp, workspace: Path, payload: object = None, *, command: str = "handle", seconds_left: float = 60,
         job_id: str = "j-1", **config: object) -> Response:
    payload = {"message": "Hello"} if payload is None else payload
    config = {"host": "127.0.0.1", "port": server.port, "security": "none", "from": f"Ductile <{ANN}>", "to": ANN,
              **config}
    return steps.run(HERE, steps.request(workspace, config, payload, command=command, job_id=job_id,
                                         seconds_left=seconds_left), workspace)


# What is sent

def test_a_mail_has_all_that_a_mail_needs(server, tmp_path):
    response = send(server, tmp_path, {"message": "Grüße\n.\nende", "subject": "Zum\r\nBcc: x@y.z Tor ☃"})
    (mail,) = server.mails
    assert (response.status, response.result, mail.sender, mail.recipients) == ("ok", "sent to 1", ANN, [ANN])
    assert {name: mail.message[name] for name in ("From", "To", "Subject", "Auto-Submitted")} == {
        "From": f"Ductile <{ANN}>", "To": ANN, "Subject": "Zum Bcc: x@y.z Tor ☃", "Auto-Submitted": "auto-generated"}
    assert mail.message["Date"] and mail.message["Bcc"] is None
    assert mail.message.get_content().split() == ["Grüße", ".", "ende"]
    (event,) = response.events
    assert (event.type, event.payload) == ("mail.sent", {
        "message_id": str(mail.message["Message-ID"]), "recipients": 1, "refused": []})


def test_each_attempt_has_the_same_id_and_each_job_another(server, tmp_path):
    for job in ("a", "a", "b"):
        send(server, tmp_path, job_id=job)
    first, again, other = (str(mail.message["Message-ID"]) for mail in server.mails)
    assert first == again != other
    assert first.endswith("@example.org>")


def test_everything_can_be_a_template(server, tmp_path):
    send(server, tmp_path, {"to": "Bob Builder <bob@exämple.org>, eve@example.org", "name": "<b>", "n": {"a": [7]}},
         to="{to}", cc=["{cc?}dan@example.org"], subject="{name} {n.a.0}", text="{n}", html="<p>{name}</p>")
    (mail,) = server.mails
    assert mail.recipients == ["bob@xn--exmple-cua.org", "eve@example.org", "dan@example.org"]
    assert mail.message["Subject"] == "<b> 7"
    assert mail.message.get_body(("plain",)).get_content().strip() == '{"a":[7]}'
    assert mail.message.get_body(("html",)).get_content().strip() == "<p>&lt;b&gt;</p>"


def test_without_templates_the_payload_and_the_type_of_the_event_are_sent(server, tmp_path):
    send(server, tmp_path, [1, "é"])
    assert (server.mails[0].message["Subject"], server.mails[0].message.get_content().strip()) == ("t", '[1,"é"]')


def test_files_of_the_workspace_are_attached(server, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "chärt.svg").write_bytes(b"<svg/>")
    (tmp_path / "x").write_bytes(b"\0\1")
    send(server, tmp_path, {"path": str(tmp_path / "a" / "chärt.svg")}, attach=["{path}", "x", "{none?}"])
    found = [(part.get_filename(), part.get_content_type(), part.get_payload(decode=True))
             for part in server.mails[0].message.iter_attachments()]
    assert found == [("chärt.svg", "image/svg+xml", b"<svg/>"), ("x", "application/octet-stream", b"\0\1")]


def test_a_step_says_in_its_payload_what_is_attached(server, tmp_path):
    (tmp_path / "{x}").write_bytes(b"1")
    send(server, tmp_path, {"attach": [str(tmp_path / "{x}"), ""]})
    assert [part.get_filename() for part in server.mails[0].message.iter_attachments()] == ["{x}"]
    for wrong in ("x", [5], {"a": 1}):
        assert failure(send(server, tmp_path, {"attach": wrong})) == (
            "attach: expected a list of paths in the payload", False)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "gone", "link", "."])
def test_nothing_else_is_attached(server, tmp_path, path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert failure(send(server, tmp_path, {"path": path}, attach=["{path}"])) == (
        "attach[0]: no such file in the workspace", False)
    assert server.lines == []


def test_too_much_is_not_attached(server, tmp_path):
    with open(tmp_path / "big", "wb") as file:
        file.truncate(19 * 1024 * 1024)
    assert failure(send(server, tmp_path, attach=["big"])) == (
        "attach[0]: the attachments are larger than 18 MiB", False)


@pytest.mark.parametrize("to", ["", "ann", "ann@", "änn@example.org", "a b@example.org", "@example.org", "a@b\r\nc"])
def test_an_address_that_smtp_cannot_carry_is_refused(server, tmp_path, to):
    error, retry = failure(send(server, tmp_path, {"to": to}, to="{to}"))
    assert (error.startswith("to: expected 1 to 100 addresses"), retry, server.lines) == (True, False, [])


def test_a_name_that_is_missing_is_an_error(server, tmp_path):
    assert failure(send(server, tmp_path, text="{nobody}")) == (
        "text: no 'nobody' in the payload or the context", False)


# What the server does

@pytest.mark.parametrize(("word", "answer", "retry"), [
    ("", b"421 closing", True), ("", b"554 no", False), ("MAIL", b"451 later", True), ("MAIL", b"530 log in", False),
    ("RCPT", b"450 grey", True), ("RCPT", b"550 5.1.1 nobody", False), ("DATA", b"452 full", True),
    (".", b"552 too large", False), (".", b"451 later", True), ("MAIL", b"banana", True)])
def test_a_refusal_says_whether_another_attempt_makes_sense(server, tmp_path, word, answer, retry):
    server.answers[word] = answer
    error, retried = failure(send(server, tmp_path))
    assert (retried, server.mails) == (retry, [])
    assert error.startswith(f"127.0.0.1:{server.port} answered")


@pytest.mark.parametrize("word", ["", "MAIL", "DATA", "."])
@pytest.mark.parametrize("fault", [HANG_UP, STALL, b"\x16\x03\x01", b"250-" * 3])
def test_what_may_pass_is_retried(server, tmp_path, word, fault):
    server.answers[word] = fault
    response = send(server, tmp_path, seconds_left=1.1)
    assert (response.status, response.retry) == ("error", True), response


def test_a_server_that_is_not_there_is_tried_again(server, tmp_path):
    with standin.refusing() as url:
        assert failure(send(server, tmp_path, port=int(url.rpartition(":")[2])))[1]


def test_a_mail_that_was_taken_before_the_line_broke_is_sent_again_under_its_id(server, tmp_path):
    server.answers["."] = HANG_UP
    assert failure(send(server, tmp_path))[1]
    server.answers.clear()
    assert send(server, tmp_path).status == "ok"
    first, second = server.mails
    assert first.message["Message-ID"] == second.message["Message-ID"]


def test_what_the_server_says_to_quit_does_not_matter(server, tmp_path):
    server.answers["QUIT"] = STALL
    assert send(server, tmp_path).status == "ok"


def test_a_mail_that_some_refuse_is_sent_to_the_others(server, tmp_path):
    server.answers["RCPT bob@example.org"] = b"550 nobody"
    response = send(server, tmp_path, to=[ANN, "bob@example.org"])
    assert (response.status, response.result, response.events[0].payload["refused"]) == (
        "ok", "sent to 1 of 2", ["bob@example.org"])
    assert [line.level for line in response.logs] == ["warn"]


# Encryption and login

@pytest.fixture(scope="module")
def pem(tmp_path_factory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_the_line_is_encrypted_before_the_login(tmp_path, pem, security):
    with taking_mail(pem=pem, security=security, password=SECRET) as server:
        options = {"security": security, "username": "ann", "password": SECRET}
        assert failure(send(server, tmp_path, **options))[1]
        assert not any(line.startswith("AUTH") for line in server.lines)
        options["ca_file"] = str(pem)
        assert send(server, tmp_path, **options).status == "ok"
        assert send(server, tmp_path, command="health", **options).result == (
            f"127.0.0.1:{server.port} accepts the login")
        assert len(server.mails) == 1
        error, retry = failure(send(server, tmp_path, **options | {"password": "wrong"}))
        assert (error, retry) == (f"127.0.0.1:{server.port} answered 535 5.7.8 no such login", False)


def test_a_token_is_the_login_and_a_new_refresh_token_is_kept(tmp_path):
    renewed = {"access_token": SECRET, "refresh_token": "r2", "expires_in": 3600}
    with taking_mail(password=SECRET) as server, standin.serving(lambda asked: (200, renewed)) as service:
        oauth = {"token_url": service.url, "client_id": "c", "refresh_token": "r1"}
        config = {"host": "127.0.0.1", "port": server.port, "security": "none", "from": ANN, "to": ANN,
                  "username": "ann", "oauth": oauth}
        for answers, status in (({".": b"451 later"}, "error"), ({}, "ok")):
            server.answers = answers
            request = steps.request(tmp_path, config, {"message": "Hello"})
            response = in_process.answer(HERE, request, tmp_path, ENVIRON)
            assert (response.status, response.state_updates["refresh_token"]) == (status, "r2")
        renewed["access_token"] = "other"
        assert not in_process.answer(HERE, request, tmp_path, ENVIRON).retry
        # One of an earlier run may have been revoked: the next attempt has another.
        state = response.state_updates | {"access_token": "revoked"}
        request = steps.request(tmp_path, config, {"message": "Hello"}, state=state)
        response = in_process.answer(HERE, request, tmp_path, ENVIRON)
        assert (response.retry, response.state_updates) == (True, {"token_expires_at": 0})


def test_a_server_without_encryption_gets_no_mail(server, tmp_path):
    assert failure(send(server, tmp_path, security="starttls")) == (
        f"127.0.0.1:{server.port} offers no encryption or no login by password", False)
    assert server.mails == []


@pytest.mark.parametrize("config", [
    {"from": "x"}, {"to": []}, {"security": "ssl"}, {"username": "a"}, {"port": 0}, {"attach": "x"},
    {"ca_file": "/gone", "security": "tls"},
    {"host": "smtp.example.org", "username": "a", "password": "b"}, {"host": "a b"}, {"x": 1}])
def test_a_wrong_configuration_is_an_error(server, tmp_path, config):
    assert not failure(send(server, tmp_path, **config))[1]
    assert server.lines == []


def test_it_runs_as_a_process(server, tmp_path):
    config = {"host": "127.0.0.1", "port": server.port, "security": "none", "from": ANN, "to": ANN}
    steps.run_process(HERE, steps.request(tmp_path, config, {"message": "Hello"}), tmp_path)
    assert len(server.mails) == 1
