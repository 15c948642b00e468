"""Randomness as an argument, so that a test can fix it."""

from __future__ import annotations

from typing import Protocol


class Chance(Protocol):
    """The part of `random.Random` that is used."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number from `a` to `b`."""


class NoChance:
    """A `Chance` without chance: it returns what is nearest to zero, so that nothing is moved."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, min(0.0, b))


class NewId(Protocol):
    """A factory of ids, each a UUID string."""

    def __call__(self) -> str:
        """Return a new unique id."""
