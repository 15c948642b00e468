"""`webhook`: every sender that has a preset, and a request as one of them would send it."""

from __future__ import annotations

import json

import pytest

from ctl.desk import Desk, Said, start
from ductile import runtime_config
from ductile.config.presets import PRESETS
from ductile.ctl.webhook import _needs
from ductile.webhook.http_head import Head
from ductile.webhook.signature import Unverified, sign, verify
from support.clock import START
from support.daemon import RealDaemon


def test_every_preset_is_listed_with_its_sender_and_where_to_read_on(desk: Desk) -> None:
    text = desk.call("webhook", "presets").out
    for name, preset in PRESETS.items():
        assert f"{name}: {', '.join(preset.senders)}\n    {preset.enter}\n" in text
        assert preset.docs.startswith("https://") and f"    {preset.docs}\n" in text


def test_one_preset_says_what_an_endpoint_needs(desk: Desk) -> None:
    [found] = json.loads(desk.call("--json", "webhook", "presets", "oura").out)
    assert (found["preset"], found["needs"], found["handshake"]) == ("oura", ["secret", "verify_token"], "oura")
    assert "also needs: url" in desk.call("webhook", "presets", "square").out


@pytest.mark.parametrize(("name", "hint"), [
    ("githib", " (did you mean 'github'?)"), ("Clerk", " (use svix)"),
    ("telegram", ": it sends a token and no signature: poll getUpdates with a plugin"),
])
def test_an_unknown_preset_is_answered_with_what_to_use(desk: Desk, name: str, hint: str) -> None:
    said = desk.call("webhook", "presets", name)
    assert (said.code, said.err) == (66, f"no preset {name!r}{hint}\n")


SECRET = "6162636465666768696a6b6c6d6e6f70"    # text, hexadecimal digits and base64


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_signed_as_a_sender_does_is_verified(desk: Desk, preset: str) -> None:
    desk.plugin("echo")
    needs = {"url": "https://example.org/hook", "verify_token": "${TOKEN}"}
    desk.configure(webhooks={"listen": "127.0.0.1:8081", "endpoints": [{
        "path": "/hook", "plugin": "echo", "secret": "${SECRET}", "preset": preset,
        **{key: needs[key] for key in _needs(PRESETS[preset]) if key != "secret"}}]})
    read = runtime_config.read(desk.home / "config.yaml", {"SECRET": SECRET, "TOKEN": SECRET})
    assert read.problems == ()
    [endpoint] = read.runtime.config.webhooks.endpoints
    body = b'{"a":1}'
    headers = sign(body, endpoint.scheme, endpoint.keys[0], START)
    head = Head(method="POST", path="/hook", query="", version="HTTP/1.1", headers=tuple(headers.items()))
    verify(body, head, endpoint.scheme, endpoint.keys)
    with pytest.raises(Unverified):
        verify(b'{"a":2}', head, endpoint.scheme, endpoint.keys)


@pytest.fixture
def hooked(daemon: RealDaemon) -> RealDaemon:
    """A running daemon with an endpoint of a sender."""
    daemon.install("ok")
    daemon.environ["HOOK_SECRET"] = SECRET
    daemon.configure(webhooks={"listen": f"unix:{daemon.home}/hook.sock", "endpoints": [
        {"path": "/slack", "plugin": "ok", "secret": "${HOOK_SECRET}", "preset": "github"}]})
    daemon.start()
    return daemon


def call(daemon: RealDaemon, *arguments: str, environ: dict[str, str] | None = None) -> Said:
    process = start(*arguments, home=daemon.home, env={**daemon.environ, **(environ or {})})
    out, err = process.communicate(timeout=20)
    return Said(code=process.returncode, out=out, err=err)


def test_the_running_daemon_takes_it_and_runs_the_job(hooked: RealDaemon) -> None:
    said = call(hooked, "webhook", "test", "/slack", "--payload", '{"x": 1}', "--json")
    assert (said.code, said.json["status"]) == (0, 202)
    hooked.await_job(said.json["body"]["job_id"], "succeeded")
    # Each is a delivery of its own.
    again = call(hooked, "webhook", "test", "/slack")
    assert again.out.splitlines()[:2] == [
        f"POST /slack to unix:{hooked.home}/hook.sock, signed as github", "202 Accepted"]
    refused = call(hooked, "webhook", "test", "/slack", environ={"HOOK_SECRET": "x" * 20})
    assert (refused.code, refused.out.splitlines()[1]) == (1, "403 Forbidden")
    assert call(hooked, "webhook", "test", "/slac").err == "no endpoint has the path '/slac' (did you mean '/slack'?)\n"
    hooked.stop()
    down = call(hooked, "webhook", "test", "/slack")
    assert (down.code, down.err) == (
        69, "ductiled is not running, and `webhook test` needs it; nothing was sent\n")
