"""The relay plugin: the signature that it sends, what an answer means, what it never tells."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import in_process
from support.notified import SECRET, failure
from support.plugin_runs import TIMESTAMP, Plugin, readme_config, told
from support.standin import PASSING, STALL, STALL_IN_BODY, Service, refusing, serving

HERE = Path(__file__).resolve().parent
# The example of the specification of Standard Webhooks.
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RAW = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


@pytest.fixture
def site() -> Iterator[Service]:
    with serving(lambda asked: (202, {"job_id": "1-2"})) as service:
        yield service


def plugin(site: Service, workspace: Path, **config: object) -> Plugin:
    return Plugin(HERE, workspace, {"url": f"{site.url}/{SECRET}", "secret": KEY, "timeout": 5, **config})


def test_the_signature_is_that_of_the_specification():
    body = b'{"test": 2432232314}'
    found = in_process.load(HERE).signature(RAW, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_payload_is_posted_with_its_signature(site, tmp_path):
    response = plugin(site, tmp_path, headers={"X-Proxy": "a"}).handle(
        {"a": "é\ud800", "b": [1.5, None]}, event_id="e 7")
    assert told(response) == [("relay.sent", {"status": 202, "remote_job_id": "1-2"})]
    (asked,) = site.asked
    assert (asked.method, asked.path) == ("POST", f"/{SECRET}")
    assert asked.json == {"a": "é?", "b": [1.5, None], "relay_hops": 1}
    headers = asked.headers
    assert (headers["webhook-id"], headers["content-type"], headers["x-proxy"]) == ("e7", "application/json", "a")
    stamp = int(headers["webhook-timestamp"])
    assert abs(time.time() - stamp) < 60
    assert headers["webhook-signature"] == in_process.load(HERE).signature(RAW, "e7", stamp, asked.body)


def test_an_envelope_has_type_and_time(site, tmp_path):
    payload = {"a": 1, "origin_plugin": "x", "origin_event_type": "y", "origin_job_id": "z", "origin_own": 2}
    told(plugin(site, tmp_path, body="envelope").handle(payload, type="x.y"))
    assert site.asked[0].json == {"type": "x.y", "timestamp": TIMESTAMP, "data": {
        "a": 1, "origin_own": 2, "relay_hops": 1}}


@pytest.mark.parametrize("payload", [[1], "words", 5])
def test_a_payload_that_is_no_mapping_is_posted_as_it_is(site, tmp_path, payload):
    told(plugin(site, tmp_path).handle(payload))
    assert site.asked[0].json == payload


def test_the_id_is_the_same_for_each_attempt(site, tmp_path):
    for more in ({"event_id": "e"}, {"event_id": "e"}, {"event_id": None, "job_id": "j"}):
        told(plugin(site, tmp_path).handle({}, **more))
    assert [asked.headers["webhook-id"] for asked in site.asked] == ["e", "e", "j"]


@pytest.mark.parametrize(("payload", "context", "hops"), [
    ({}, {"relay_hops": 2}, 3), ({"relay_hops": 1}, {"relay_hops": 4}, 2), ({"relay_hops": "x"}, {}, 1),
    ({"relay_hops": -9}, {}, 1)])
def test_hops_are_counted_along_the_chain(site, tmp_path, payload, context, hops):
    told(plugin(site, tmp_path).handle(payload, context=context))
    assert site.asked[0].json["relay_hops"] == hops


def test_an_event_that_goes_round_is_stopped(site, tmp_path):
    assert failure(plugin(site, tmp_path).handle({}, context={"relay_hops": 5})) == (
        "the event has been relayed 5 times: do two gateways hand it to each other?", False)
    assert site.asked == []


@pytest.mark.parametrize(("reply", "payload", "result"), [
    ((200, {"deduped": True, "job_id": "1"}), {"status": 200, "remote_job_id": "1", "remote_deduped": True},
     ", which had it already"),
    ((204, b""), {"status": 204}, ""), ((200, b"<html>"), {"status": 200}, ""),
    ((200, "[" * 5000), {"status": 200}, ""),
    ((202, {"job_id": 5, "deduped": "x"}), {"status": 202}, ""), ((202, b"x" * 3_000_000), {"status": 202}, "")])
def test_any_2xx_took_the_event(site, tmp_path, reply, payload, result):
    site.reply = lambda asked: reply
    response = plugin(site, tmp_path).handle()
    assert (told(response), response.result) == ([("relay.sent", payload)], f"posted to {site.url}{result}")


# What goes wrong

@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again(site, tmp_path, fault):
    site.faults = [fault]
    config = {"timeout": 0.2} if fault in (STALL, STALL_IN_BODY) else {}
    error, retry = failure(plugin(site, tmp_path, **config).handle())
    assert (error.startswith(f"{site.url} "), retry) == (True, True)


@pytest.mark.parametrize(("reply", "error"), [
    ((403, SECRET), "403 Forbidden; look at secret"),
    ((410, ""), "410 Gone; the endpoint is gone, remove it from the configuration"),
    ((404, ""), "404 Not Found; look at url: nothing takes webhooks there"), ((400, SECRET), "400 Bad Request"),
    ((308, "", {"Location": f"/{SECRET}"}),
     "308 Permanent Redirect: redirects are not followed, give the url where it ends")])
def test_a_refusal_is_named_and_not_tried_again(site, tmp_path, reply, error):
    site.reply = lambda asked: reply
    assert failure(plugin(site, tmp_path).handle()) == (f"{site.url} answered {error}", False)


def test_a_server_that_asks_to_wait_is_named(site, tmp_path):
    site.reply = lambda asked: (503, "", {"Retry-After": "30"})
    assert failure(plugin(site, tmp_path).handle()) == (
        f"{site.url} answered 503 Service Unavailable and asks to wait 30 s", True)


def test_a_refused_connection_is_tried_again(tmp_path):
    with refusing() as url:
        error, retry = failure(Plugin(HERE, tmp_path, {"url": f"{url}/{SECRET}", "secret": KEY}).handle())
    assert (error.startswith(f"{url}: "), retry) == (True, True)


BAD_SECRET = "secret: expected whsec_ and the base64 of at least 16 bytes; openssl rand -base64 32 makes one"


@pytest.mark.parametrize(("config", "error"), [
    *(({"secret": secret}, BAD_SECRET) for secret in (
        SECRET, "whsec_", "whsec_AAAA", f"whsec_{SECRET}!!", 5, "é" * 40, "a" * 33)),
    ({"secret": None}, "config: secret missing"), ({"body": "raw"}, "body: expected one of payload, envelope"),
    ({"headers": {"Webhook-Id": "x"}},
     "headers: expected a mapping of header names to strings, without those of the connection and the signature")])
def test_a_wrong_configuration_is_named(site, tmp_path, config, error):
    assert failure(plugin(site, tmp_path, **config).health()) == (error, False)


@pytest.mark.parametrize("secret", [KEY, KEY.removeprefix("whsec_"), "whsec_" + base64.urlsafe_b64encode(
    b"\xff" * 25).decode(), "whsec_" + base64.b64encode(b"\xff" * 25).decode().rstrip("=")])
def test_a_secret_is_base64_in_any_form(site, tmp_path, secret):
    assert plugin(site, tmp_path, secret=secret).health().result == f"would post to {site.url}"


def test_the_configuration_of_the_readme_works(tmp_path):
    configs = readme_config(HERE, tmp_path, {"RELAY_SECRET": KEY})
    assert Plugin(HERE, tmp_path, configs["relay"]).health().result == "would post to https://nas.example.net"


# As a process of its own

def test_a_wrong_configuration_exits_with_78(site, tmp_path):
    assert failure(plugin(site, tmp_path, secret="x").run_process("handle", {}, code=78)) == (BAD_SECRET, False)
