"""HTML in which every value from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ductile.text import one_line


class Markup(str):
    """HTML that is complete as it is. Every other string is escaped when it is filled in."""

    __slots__ = ()


EMPTY = Markup("")


def fill(template: str, /, **values: object) -> Markup:
    """Return a template with its `{name}` fields replaced, each escaped and on one line unless it is Markup."""
    return Markup(template.format(**{name: value if isinstance(value, Markup) else escape(one_line(str(value)))
                                     for name, value in values.items()}))


def joined(parts: Iterable[Markup]) -> Markup:
    """Return several pieces of HTML as one."""
    return Markup("".join(parts))


def lines(text: str) -> Markup:
    """Return a text of many lines escaped, its lines kept."""
    return Markup("\n".join(escape(one_line(line)) if line.strip() else "" for line in text.splitlines()))
