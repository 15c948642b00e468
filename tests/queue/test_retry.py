from __future__ import annotations

from random import Random

import pytest

from ductile.queue.retry import delay, longest_delay


class Fixed:
    """Chance that always falls on the same part of the range."""

    def __init__(self, part: float) -> None:
        self.part = part

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.part


@pytest.mark.parametrize(("attempt", "part", "expected"), [
    (1, 0, 30), (1, 0.5, 45), (1, 1, 60),
    (2, 0, 60), (2, 1, 90),
    (3, 0, 120), (3, 0.5, 135),
    (4, 0, 240),
    (7, 0, 1920), (7, 1, 1950),
    (8, 0, 3600), (8, 1, 3600),
    (100, 0.5, 3600), (5000, 1, 3600),
])
def test_the_delay_doubles_up_to_the_most(attempt: int, part: float, expected: float) -> None:
    assert delay(attempt, base=30, most=3600, rng=Fixed(part)) == expected


@pytest.mark.parametrize(("base", "most"), [(30, 3600), (1, 10), (7200, 3600), (0, 3600)])
def test_no_delay_is_longer_than_the_longest(base: int, most: int) -> None:
    rng = Random(0)
    delays = [delay(attempt, base=base, most=most, rng=rng) for attempt in range(1, 101)]
    assert max(delays) == longest_delay(base, most)
    assert min(delays) >= min(base, most)
