"""Single values of the configuration: durations, sizes, names and paths within bounds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ductile import units
from ductile.config import misnamed
from ductile.protocol import reserved_prefix
from ductile.validation import Path as Place
from ductile.validation import Problem, Section, as_text, kind_of

T = TypeVar("T")

# A hundred years: everything that is compared with a date stays within the calendar.
LONGEST = "36500d"

# PATH_MAX of Linux, the NUL at the end included.
_PATH_BYTES = 4096

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A token of RFC 9110, section 5.6.2.
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def as_duration(value: Any, *, least: int) -> int:
    """Return the seconds of a duration from `least` to a hundred years. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"expected a duration such as 30s, got {kind_of(value)}")
    try:
        seconds = units.parse_duration(value)
    except ValueError as error:
        short = misnamed.duration(value)
        raise ValueError(f"{error} (write {short})" if short else str(error)) from None
    if not least <= seconds <= units.parse_duration(LONGEST):
        raise ValueError(f"expected a duration from {units.format_duration(least)} to {LONGEST}, got {value!r}")
    return seconds


def as_size(value: Any, *, least: int, most: str) -> int:
    """Return the bytes of a size from `least` to the size `most`. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"expected a size such as 512KB or 1MB, got {kind_of(value)}")
    size = units.parse_size(value)
    if not least <= size <= units.parse_size(most):
        raise ValueError(f"expected a size from {least}B to {most}, got {value!r}")
    return size


def as_name(value: Any) -> str:
    """Return the name of a plugin, a command, a schedule, a pipeline or a step. Raises ValueError."""
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        expected = "expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit"
        raise ValueError(f"{expected}, got {kind_of(value)}")
    return value


def as_plugins_event(value: Any) -> str:
    """Return the type of an event that a plugin or somebody outside can give. Raises ValueError."""
    text = as_text(value)
    reserved = reserved_prefix(text)
    if reserved is not None:
        raise ValueError(f"expected a type that does not start with {reserved!r}, as the core's own events do, got"
                         f" {text!r}")
    return text


def as_variable(value: Any) -> str:
    """Return the name of an environment variable. Raises ValueError."""
    text = as_text(value)
    if not _VARIABLE.fullmatch(text):
        raise ValueError(f"expected the name of an environment variable, got {text!r}")
    return text


def as_header(value: Any) -> str:
    """Return the name of an HTTP header. Raises ValueError."""
    text = as_text(value)
    if not _HEADER.fullmatch(text):
        raise ValueError(f"expected the name of an HTTP header, got {text!r}")
    return text


def as_path(value: Any, base: Path) -> Path:
    """Return a path of the file system, a relative one from `base`, with `~` and `~user` expanded.

    Raises ValueError.
    """
    text = as_text(value)
    if len(text.encode("utf-8", "surrogateescape")) >= _PATH_BYTES:
        raise ValueError(f"expected a path of fewer than {_PATH_BYTES} bytes, got a longer one")
    if not text.startswith("~"):
        return base / text
    try:
        return base / Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise ValueError(f"expected a user with a home directory after '~', got {user!r}; a file whose name begins with"
                         f" '~' is ./{user}") from None


def as_file_path(value: Any, base: Path) -> Path:
    """Return a path as `as_path` does that can be one of a file. Raises ValueError."""
    path = as_path(value, base)
    if not path.name or path.name == ".." or value.endswith("/"):
        raise ValueError(f"expected the path of a file, got {value!r}, which is a directory")
    return path


def sections(parent: Section, key: str) -> list[Section]:
    """Return the mappings in the list under `key`; what is no list, or no mapping in it, is a problem."""
    value = parent.raw(key, [])
    if not isinstance(value, list):
        parent.wrong(key, f"expected a list, got {kind_of(value)}")
        return []
    result = []
    for index, item in enumerate(value):
        path = (*parent.path, key, index)
        if isinstance(item, dict):
            result.append(Section(item, path, parent.problems))
        else:
            parent.problems.append(Problem(path, f"expected a mapping, got {kind_of(item)}"))
    return result


def texts(parent: Section, key: str, parse: Callable[[Any], T]) -> dict[Place, T]:
    """Return the items of the list under `key` as `parse` reads them, by their places; each wrong one is a problem."""
    value = parent.raw(key, [])
    if not isinstance(value, list):
        parent.wrong(key, f"expected a list, got {kind_of(value)}")
        return {}
    items = {}
    for index, item in enumerate(value):
        place = (*parent.path, key, index)
        try:
            items[place] = parse(item)
        except ValueError as error:
            parent.problems.append(Problem(place, str(error)))
    return items
