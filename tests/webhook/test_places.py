from __future__ import annotations

import pytest

from ductile.config.webhooks import as_place
from ductile.webhook.http_head import Head
from ductile.webhook.places import find
from ductile.webhook.request import Content

JSON = {"id": "a", "n": 7, "t": True, "f": 1.5, "e": "", "in": {"id": "b"}, "events": [{"id": "c"}, {"id": 8}],
        "gaps": [{"id": "c"}, {}], "none": []}


@pytest.mark.parametrize(("path", "value"), [
    ("id", "a"), ("n", "7"), ("in.id", "b"), ("events[].id", "c 8"), ("t", None), ("f", None), ("e", None),
    ("in", None), ("missing", None), ("id.x", None), ("gaps[].id", None), ("none[].id", None), ("in[].id", None),
])
def test_a_json_place_is_a_path_to_strings_and_whole_numbers(path: str, value: str | None) -> None:
    assert found(f"json:{path}", Content(payload=JSON, json=JSON)) == value


def test_a_list_may_be_the_whole_document() -> None:
    assert found("json:[].id", Content(payload={}, json=[{"id": 1}, {"id": 2}])) == "1 2"


def test_headers_and_fields_of_a_form_count_where_they_are_there_once() -> None:
    content = Content(payload={}, form={"a": "1", "b": ["1", "2"], "c": ""})
    assert [found(f"form:{name}", content) for name in "abcd"] == ["1", None, None, None]
    assert [found(name, content) for name in ("x-one", "X-TWO", "X-None")] == ["1", None, None]


def found(place: str, content: Content) -> str | None:
    head = Head(method="POST", path="/", query="", version="HTTP/1.1",
                headers=(("X-One", "1"), ("X-Two", "1"), ("x-two", "2")))
    return find(as_place(place), head, content)
