"""A clock that stands still until it is told to move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 2, 8, 10, tzinfo=UTC)    # a Sunday


class FakeClock:
    """Wall clock and monotonic clock; time passes for both, only the wall clock can be set."""

    def __init__(self, wall: datetime = START) -> None:
        self._wall = wall
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self._wall += timedelta(seconds=seconds)
        self._monotonic += seconds

    def set(self, wall: datetime) -> None:
        """Set the wall clock, forward or back; no time passes by it."""
        self._wall = wall
