"""Paths into a workspace: written without it, given back in another."""

from __future__ import annotations

from typing import Any

import pytest

from ductile.routing.portable_paths import from_portable, to_portable

HERE = "/var/lib/ductile/ws/one"
THERE = "/srv/moved/ws/two"


@pytest.mark.parametrize(("text", "stored"), [
    (f"{HERE}/a.txt", "workspace://a.txt"),
    (f"{HERE}/dir/a b.txt", "workspace://dir/a b.txt"),
    (f"{HERE}//a.txt", "workspace://a.txt"),
    (HERE, "workspace://"),
    (f"{HERE}/", "workspace://"),
    (f"cannot open '{HERE}/a.txt': gone", "cannot open 'workspace://a.txt': gone"),
    (f"{HERE}: not empty", "workspace://: not empty"),
    (f"{HERE}/a:{HERE}/b", "workspace://a:workspace://b"),
    (f"file://{HERE}/a", "file://workspace://a"),
    (f"{HERE}2/a.txt", f"{HERE}2/a.txt"),
    (f"{HERE}.old", f"{HERE}.old"),
    (f"{HERE}-b", f"{HERE}-b"),
    (f"{HERE}./a", f"{HERE}./a"),
    (f"{HERE}.-b", f"{HERE}.-b"),
    (f"It is in {HERE}.", "It is in workspace://."),
    (f"look in {HERE}... or not", "look in workspace://... or not"),
    (f"{HERE}é", f"{HERE}é"),
    *[(f"{HERE}{mark}/a", f"{HERE}{mark}/a") for mark in ("~", "+x", "@x", "%20", "=1", "#2", ".~1~")],
    ("/var/lib/ductile/ws/other/a", "/var/lib/ductile/ws/other/a"),
    ("", ""),
])
def test_a_path_into_the_workspace_is_written_without_it(text: str, stored: str) -> None:
    assert to_portable(text, HERE) == stored


@pytest.mark.parametrize(("stored", "given"), [
    ("workspace://a.txt", f"{THERE}/a.txt"),
    ("workspace://dir/a b.txt", f"{THERE}/dir/a b.txt"),
    ("workspace://", THERE),
    ("workspace://(draft).txt", f"{THERE}/(draft).txt"),
    ("workspace://..a/b..", f"{THERE}/..a/b.."),
    ("workspace://..~/a", f"{THERE}/..~/a"),
    ("workspace://a:workspace://b", f"{THERE}/a:{THERE}/b"),
    ("see workspace://a.txt, please", f"see {THERE}/a.txt, please"),
    ("workspace:/a", "workspace:/a"),
])
def test_it_is_given_to_the_next_job_as_a_path_in_its_own(stored: str, given: str) -> None:
    assert from_portable(stored, THERE) == given


@pytest.mark.parametrize("stored", [
    "workspace:///etc/passwd", "workspace://..", "workspace://../two/a", "workspace://a/../../../etc/passwd",
    "workspace://my file/../../x", "workspace://a/.. and so on", "workspace://a\n/../b",
])
def test_a_path_that_is_not_clean_stays_as_it_is(stored: str) -> None:
    assert from_portable(stored, THERE) == stored


def test_one_unclean_path_keeps_no_other_from_its_place() -> None:
    assert from_portable("workspace://a workspace://../b", THERE) == f"{THERE}/a workspace://../b"


@pytest.mark.parametrize("value", [None, True, 7, 1.5, [], {}])
def test_what_is_no_text_stays(value: Any) -> None:
    assert to_portable(value, HERE) == value
    assert from_portable(value, THERE) == value


def test_keys_and_values_at_every_depth_are_moved() -> None:
    value = {"files": [{f"{HERE}/k": f"{HERE}/v", "n": 1}], "note": f"in {HERE}/v"}
    stored = {"files": [{"workspace://k": "workspace://v", "n": 1}], "note": "in workspace://v"}
    assert to_portable(value, HERE) == stored
    assert from_portable(stored, THERE) == {"files": [{f"{THERE}/k": f"{THERE}/v", "n": 1}], "note": f"in {THERE}/v"}


def test_a_root_with_signs_that_patterns_know_is_taken_as_it_is() -> None:
    root = "/data (1)/w+s/[x]"
    assert to_portable(f"{root}/a", root) == "workspace://a"
    assert from_portable("workspace://a", root + r"\1") == root + r"\1/a"


def test_what_names_no_path_is_not_copied() -> None:
    value = {"a": [1, "text", {"b": ["/ws/other"]}], "c": [f"{HERE}/x"]}
    moved = to_portable(value, HERE)
    assert moved["a"] is value["a"]
    assert (moved["c"], value["c"]) == (["workspace://x"], [f"{HERE}/x"])
