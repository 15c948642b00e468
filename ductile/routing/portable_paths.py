"""Paths into a workspace in a form that is valid in every job's workspace and survives moving the data directory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import is_
from typing import Any

_SCHEME = "workspace://"
# Ends the name of a directory: nothing that could continue it. A dot that ends a sentence does not continue it.
_END = re.compile(r"/+|(?!\.*[\w~+@%=#-]|\.+/)")
_PARENT = re.compile(r"\.\.(?![\w.~+@%=#-])")


def to_portable(value: Any, workspace_dir: str) -> Any:
    """Return a JSON value with each path into `workspace_dir` as `workspace://relative/path`, in keys and values.

    `workspace_dir` is a real path without a trailing slash. A longer name that only starts with it is left alone.
    """

    def portable(text: str) -> str:
        if workspace_dir not in text:
            return text
        before, *rests = text.split(workspace_dir)
        return before + "".join(_portable(rest, workspace_dir) for rest in rests)

    return _mapped(value, portable)


def _portable(rest: str, workspace_dir: str) -> str:
    """Return the text after a workspace's name, preceded by the scheme, or by the name if that goes on."""
    end = _END.match(rest)
    return f"{workspace_dir}{rest}" if end is None else f"{_SCHEME}{rest[end.end():]}"


def from_portable(value: Any, workspace_dir: str) -> Any:
    """Return a JSON value with each `workspace://relative/path` as that path in `workspace_dir`.

    A path that starts with a slash or contains `..` is left alone.
    """

    def restored(text: str) -> str:
        if _SCHEME not in text:
            return text
        before, *paths = text.split(_SCHEME)
        return before + "".join(_restored(path, workspace_dir) for path in paths)

    return _mapped(value, restored)


def _restored(path: str, workspace_dir: str) -> str:
    """Return the text after a scheme, preceded by the workspace, or by the scheme if it is no clean path."""
    # Names may contain spaces, so the end of the path is unknown: no part of the rest may be `..`.
    if path.startswith("/") or any(_PARENT.match(part) for part in path.split("/")):
        return f"{_SCHEME}{path}"
    return f"{workspace_dir}/{path}" if path else workspace_dir


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value with each string changed. Parts without a change are not copied."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        mapped = {change(key): _mapped(item, change) for key, item in value.items()}
        same = len(mapped) == len(value) and all(
            key is other and item is value[key] for (key, item), other in zip(mapped.items(), value, strict=True))
        return value if same else mapped
    if isinstance(value, list):
        items = [_mapped(item, change) for item in value]
        return value if all(map(is_, items, value)) else items
    return value
