"""Circuit breakers: closed, open after several failures in a row, half-open while one probe runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ductile.protocol import BREAKER_CLOSED, BREAKER_OPENED

State = Literal["closed", "open", "half_open"]
Action = Literal["allow", "probe", "block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The breaker of one plugin and command: its permanently failed jobs in a row, and when it last opened."""

    state: State
    failure_count: int
    opened_at: datetime | None


CLOSED = Breaker(state="closed", failure_count=0, opened_at=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Whether a scheduled run may be enqueued.

    `allow`: it may. `probe`: it may, alone, and the breaker becomes half-open. `block`: it stays due until `until`, or
    until the running probe has ended for None.
    """

    action: Action
    until: datetime | None = None


_ALLOW = Gate(action="allow")
_PROBE = Gate(action="probe")
_BLOCKED_BY_PROBE = Gate(action="block")


def breaker_after(breaker: Breaker, succeeded: bool, threshold: int, now: datetime) -> Breaker:
    """Return the breaker after a scheduled job has succeeded or failed permanently.

    Jobs that were cancelled, or whose plugin was removed, do not count.
    """
    if succeeded:
        return CLOSED
    failure_count = breaker.failure_count + 1
    if breaker.state == "closed" and failure_count < threshold:
        return Breaker(state="closed", failure_count=failure_count, opened_at=None)
    return Breaker(state="open", failure_count=failure_count, opened_at=now)


def transition_event(before: Breaker, after: Breaker) -> str | None:
    """Return the core event for a change, None if it neither opens nor closes the breaker."""
    if after.state == before.state:
        return None
    return {"open": BREAKER_OPENED, "closed": BREAKER_CLOSED}.get(after.state)


def gate(breaker: Breaker, reset_after: int, outstanding: int, now: datetime) -> Gate:
    """Return whether a scheduled run may be enqueued.

    `reset_after` is in seconds. `outstanding` counts the scheduler's jobs for this plugin and command that are queued
    or running.
    """
    if breaker.state == "closed":
        return _ALLOW
    if breaker.state == "half_open":
        # A probe that was cancelled or removed never reports. If none is open, the next run is the probe.
        return _BLOCKED_BY_PROBE if outstanding else _PROBE
    # Opened in the future: the clock was set back, so the time since then is unknown.
    if breaker.opened_at is None or now < breaker.opened_at:
        return _PROBE
    due = breaker.opened_at + timedelta(seconds=reset_after)
    return _PROBE if due <= now else Gate(action="block", until=due)
