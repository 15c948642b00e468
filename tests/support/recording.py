"""Mappings that note which keys are asked for: what a reader knows, found by having it read."""

from __future__ import annotations

from typing import Any


class Recorder(dict):
    """A mapping like any other, with the keys that `get` was asked for in `asked`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: set[str] = set()

    @classmethod
    def of(cls, value: Any) -> Any:
        """Return a copy of a document in which every mapping is one of these."""
        if isinstance(value, dict):
            return cls({key: cls.of(item) for key, item in value.items()})
        return [cls.of(item) for item in value] if isinstance(value, list) else value

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)
