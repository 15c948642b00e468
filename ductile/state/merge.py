"""A plugin's state: how updates enter it and how large it may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ductile import strictjson

LIMIT_BYTES = 1024 * 1024


def merge(state: Mapping[str, Any], updates: Mapping[str, Any]) -> dict[str, Any]:
    """Return `state` with the top-level keys of `updates` in place of its own; null is a value like others."""
    return {**state, **updates}


def size_bytes(state: Mapping[str, Any]) -> int:
    """Return the bytes of the state as it is stored: compact JSON in ASCII."""
    return len(strictjson.encode(state))


def check_size(state: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the size of `state`, or None where it is within 1 MiB."""
    size = size_bytes(state)
    if size <= LIMIT_BYTES:
        return None
    return f"its state would be {size:,} bytes, at most {LIMIT_BYTES:,} are allowed"
