"""Refused requests in the log: the first of each kind on a line of its own, the others counted, a line a minute."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus

from ductile.clock import Clock
from ductile.log import Component

_PERIOD_SECONDS = 60.0
_LINES = 5              # of a kind in a period; the others are counted
_PATH_CHARACTERS = 200  # of one that a stranger has made up

_log = Component("webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was refused. `reason` is constant; `error` is what it was this time, where there is more to say."""

    level: str = "info"
    reason: str
    error: str | None = field(default=None, compare=False)


class Refusals:
    """Any thread may call it. How many kinds there are is bounded by the configuration, not by strangers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock.monotonic()
        self._counts: Counter[tuple[str | None, HTTPStatus, Refusal]] = Counter()

    def note(self, refusal: Refusal, *, endpoint: str | None, path: str | None, status: HTTPStatus,
             address: str) -> None:
        """Log or count a request to `path`, None where it was not even told; `endpoint` is None for an unknown one."""
        self.tell()
        with self._lock:
            kind = endpoint, status, refusal
            self._counts[kind] += 1
            if self._counts[kind] > _LINES:
                return
        error = {} if refusal.error is None else {"error": refusal.error}
        _log.at(refusal.level, "webhook refused", path=path and path[:_PATH_CHARACTERS], status=status,
                reason=refusal.reason, address=address, **error)

    def tell(self, *, at_once: bool = False) -> None:
        """Log what was counted, once a minute is over or `at_once`."""
        with self._lock:
            seconds = self._clock.monotonic() - self._since
            if seconds < _PERIOD_SECONDS and not at_once:
                return
            counts, self._counts = self._counts, Counter()
            self._since = self._clock.monotonic()
        for (endpoint, status, refusal), count in counts.items():
            if count > _LINES:
                _log.at(refusal.level, "more webhooks refused", path=endpoint, status=status, reason=refusal.reason,
                        count=count - _LINES, seconds=round(seconds))
