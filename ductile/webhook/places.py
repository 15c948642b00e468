"""Finds the value at a place of a request: in a header, the query, a form or the JSON of the body."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from ductile.config.model import RequestPlace
from ductile.webhook.http_head import Head
from ductile.webhook.request import Content

_MOST_FIELDS = 1000


def find(place: RequestPlace, head: Head, content: Content) -> str | None:
    """Return the string at a place; None if it is not there, empty, or there more than once.

    A JSON value may also be a whole number. `[]` in the path of a JSON value means every element of a list: their
    values are joined with blanks.
    """
    match place.kind:
        case "header":
            return head.single(place.name.lower()) or None
        case "query":
            return _only(_query(head.query), place.name)
        case "form":
            value = (content.form or {}).get(place.name)
            return value if isinstance(value, str) and value else None
        case "json":
            return _json_text(content.json, place.name)
        case _:
            return None


def _query(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        return []


def _only(pairs: list[tuple[str, str]], name: str) -> str | None:
    values = [value for each, value in pairs if each == name]
    return values[0] or None if len(values) == 1 else None


def _json_text(document: Any, path: str) -> str | None:
    found = _follow(document, path.split("."))
    texts = [str(value) if isinstance(value, int) and not isinstance(value, bool) else value for value in found]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        return None
    return " ".join(texts)


def _follow(value: Any, steps: list[str]) -> list[Any]:
    """Return the values at the end of a path, with None for each that is missing."""
    if not steps:
        return [value]
    name, is_list = steps[0].removesuffix("[]"), steps[0].endswith("[]")
    if name:
        value = value.get(name) if isinstance(value, dict) else None
    if not is_list:
        return _follow(value, steps[1:])
    if not isinstance(value, list):
        return []
    return [found for item in value for found in _follow(item, steps[1:])]
