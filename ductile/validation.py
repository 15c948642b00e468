"""Problems in what the operator wrote, and a reader of mappings that collects them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")
Path = tuple[str | int, ...]

# How similar two names must be, from 0 to 1, for a hint. The comparison takes time that grows with their length and
# number.
_CLOSE = 0.7
_LONGEST_NAME = 100
# After so many problems nobody needs more hints.
MOST_HINTS = 100
_MOST_NAMES = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a document; `path` consists of keys and list indexes."""

    path: Path
    text: str
    at_key: bool = False    # the key itself is wrong, not its value

    def __str__(self) -> str:
        place = dotted(self.path)
        return f"{place}: {self.text}" if place else self.text


def dotted(path: Path) -> str:
    """Return a path as the operator reads it: `plugins.echo.schedule[0].every`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name closest to `name`, or an empty string."""
    close = closest(name, known)
    return f" (did you mean {close!r}?)" if close is not None else ""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None: a wrong hint is worse than none.

    Case does not matter, and `-`, `_` and a space are the same.
    """
    if len(name) > _LONGEST_NAME:
        return None
    spelt = {_plain(each): each for each in islice(known, _MOST_NAMES) if len(each) <= _LONGEST_NAME}
    longer = [each for each in spelt if each.startswith(f"{_plain(name)}_")]
    if len(longer) == 1:
        return spelt[longer[0]]
    close = difflib.get_close_matches(_plain(name), spelt, n=1, cutoff=_CLOSE)
    return spelt[close[0]] if close else None


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")


def kind_of(value: Any) -> str:
    """Return a YAML or JSON value as messages name it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return repr(value)


class Section:
    """A mapping being read key by key; every problem goes to one shared list and reading goes on.

    An accessor returns its default if the key is absent or its value is wrong. `finish` reports the keys that no
    accessor has asked for.
    """

    def __init__(self, value: Any, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self._asked: list[str] = []
        self._mapping: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            self._mapping = value
        elif value is not None:
            self.wrong(None, f"expected a mapping, got {kind_of(value)}")

    def wrong(self, key: str | int | None, text: str) -> None:
        """Record a problem with the value of `key`, or with the section itself."""
        self.problems.append(Problem(self.path if key is None else (*self.path, key), text))

    def has(self, key: str) -> bool:
        """Return whether the key has a value other than null, and make it a known key."""
        self._asked.append(key)
        return self._mapping.get(key) is not None

    def raw(self, key: str, default: Any = None) -> Any:
        """Return the value unchanged."""
        return self._mapping[key] if self.has(key) else default

    def section(self, key: str) -> Section:
        """Return the mapping under `key` as a section, empty if absent."""
        return Section(self.raw(key), (*self.path, key), self.problems)

    def read(self, key: str, default: T, parse: Callable[[Any], T]) -> T:
        """Return `parse(value)`; a ValueError from it becomes a problem with its text."""
        if not self.has(key):
            return default
        try:
            return parse(self._mapping[key])
        except ValueError as error:
            self.wrong(key, str(error))
            return default

    def text(self, key: str, default: str = "") -> str:
        return self.read(key, default, as_text)

    def boolean(self, key: str, default: bool) -> bool:
        return self.read(key, default, as_boolean)

    def integer(self, key: str, default: int, *, least: int, most: int) -> int:
        return self.read(key, default, lambda value: as_integer(value, least=least, most=most))

    def choice(self, key: str, default: str, choices: Iterable[str]) -> str:
        return self.read(key, default, lambda value: as_choice(value, tuple(choices)))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings as a tuple; each wrong item is a problem of its own."""
        value = self.raw(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.wrong(key, f"expected a list, got {kind_of(value)}")
            return ()
        items = []
        for index, item in enumerate(value):
            if isinstance(item, str) and item:
                items.append(item)
            else:
                self.problems.append(Problem((*self.path, key, index), f"expected a string, got {kind_of(item)}"))
        return tuple(items)

    def require(self, *keys: str) -> None:
        """Report each of `keys` that is absent."""
        for key in keys:
            if not self.has(key):
                self.wrong(None, f"the key {key!r} is missing")

    def __contains__(self, key: str) -> bool:
        """Return whether the key is present, even with null, without making it a known one."""
        return key in self._mapping

    def value(self, key: str) -> Any:
        """Return the value of a key, or None, without making the key a known one."""
        return self._mapping.get(key)

    def written_keys(self) -> tuple[str, ...]:
        """Return the keys in the order they were written."""
        return tuple(self._mapping)

    def finish(self, misnamed: Mapping[str, str] = MappingProxyType({})) -> None:
        """Report every key that no accessor has asked for, with the nearest one that exists.

        `misnamed` has hints for keys of other programs.
        """
        known = dict.fromkeys(self._asked)
        for key in self._mapping:
            if key in known:
                continue
            hint = f"; {misnamed[key]}" if key in misnamed else ""
            if not hint and len(self.problems) < MOST_HINTS:
                hint = nearest(str(key), known)
            self.problems.append(Problem((*self.path, key), f"unknown key{hint}", at_key=True))


def as_text(value: Any) -> str:
    """Return a string that is not empty. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {kind_of(value)}")
    if not value:
        raise ValueError("expected a string, got an empty string")
    if "\0" in value:
        raise ValueError("a string must not contain a NUL character")
    return value


def as_boolean(value: Any) -> bool:
    """Return a boolean. Raises ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {kind_of(value)}")
    return value


def as_integer(value: Any, *, least: int, most: int) -> int:
    """Return a whole number from `least` to `most`. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {kind_of(value)}")
    if not least <= value <= most:
        raise ValueError(f"expected a number from {least} to {most}, got {value}")
    return value


def as_choice(value: Any, choices: tuple[str, ...]) -> str:
    """Return one of `choices`. Raises ValueError, naming the nearest."""
    if value not in choices or not isinstance(value, str):
        hint = nearest(str(value), choices)
        raise ValueError(f"expected one of {', '.join(choices)}, got {kind_of(value)}{hint}")
    return value
