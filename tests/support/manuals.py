"""Reads the manuals for tests: parses sections, entries and examples from their roff source."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAN = Path(__file__).resolve().parents[2] / "contrib" / "man"
PRODUCT = MAN.parents[1] / "ductile"
PAGES = ("ductilectl.1", "ductile.yaml.5", "ductile-pipeline.7", "ductile-plugin.7",
         "ductile-webhook.7", "ductiled.8")

_ESCAPES = {r"\-": "-", r"\(aq": "'", r"\(ga": "`", r"\(ha": "^", r"\(ti": "~", r"\(dq": '"', r"\(bu": "*", r"\e": "\\",
            r"\&": "", r"\ ": " ", r"\fB": "", r"\fI": "", r"\fR": ""}
_ESCAPE = re.compile(r"\\(?:\(..|f.|.)")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"|(\S+)')
_MARK = re.compile(r'\.\\" test: (.+)')
# Macros that alternate between these fonts, without spaces between arguments.
_IN_TURN = {"BR": "BR", "RB": "RB", "BI": "BI", "IB": "IB", "IR": "IR", "RI": "RI"}
_ENDS_AN_ENTRY = ("TP", "SH", "SS", "PP", "IP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A tagged paragraph: its tag, its text, and the words in bold."""

    tag: str
    text: str
    bold: tuple[str, ...]
    source: str

    @property
    def names(self) -> list[str]:
        """The words of the tag, without commas and colons."""
        return [word.rstrip(":,") for word in self.tag.split()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The text under a heading; `part` is the subheading, empty if there is none."""

    title: str
    part: str
    entries: tuple[Entry, ...]
    bold: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example; `kind` is the comment before it, which says how it is tested."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def argument(self) -> str:
        """The comment without its first word."""
        return self.kind.partition(" ")[2]


def source(page: str) -> list[str]:
    return (MAN / page).read_text(encoding="utf-8").splitlines()


def sections(page: str) -> list[Section]:
    """Return the sections of a page in order."""
    found, title, part, lines = [], "", "", []
    for line in [*source(page), ".SH END"]:
        if line.startswith((".SH", ".SS")):
            found.append(_section(title, part, lines))
            heading = " ".join(_arguments(line))
            title, part, lines = (heading, "", []) if line.startswith(".SH") else (title, heading, [])
        else:
            lines.append(line)
    return found


def section(page: str, title: str, part: str = "") -> Section:
    """Return the one section of a page with these headings."""
    [found] = [each for each in sections(page) if (each.title, each.part) == (title, part)]
    return found


def parts(page: str, title: str) -> dict[str, Section]:
    """Return the sections below a heading, by subheading."""
    return {each.part: each for each in sections(page) if each.title == title and each.part}


def examples(page: str) -> Iterator[Example]:
    """Yield every example; the kind of one without a comment is ''."""
    lines = source(page)
    start = None
    for number, line in enumerate(lines):
        if line == ".EX":
            start = number
        elif line == ".EE":
            mark = _MARK.fullmatch(lines[start - 1])
            text = "".join(f"{plain(each)}\n" for each in lines[start + 1:number])
            yield Example(page=page, line=start + 1, kind=mark[1] if mark else "", text=text)


def plain(text: str) -> str:
    """Return a text without roff escapes. Raises KeyError for an unknown escape."""
    return _ESCAPE.sub(lambda match: _ESCAPES[match[0]], text)


def _section(title: str, part: str, lines: list[str]) -> Section:
    return Section(title=title, part=part, entries=tuple(_entries(lines)), bold=tuple(_bold(lines)))


def _entries(lines: list[str]) -> Iterator[Entry]:
    index = 0
    while index < len(lines):
        if lines[index] != ".TP":
            index += 1
            continue
        body = []
        for line in lines[index + 2:]:
            if line.startswith("." ) and line[1:].split(" ")[0] in _ENDS_AN_ENTRY:
                break
            body.append(line)
        yield Entry(tag=_shown(lines[index + 1]), text=" ".join(filter(None, map(_shown, body))),
                    bold=tuple(_bold(body)), source="\n".join(body))
        index += 2 + len(body)


def _shown(line: str) -> str:
    if not line.startswith("."):
        return plain(line)
    macro = line[1:].split(" ")[0]
    if macro in _IN_TURN:
        return "".join(_arguments(line))
    return " ".join(_arguments(line)) if macro in ("B", "I") else ""


def _bold(lines: list[str]) -> Iterator[str]:
    for line in lines:
        macro = line[1:].split(" ")[0] if line.startswith(".") else ""
        if macro == "B":
            yield " ".join(_arguments(line))
        elif "B" in _IN_TURN.get(macro, ""):
            yield from _arguments(line)[_IN_TURN[macro].index("B")::2]
        elif not macro:
            yield from (plain(word) for word in re.findall(r"\\fB(.+?)\\fR", line))


def _arguments(line: str) -> list[str]:
    rest = line.partition(" ")[2]
    return [plain(quoted.replace('""', '"') if quoted else word) for quoted, word in _ARGUMENT.findall(rest)]


@functools.cache
def nodes() -> tuple[tuple[str, tuple[ast.AST, ...]], ...]:
    """The modules of the product, parsed and walked once: name and nodes of each."""
    return tuple((str(file.relative_to(PRODUCT)), tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8")))))
                 for file in sorted(PRODUCT.rglob("*.py")))
