"""Paths into a workspace, written so that they hold in every job's own, wherever the data directory lies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import is_
from typing import Any

_SCHEME = "workspace://"
# What follows the name of a directory, and not what names another one beside it; a dot that ends a sentence names none.
_END = re.compile(r"/+|(?!\.*[\w~+@%=#-]|\.+/)")
_PARENT = re.compile(r"\.\.(?![\w.~+@%=#-])")


def to_portable(value: Any, workspace_dir: str) -> Any:
    """Return a JSON value with each path into `workspace_dir` as `workspace://relative/path`, in keys and values.

    `workspace_dir` is a real path without a slash at its end. A longer name that only begins with it stays.
    """

    def portable(text: str) -> str:
        if workspace_dir not in text:
            return text
        before, *rests = text.split(workspace_dir)
        return before + "".join(_portable(rest, workspace_dir) for rest in rests)

    return _mapped(value, portable)


def _portable(rest: str, workspace_dir: str) -> str:
    """Return the text after a workspace's name with a scheme in the place of that, or with the name itself."""
    end = _END.match(rest)
    return f"{workspace_dir}{rest}" if end is None else f"{_SCHEME}{rest[end.end():]}"


def from_portable(value: Any, workspace_dir: str) -> Any:
    """Return a JSON value with each `workspace://relative/path` as that path in `workspace_dir`.

    What is not a clean relative path stays as it is: one that begins with a slash, or with `..` in it.
    """

    def restored(text: str) -> str:
        if _SCHEME not in text:
            return text
        before, *paths = text.split(_SCHEME)
        return before + "".join(_restored(path, workspace_dir) for path in paths)

    return _mapped(value, restored)


def _restored(path: str, workspace_dir: str) -> str:
    """Return the text after a scheme with its place, and the scheme itself where it has none."""
    # A name may hold a space, so that where the path ends cannot be told: no part of all that follows may be `..`.
    if path.startswith("/") or any(_PARENT.match(part) for part in path.split("/")):
        return f"{_SCHEME}{path}"
    return f"{workspace_dir}/{path}" if path else workspace_dir


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value with each string changed. What has none that changes is returned as it is: answers may be large."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        mapped = {change(key): _mapped(item, change) for key, item in value.items()}
        same = all(key is other and item is value[key] for (key, item), other in zip(mapped.items(), value))
        return value if same and len(mapped) == len(value) else mapped
    if isinstance(value, list):
        items = [_mapped(item, change) for item in value]
        return value if all(map(is_, items, value)) else items
    return value
