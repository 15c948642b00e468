"""A circuit breaker: closed, open after deaths in a row, half-open while one probe runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ductile.protocol import BREAKER_CLOSED, BREAKER_OPENED

State = Literal["closed", "open", "half_open"]
Action = Literal["allow", "probe", "hold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The breaker of one plugin and command: its deaths in a row, and when it last opened."""

    state: State
    failure_count: int
    opened_at: datetime | None


CLOSED = Breaker(state="closed", failure_count=0, opened_at=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a scheduled run meets.

    `allow`: it may run. `probe`: it may run, alone, and the breaker is to be stored as half-open.
    `hold`: it stays due until `until`; None means until the probe that is out has ended.
    """

    action: Action
    until: datetime | None = None


_ALLOW = Gate(action="allow")
_PROBE = Gate(action="probe")
_HOLD_FOR_PROBE = Gate(action="hold")


def after(breaker: Breaker, succeeded: bool, rule_threshold: int, now: datetime) -> Breaker:
    """Return the breaker after one scheduled job has ended: succeeded, or dead.

    Not to be asked about jobs that were cancelled or whose plugin was removed.
    """
    if succeeded:
        return CLOSED
    failure_count = breaker.failure_count + 1
    if breaker.state == "closed" and failure_count < rule_threshold:
        return Breaker(state="closed", failure_count=failure_count, opened_at=None)
    return Breaker(state="open", failure_count=failure_count, opened_at=now)


def transition_event(before: Breaker, after: Breaker) -> str | None:
    """Return the core's own event that a change is, None where it neither opens nor closes a breaker."""
    if after.state == before.state:
        return None
    return {"open": BREAKER_OPENED, "closed": BREAKER_CLOSED}.get(after.state)


def gate(breaker: Breaker, reset_after: int, outstanding: int, now: datetime) -> Gate:
    """Say whether a scheduled run may be enqueued.

    `reset_after` is in seconds; `outstanding` counts the scheduler's jobs of this plugin and command that
    are queued or running.
    """
    if breaker.state == "closed":
        return _ALLOW
    if breaker.state == "half_open":
        # A probe that was cancelled or removed never reports: with none out, the next run is the probe.
        return _HOLD_FOR_PROBE if outstanding else _PROBE
    # Opened in the future means that the clock was set back: how long ago it was cannot be known any more.
    if breaker.opened_at is None or now < breaker.opened_at:
        return _PROBE
    due = breaker.opened_at + timedelta(seconds=reset_after)
    return _PROBE if due <= now else Gate(action="hold", until=due)
