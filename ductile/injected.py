"""Chance as an argument, so that a test can hold it still."""

from __future__ import annotations

from typing import Protocol


class Chance(Protocol):
    """The part of `random.Random` that is needed."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number from `a` to `b`."""


class NewId(Protocol):
    """A factory of ids, each a UUID as text."""

    def __call__(self) -> str:
        """Return an id that was never given before."""
