"""A feed's document as a title and entries: RSS 0.9 to 2.0, Atom and JSON Feed, as strangers write them.

XML attacks are refused: a DOCTYPE with declarations, entities, too deep a nesting.
"""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit
from xml.parsers import expat

from ductile_plugin import Permanent, decoded, one_line

MOST_ENTRIES = 500
MOST_DEPTH = 100
LONGEST_SUMMARY = 2000
ATOM = "http://www.w3.org/2005/Atom"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_RSS = ("", "http://purl.org/rss/1.0/", "http://my.netscape.com/rdf/simple/0.9/", "http://backend.userland.com/rss2")
_BASE = "http://www.w3.org/XML/1998/namespace base"
_DC = "http://purl.org/dc/elements/1.1/"
_CONTENT = "http://purl.org/rss/1.0/modules/content/"
_DECLARED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_REFERENCE = re.compile(r"&(?:#[0-9]{1,7};|#x[0-9A-Fa-f]{1,6};|([A-Za-z][A-Za-z0-9]{0,31});)?")
_XML_ENTITIES = ("amp", "lt", "gt", "quot", "apos")
_TRACKING = re.compile(r"utm_.*|fbclid|gclid|mc_cid|mc_eid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry. `key` stands for its id, `alias` for link, title and date together: feeds change their ids at times."""

    key: str
    alias: str | None
    id: str
    title: str
    link: str | None
    author: str | None
    published: datetime | None
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A feed. The entries are in the order of the document, without doubles, `MOST_ENTRIES` at most."""

    title: str
    entries: tuple[Entry, ...]


class Node:
    """An XML element; `text` is all the text below it."""

    __slots__ = ("attributes", "children", "name", "parts")

    def __init__(self, name: tuple[str, str], attributes: dict[str, str]) -> None:
        self.name, self.attributes, self.children, self.parts = name, attributes, [], []

    @property
    def text(self) -> str:
        return "".join(self.parts).strip()

    def all(self, local: str, *namespaces: str) -> list[Node]:
        return [child for child in self.children if child.name[1] == local and child.name[0] in namespaces]

    def first(self, local: str, *namespaces: str) -> Node | None:
        return next(iter(self.all(local, *namespaces)), None)

    def text_of(self, local: str, *namespaces: str) -> str:
        found = self.first(local, *namespaces)
        return "" if found is None else found.text


def read(body: bytes, charset: str | None, url: str, now: datetime) -> Document:
    """Return the feed in an answer's body. Raises Permanent for what is none, or an attack."""
    if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        return _json_feed(body, now)
    declared = _DECLARED.search(body[:400])
    charsets = [each for each in (declared and declared[1].decode(), charset) if each]
    # Decoded here and not by expat: it knows no multi-byte charsets, and feeds lie about theirs.
    text = decoded(body, *charsets).lstrip("\ufeff \t\r\n")
    try:
        root = _parsed(text)
    except expat.ExpatError:
        try:
            root = _parsed(_repaired(text))
        except expat.ExpatError as error:
            what = "an HTML page" if re.match(r"<(!doctype\s+)?html", text, re.IGNORECASE) else "not XML"
            raise Permanent(f"is {what}, so not a feed (line {error.lineno})") from None
    return _from_xml(root, url, now)


def _parsed(text: str) -> Node:
    """Return the root of an XML document. Raises ExpatError, and Permanent for an attack."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    top = Node(("", ""), {})
    stack = [top]

    def named(name: str) -> tuple[str, str]:
        namespace, _, local = name.rpartition(" ")
        return namespace, local

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > MOST_DEPTH:
            raise Permanent(f"is nested over {MOST_DEPTH} levels, which is refused")
        node = Node(named(name), attributes)
        stack[-1].children.append(node)
        stack.append(node)

    def end(_: str) -> None:
        node = stack.pop()
        stack[-1].parts.extend(node.parts)

    def doctype(_name: str, _system: str, _public: str, has_internal_subset: int) -> None:
        if has_internal_subset:
            raise Permanent("has a DOCTYPE with declarations, which is refused")

    def entity(*_: object) -> None:
        raise Permanent("declares an entity, which is refused")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda data: stack[-1].parts.append(data)
    parser.StartDoctypeDeclHandler, parser.EntityDeclHandler = doctype, entity
    parser.Parse(text, True)
    (root,) = top.children
    return root


def _repaired(text: str) -> str:
    """Return a document with its usual faults mended: a bare ampersand, HTML's entities, control characters."""
    def reference(found: re.Match) -> str:
        name = found[1]
        if found[0] == "&":
            return "&amp;"
        if name is None or name in _XML_ENTITIES:
            return found[0]
        meant = html.entities.html5.get(f"{name};")
        return meant.replace("&", "&amp;").replace("<", "&lt;") if meant else f"&amp;{name};"

    # What is in CDATA is no markup.
    parts = re.split(r"(<!\[CDATA\[.*?\]\]>)", _CONTROL.sub("", text), flags=re.DOTALL)
    return "".join(part if part.startswith("<![CDATA[") else _REFERENCE.sub(reference, part) for part in parts)


def _from_xml(root: Node, url: str, now: datetime) -> Document:
    if root.name == (ATOM, "feed"):
        base = urljoined(url, root.attributes.get(_BASE)) or url
        raw = [_atom_entry(node, base, now) for node in root.all("entry", ATOM)]
        return _document(_plain(root.first("title", ATOM)), raw)
    if root.name[1] == "rss" and root.name[0] in _RSS:
        channel = root.first("channel", *_RSS)
        items = channel.all("item", *_RSS) if channel else []
    elif root.name == (_RDF, "RDF"):
        channel, items = root.first("channel", *_RSS), root.all("item", *_RSS)
    else:
        raise Permanent("is an HTML page, not a feed" if root.name[1].lower() == "html"
                        else f"is not a feed: it starts with <{one_line(root.name[1], 40)}>")
    if channel is None:
        raise Permanent("is not a feed: it has no channel")
    base = urljoined(url, channel.text_of("link", *_RSS)) or url
    return _document(to_text(channel.text_of("title", *_RSS)), [_rss_entry(node, base, now) for node in items])


def _rss_entry(node: Node, base: str, now: datetime) -> dict:
    guid = node.first("guid", *_RSS)
    identity = (guid.text if guid else "") or node.attributes.get(f"{_RDF} about", "").strip()
    link = node.text_of("link", *_RSS)
    if not link:
        found = next((each.attributes.get("href", "") for each in node.all("link", ATOM)
                      if each.attributes.get("rel", "alternate") == "alternate"), "")
        permanent = guid is not None and guid.attributes.get("isPermaLink", "true").lower() != "false"
        link = found or (identity if permanent and re.match("https?://", identity) else "")
    summary = node.text_of("description", *_RSS) or node.text_of("encoded", _CONTENT)
    return {"id": identity, "title": to_text(node.text_of("title", *_RSS)), "link": urljoined(base, link),
            "author": node.text_of("creator", _DC) or node.text_of("author", *_RSS), "summary": to_text(summary),
            "published": moment(node.text_of("pubDate", *_RSS) or node.text_of("date", _DC), now)}


def _atom_entry(node: Node, base: str, now: datetime) -> dict:
    base = urljoined(base, node.attributes.get(_BASE)) or base
    links = [each for each in node.all("link", ATOM) if each.attributes.get("rel", "alternate") == "alternate"]
    author = node.first("author", ATOM)
    summary = node.first("summary", ATOM) or node.first("content", ATOM)
    return {"id": node.text_of("id", ATOM), "title": _plain(node.first("title", ATOM)),
            "link": urljoined(base, links[0].attributes.get("href")) if links else None,
            "author": author.text_of("name", ATOM) if author else "", "summary": _plain(summary),
            "published": moment(node.text_of("published", ATOM) or node.text_of("updated", ATOM), now)}


def _plain(node: Node | None) -> str:
    """Return an Atom text without markup: `html` has it escaped, `xhtml` as elements, `text` has none."""
    if node is None:
        return ""
    is_html = node.attributes.get("type", "text").lower() in ("html", "text/html")
    return to_text(node.text) if is_html else " ".join(node.text.split())


def _json_feed(body: bytes, now: datetime) -> Document:
    try:
        feed = json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        raise Permanent("is neither XML nor JSON, so not a feed") from None
    if not str(feed.get("version", "")).startswith("https://jsonfeed.org/version/"):
        raise Permanent("is JSON but not a feed: it has no version of jsonfeed.org")
    items = feed.get("items")
    return _document(_string(feed.get("title")),
                     [_json_entry(item, now) for item in (items if isinstance(items, list) else ())
                      if isinstance(item, dict)])


def _json_entry(item: dict, now: datetime) -> dict:
    authors = item.get("authors") if isinstance(item.get("authors"), list) else [item.get("author")]
    author = authors[0] if authors and isinstance(authors[0], dict) else {}
    summary = _string(item.get("summary")) or _string(item.get("content_text")) or to_text(
        _string(item.get("content_html")))
    return {"id": _string(item.get("id")).strip(), "title": " ".join(_string(item.get("title")).split()),
            "link": _string(item.get("url")) or _string(item.get("external_url")), "summary": summary,
            "author": _string(author.get("name")), "published": moment(_string(item.get("date_published")), now)}


def _string(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None or isinstance(value, (dict, list)) else str(value)


def _document(title: str, raw: list[dict]) -> Document:
    """Return the document with what identifies each entry: its id, else its link, else its title and date."""
    found = {}
    for each in raw:
        if not (each["id"] or each["link"] or each["title"] or each["summary"]):
            continue
        identity = each["id"] or each["link"] or f"{each['title']}\n{each['published']}\n{each['summary'][:200]}"
        key, link = digest(f"id {identity}"), _alias(each["link"])
        found.setdefault(key, Entry(
            key=key, alias=digest(f"{link}\n{each['title']}\n{each['published']}") if link else None,
            id=identity[:500], title=one_line(each["title"]) or one_line(each["summary"], 80),
            link=(each["link"] or "")[:2000] or None, author=one_line(each["author"], 100) or None,
            published=each["published"], summary=each["summary"][:LONGEST_SUMMARY]))
    entries = list(found.values())
    if len(entries) > MOST_ENTRIES:
        # Positions say nothing, so the newest of a very long feed are those with the latest dates.
        oldest = datetime.min.replace(tzinfo=UTC)
        entries = sorted(entries, key=lambda entry: entry.published or oldest, reverse=True)[:MOST_ENTRIES]
    return Document(title=one_line(title), entries=tuple(entries))


def digest(value: str | bytes) -> str:
    """Return eight characters that stand for a value."""
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return base64.b64encode(blake2b(data, digest_size=6).digest()).decode()


def _alias(link: str | None) -> str | None:
    """Return a link without what changes while the entry does not: scheme, `www.`, fragment, tracking."""
    try:
        parts = urlsplit(link or "")
        query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True)
                 if not _TRACKING.fullmatch(name)]
    except ValueError:
        return None
    host = parts.netloc.lower().removeprefix("www.")
    return f"{host}{parts.path.rstrip('/')}?{urlencode(query)}" if host else None


def urljoined(base: str, link: str | None) -> str:
    try:
        found = urljoin(base, (link or "").strip()) if link and link.strip() else ""
    except ValueError:
        return ""
    return found if found.startswith(("http://", "https://")) else ""


def moment(text: str, now: datetime) -> datetime | None:
    """Return a date of RFC 822 or 3339, or None; one over a day in the future is none."""
    text = text.strip()
    found = None
    if re.match(r"\d{4}-\d\d-\d\d", text):
        # A leap second, which datetime has not.
        found = _date(datetime.fromisoformat, re.sub(r"(T\d\d:\d\d):60", r"\1:59", text.upper()))
    found = found or _date(parsedate_to_datetime, text)
    if found is None:
        return None
    found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    return found if found <= now + timedelta(days=1) else None


def _date(parse: object, text: str) -> datetime | None:
    try:
        found = parse(text)
        # At the ends of what datetime holds the zone cannot be changed.
        return found if 1 < found.year < 9999 else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class _Text(HTMLParser):
    """Keeps the text of HTML, a blank for what breaks a line, nothing of scripts and styles."""

    SILENT = ("script", "style")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts, self.silent = [], 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.silent += tag in self.SILENT
        self.parts.append(" " if tag in ("p", "br", "div", "li", "tr", "td", "h1", "h2", "h3", "img") else "")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in self.SILENT and self.silent > 0
        self.parts.append(" " if tag in ("p", "div", "li", "tr", "h1", "h2", "h3") else "")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.parts.append(data)


def to_text(markup: str) -> str:
    """Return the text of HTML on one line."""
    if "<" not in markup and "&" not in markup:
        return " ".join(markup.split())
    # The parser takes time with the square of some lengths.
    parser = _Text()
    parser.feed(markup[:100_000])
    parser.close()
    return " ".join("".join(parser.parts).split())
