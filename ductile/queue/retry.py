"""When a failed attempt is tried again."""

from __future__ import annotations

from ductile.injected import Chance

# 2^30 times a second is 34 years: past it the exponent makes no difference, and no float overflows.
_MOST_DOUBLINGS = 30


def delay(attempt: int, *, base: int, most: int, rng: Chance) -> float:
    """Return the seconds between failed attempt `attempt` (from 1) and the next one.

    `base * 2^(attempt - 1) + random(0, base)`, at most `most`; `base` and `most` in seconds.
    """
    doublings = min(attempt - 1, _MOST_DOUBLINGS)
    return min(base * 2**doublings + rng.uniform(0, base), most)


def longest_delay(base: int, most: int) -> int:
    """Return the largest delay, in seconds, that `delay` can give for any attempt."""
    return most if base else 0
