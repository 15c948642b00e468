from __future__ import annotations

from typing import Any

import pytest

from ductile.state.merge import LIMIT_BYTES, check_size, merge, size_bytes


@pytest.mark.parametrize(("state", "updates", "expected"), [
    ({}, {}, {}),
    ({"a": 1}, {}, {"a": 1}),
    ({}, {"a": 1}, {"a": 1}),
    ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
    ({"a": {"x": 1, "y": 2}}, {"a": {"x": 3}}, {"a": {"x": 3}}),
    ({"a": 1}, {"a": None}, {"a": None}),
])
def test_updates_replace_whole_keys(state: dict[str, Any], updates: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merge(state, updates) == expected


def test_merging_leaves_what_it_was_given_alone() -> None:
    state, updates = {"a": 1}, {"a": 2, "b": 3}
    merge(state, updates)["c"] = 4
    assert (state, updates) == ({"a": 1}, {"a": 2, "b": 3})


@pytest.mark.parametrize(("state", "size"), [({}, 2), ({"a": [1, 2]}, 11), ({"a": "\u00e9"}, 14)])
def test_the_size_is_that_of_the_stored_text(state: dict[str, Any], size: int) -> None:
    assert size_bytes(state) == size


def test_a_state_of_one_mebibyte_is_allowed_and_one_byte_more_is_not() -> None:
    largest = {"a": "x" * (LIMIT_BYTES - 8)}
    assert size_bytes(largest) == LIMIT_BYTES
    assert check_size(largest) is None
    assert check_size(merge(largest, {"a": largest["a"] + "x"})) == (
        "its state would be 1,048,577 bytes, at most 1,048,576 are allowed")
