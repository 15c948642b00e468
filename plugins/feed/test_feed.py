"""The feed plugin against a local service: what counts as new, what is kept, what of a stranger's XML is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from support import in_process
from support.notified import SECRET, failure
from support.plugin_runs import Plugin, logged, readme_config, told
from support.standin import HTML, LONG, PASSING, STALL, STALL_IN_BODY, Asked, Service, refusing, serving

HERE = Path(__file__).resolve().parent
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def item(name: object, title: str | None = None, **more: str) -> str:
    tags = {"guid": str(name), "title": title or f"T{name}", "link": f"https://e.example/{name}", **more}
    return "<item>" + "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags.items() if value) + "</item>"


def rss(*items: str, head: str = "") -> str:
    return f'<?xml version="1.0"?>{head}<rss version="2.0"><channel><title>C</title>{"".join(items)}</channel></rss>'


class Site:
    """A service with a feed at each path, and the plugin that looks at them."""

    def __init__(self, service: Service, workspace: Path) -> None:
        self.service, self.workspace = service, workspace
        self.feeds: dict[str, object] = {}
        self.headers: dict[str, str] = {}
        service.reply = self._reply

    def _reply(self, asked: Asked) -> tuple:
        found = self.feeds[asked.path.removesuffix(f"/{SECRET}").strip("/")]
        if isinstance(found, tuple):
            return found
        if self.headers.get("ETag") and asked.headers.get("if-none-match") == self.headers["ETag"]:
            return 304, b""
        return 200, found, self.headers

    def plugin(self, *names: str, **config: object) -> Plugin:
        feeds = {name: f"{self.service.url}/{name}/{SECRET}" for name in names or ("a",)}
        return Plugin(HERE, self.workspace, {"feeds": feeds, "timeout": 5, **config})

    def titles(self, plugin: Plugin, **feeds: object) -> list[str]:
        """Look at the feeds as they are now, and return the titles of new entries."""
        self.feeds |= feeds
        return [payload["title"] for _, payload in told(plugin.poll())]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(lambda asked: (200, b"")) as service:
        yield Site(service, tmp_path)


# What is new

def test_the_first_look_emits_nothing_and_later_looks_what_is_new_the_oldest_first(site):
    plugin = site.plugin()
    assert site.titles(plugin, a=rss(item(1), item(2))) == []
    new = [item(4, pubDate="Fri, 01 May 2026 10:00:00 GMT"), item(3, pubDate="Fri, 01 May 2026 09:00:00 GMT")]
    assert site.titles(plugin, a=rss(*new, item(1), item(2))) == ["T3", "T4"]
    assert site.titles(plugin, a=rss(item(2), item(1), *new)) == []


def test_the_newest_few_are_emitted_at_the_first_look_if_wanted(site):
    items = [item(day, pubDate=f"{day} Apr 2026 10:00 GMT") for day in (2, 4, 3, 1)]
    assert site.titles(site.plugin(first=2), a=rss(*items)) == ["T3", "T4"]


def test_an_event_has_what_the_entry_says(site):
    plugin = site.plugin()
    site.titles(plugin, a=rss())
    site.feeds["a"] = rss(item("x", "Hi &lt;b&gt;you&lt;/b&gt; &amp;amp; me", description="&lt;p&gt;one&lt;/p&gt;two",
                               author="a", pubDate="Fri, 01 May 2026 12:00:00 +0200"))
    (event,) = plugin.poll().events
    assert (event.type, event.payload, event.dedupe_key[:2]) == ("feed.entry", {
        "feed": "a", "feed_title": "C", "id": "x", "title": "Hi you & me", "link": "https://e.example/x", "author": "a",
        "published": "2026-05-01T10:00:00Z", "summary": "one two", "message": "Hi you & me\nhttps://e.example/x"}, "a ")


def test_a_run_that_is_killed_is_repeated_with_the_same_events(site):
    plugin = site.plugin()
    site.titles(plugin, a=rss(item(1)))
    site.feeds["a"] = rss(item(1), item(2))
    events = [plugin.poll(killed=killed).events for killed in (True, True, False, False)]
    assert (events[0], events[0] == events[1] == events[2], events[3]) == (events[2], True, ())


@pytest.mark.parametrize(("before", "after", "new"), [
    # An edited title, date or text.
    (item(1), item(1, "Other", pubDate="1 May 2026 10:00 GMT", description="x"), []),
    # Another guid of the same entry, and of another with the same link.
    (item("http://e.example/1"), item("https://e.example/1", link="https://e.example/http://e.example/1",
                                      title="Thttp://e.example/1"), []),
    (item(1, link="https://www.e.example/a/?utm_source=x#y"), item(2, "T1", link="http://e.example/a"), []),
    (item(1, link="https://e.example/a"), item(2, link="https://e.example/a"), ["T2"]),
    (item(1, link="https://e.example/a?x=1"), item(2, "T1", link="https://e.example/a?x=2"), ["T1"]),
    # Without a guid the link counts, without a link title and date.
    (item("", "A", link="https://e.example/a"), item("", "B", link="https://e.example/a"), []),
    (item("", "A", link="", pubDate="1 May 2026 10:00 GMT"), item("", "A", link="", pubDate="1 May 26 10:00 GMT"), []),
    (item("", "A", link=""), item("", "B", link=""), ["B"]),
    (item(1), item(2) + item(2, "Double"), ["T2"])])
def test_an_entry_is_known_by_its_id_or_by_link_title_and_date(site, before, after, new):
    plugin = site.plugin()
    site.titles(plugin, a=rss(before))
    assert site.titles(plugin, a=rss(after)) == new


def test_an_entry_that_comes_back_is_known(site):
    plugin = site.plugin()
    site.titles(plugin, a=rss(item(1), item(2)))
    assert site.titles(plugin, a=rss(item(2))) == []
    assert site.titles(plugin, a=rss(item(1), item(2))) == []


def test_another_url_is_another_feed(site):
    plugin = site.plugin("a")
    site.titles(plugin, a=rss(item(1)), b=rss(item(5)))
    plugin.config["feeds"] = {"a": f"{site.service.url}/b"}
    assert site.titles(plugin) == []


def test_a_feed_that_changes_all_its_ids_makes_no_flood(site):
    def feed(kind: str) -> str:
        return rss(*[item(f"{kind}{n}", pubDate=f"{1 + n} Apr 2020 10:00 GMT") for n in range(20)])

    plugin = site.plugin()
    site.titles(plugin, a=feed("old"))
    today = item("x", pubDate=format_datetime(datetime.now(UTC)))
    site.feeds["a"] = feed("new").replace("</channel>", f"{today}</channel>")
    response = plugin.poll()
    assert [payload["title"] for _, payload in told(response)] == ["Tx"]
    assert logged(response) == [
        "a: nearly all ids have changed; only entries with a later date, or a few without one, count as new"]
    assert site.titles(plugin) == []
    undated = rss(*[item(f"other{n}", link="") for n in range(20)])
    assert site.titles(plugin, a=undated) == ["Tother2", "Tother1", "Tother0"]
    assert site.titles(plugin) == []


def test_more_than_a_run_may_emit_comes_with_the_next(site, monkeypatch):
    monkeypatch.setattr(in_process.load(HERE), "MOST_NEW", 3)
    plugin = site.plugin("a", "b")
    site.titles(plugin, a=rss(), b=rss())
    site.headers = {"ETag": '"1"'}
    feeds = {name: rss(*[item(f"{name}{n}") for n in range(count)]) for name, count in (("a", 2), ("b", 5))}
    found = [site.titles(plugin, **feeds) for _ in range(4)]
    assert ([len(each) for each in found], len({title for each in found for title in each})) == ([3, 3, 1, 0], 7)


def test_the_state_is_bounded(site):
    plugin = site.plugin()
    site.titles(plugin, a=rss())
    site.titles(plugin, a=rss(*[item(n, pubDate=f"{1 + n % 28} Apr {2000 + n // 28} 10:00 GMT") for n in range(600)]))
    assert len(plugin.state["feeds"]["a"]["seen"]) // 8 <= 1000
    plugin.config["feeds"] = {"b": f"{site.service.url}/a"}
    site.titles(plugin)
    assert list(plugin.state["feeds"]) == ["b"]


def test_a_digest_is_one_event(site):
    plugin = site.plugin("a", "b", digest=True)
    site.feeds = {"a": rss(), "b": rss(item(1))}
    assert told(plugin.poll()) == []
    site.feeds = {"a": rss(item(1), item(2)), "b": rss(item(1), item(3, link=""))}
    ((kind, payload),) = told(plugin.poll())
    assert (kind, [entry["id"] for entry in payload["entries"]]) == ("feed.digest", ["2", "1", "3"])
    assert (payload["count"], payload["message"]) == (
        3, "a: T2\nhttps://e.example/2\na: T1\nhttps://e.example/1\nb: T3")
    assert told(plugin.poll()) == []


# Manners

def test_validators_are_sent_back_as_they_came(site):
    site.headers = {"ETag": 'W/"x-gzip"', "Last-Modified": "yesterday, about noon"}
    plugin = site.plugin()
    site.titles(plugin, a=rss(item(1)))
    before = plugin.state
    assert site.titles(plugin) == []
    headers = site.service.asked[1].headers
    assert (headers["if-none-match"], headers["if-modified-since"]) == ('W/"x-gzip"', "yesterday, about noon")
    assert plugin.state == before and "if-none-match" not in site.service.asked[0].headers


@pytest.mark.parametrize("away", [timedelta(seconds=-1), timedelta(days=2)])
def test_a_server_that_asks_to_wait_is_left_alone(site, away):
    plugin = site.plugin("a", "b")
    site.titles(plugin, a=rss(item(1)), b=rss())
    site.feeds["a"] = (429, "", {"Retry-After": "3600"})
    response = plugin.poll()
    assert (told(response), response.result) == ([], "0 new in 2 feeds, 1 waiting")
    asked = len(site.service.asked)
    assert plugin.poll().result == "0 new in 2 feeds, 1 waiting"
    assert len(site.service.asked) == asked + 1
    # The time has come, or the clock has been set back.
    plugin.state["feeds"]["a"]["wait_until"] = int((datetime.now(UTC) + away).timestamp())
    assert site.titles(plugin, a=rss(item(1), item(2))) == ["T2"]
    assert "wait_until" not in plugin.state["feeds"]["a"]


# What goes wrong

@pytest.mark.parametrize("fault", [*PASSING, HTML, LONG, 401, 404, 410])
def test_a_feed_that_fails_hinders_no_other_and_loses_nothing(site, fault):
    plugin = site.plugin("a", "b", **({"timeout": 0.2} if fault in (STALL, STALL_IN_BODY) else {}))
    site.titles(plugin, a=rss(item(1)), b=rss(item(1)))
    site.service.faults = [fault]
    response = plugin.poll()
    assert (told(response), response.result, len(logged(response))) == ([], "0 new in 2 feeds, 1 failed", 1)
    assert logged(response)[0].startswith(f"a: {site.service.url} ")
    assert site.titles(plugin, a=rss(item(1), item(2)), b=rss(item(1), item(3))) == ["T2", "T3"]
    assert "failures" not in plugin.state["feeds"]["a"]


@pytest.mark.parametrize(("fault", "retry"), [(500, True), (404, False), (HTML, False)])
def test_where_all_fail_the_job_does(site, fault, retry):
    plugin = site.plugin("a", "b")
    site.titles(plugin, a=rss(item(1)), b=rss())
    site.service.faults = [fault, 404]
    before = plugin.state
    error, may_pass = failure(plugin.poll())
    assert (error[:len(site.service.url) + 4], error[-17:], may_pass, plugin.state) == (
        f"a: {site.service.url} ", " (2 feeds failed)", retry, before)


def test_a_refused_connection_is_tried_again(tmp_path):
    with refusing() as url:
        error, retry = failure(Plugin(HERE, tmp_path, {"feeds": {"a": f"{url}/{SECRET}"}}).poll())
    assert (error.startswith(f"a: {url}: "), retry) == (True, True)


def test_a_feed_that_goes_on_failing_is_told_of_once(site):
    plugin = site.plugin("a", "b")
    site.feeds = {"a": (410, ""), "b": rss()}
    events = [told(plugin.poll()) for _ in range(7)]
    error = f"{site.service.url} answered 410 Gone: it is gone permanently, remove it from the configuration"
    failing = ("feed.failing", {"feed": "a", "error": error, "message": f"a: {error}"})
    assert events == [[]] * 4 + [[failing]] + [[]] * 2


def test_without_time_for_all_the_rest_is_a_warning(site):
    plugin = site.plugin("a", "b")
    site.feeds = {"a": rss(), "b": rss()}
    assert failure(plugin.poll(seconds_left=0)) == (
        "a: there was no time left for it: raise timeouts.poll (2 feeds failed)", True)
    assert site.service.asked == []


# Documents

def parsed(body: str | bytes, charset: str | None = None, url: str = "https://e.example/feed") -> object:
    data = body.encode() if isinstance(body, str) else body
    return in_process.load(HERE).read(data, charset, url, NOW)


ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xml:base="https://e.example/b/">
<title type="html">A &amp;amp; B</title><entry><id> urn:1 </id>
<title type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">x <b>y</b></div></title>
<link rel="self" href="no"/><link href="../one"/><author><name>ann</name></author>
<updated>2026-04-30T23:59:60z</updated>
<content type="html">&lt;p&gt;a&lt;/p&gt;&lt;script&gt;no&lt;/script&gt;b</content></entry></feed>"""
RDF = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"
 xmlns:q="http://purl.org/dc/elements/1.1/"><channel><title>A &amp; B</title></channel>
<item rdf:about="urn:1"><title>x y</title><link>/one</link><q:creator>ann</q:creator>
<q:date>2026-04-30T23:59:59Z</q:date><description>a b</description></item></rdf:RDF>"""
JSON = """\ufeff {"version": "https://jsonfeed.org/version/1.1", "title": "A & B",
"items": [{"id": "urn:1", "title": "x y", "url": "https://e.example/one", "authors": [{"name": "ann"}],
"content_html": "<p>a</p>b",
"date_published": "2026-05-01T01:59:59+02:00"}, {"id": 5}, 7]}"""
RSS = """
<rss version="2.0" xmlns:c="http://purl.org/rss/1.0/modules/content/" xmlns:a="http://www.w3.org/2005/Atom">
<channel><title>A &amp; B</title><a:link rel="self" href="/feed"/><item><guid isPermaLink="false">urn:1</guid>
<title><![CDATA[x y]]></title><a:link href="/one"/><author>ann</author><c:encoded>a<![CDATA[<br>]]>b</c:encoded>
<pubDate>Thu, 30 Apr 26 23:59:59 +0000</pubDate></item></channel></rss>"""


@pytest.mark.parametrize("body", [ATOM, RDF, JSON, RSS], ids=["atom", "rdf", "json", "rss"])
def test_each_kind_of_feed_gives_the_same_entry(body):
    document = parsed(body)
    entry = document.entries[0]
    assert (document.title, entry.id, entry.title, entry.author, entry.summary) == (
        "A & B", "urn:1", "x y", "ann", "a b")
    assert (entry.link, entry.published) == ("https://e.example/one", datetime(2026, 4, 30, 23, 59, 59, tzinfo=UTC))


def test_a_guid_that_is_a_link_is_one(site):
    (entry,) = parsed(rss("<item><guid>https://e.example/x</guid></item>")).entries
    assert entry.link == "https://e.example/x"
    assert parsed(rss("<item/>", "<item><title> </title></item>")).entries == ()


@pytest.mark.parametrize(("body", "charset", "title"), [
    ("é".encode(), None, "é"), ("é".encode("utf-16"), "utf-8", "é"), (b"\xe9\x80", None, "é€"),
    (b"\xe9", "latin1", "é"), ("語".encode("shift_jis"), "shift_jis", "語"),
    (b"&nbsp;&eacute; & &x; &amp;", None, "é & &x; &"),
    (b"a\x08b &copy &lt;", None, "ab © <"), (b"<![CDATA[a &nbsp; b]]>", None, "a b"),
    (b"&#x1F600;&#233;", None, "\U0001F600é")])
def test_texts_are_read_in_their_charset_and_small_faults_repaired(body, charset, title):
    wide = body.startswith(b"\xff\xfe")
    before, after = "<rss><channel><title>", "</title></channel></rss>"
    encode = "utf-16-le" if wide else "ascii"
    data = (body[:2] if wide else b"") + before.encode(encode) + body[2 * wide:] + after.encode(encode)
    assert parsed(data, charset).title == title


@pytest.mark.parametrize("charset", ["shift_jis", "gb2312", "koi8-r", "windows-1252", "no-such-charset"])
def test_the_charset_of_the_declaration_counts_before_the_header_s(charset):
    text = {"shift_jis": "語", "gb2312": "语", "koi8-r": "ж"}.get(charset, "é")
    data = text.encode(charset if charset[0] != "n" else "utf-8")
    body = f'\n<?xml version="1.0" encoding="{charset}"?><rss><channel><title>'.encode() + data
    assert parsed(body + b"</title></channel></rss>", "latin1" if charset[0] != "n" else None).title == text


LAUGHS = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(("head", "error"), [
    (LAUGHS, "has a DOCTYPE with declarations, which is refused"),
    ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "has a DOCTYPE with declarations, which is refused"),
    ('<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd" [<!ATTLIST a b CDATA "c">]>',
     "has a DOCTYPE with declarations, which is refused"),
    ("<a>" * 200, "is nested over 100 levels, which is refused")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_attacks_by_xml_are_refused(head, error, encoding):
    with pytest.raises(in_process.library().Permanent) as caught:
        parsed(f"{head}<rss><channel><title>&a;</title></channel></rss>".encode(encoding))
    assert str(caught.value) == error


def test_a_doctype_without_declarations_is_harmless():
    head = '<!DOCTYPE rss PUBLIC "-//Netscape Communications//DTD RSS 0.91//EN" "http://127.0.0.1:9/rss-0.91.dtd">'
    assert parsed(rss(item(1), head=head)).entries[0].title == "T1"


@pytest.mark.parametrize(("body", "error"), [
    (b"", "is not XML, so not a feed (line 1)"), (b"<rss><channel>", "is not XML, so not a feed (line 1)"),
    (b"\x00\x01\x02", "is not XML, so not a feed (line 1)"), (b"<rss/>", "is not a feed: it has no channel"),
    (b"<!doctype html><html><p>x<br></html>", "is an HTML page, so not a feed (line 1)"),
    (b"<html><body/></html>", "is an HTML page, not a feed"),
    (b"<opml><a/></opml>", "is not a feed: it starts with <opml>"),
    (b'{"a": 1}', "is JSON but not a feed: it has no version of jsonfeed.org"),
    (b"{nonsense", "is neither XML nor JSON, so not a feed")])
def test_what_is_no_feed_is_named(body, error):
    with pytest.raises(in_process.library().Permanent) as caught:
        parsed(body)
    assert str(caught.value) == error


@pytest.mark.parametrize(("text", "found"), [
    ("Fri, 01 May 2026 10:00:00 EST", "2026-05-01T15:00"), ("1 May 26 10:00 GMT", "2026-05-01T10:00"),
    ("Mon, 01 May 2026 10:00:00 CEST", "2026-05-01T10:00"), ("2026-05-01", "2026-05-01T00:00"),
    ("2026-05-01t10:00:00.123456789z", "2026-05-01T10:00"), ("2026-05-01 10:00+0200", "2026-05-01T08:00"),
    ("2027-01-01T00:00:00Z", None), ("29 Feb 2025 10:00 GMT", None), ("vendredi 1 mai", None), ("", None),
    ("0001-01-01T00:00:00+14:00", None), ("9999-12-31T23:59:59-12:00", None), ("1 May 99999 10:00 GMT", None)])
def test_dates_are_read_as_strangers_write_them(text, found):
    (entry,) = parsed(rss(item(1, pubDate=text))).entries
    assert (entry.published and entry.published.isoformat()[:16]) == found


def test_a_large_document_is_read_in_time():
    body = rss(*[item(n, description="&lt;p&gt;" + "x &amp;amp; y " * 50) for n in range(1000)])
    began = time.process_time()
    assert len(parsed(body).entries) == 500
    assert time.process_time() - began < 5


# What is configured wrongly

@pytest.mark.parametrize("feeds", [None, {}, [], "https://h/", {"a": "ftp://h/"},
                                   {"a": f"https://u:{SECRET}@h/"}, {"": "https://h/"},
                                   {str(n): "https://h/" for n in range(51)}])
def test_wrong_feeds_are_named_without_their_urls(tmp_path, feeds):
    error, retry = failure(Plugin(HERE, tmp_path, {"feeds": feeds}).health())
    assert error == "config: feeds missing" or error.startswith("feeds: expected a mapping of 1 to 50 names")
    assert not retry


def test_the_configuration_of_the_readme_works(tmp_path):
    configs = readme_config(HERE, tmp_path, {"NOTIFY_URL": "https://example.net/x"})
    assert [Plugin(HERE, tmp_path, configs[name]).health().result for name in ("feed", "news")] == [
        "would fetch python, debian-security", "would fetch lwn"]


def test_handle_is_refused(site):
    assert failure(site.plugin().handle()) == ("feed has no such command", False)


# As a process of its own

@pytest.mark.parametrize(("config", "code"), [({}, 0), ({"first": "x"}, 78)])
def test_it_runs_as_a_process(site, config, code):
    site.feeds["a"] = rss(item(1))
    response = site.plugin(**config).run_process("poll", code=code)
    assert response.status == ("ok" if code == 0 else "error")
