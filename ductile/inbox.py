"""What the loop waits on, in one poll(2): signals, the notes of other threads, and the running plugin."""

from __future__ import annotations

import math
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_LONGEST_POLL_MS = 2**31 - 1   # poll(2) takes an int
_READ_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A signal has arrived, once or more often since the last look."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """These descriptors can be read."""

    descriptors: tuple[int, ...]


class Inbox(Generic[T]):
    """The one place that the loop waits at.

    A handler sets the flag of its signal, and the wake-up descriptor ends the wait. A lock cannot do that: a signal
    that arrives just before the wait, or at another thread, does not end it (signal(7), signal.set_wakeup_fd).
    """

    def __init__(self) -> None:
        self._notes: deque[T] = deque()
        self._arrived: dict[int, bool] = {}
        self._announced = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._signalled, self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._announced, select.POLLIN)
        self._poll.register(self._signalled, select.POLLIN)
        self._watched: frozenset[int] = frozenset()

    def receive_signals(self, numbers: Iterable[int]) -> None:
        """Receive these signals from now on, in this order if several have arrived. Call it in the main thread."""
        self._arrived = dict.fromkeys(numbers, False)
        # A full pipe is no loss: it wakes all the same, and the flags say which signals have arrived.
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number in self._arrived:
            signal.signal(number, self._on_signal)

    def has_signal(self, number: int) -> bool:
        """Return whether a signal has arrived that `get` has not returned yet."""
        return self._arrived[number]

    def _on_signal(self, number: int, frame: object) -> None:
        self._arrived[number] = True

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self._announced, self._signalled, self._wakeup):
            os.close(fd)

    def put(self, note: T) -> None:
        """Add a note. Any thread may call this."""
        self._notes.append(note)
        self.wake()

    def wake(self) -> None:
        """End the wait, or the next one, without a note. Any thread may call this."""
        os.eventfd_write(self._announced, 1)

    def get(self, *, timeout: float | None, descriptors: Collection[int] = ()) -> T | Signal | Ready | None:
        """Return a signal, the oldest note, or which `descriptors` can be read; wait for up to `timeout` seconds.

        Return None if nothing has come. A signal or a note never waits behind descriptors that are always ready.
        """
        found = self._next()
        if found is not None:
            return found
        self._watch(descriptors)
        # What arrives from here on makes a descriptor readable.
        ready = {fd for fd, _ in self._poll.poll(None if timeout is None else _milliseconds(timeout))}
        self._clear(ready)
        return self._next() or (Ready(descriptors=tuple(ready)) if ready else None)

    def _next(self) -> T | Signal | None:
        for number, has_arrived in self._arrived.items():
            if has_arrived:
                # Before it is obeyed, so that one that comes meanwhile is obeyed too.
                self._arrived[number] = False
                return Signal(number=number)
        return self._notes.popleft() if self._notes else None

    def _watch(self, descriptors: Collection[int]) -> None:
        for fd in self._watched.difference(descriptors):
            self._poll.unregister(fd)
        for fd in descriptors:
            if fd not in self._watched:
                self._poll.register(fd, select.POLLIN)
        self._watched = frozenset(descriptors)

    def _clear(self, ready: set[int]) -> None:
        """Empty the descriptors that only wake, and remove them from `ready`."""
        if self._announced in ready:
            ready.remove(self._announced)
            with suppress(BlockingIOError):
                os.eventfd_read(self._announced)
        if self._signalled in ready:
            ready.remove(self._signalled)
            with suppress(BlockingIOError):
                while len(os.read(self._signalled, _READ_BYTES)) == _READ_BYTES:
                    pass


def _milliseconds(seconds: float) -> int:
    return min(max(0, math.ceil(seconds * 1000)), _LONGEST_POLL_MS)


def start_thread(thread: threading.Thread) -> None:
    """Start a thread that blocks all signals, as do those that it starts. Raises RuntimeError if there is none to have.

    The kernel then gives signals to the main thread alone, and interrupts no call of another.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
