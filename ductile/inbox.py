"""What the loop waits on: the notes of other threads and signals, in one poll(2)."""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections import deque
from contextlib import suppress
from queue import Empty
from typing import Generic, TypeVar

T = TypeVar("T")

_LONGEST_POLL_MS = 2**31 - 1   # poll(2) takes an int
_READ_BYTES = 4096


class Inbox(Generic[T]):
    """A queue that one thread waits on. Signals end the wait too, whichever thread the kernel gives them to.

    A lock cannot do that: a signal that arrives just before the wait, or at another thread, does not end it
    (signal(7), signal.set_wakeup_fd).
    """

    def __init__(self) -> None:
        self._notes: deque[T] = deque()
        self._announced = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._signalled, self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._announced, select.POLLIN)
        self._poll.register(self._signalled, select.POLLIN)

    def wake_on_signals(self) -> None:
        """Let every signal that has a Python handler end the wait. Call it in the main thread."""
        # A full pipe is no loss: it wakes all the same, and the handlers have the signals themselves.
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)

    def put(self, note: T) -> None:
        """Add a note. Any thread or signal handler may call this."""
        self._notes.append(note)
        os.eventfd_write(self._announced, 1)

    def get(self, timeout: float | None = None) -> T:
        """Return the oldest note; wait for one up to `timeout` seconds. Raises queue.Empty."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # Looked at before each wait: what is added from here on makes a descriptor readable.
            if self._notes:
                return self._notes.popleft()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise Empty
            self._poll.poll(None if left is None else min(math.ceil(left * 1000), _LONGEST_POLL_MS))
            self._clear()

    def _clear(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._announced)
        with suppress(BlockingIOError):
            while len(os.read(self._signalled, _READ_BYTES)) == _READ_BYTES:
                pass
