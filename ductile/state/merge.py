"""Merges updates into a plugin's state and checks its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ductile import strictjson

LIMIT_BYTES = 1024 * 1024


def merge(state: Mapping[str, Any], updates: Mapping[str, Any]) -> dict[str, Any]:
    """Return `state` with the top-level keys of `updates` replaced. Null is an ordinary value."""
    return {**state, **updates}


def size_bytes(state: Mapping[str, Any]) -> int:
    """Return the size of a stored state: compact JSON in ASCII."""
    return len(strictjson.encode(state))


def check_size(state: Mapping[str, Any]) -> str | None:
    """Return an error if `state` is larger than LIMIT_BYTES, else None."""
    size = size_bytes(state)
    if size <= LIMIT_BYTES:
        return None
    return f"its state would be {size:,} bytes, at most {LIMIT_BYTES:,} are allowed"
