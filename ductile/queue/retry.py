"""When a failed attempt is tried again."""

from __future__ import annotations

from ductile.injected import Chance

# 2^30 seconds are 34 years. A larger exponent makes no difference and could overflow a float.
_MOST_DOUBLINGS = 30


def delay(attempt: int, *, base: int, most: int, rng: Chance) -> float:
    """Return the seconds between failed attempt `attempt` (from 1) and the next one.

    This is `base * 2^(attempt - 1) + random(0, base)`, at most `most`. `base` and `most` are in seconds.
    """
    doublings: int = min(attempt - 1, _MOST_DOUBLINGS)
    factor: int = 2**doublings
    return min(base * factor + rng.uniform(0, base), most)


def longest_delay(base: int, most: int) -> int:
    """Return the largest delay, in seconds, that `delay` returns for any attempt."""
    return most if base else 0
