"""Says in plain words why a text is not YAML: the parser's own words are about its grammar, not about the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import yaml

Position = tuple[int, int]

# libyaml is ten times as fast, but an installation may be without it.
LOADER = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader

LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_NO_CONTENT = re.compile(r"[ \t]*(?:#.*|---.*|\.\.\.)?")
_LIST_ITEM = re.compile(r"-(?:[ ]|$)")
_KEY = re.compile(r":(?:[ ]|$)")
_NO_KEY = "expected 'key: value' on this line, with a space after the colon"
_CLOSING = {"[": "]", "{": "}"}
_QUOTES = ("'", '"')
# To find where a quote or bracket opened the text is read once more.
_MOST_TO_SCAN = 256 * 1024


def explain(text: str, error: yaml.MarkedYAMLError) -> tuple[Position, str]:
    """Return line and column, from 1, of what is wrong in `text`, and what it is.

    It is found by looking at the text around the parser's mark, as the words of libyaml and of PyYAML's own parser
    differ.
    """
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return (1, 1), "not YAML"
    return _Fault(text, error, mark).explained()


class _Fault:
    def __init__(self, text: str, error: yaml.MarkedYAMLError, mark: Any) -> None:
        self._text = text
        self._lines = LINE_BREAK.split(text)
        self._context = error.context or ""
        self._opened = _position(error.context_mark or mark)
        self._words = str(error.problem)
        self._at = _position(mark)
        self._line = self._lines[mark.line] if mark.line < len(self._lines) else ""

    def explained(self) -> tuple[Position, str]:
        for look in (self._quoted, self._tab, self._flow, self._indicator, self._second_colon,
                     self._missing_colon, self._after_quote, self._bracket, self._list_on_one_line, self._indent):
            found = look()
            if found is not None:
                return found
        return self._at, f"not YAML: {self._words}"

    def _quoted(self) -> tuple[Position, str] | None:
        if "quoted scalar" not in self._context:
            return None
        if "escape" in self._words or "hex" in self._words:
            return self._at, "not an escape that YAML knows; write the string in single quotes, or \\\\ for a backslash"
        return self._opened, "the quote that opens here is not closed"

    def _tab(self) -> tuple[Position, str] | None:
        if self._character(self._at) == "\t":
            return self._at, "a tab; YAML indents with spaces"
        column = self._line.find("\t", 0, self._indent_of(self._line))
        return None if column < 0 else ((self._at[0], column + 1), "a tab; YAML indents with spaces")

    def _flow(self) -> tuple[Position, str] | None:
        if "flow" not in self._context:
            return None
        opened = self._opened if self._character(self._opened) in _CLOSING else self._last_bracket()
        if opened is None:
            return self._at, "expected ',', or the bracket that closes a list or mapping"
        opening = self._character(opened)
        line, column = self._at
        return opened, (f"the {opening!r} that opens here is not closed: expected ',' or {_CLOSING[opening]!r}"
                        f" at line {line}, column {column}")

    def _indicator(self) -> tuple[Position, str] | None:
        begins = any(kind in self._context for kind in ("alias", "anchor", "tag", "block scalar"))
        at = self._opened if begins else self._at
        first = self._character(at)
        if not begins and (first not in "@`%" or not first):
            return None
        return at, f"a value cannot begin with {first!r}; put it in quotes"

    def _second_colon(self) -> tuple[Position, str] | None:
        """Explain a colon that makes a key where none can be: of the same line's value, or of a line too far right."""
        if "values are not allowed" not in self._words:
            return None
        line, column = self._at
        if _KEY.search(self._line[:column - 1]):
            return self._at, "a second ': ' on one line; put the value in quotes"
        above = self._line_above(line)
        indent = self._indent_of(self._line)
        if above is None:
            return self._at, _NO_KEY
        body = self._lines[above - 1]
        if not _KEY.search(body):
            return (above, self._indent_of(body) + 1), _NO_KEY
        return (line, indent + 1), (f"line {line} is indented by {indent}, more than line {above}, which has its"
                                    f" value already; indent it by {self._indent_of(body)}")

    def _missing_colon(self) -> tuple[Position, str] | None:
        return (self._opened, _NO_KEY) if "simple key" in self._context else None

    def _after_quote(self) -> tuple[Position, str] | None:
        """Explain what follows a closing quote, which often is not the one that was meant to close."""
        before = self._line[:self._at[1] - 1].rstrip()
        if not before.endswith(('"', "'")):
            return None
        opened = self._quote_before(self._at)
        where = "" if opened is None else f" of the string that opens at line {opened[0]}, column {opened[1]}"
        return self._at, f"something after the closing quote{where}"

    def _bracket(self) -> tuple[Position, str] | None:
        found = self._character(self._at)
        return (self._at, f"a {found!r} that nothing opens") if found and found in "]}" else None

    def _list_on_one_line(self) -> tuple[Position, str] | None:
        if "entries are not allowed" not in self._words:
            return None
        return self._at, "a list begins on a line of its own, below its key; put a value that begins with '-' in quotes"

    def _indent(self) -> tuple[Position, str] | None:
        line, column = self._at
        if self._line[:column - 1].strip() or _NO_CONTENT.fullmatch(self._line):
            return None
        indent, levels = self._indent_of(self._line), self._levels_above(line)
        if indent not in levels:
            *others, last = map(str, sorted(levels))
            expected = f"{', '.join(others)} or {last}" if others else last
            return self._at, f"line {line} is indented by {indent}; expected {expected}, as the lines above it"
        if _LIST_ITEM.match(self._line[indent:]):
            return self._at, "a list item where a key is expected; is its indentation right?"
        return self._at, "a key where a list item, '- ', is expected; is its indentation right?"

    def _levels_above(self, line: int) -> set[int]:
        """Return how far the lines are indented that a line can go on with."""
        levels: set[int] = set()
        for above in reversed(self._lines[:line - 1]):
            if _NO_CONTENT.fullmatch(above):
                continue
            indent = self._indent_of(above)
            if not levels or indent < min(levels):
                # `- key: value` opens two levels.
                inside = re.match(r"(?:- +)+(?=[^ ])", above[indent:])
                if inside and not levels:
                    levels.add(indent + len(inside[0]))
                levels.add(indent)
            if indent == 0:
                break
        return levels or {0}

    def _line_above(self, line: int) -> int | None:
        numbers = range(line - 1, 0, -1)
        return next((number for number in numbers if not _NO_CONTENT.fullmatch(self._lines[number - 1])), None)

    def _quote_before(self, at: Position) -> Position | None:
        quotes = (token for token in self._tokens() if isinstance(token, yaml.ScalarToken) and token.style in _QUOTES)
        before = [_position(token.start_mark) for token in quotes if _position(token.start_mark) < at]
        return before[-1] if before else None

    def _last_bracket(self) -> Position | None:
        """Return where the innermost list or mapping in brackets opens that is not closed."""
        opened: list[Position] = []
        for token in self._tokens():
            if isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken):
                opened.append(_position(token.start_mark))
            elif isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken):
                opened = opened[:-1]
        return opened[-1] if opened else None

    def _tokens(self) -> Iterator[Any]:
        """Yield the text's tokens, up to where they end; none of a large text, in which the operator looks."""
        if len(self._text) > _MOST_TO_SCAN:
            return
        with suppress(yaml.YAMLError):
            yield from yaml.scan(self._text, Loader=LOADER)

    def _character(self, at: Position) -> str:
        line = self._lines[at[0] - 1] if at[0] <= len(self._lines) else ""
        return line[at[1] - 1:at[1]]

    @staticmethod
    def _indent_of(line: str) -> int:
        return len(line) - len(line.lstrip(" \t"))


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1
