"""The page_watch plugin against a local service: what is compared, what counts as a change, what is left alone."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support import in_process
from support.notified import SECRET, failure
from support.plugin_runs import Plugin, logged, readme_config, told
from support.standin import LONG, PASSING, STALL, STALL_IN_BODY, Asked, Service, refusing, serving

HERE = Path(__file__).resolve().parent


class Site:
    """A service with a page at each path, and the plugin that looks at them."""

    def __init__(self, service: Service, workspace: Path) -> None:
        self.service, self.workspace = service, workspace
        self.pages: dict[str, object] = {}
        self.headers: dict[str, str] = {}
        service.reply = self._reply

    def _reply(self, asked: Asked) -> tuple:
        found = self.pages[asked.path.strip("/")]
        if isinstance(found, tuple):
            return found
        if self.headers.get("ETag") and asked.headers.get("if-none-match") == self.headers["ETag"]:
            return 304, b""
        return 200, found, self.headers

    def plugin(self, *names: str, timeout: float = 5, **page: object) -> Plugin:
        pages = {name: {"url": f"{self.service.url}/{name}?key={SECRET}", **page} for name in names or ("a",)}
        return Plugin(HERE, self.workspace, {"pages": pages, "timeout": timeout})

    def look(self, plugin: Plugin, **pages: object) -> list[tuple]:
        """Look at the pages as they are now, and return the events."""
        self.pages |= pages
        return told(plugin.poll())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(lambda asked: (200, b"")) as service:
        yield Site(service, tmp_path)


def extracted(body: str | bytes, kind: str = "text/html", **page: object) -> str | None:
    page = {"select": None, "json": None, "match": None, "remove": [], "sort": False} | page
    return in_process.load(HERE).extract(page, body.encode() if isinstance(body, str) else body, kind)


# What is compared

PAGE = """<!doctype html><html><head><title>T</title><style>x{}</style></head><body><!-- no --><h1>Head</h1>
<div id="main" class="a b"><p>One  <b>bold</b>,
two<br>three<p>four<script>var x</script><ul><li class="i">A<li class="i x">B &amp; C<ul><li>deep</ul></ul></div>
<table><tr><th>n<th>v<tr><td>k</td><td data-x="1">5</table><div id=other><a href="/l">link</a></div></body></html>"""


@pytest.mark.parametrize(("page", "text"), [
    ({}, "Head\nOne bold, two\nthree\nfour\nA\nB & C\ndeep\nn | v\nk | 5\nlink"), ({"select": "h1"}, "Head"),
    ({"select": "#main p"}, "One bold, two\nthree\nfour"), ({"select": ".a.b > ul > li"}, "A\nB & C\ndeep"),
    ({"select": "#main li.x"}, "B & C\ndeep"), ({"select": "li li"}, "deep"), ({"select": "li:nth(2)"}, "B & C\ndeep"),
    ({"select": "div#main > p:nth(2)"}, "four"), ({"select": "[data-x]"}, "5"), ({"select": "td[data-x=1]"}, "5"),
    ({"select": '*[href="/l"]'}, "link"), ({"select": "TABLE tr:nth(2) > td"}, "k\n5"), ({"select": "title"}, "T"),
    ({"select": "#none"}, None), ({"select": "li:nth(9)"}, None), ({"select": "#main>b"}, None),
    ({"match": r"<h1>(.*?)</h1>"}, "Head"), ({"match": r"class=\"\w+"}, 'class="a\nclass="i\nclass="i'),
    ({"match": "none"}, None), ({"select": "#main", "match": "^(four|A)$"}, "four\nA"),
    ({"select": "#main", "remove": ["t[a-z]+", "^B.*$"]}, "One bold,\nfour\nA\ndeep"),
    ({"select": "li", "sort": True}, "A\nB & C\ndeep"), ({"select": "h1", "remove": [".*"]}, None)])
def test_a_part_of_a_page_becomes_lines(page, text):
    assert extracted(PAGE, **page) == text


@pytest.mark.parametrize(("body", "page", "text"), [
    ('{"b": {"x": [1.50, null, "é"]}, "a": 1}', {"json": "."}, '{\n"a": 1,\n"b": {\n"x": [\n1.5,\nnull,\n"é"\n]\n}\n}'),
    ('{"a": {"b": [5]}}', {"json": "a.b.0"}, "5"), ('{"a": "x\\n y"}', {"json": "a"}, "x\ny"),
    ('{"a": null}', {"json": "a"}, "null"),
    ('{"a": 1}', {"json": "b"}, None), ('{"a": ""}', {"json": "a"}, None),
    ('{"a": [3, 1], "t": 5}', {"json": ".", "remove": ['"t": \\d+']}, '{\n"a": [\n3,\n1\n],\n}')])
def test_a_part_of_a_document_becomes_lines(body, page, text):
    assert extracted(body, "application/json", **page) == text


@pytest.mark.parametrize(("head", "data", "kind"), [
    (b"", "é€".encode(), "text/html"), (b"", b"\xe9\x80", "text/html"),
    (b"", b"\xe9\x80", "text/html; charset=ISO-8859-1"),
    (b'<meta charset="koi8-r">', "\u0436".encode("koi8-r"), "text/html"),
    (b"\xef\xbb\xbf", "é".encode(), "text/html; charset=koi8-r"),
    (b'<meta http-equiv=x content="text/html; charset=gb2312">', "语".encode("gb2312"), "text/html")])
def test_a_page_is_read_in_its_charset(head, data, kind):
    assert extracted(head + b"<p>" + data, kind, select="p") in ("é€", "\u0436", "é", "语")


def test_composed_and_decomposed_letters_are_the_same():
    assert extracted("<p>cafe\u0301\u00a0 x") == extracted("<p>café x") == "café x"


@pytest.mark.parametrize("page", [{}, {"select": "p"}, {"select": "div div div"}])
def test_hostile_html_is_read_in_time_and_without_recursion(page):
    chance = random.Random(7)
    kinds = ("<div>", "</p>", "<p>x", "<li>", "<table>", "</div>", "<td>", "<!--", "<a href='", "&#x1F600;", "<br/>")
    soup = "".join(chance.choice(kinds) for _ in range(1500))
    began = time.process_time()
    assert extracted("<div>" * 4000 + "<p>end" + soup, **page)
    assert time.process_time() - began < 5


def test_a_page_that_takes_too_long_to_read_is_left_alone(site, monkeypatch):
    plugin = site.plugin("a", "b")
    site.look(plugin, a="one", b="one")
    monkeypatch.setattr(in_process.load(HERE), "SECONDS_PER_PAGE", 0.05)
    response = site.look(plugin, a="<a" * 200_000, b="two")
    assert [payload["page"] for _, payload in response] == ["b"]


def test_too_long_a_text_is_named():
    with pytest.raises(in_process.library().Permanent) as caught:
        extracted("<p>" + "x" * 100_001)
    assert str(caught.value) == "has 100001 characters to compare, at most 100000: select a part of it"


# What counts as a change

def test_the_first_look_is_remembered_and_a_change_is_told_with_its_lines(site):
    plugin = site.plugin()
    assert site.look(plugin, a="<p>one<p>two<script>1</script>") == []
    assert site.look(plugin, a="<p>one <p> two<script>2</script>") == []
    ((kind, payload),) = site.look(plugin, a="<p>one<p>three")
    assert kind == "page.changed"
    assert payload == {"page": "a", "url": f"{site.service.url}/a", "message": "a has changed\n- two\n+ three",
                       "added": ["three"], "removed": ["two"], "old": "one\ntwo", "new": "one\nthree",
                       "diff": str(site.workspace / "a.diff")}
    assert (site.workspace / "a.diff").read_text() == "--- a before\n+++ a now\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
    assert site.look(plugin) == []


def test_a_run_that_is_killed_is_repeated_with_the_same_event(site):
    plugin = site.plugin()
    site.look(plugin, a="one")
    site.pages["a"] = "two"
    events = [plugin.poll(killed=killed).events for killed in (True, False, False)]
    assert (len(events[0]), events[0] == events[1], events[2]) == (1, True, ())


def test_a_page_that_goes_back_and_forth_is_told_each_time(site):
    plugin = site.plugin()
    site.look(plugin, a="one")
    keys = []
    for number, text in enumerate(("two", "one", "two")):
        plugin.state["pages"]["a"]["since"] = f"2026-05-0{number + 1}T00:00:00+00:00"
        site.pages["a"] = text
        keys += [event.dedupe_key for event in plugin.poll().events]
    assert len(set(keys)) == 3


def test_other_keys_of_a_page_begin_anew(site):
    plugin = site.plugin()
    site.look(plugin, a="<p>one<h1>two</h1>")
    plugin.config["pages"]["a"]["select"] = "h1"
    assert site.look(plugin) == []
    assert len(site.look(plugin, a="<p>one<h1>three</h1>")) == 1


def test_an_error_or_a_missing_part_changes_nothing_of_what_is_compared(site):
    plugin = site.plugin(select="p")
    site.look(plugin, a="<p>one")
    site.service.faults = [500]
    assert failure(plugin.poll())[1]
    assert site.look(plugin, a="<h1>captcha</h1>") == []
    assert site.look(plugin, a="<p>one") == []
    assert site.look(plugin, a="<h1>x</h1>") == site.look(plugin) == []
    ((kind, payload),) = site.look(plugin)
    assert (kind, payload["page"], payload["message"]) == ("page.missing", "a", "a: the selected part is gone")
    assert site.look(plugin) == []
    assert [payload["old"] for _, payload in site.look(plugin, a="<p>two")] == ["one"]


@pytest.mark.parametrize("head", ["Just a moment...", "Attention Required! | X", "Are you a robot?"])
def test_a_page_that_keeps_programs_out_is_an_error(site, head):
    plugin = site.plugin()
    site.look(plugin, a="one")
    site.pages["a"] = f"<title>\n{head}</title><p>x"
    assert failure(plugin.poll()) == (f"a: {site.service.url} answered with a page that blocks programs", True)
    assert site.look(plugin, a="one") == []


def test_of_a_long_text_it_is_only_known_that_it_changed_and_the_state_stays_small(site):
    chance = random.Random(5)
    names = ["n1"]
    plugin = site.plugin(*names)

    def texts() -> dict[str, str]:
        return {name: "<p>".join(f"{chance.random()}" for _ in range(4500)) for name in names}

    assert site.look(plugin, **texts()) == []
    payloads = [payload for _, payload in site.look(plugin, **texts())]
    assert [payload["message"] for payload in payloads] == [f"{name} has changed" for name in names]
    plugin.config["pages"] = {"n2": f"{site.service.url}/n2"}
    site.look(plugin, n2="x")
    assert list(plugin.state["pages"]) == ["n2"]
    run = in_process.load(HERE)
    assert run.MOST_PAGES * run.MOST_KEPT_BYTES < 700 * 1024


def test_many_lines_are_told_in_part(site):
    plugin = site.plugin()
    site.look(plugin, a="<p>x")
    ((_, payload),) = site.look(plugin, a="".join(f"<p>{number} {'y' * 2000}" for number in range(30)))
    assert ([len(line) for line in payload["added"]], len(payload["removed"])) == ([1000] * 20, 1)
    assert "old" not in payload and len((site.workspace / "a.diff").read_text().splitlines()) == 34


# Manners and what goes wrong

def test_validators_and_headers_are_sent(site):
    site.headers = {"ETag": 'W/"x"', "Last-Modified": "yesterday"}
    plugin = site.plugin(headers={"Authorization": SECRET})
    site.look(plugin, a="one")
    before = plugin.state
    assert (site.look(plugin), plugin.state) == ([], before)
    headers = site.service.asked[1].headers
    assert (headers["if-none-match"], headers["if-modified-since"], headers["authorization"]) == (
        'W/"x"', "yesterday", SECRET)


@pytest.mark.parametrize("away", [timedelta(seconds=-1), timedelta(days=2)])
def test_a_server_that_asks_to_wait_is_left_alone(site, away):
    plugin = site.plugin("a", "b")
    site.look(plugin, a="one", b="x")
    site.pages["a"] = (429, "", {"Retry-After": "3600"})
    assert (plugin.poll().result, plugin.poll().result) == ("0 of 2 pages changed, 1 waiting",) * 2
    assert len(site.service.asked) == 5
    # The time has come, or the clock has been set back.
    plugin.state["pages"]["a"]["wait_until"] = int((datetime.now(UTC) + away).timestamp())
    assert [payload["page"] for _, payload in site.look(plugin, a="two")] == ["a"]


@pytest.mark.parametrize("fault", [*PASSING, LONG, 401, 404])
def test_a_page_that_fails_hinders_no_other_and_loses_nothing(site, fault):
    plugin = site.plugin("a", "b", timeout=0.2 if fault in (STALL, STALL_IN_BODY) else 5)
    site.look(plugin, a="one", b="one")
    site.service.faults = [fault]
    response = plugin.poll()
    assert (told(response), response.result, len(logged(response))) == ([], "0 of 2 pages changed, 1 failed", 1)
    assert [payload["page"] for _, payload in site.look(plugin, a="two", b="two")] == ["a", "b"]


@pytest.mark.parametrize(("fault", "retry"), [(500, True), (404, False)])
def test_where_all_fail_the_job_does(site, fault, retry):
    site.service.faults = [fault, 403]
    error, may_pass = failure(site.plugin("a", "b").poll())
    assert (error.startswith(f"a: {site.service.url} answered {fault} "), error[-17:], may_pass) == (
        True, " (2 pages failed)", retry)


def test_a_refused_connection_is_tried_again(tmp_path):
    with refusing() as url:
        error, retry = failure(Plugin(HERE, tmp_path, {"pages": {"a": f"{url}/{SECRET}"}}).poll())
    assert (error.startswith(f"a: {url}: "), retry) == (True, True)


def test_a_page_that_goes_on_failing_is_told_of_once(site):
    plugin = site.plugin("a", "b")
    site.pages = {"a": (404, ""), "b": "x"}
    kinds = [[kind for kind, _ in told(plugin.poll())] for _ in range(7)]
    assert kinds == [[]] * 4 + [["page.failing"]] + [[]] * 2


def test_what_is_no_json_is_named(site):
    site.pages["a"] = "<html>"
    assert failure(site.plugin(json="a").poll()) == (f"a: {site.service.url} is not JSON", False)


@pytest.mark.parametrize(("page", "error"), [
    ({}, "pages.a: url missing"), (5, "pages.a: expected a mapping"),
    ({"url": f"ftp://{SECRET}/"}, "pages.a: url: expected"),
    ({"url": "http://h/", "select": "a >"}, "pages.a: select: expected"),
    ({"url": "http://h/", "select": "a:first"}, "pages.a: select"),
    ({"url": "http://h/", "select": ""}, "pages.a: select"),
    ({"url": "http://h/", "match": "("}, "pages.a: match: expected"),
    ({"url": "http://h/", "remove": ["("]}, "pages.a: remove: expected a list"),
    ({"url": "http://h/", "selector": "a"}, "pages.a: unknown key 'selector'"),
    ({"url": "http://h/", "select": "a", "json": "b"}, "pages.a: expected json or select, got both"),
    ({"url": "http://h/", "missing_after": 0}, "pages.a: missing_after: expected a whole number")])
def test_a_wrong_page_is_named(tmp_path, page, error):
    found, retry = failure(Plugin(HERE, tmp_path, {"pages": {"a": page}}).health())
    assert (found.startswith(error), retry) == (True, False), found


@pytest.mark.parametrize("pages", [{}, [], {"a/b": "http://h/"}, {str(number): "http://h/" for number in range(21)}])
def test_wrong_pages_are_named(tmp_path, pages):
    assert failure(Plugin(HERE, tmp_path, {"pages": pages}).health())[0].startswith("pages: expected ")


def test_the_configuration_of_the_readme_works(tmp_path):
    configs = readme_config(HERE, tmp_path, {"NOTIFY_URL": "https://example.net/x"})
    assert Plugin(HERE, tmp_path, configs["page_watch"]).health().result == (
        "would fetch python-release, council, rate")


# As a process of its own

@pytest.mark.parametrize("code", [0, 78])
def test_it_runs_as_a_process(site, code):
    site.pages["a"] = "one"
    response = site.plugin(**({"json": 5} if code else {})).run_process("poll", code=code)
    assert response.status == ("error" if code else "ok")
