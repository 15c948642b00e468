"""Templates: strings with the names of values in braces, as `with` in a step and the settings of plugins hold them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ductile.strictjson import is_longer
from ductile.text import one_line
from ductile.validation import Path, Problem, dotted

# The plugins' library has the same language; both are tested with the same cases.
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_ALONE = re.compile(r"\{([^{}]*)\}")
_INDEX = re.compile("[0-9]{1,9}")
# All strings together. A few lines could ask for the same large value thousands of times.
RENDERED_LIMIT = 1024 * 1024
_NAME_SHOWN = 60


class Unrenderable(ValueError):
    """A template cannot be rendered; the text says where and why."""


def faults(template: Any, path: Path) -> Iterator[Problem]:
    """Yield what is wrong with a template, for each string in it. `path` is its own."""
    if isinstance(template, Mapping):
        for key, value in template.items():
            yield from faults(value, (*path, key))
    elif isinstance(template, list):
        for index, value in enumerate(template):
            yield from faults(value, (*path, index))
    elif isinstance(template, str):
        for part in _PART.finditer(template):
            if len(part[0]) == 1:
                text = f"a lone {part[0]} at character {part.start() + 1}; write {part[0] * 2} for a brace"
                yield Problem(path, text)
            elif part[1] is not None and not _name(part[1])[0]:
                yield Problem(path, "a placeholder without a name; write {{ and }} for braces")


def render(template: Mapping[str, Any], payload: Any, context: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a template, which is without `faults`, with a value for each placeholder in its strings.

    `{a.b.0}` is looked up in `payload`, then in `context`; `{a?}` is empty if there is none; `{{` and `}}` are braces.
    A string that is one placeholder keeps the type of its value; in a longer one null is empty, and a number, list or
    mapping is JSON. Raises Unrenderable for a missing name, and for more than RENDERED_LIMIT.
    """
    rendering = _Rendering((payload, context))
    rendered = {key: rendering.value(value, (*path, key)) for key, value in template.items()}
    # Values that are not in a longer string count once they are encoded.
    if is_longer(rendered, RENDERED_LIMIT):
        raise _too_long(path)
    return rendered


class _Rendering:
    """One rendering; `left` is what is left of its limit, in characters."""

    def __init__(self, sources: tuple[Any, ...]) -> None:
        self._sources = sources
        self._left = RENDERED_LIMIT

    def value(self, template: Any, path: Path) -> Any:
        if isinstance(template, Mapping):
            return {key: self.value(each, (*path, key)) for key, each in template.items()}
        if isinstance(template, list):
            return [self.value(each, (*path, index)) for index, each in enumerate(template)]
        if not isinstance(template, str):
            return template
        alone = _ALONE.fullmatch(template)
        return self._find(alone[1], path) if alone else _PART.sub(lambda part: self._part(part, path), template)

    def _part(self, part: re.Match[str], path: Path) -> str:
        text = part[0][0] if part[1] is None else _as_text(self._find(part[1], path))
        self._left -= len(text)
        if self._left < 0:
            raise _too_long(path)
        return text

    def _find(self, placeholder: str, path: Path) -> Any:
        name, is_optional = _name(placeholder)
        for source in self._sources:
            try:
                return _at(source, name)
            except LookupError:
                continue
        if is_optional:
            return ""
        raise Unrenderable(f"{dotted(path)}: no '{one_line(name, _NAME_SHOWN)}' in the payload or the context")


def _name(placeholder: str) -> tuple[str, bool]:
    """Return the name in a placeholder, and whether it may be missing."""
    name = placeholder.strip()
    return name.removesuffix("?").rstrip(), name.endswith("?")


def _at(value: Any, name: str) -> Any:
    for part in name.split("."):
        if isinstance(value, Mapping):
            value = value[part]
        elif isinstance(value, list) and _INDEX.fullmatch(part):
            value = value[int(part)]
        else:
            raise LookupError(name)
    return value


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _too_long(path: Path) -> Unrenderable:
    return Unrenderable(f"{dotted(path)}: more than {RENDERED_LIMIT:,} bytes")
