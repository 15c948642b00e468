"""Strict YAML with the place of every value: bytes in, a document or its problems out."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import Reader

from ductile.errors import EXIT_CONFIG, DuctileError
from ductile.validation import Path, Problem, kind_of
from ductile.yamlfault import LINE_BREAK, LOADER, explain

# Deep enough for any configuration; the parsers of PyYAML end the process at some ten thousand levels.
MOST_LEVELS = 100
# Values, keys apart. Counted as they are read, which bounds time and memory, and again with aliases followed: a few
# lines of nested aliases could ask for billions.
MOST_VALUES = 100_000
# Places of a repeated key that one message names.
_MOST_PLACES = 3

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,99})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,99})\.[0-9]{1,100}")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
# What YAML 1.1, section 5.1, does not call printable. PyYAML's own: to compile another takes 9 ms.
_UNPRINTABLE = Reader.NON_PRINTABLE
# What an escape can still put into a string, and neither UTF-8 nor a C string can carry.
_UNFIT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a YAML file says. `problems` are what YAML allows and Ductile does not; `value` is the rest.

    The last value of a repeated key counts. `names` are further files that were merged into it; `sources` have the
    number of the file, from 1, that a value and all below it come from.
    """

    value: Any
    problems: tuple[Problem, ...]
    positions: Mapping[Path, tuple[int, int]]
    key_positions: Mapping[Path, tuple[int, int]]
    names: tuple[str, ...] = ()
    sources: Mapping[Path, int] = field(default_factory=dict)

    def where(self, path: Path, at_key: bool = False) -> tuple[int, int]:
        """Return line and column, from 1, of the value at `path`, or of its key.

        If nothing is at `path`, the place is that of its deepest ancestor.
        """
        if at_key and path in self.key_positions:
            return self.key_positions[path]
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, (1, 1))

    def source(self, path: Path) -> int:
        """Return the number of the file that the value at `path` comes from, 0 for the file itself."""
        if not self.sources:
            return 0
        return next((self.sources[path[:length]] for length in range(len(path), 0, -1)
                     if path[:length] in self.sources), 0)

    def order(self, problem: Problem) -> tuple[int, int, int]:
        """Return a key that sorts problems by their places."""
        return self.source(problem.path), *self.where(problem.path, problem.at_key)

    def place(self, name: str, path: Path, at_key: bool = False) -> str:
        """Return where a value, or its key, is: `file:line:column`. `name` is that of the file itself."""
        line, column = self.where(path, at_key)
        number = self.source(path)
        return f"{self.names[number - 1] if number else name}:{line}:{column}"

    def locate(self, name: str, problem: Problem) -> str:
        """Return a problem as the operator reads it: `file:line:column: path.to.key: text`."""
        return f"{self.place(name, problem.path, problem.at_key)}: {problem}"


def read_yaml(text: bytes, name: str, *, most_values: int = MOST_VALUES) -> Document:
    """Return the one document in `text`, a file known to the operator as `name`; an empty file is an empty mapping.

    Only `true` and `false` are booleans, only plain decimals are numbers, every other plain word is a string.
    Raises DuctileError with one line `file:line:column: what is wrong` for what is not YAML, is nested too
    deep or has too many values.
    """
    characters = _decode(text, name)
    try:
        root = _Parser(yaml.parse(characters, Loader=LOADER), name, most_values).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _check_levels(characters[: mark.index], name)
        raise _refusal(name, *explain(characters, error)) from error
    if root is None:
        return Document(value={}, problems=(), positions={}, key_positions={})
    return _Walk(name, most_values).document(root)


def _refusal(name: str, place: tuple[int, int], text: str) -> DuctileError:
    return DuctileError(f"{name}:{place[0]}:{place[1]}: {text}", exit_code=EXIT_CONFIG)


def _check_levels(characters: str, name: str) -> None:
    """Refuse what is nested too deep.

    libyaml looks ahead, and since 0.2.6 it has a limit of its own: it may fail before our parser has seen a level.
    """
    level = 0
    with suppress(yaml.MarkedYAMLError):
        for event in yaml.parse(characters, Loader=LOADER):
            if level == MOST_LEVELS and isinstance(event, yaml.NodeEvent):
                raise _too_many_levels(name, event)
            level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)


def _too_many_levels(name: str, event: Any) -> DuctileError:
    return _refusal(name, _place(event), f"expected at most {MOST_LEVELS} levels, got more")


def _decode(text: bytes, name: str) -> str:
    text = text.removeprefix(codecs.BOM_UTF8)
    try:
        characters = text.decode()
    except UnicodeDecodeError as error:
        place = _place_after(text[: error.start].decode())
        raise _refusal(name, place, f"expected UTF-8, got the byte 0x{text[error.start]:02x}") from error
    wrong = _UNPRINTABLE.search(characters)
    if wrong is not None:
        place = _place_after(characters[: wrong.start()])
        raise _refusal(name, place, f"expected printable text, got the character U+{ord(wrong[0]):04X}")
    return characters


def _place_after(before: str) -> tuple[int, int]:
    lines = LINE_BREAK.split(before)
    return len(lines), len(lines[-1]) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """One value as written. `content` is a string, a list of nodes or a list of pairs of nodes."""

    content: str | list[_Node] | list[tuple[_Node, _Node]]
    plain: bool = False     # a word without quotes, which may mean a number or a boolean
    mapping: bool = False
    tag: str | None = None
    place: tuple[int, int]


class _Parser:
    """Builds nodes from parser events; PyYAML's own composer knows no limit to its recursion."""

    def __init__(self, events: Iterator[Any], name: str, most_values: int) -> None:
        self._events = events
        self._name = name
        self._most_values = most_values
        self._count = 0
        self._anchors: dict[str, _Node] = {}
        self._open_anchors: set[str] = set()

    def document(self) -> _Node | None:
        """Return the root of the only document, None if the file is empty."""
        root = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _refusal(self._name, _place(event), "expected one document, got another after it")
                root = self._node(next(self._events), 1)
        return root

    def _node(self, event: Any, level: int) -> _Node:
        if level > MOST_LEVELS:
            raise _too_many_levels(self._name, event)
        self._count += 1
        if self._count > 2 * self._most_values:
            raise _too_many(self._name, _place(event), self._most_values)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.anchor is not None:
            self._open_anchors.add(event.anchor)
        node = self._content(event, level)
        if event.anchor is not None:
            self._open_anchors.discard(event.anchor)
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> _Node:
        if event.anchor in self._open_anchors:
            raise _refusal(self._name, _place(event), f"the alias *{event.anchor} holds itself")
        if event.anchor not in self._anchors:
            raise _refusal(self._name, _place(event), f"the alias *{event.anchor} has no anchor before it")
        return self._anchors[event.anchor]

    def _content(self, event: Any, level: int) -> _Node:
        place = _place(event)
        if isinstance(event, yaml.ScalarEvent):
            return _Node(content=event.value, plain=event.implicit[0], tag=event.tag, place=place)
        if isinstance(event, yaml.SequenceStartEvent):
            items = [self._node(each, level + 1) for each in self._until(yaml.SequenceEndEvent)]
            return _Node(content=items, tag=event.tag, place=place)
        pairs = []
        for each in self._until(yaml.MappingEndEvent):
            key = self._node(each, level + 1)
            pairs.append((key, self._node(next(self._events), level + 1)))
        return _Node(content=pairs, mapping=True, tag=event.tag, place=place)

    def _until(self, end: type) -> Iterator[Any]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


class _Walk:
    """Turns nodes into values, noting where each is and what is wrong with it."""

    def __init__(self, name: str, most_values: int) -> None:
        self._name = name
        self._most_values = most_values
        self._count = 0
        self._problems: list[Problem] = []
        self._positions: dict[Path, tuple[int, int]] = {}
        self._key_positions: dict[Path, tuple[int, int]] = {}

    def document(self, root: _Node) -> Document:
        """Return what a file says."""
        value = self._value(root, ())
        return Document(value=value, problems=tuple(self._problems), positions=self._positions,
                        key_positions=self._key_positions)

    def _value(self, node: _Node, path: Path) -> Any:
        """Return what `node` means at `path`; an alias is walked again at each place that uses it."""
        if len(path) > MOST_LEVELS:
            raise _refusal(self._name, node.place, f"expected at most {MOST_LEVELS} levels, got more through aliases")
        self._positions[path] = node.place
        self._count += 1
        if self._count > self._most_values:
            raise _too_many(self._name, node.place, self._most_values)
        if node.tag is not None:
            self._problems.append(Problem(path, f"expected a value without a tag, got {_short(node.tag)}"))
        if isinstance(node.content, str):
            return _meaning(node.content) if node.plain else self._text(node.content, path)
        if node.mapping:
            return self._mapping(node.content, path)
        return [self._value(item, (*path, index)) for index, item in enumerate(node.content) if isinstance(item, _Node)]

    def _text(self, text: str, path: Path) -> str:
        unfit = _UNFIT.search(text)
        if unfit is not None:
            fault = f"expected a string that UTF-8 can carry, without NUL, got U+{ord(unfit[0]):04X} in it"
            self._problems.append(Problem(path, fault))
        return _UNFIT.sub("", text)

    def _mapping(self, pairs: Any, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        repeated = []
        for name, entries in self._entries(pairs, path).items():
            key, value = entries[-1]
            self._key_positions[(*path, name)] = key.place
            result[name] = self._value(value, (*path, name))
            if len(entries) > 1:
                places = [f"line {other.place[0]}, column {other.place[1]}" for other, _ in entries[:_MOST_PLACES]]
                more = len(entries) - 1 - _MOST_PLACES
                if more > 0:
                    places.append(f"{more} more places")
                fault = f"repeated key, also at {' and '.join(places[:len(entries) - 1])}"
                repeated.append(Problem((*path, name), fault, at_key=True))
        self._problems += repeated
        return result

    def _entries(self, pairs: Any, path: Path) -> dict[str, list[tuple[_Node, _Node]]]:
        """Return the good keys of a mapping, each with every place that it is at and the value there."""
        entries: dict[str, list[tuple[_Node, _Node]]] = {}
        for key, value in pairs:
            fault = _key_fault(key)
            if fault is None:
                entries.setdefault(key.content, []).append((key, value))
                continue
            # A line break in a key would make two lines of a message.
            name = key.content if isinstance(key.content, str) and key.content.isprintable() else "?"
            self._key_positions[(*path, name)] = key.place
            self._problems.append(Problem((*path, name), fault, at_key=True))
        return entries


def _too_many(name: str, place: tuple[int, int], most: int) -> DuctileError:
    return _refusal(name, place, f"expected at most {most:,} values in one file, got more")


def _key_fault(key: _Node) -> str | None:
    if key.tag is not None:
        return f"expected a key without a tag, got {_short(key.tag)}"
    if not isinstance(key.content, str):
        return f"expected a string as key, got {'a mapping' if key.mapping else 'a list'}"
    if not key.content.isprintable():
        return f"expected a key of printable characters, got {key.content!r}"
    if key.plain and key.content == "<<":
        return "expected every key written out, got the merge key '<<'"
    if key.plain and not isinstance(_meaning(key.content), str):
        return f"expected a string as key, got {kind_of(_meaning(key.content))}"
    return None


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _meaning(word: str) -> Any:
    """Return what a word without quotes means; YAML 1.1's `on`, `0755`, `1:30` and dates stay strings."""
    if word in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(word):
        return int(word)
    if _DECIMAL.fullmatch(word):
        return float(word)
    return word
