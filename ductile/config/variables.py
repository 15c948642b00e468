"""`${NAME}` in values: replacing it, and keeping what replaced it out of every message."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ductile.validation import Path, Problem, nearest

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
# No variable is replaced in pipelines, as in files of their own: their definitions are stored.
_UNTOUCHED: Path = ("pipelines",)
# Characters.
_SHORTEST_TELLING = 4
_WHOLE = re.compile(r"\$\{(" + _NAME + r")\}")
# Either an escaped brace, a variable, or a brace that opens neither.
_REFERENCE = re.compile(r"(?P<escaped>\$\$\{)|\$\{(?P<name>" + _NAME + r")\}|(?P<broken>\$\{[^}]*\}?)")


def resolve(value: Any, variables: Mapping[str, str]) -> tuple[Any, list[Problem], list[Problem]]:
    """Return a copy of `value` with the variables in its strings replaced, what is wrong, and what is unset.

    Keys are never touched. A text that names an unset variable stays as written, apart from its escapes.
    """
    resolver = _Resolver(variables)
    return resolver.value(value, ()), resolver.faults, resolver.unset


def is_variable(text: Any) -> bool:
    """Say whether an authored value is exactly one `${NAME}`."""
    return isinstance(text, str) and _WHOLE.fullmatch(text) is not None


def holds_variable(text: Any) -> bool:
    """Say whether an authored value is a text with at least one `${NAME}` in it."""
    return isinstance(text, str) and any(match["name"] for match in _REFERENCE.finditer(text))


def references(document: Any) -> Iterator[tuple[Path, str]]:
    """Yield each place in an authored document that names a variable, with the variable's name."""
    left: list[tuple[Path, Any]] = [((), document)]
    while left:
        path, value = left.pop()
        if path == _UNTOUCHED:
            continue
        if isinstance(value, dict):
            left += (((*path, key), item) for key, item in value.items())
        elif isinstance(value, list):
            left += (((*path, index), item) for index, item in enumerate(value))
        elif isinstance(value, str) and "${" in value:
            yield from ((path, match["name"]) for match in _REFERENCE.finditer(value) if match["name"])


def without_value_of(names: Iterable[str], variables: Mapping[str, str], text: str) -> str:
    """Return a text with `${NAME}` in place of the value of each of these variables.

    Of a value of one to three characters any text may hold some by chance, which tells nothing.
    """
    values = {variables[name]: name for name in names if len(variables.get(name, "")) >= _SHORTEST_TELLING}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, f"${{{values[value]}}}")
    return text


def without_values(problem: Problem, authored: Any) -> Problem:
    """Return the problem as it may be shown: with the authored text in place of a value that a variable gave.

    `authored` is the document before `resolve`. What a message quotes comes after ", got ".
    """
    text = at(authored, problem.path)
    if problem.at_key or not holds_variable(text):
        return problem
    expected, _, quoted = problem.text.partition(", got ")
    return dataclasses.replace(problem, text=f"{expected}, got the value of {text!r}") if quoted else problem


def at(document: Any, path: Path) -> Any:
    """Return what is at `path` in a document, None if there is nothing."""
    for part in path:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return None
    return document


class _Resolver:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self.faults: list[Problem] = []
        self.unset: list[Problem] = []
        self._variables = variables

    def value(self, value: Any, path: Path) -> Any:
        if path == _UNTOUCHED:
            return value
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, list):
            return [self.value(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.value(item, (*path, key)) for key, item in value.items()}
        return value

    def _text(self, text: str, path: Path) -> str:
        return _REFERENCE.sub(lambda match: self._replacement(match, path), text)

    def _replacement(self, match: re.Match[str], path: Path) -> str:
        if match["escaped"]:
            return "${"
        if match["broken"]:
            expected = "expected a variable such as ${NAME}, or $${ for a plain ${"
            self.faults.append(Problem(path, f"{expected}, got {match[0]!r}"))
            return match[0]
        name = match["name"]
        if name not in self._variables:
            self.unset.append(Problem(path, f"the variable {name} is not set{nearest(name, self._variables)}"))
            return match[0]
        value = self._variables[name]
        if not _is_utf8(value):
            self.faults.append(Problem(path, f"expected UTF-8 in the variable {name}"))
            return match[0]
        return value


def _is_utf8(text: str) -> bool:
    # An undecodable byte of the environment is a lone surrogate in Python's text.
    return not any("\ud800" <= character <= "\udfff" for character in text)
