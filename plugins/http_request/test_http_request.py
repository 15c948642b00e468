"""The http_request plugin against a local service: what it sends, what it makes of the answer, what it never tells."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.notified import SECRET, failure
from support.plugin_runs import Plugin, logged, readme_config, told
from support.standin import HTML, LONG, PASSING, STALL, STALL_IN_BODY, Asked, Reply, Service, refusing, serving

HERE = Path(__file__).resolve().parent


class Site:
    """A service whose reply a test sets, and the plugin that asks it."""

    def __init__(self, service: Service, workspace: Path) -> None:
        self.service, self.workspace = service, workspace
        self.says: Reply | dict[str, Reply] = (200, {"a": 1})
        service.reply = self._reply

    def _reply(self, asked: Asked) -> Reply:
        if isinstance(self.says, dict):
            return self.says[asked.path + (f"?p={asked.query['p']}" if "p" in asked.query else "")]
        return self.says

    def plugin(self, path: str = "/x", **config: object) -> Plugin:
        return Plugin(HERE, self.workspace, {"url": self.service.url + path, "timeout": 5, **config})

    @property
    def asked(self) -> Asked:
        (only,) = self.service.asked
        return only


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(lambda asked: (200, {})) as service:
        yield Site(service, tmp_path)


@pytest.fixture
def other() -> Iterator[Service]:
    with serving(lambda asked: (200, {"other": True})) as service:
        yield service


# What is sent

def test_a_request_without_more_is_a_get_whose_json_is_emitted(site):
    response = site.plugin().poll()
    assert told(response) == [("http_request.done", {"status": 200, "json": {"a": 1}})]
    assert response.result == f"GET {site.service.url}: 200"
    assert (site.asked.method, site.asked.path, site.asked.body) == ("GET", "/x", b"")
    assert not {"authorization", "content-type", "idempotency-key"} & site.asked.headers.keys()


def test_names_in_the_url_are_replaced_and_escaped(site):
    told(site.plugin("/{a}/b?q={b.0}", query={"x": "{c}", "y": ["{b.0}", 2], "z": "{none?}"}).handle(
        {"a": "../ü?#", "b": ["x&y=1"], "c": {"d": 1}}))
    assert (site.asked.path, site.asked.query) == (
        "/..%2F%C3%BC%3F%23/b", {"q": "x&y=1", "x": '{"d":1}', "y": "2", "z": ""})


@pytest.mark.parametrize(("config", "kind", "body"), [
    ({"json": {"n": "{n}", "s": "<{n}>", "l": ["{l}"]}}, "application/json", b'{"n":5,"s":"<5>","l":[[1,null]]}'),
    ({"json": "{s}"}, "application/json", '"é"'.encode()), ({"json": "{n}"}, "application/json", b"5"),
    ({"json": [1, "{{}}"]}, "application/json", b'[1,"{}"]'),
    ({"form": {"s": "{s}", "n": ["{n}", "x y"]}}, "application/x-www-form-urlencoded", b"s=%C3%A9&n=5&n=x+y"),
    ({"text": "{s}: {n}"}, "text/plain; charset=utf-8", "é: 5".encode()),
    ({"text": "x", "headers": {"content-type": "text/csv"}}, "text/csv", b"x"), ({}, None, b"")])
def test_a_body_is_json_a_form_or_text(site, config, kind, body):
    told(site.plugin(method="POST", **config).handle({"n": 5, "s": "é", "l": [1, None]}))
    assert (site.asked.method, site.asked.headers.get("content-type"), site.asked.body) == ("POST", kind, body)


@pytest.mark.parametrize(("auth", "header", "value"), [
    ({"bearer": SECRET}, "authorization", f"Bearer {SECRET}"),
    ({"user": "é", "password": f":{SECRET}"}, "authorization",
     "Basic " + base64.b64encode(f"é::{SECRET}".encode()).decode()),
    ({"header": "X-Key", "value": SECRET}, "x-key", SECRET)])
def test_credentials_are_sent_in_a_header(site, auth, header, value):
    told(site.plugin(auth=auth).poll())
    assert site.asked.headers[header] == value


def test_a_key_can_be_in_the_query_and_headers_in_templates(site):
    told(site.plugin("/x?a=1", auth={"query": "key", "value": SECRET}, headers={"X-N": "{n}", "accept": "a/b"}).handle(
        {"n": 5}))
    assert (site.asked.query, site.asked.headers["x-n"], site.asked.headers["accept"]) == (
        {"a": "1", "key": SECRET}, "5", "a/b")


def test_each_attempt_of_a_job_has_the_same_idempotency_key_and_another_request_has_not(site):
    plugin = site.plugin(method="POST", json={"n": "{n}"})
    for event, n in (("e-1", 1), ("e-1", 1), ("e-2", 1), ("e-1", 2)):
        told(plugin.handle({"n": n}, event_id=event))
    told(plugin.poll(payload={"n": 1}, job_id="j", event_id=None))
    keys = [asked.headers["idempotency-key"] for asked in site.service.asked]
    assert (keys[0] == keys[1], len(set(keys))) == (True, 4)
    told(site.plugin(method="PATCH", headers={"idempotency-Key": "own"}).poll())
    assert site.service.asked[-1].headers["idempotency-key"] == "own"


@pytest.mark.parametrize(("config", "payload", "error"), [
    ({"json": {"a": "{none}"}, "method": "PUT"}, {}, "json.a: no 'none' in the payload or the context"),
    ({"headers": {"X": "{a}"}}, {"a": f"{SECRET}\r\nY: z"}, "headers: X: expected one line of text"),
    ({"url": "http://127.0.0.1:9/{a}/x"}, {"a": ".."},
     "url: a value from the event is . or .., which would be another path"),
    ({"url": "{a}", "hosts": ["h"]}, {"a": "file:///etc/passwd"},
     "url: the event gives no http or https URL"),
    ({"url": "{a}", "hosts": ["h"]}, {"a": 5}, "url: the event gives no http or https URL"),
    ({"url": "{a}", "hosts": ["h", "127.0.0.2"]}, {"a": f"http://127.0.0.1:9/{SECRET}"},
     "http://127.0.0.1:9 is not among the hosts of the configuration")])
def test_an_event_that_makes_no_request_fails_for_good(site, config, payload, error):
    plugin = site.plugin(**({} if "url" in config else config))
    plugin.config |= config
    assert (failure(plugin.handle(payload)), site.service.asked) == ((error, False), [])


def test_the_whole_url_can_come_from_the_event_for_some_hosts(site):
    plugin = site.plugin(hosts=["127.0.0.1"])
    plugin.config["url"] = "{link}"
    assert told(plugin.handle({"link": f"{site.service.url}/ä b?x=%20"}))[0][1]["json"] == {"a": 1}
    assert (site.asked.path, site.asked.query) == ("/%C3%A4%20b", {"x": " "})
    assert plugin.health().result == "would GET what the event names"


# What is made of the answer

@pytest.mark.parametrize(("says", "config", "payload"), [
    ((200, b""), {}, {"status": 200, "json": None}), ((204, b""), {}, {"status": 204, "json": None}),
    ((200, {"a": [{"b": 7}]}), {"select": "a.0.b"}, {"status": 200, "json": 7}),
    ((404, {"e": 1}), {"expect": [404]}, {"status": 404, "json": {"e": 1}}),
    ((200, b"\xe9\x00!", {"Content-Type": "text/plain; charset=latin1"}), {"response": "text"},
     {"status": 200, "text": "é!"}),
    ((200, b"<html>"), {"response": "none", "event": "pinged"}, {"status": 200})])
def test_a_response_is_emitted_in_the_form_that_is_wanted(site, says, config, payload):
    site.says = says
    ((kind, found),) = told(site.plugin(**config).poll())
    assert (kind, found) == (config.get("event", "http_request.done"), payload)


@pytest.mark.parametrize("name", [None, "day.csv"])
def test_a_file_comes_into_the_workspace_and_never_into_one_that_is_there(site, name):
    (old := site.workspace / "old").write_bytes(b"old")
    (site.workspace / (name or "response")).hardlink_to(old)
    site.says = (200, b"\0new" * 300_000, {"Content-Type": "text/csv"})
    ((_, payload),) = told(site.plugin(response="file", **({"file": name} if name else {})).poll())
    path = site.workspace / (name or "response")
    assert payload == {"status": 200, "file": str(path), "size": 1_200_000, "content_type": "text/csv"}
    assert (path.stat().st_size, old.read_bytes()) == (1_200_000, b"old")


def test_only_a_change_is_emitted_and_never_lost(site):
    plugin = site.plugin(emit="on_change", select="v")
    seen = []
    for value, killed in ((1, False), (1, False), (2, True), (2, False), (2, False), (3, False)):
        site.says = (200, {"v": value, "noise": len(seen)})
        seen.append([payload["json"] for _, payload in told(plugin.poll(killed=killed))])
    assert seen == [[], [], [2], [2], [], [3]]
    site.service.faults = [500]
    before = plugin.state
    assert (failure(plugin.poll())[1], plugin.state) == (True, before)


def test_changes_are_kept_for_each_request_and_the_state_stays_small(site):
    plugin = site.plugin("/{n}", emit="on_change", response="text")
    plugin.state = {"digests": {f"{number:018}": "x" for number in range(200)}}
    told(plugin.handle({"n": 1}))
    told(plugin.handle({"n": 2}))
    assert (len(plugin.state["digests"]), next(iter(plugin.state["digests"]))) == (200, f"{2:018}")
    site.says = (200, "else")
    assert [len(told(plugin.handle({"n": number}))) for number in (1, 2, 3)] == [1, 1, 0]


# Pages

@pytest.mark.parametrize(("rule", "first", "second"), [
    ({"next": "link"}, (200, [1, 2], {"Link": '</p>; rel=prev, </x?p=2>; title="a"; rel="last next"'}), (200, [3])),
    ({"next": "paging.next", "items": "d"}, (200, {"d": [1, 2], "paging": {"next": "/x?p=2"}}), (200, {"d": [3]})),
    ({"next": "next", "items": "d"}, (200, {"d": [1, 2], "next": "?p=2"}), (200, {"d": [3], "next": "/x"})),
    ({"next": "next", "items": "d"}, (200, {"d": [1, 2, 3], "next": "?p=2"}), (200, {"d": [], "next": "/x?p=3"}))])
def test_the_items_of_all_pages_are_one_list(site, rule, first, second):
    site.says = {"/x": first, "/x?p=2": second}
    response = site.plugin(pages=rule, auth={"bearer": SECRET}).poll()
    assert told(response) == [("http_request.done", {"status": 200, "json": [1, 2, 3]})]
    assert [asked.headers["authorization"] for asked in site.service.asked] == [f"Bearer {SECRET}"] * 2


def test_no_more_pages_are_read_than_wanted(site):
    site.service.reply = lambda asked: (200, {"d": [1], "next": f"/x?p={len(site.service.asked)}"})
    response = site.plugin(pages={"next": "next", "items": "d", "most": 3}).poll()
    assert (told(response)[0][1]["json"], len(site.service.asked)) == ([1, 1, 1], 3)
    assert logged(response) == [f"{site.service.url} has more than 3 pages; the rest was not read"]


@pytest.mark.parametrize("target", ["https://127.0.0.1/", "//[", "file:///x"])
def test_the_next_page_is_never_elsewhere(site, other, target):
    for place in (target, other.url):
        site.says = (200, {"d": [1], "next": place})
        assert failure(site.plugin(pages={"next": "next", "items": "d"}, auth={"bearer": SECRET}).poll()) == (
            f"{site.service.url} has its next page on another host, which is not followed", False)
    assert other.asked == []


def test_a_page_without_a_list_is_named(site):
    assert failure(site.plugin(pages={"next": "link"}).poll()) == (
        f"{site.service.url}: the response is not a list, see pages.items", False)


# What goes wrong

@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again(site, fault):
    site.service.faults = [fault]
    config = {"timeout": 0.2} if fault in (STALL, STALL_IN_BODY) else {}
    error, retry = failure(site.plugin(f"/{SECRET}", auth={"bearer": SECRET}, **config).poll())
    assert (error.startswith(f"{site.service.url} "), retry) == (True, True)


@pytest.mark.parametrize(("says", "config", "error", "retry"), [
    ((401, f"bad token {SECRET}\x1b[1m\nfor /{SECRET}"), {}, "answered 401 Unauthorized: bad token *** [1m for /***",
     False),
    ((429, "", {"Retry-After": "9"}), {}, "answered 429 Too Many Requests, asks to wait 9 s", True),
    ((200, {}), {"expect": [201, 204]}, "answered 200, expected 201, 204", False),
    ((200, {"a": 1}), {"select": "b"}, "select: no 'b' in the response", False),
    ((200, b'"' + b"x" * 600_000 + b'"'), {},
     "the response has 600024 bytes, an event at most 524288: use select, or response: file", False)])
def test_a_refusal_says_what_the_server_says_and_no_secret(site, says, config, error, retry):
    site.says = says
    found = failure(site.plugin(f"/{SECRET}", auth={"bearer": SECRET}, **config).poll())
    assert (found[0].removeprefix(f"{site.service.url} "), found[1]) == (error, retry)


def test_a_page_where_json_is_expected_is_named_with_its_start(site):
    site.service.faults = [HTML]
    assert failure(site.plugin().poll()) == (
        f"{site.service.url} answered something that is not JSON (text/html: <html>sign in</html>)", True)


def test_too_long_an_answer_is_refused(site):
    site.service.faults = [LONG]
    assert failure(site.plugin().poll()) == (f"{site.service.url} answered with more than 5 MiB", False)


def test_a_refused_connection_is_tried_again(tmp_path):
    with refusing() as url:
        error, retry = failure(Plugin(HERE, tmp_path, {"url": f"{url}/{SECRET}"}).poll())
    assert (error.startswith(f"{url}: "), retry) == (True, True)


def test_a_redirect_to_another_place_gets_no_credentials(site, other):
    site.says = (302, "", {"Location": f"{other.url}/y"})
    plugin = site.plugin(auth={"header": "X-Key", "value": SECRET}, headers={"X-More": SECRET})
    assert told(plugin.poll())[0][1]["json"] == {"other": True}
    assert SECRET not in repr(other.asked)
    plugin.config["hosts"] = [site.service.url.removeprefix("http://")]
    assert failure(plugin.poll()) == (f"{other.url} is not among the hosts of the configuration", False)


@pytest.mark.parametrize(("config", "error"), [
    ({"url": "ftp://h/"}, None), ({"url": "https://{host}/"}, None), ({"url": "{a}{b}"}, None),
    ({"url": "{a}"}, "hosts: required if the whole url comes from the event: a list of allowed hosts"),
    ({"method": "get"}, "method: expected one of GET, HEAD, POST, PUT, PATCH, DELETE"),
    ({"json": 1, "form": {}, "method": "POST"}, "config: expected one of json, form, text, got json and form"),
    ({"text": "x"}, "text: GET has no body; set method"), ({"headers": {"Host": "x"}}, None),
    ({"headers": {"": "x"}}, None), ({"auth": {"bearer": ""}}, None),
    ({"auth": {"user": "a:b", "password": "c"}}, None), ({"auth": {"token": "x"}}, None), ({"auth": SECRET}, None),
    ({"expect": [99]}, None), ({"expect": []}, None), ({"pages": {"most": 5}}, None),
    ({"pages": {"next": "link"}, "response": "text"}, "pages: only with response: json"),
    ({"file": "x"}, "file: only with response: file"), ({"file": "a/b", "response": "file"}, None),
    ({"select": "a", "response": "text"}, "select: only with response: json"), ({"timeout": 0}, None),
    ({"event": "ductile.x"}, "event: the types that begin with ductile. are Ductile's own"), ({"urls": 1}, None)])
def test_a_wrong_configuration_is_named(tmp_path, config, error):
    given = {"url": "http://127.0.0.1:9/"} | config
    found, retry = failure(Plugin(HERE, tmp_path, given).health())
    (key, *_) = config
    assert found == error if error else re.match(f"({key}: expected|config: unknown key '{key}')", found)
    assert not retry


def test_the_configurations_of_the_readme_work(tmp_path):
    configs = readme_config(HERE, tmp_path, {"WEATHER_TOKEN": SECRET, "HOME_TOKEN": SECRET})
    assert [Plugin(HERE, tmp_path, configs[name]).health().result for name in ("weather", "lamp")] == [
        "would GET https://api.example.org", "would POST http://home.example.net:8123"]


# As a process of its own

def test_it_runs_as_a_process(site):
    response = site.plugin("/{n}", auth={"bearer": SECRET}).run_process("handle", {"n": 1})
    assert told(response) == [("http_request.done", {"status": 200, "json": {"a": 1}})]


def test_a_wrong_configuration_exits_with_78(tmp_path):
    assert failure(Plugin(HERE, tmp_path).run_process("poll", code=78)) == ("config: url missing", False)
