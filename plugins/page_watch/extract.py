"""What of a page is compared: a part of its HTML or JSON as lines of text, without what changes all the time."""

from __future__ import annotations

import json
import re
import unicodedata
from html.parser import HTMLParser

from ductile_plugin import Permanent, as_text, decoded, lookup, within

MOST_CHARACTERS = 100_000
MOST_DEPTH = 400
SECONDS = 2.0
_VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
_SILENT = ("script", "style", "noscript", "template", "head", "title")
# An element that begins ends one of these that is open, as HTML lets its end tag be left out.
_ENDS = {"li": ("li",), "dt": ("dt", "dd"), "dd": ("dt", "dd"), "tr": ("tr", "td", "th"), "td": ("td", "th"),
         "th": ("td", "th"), "option": ("option",)}
_CONTAINERS = ("ul", "ol", "dl", "table", "tbody", "thead", "select", "div", "section", "body")
_INLINE = tuple("a abbr b bdi cite code data del dfn em font i img ins kbd label mark q s samp small span strong sub "
                "sup time tt u var wbr".split())
_STEP = re.compile(r"(>)?\s*((?:\*|[A-Za-z][A-Za-z0-9-]*)?"
                   r"(?:#[\w-]+|\.[\w-]+|\[[\w-]+(?:=(?:\"[^\"]*\"|[^\]\s\"]*))?\])*)"
                   r"(?::nth\(([1-9][0-9]{0,3})\))?")
_PART = re.compile(r"#([\w-]+)|\.([\w-]+)|\[([\w-]+)(?:=(?:\"([^\"]*)\"|([^\]\s\"]*)))?\]")
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9._-]+)", re.IGNORECASE)
_MISSING = object()


class Element:
    """An element of HTML; `children` are elements and strings."""

    __slots__ = ("attributes", "children", "tag")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes, self.children = tag, attributes, []


class _Tree(HTMLParser):
    """Builds elements of HTML as it is found: with end tags left out, doubled or crossed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_before(tag)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        # Deeper ones become siblings: nobody selects there, and nothing else grows with the depth.
        if tag not in _VOID and len(self.open) < MOST_DEPTH:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        for index in range(len(self.open) - 1, 0, -1):
            if self.open[index].tag == tag:
                del self.open[index:]
                return

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def _end_before(self, tag: str) -> None:
        """End what an element ends by beginning, within the list, table or block that both are in."""
        ends, cut = _ENDS.get(tag, ("p",) if tag not in _INLINE and tag not in _VOID else ()), None
        for index in range(len(self.open) - 1, 0, -1):
            if self.open[index].tag in ends:
                cut = index
            elif self.open[index].tag in _CONTAINERS:
                break
        if cut is not None:
            del self.open[cut:]


def parsed(markup: str) -> Element:
    """Return the root of a page."""
    tree = _Tree()
    tree.feed(markup)
    tree.close()
    return tree.root


def steps(selector: object) -> list[tuple[bool, str, int | None]] | None:
    """Return a selector as steps: whether it is a child, what matches, which of the matches; None if it is none."""
    found, position = [], 0
    text = " ".join(selector.split()) if isinstance(selector, str) else ""
    while position < len(text):
        step = _STEP.match(text, position)
        position = step.end() if step else position
        if step is None or not (step[2] or step[3]) or text[position:position + 1] not in ("", " ", ">"):
            return None
        found.append((step[1] is not None, step[2], int(step[3]) if step[3] else None))
        position += text[position:position + 1] == " "
    return found or None


def selected(root: Element, selector: str) -> list[Element]:
    """Return the elements that a selector finds, in the order of the page."""
    current = [root]
    for is_child, compound, nth in steps(selector):
        reached = _children(current) if is_child else _descendants(current)
        found = [element for element in reached if _matches(element, compound)]
        current = found if nth is None else found[nth - 1:nth]
    return current


def _children(elements: list[Element]) -> list[Element]:
    return [child for element in elements for child in element.children if isinstance(child, Element)]


def _descendants(elements: list[Element]) -> list[Element]:
    """Return all that is below some elements, each once, in the order of the page, as the elements are."""
    found, walked = [], set()
    for element in elements:
        # Below an element that was reached from one above it everything was reached as well.
        waiting = [] if id(element) in walked else _children([element])[::-1]
        while waiting:
            each = waiting.pop()
            walked.add(id(each))
            found.append(each)
            waiting += _children([each])[::-1]
    return found


def _outermost(elements: list[Element]) -> list[Element]:
    """Return elements without those that are within another: their text is in its."""
    found, within_another = [], set()
    for element in elements:
        if id(element) not in within_another:
            found.append(element)
            within_another.update(map(id, _descendants([element])))
    return found


def _matches(element: Element, compound: str) -> bool:
    tag = re.match(r"\*|[A-Za-z][A-Za-z0-9-]*", compound)
    if tag and tag[0] not in ("*", element.tag) and tag[0].lower() != element.tag:
        return False
    for part in _PART.finditer(compound, tag.end() if tag else 0):
        name, kind, attribute, quoted, plain = part.groups()
        wanted = quoted if quoted is not None else plain
        if name is not None and element.attributes.get("id") != name:
            return False
        if kind is not None and kind not in element.attributes.get("class", "").split():
            return False
        if attribute is not None and (attribute not in element.attributes
                                      or wanted not in (None, element.attributes[attribute])):
            return False
    return True


def text_of(element: Element) -> str:
    """Return the text of an element, each block on a line of its own, without scripts and styles."""
    parts, waiting = [], [element]
    while waiting:
        each = waiting.pop()
        if isinstance(each, _Mark):
            parts.append(each.text)
        elif isinstance(each, str):
            parts.append(re.sub(r"\s+", " ", each))
        elif each.tag not in _SILENT or each is element:
            # Cells of a row stay on its line.
            mark = " | " if each.tag in ("td", "th") else "" if each.tag in _INLINE else "\n"
            parts.append(mark.strip(" |"))
            waiting += [_Mark(mark), *reversed(each.children)]
    return "".join(parts)


class _Mark:
    """What stands behind an element's text."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def charset_of(body: bytes, content_type: str) -> list[str]:
    """Return the charsets that an answer names, the header's first."""
    header = re.search(r"charset=[\"']?([\w.:-]+)", content_type, re.IGNORECASE)
    meta = _META.search(body[:1024])
    return [*([header[1]] if header else []), *([meta[1].decode()] if meta else [])]


def extract(page: dict, body: bytes, content_type: str) -> str | None:
    """Return the lines to compare, or None where the part is not there. Raises Permanent."""
    text = decoded(body, *charset_of(body, content_type))
    if page["json"] is not None:
        found = _from_json(text, page["json"])
    elif page["select"] is not None:
        elements = selected(parsed(text), page["select"])
        found = "\n".join(map(text_of, _outermost(elements))) if elements else None
    else:
        found = text if page["match"] is not None else text_of(parsed(text))
    if found is not None and page["match"] is not None:
        with within(SECONDS, "match"):
            matches = list(re.finditer(page["match"], found, re.MULTILINE))
        found = "\n".join(each[1] or "" if each.re.groups else each[0] for each in matches) if matches else None
    return None if found is None else _normal(found, page) or None


def _from_json(text: str, path: str) -> str | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise Permanent("is not JSON") from None
    value = document if path == "." else lookup(path, document, default=_MISSING)
    if value is _MISSING:
        return None
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    return as_text(value) if value is not None else "null"


def _normal(text: str, page: dict) -> str:
    text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    lines = (" ".join(line.split()).strip("| ") for line in text.splitlines())
    text = "\n".join(line for line in lines if line)
    with within(SECONDS, "remove"):
        for pattern in page["remove"]:
            text = re.sub(pattern, "", text, flags=re.MULTILINE)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    lines = [line for line in lines if line]
    text = "\n".join(sorted(lines) if page["sort"] else lines)
    if len(text) > MOST_CHARACTERS:
        raise Permanent(f"has {len(text)} characters to compare, at most {MOST_CHARACTERS}: select a part of it")
    return text


def title(body: bytes, content_type: str) -> str:
    """Return the title of a page."""
    found = re.search(r"<title[^>]*>(.{0,300}?)</title", decoded(body[:20_000], *charset_of(body, content_type)),
                      re.IGNORECASE | re.DOTALL)
    return found[1] if found else ""
