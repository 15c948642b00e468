"""The wall clock and the monotonic clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Time as an argument, so that a test can hold it still."""

    def now(self) -> datetime:
        """Return the wall clock time, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences are meaningful."""


class SystemClock:
    """The clocks of the system."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
