"""The thread that waits for a run to end, so that the loop need not."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_NAME = "waiter"


class Waiter:
    """One thread for all runs, because to start one for each costs a tenth of a short job."""

    def __init__(self, post: Callable[[Any], None]) -> None:
        """`post` takes what a wait gave, or the exception that it met."""
        self._post = post
        self._work: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have the thread. Raises BlockingIOError (EAGAIN) where there is none to be had; that may pass."""
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name=_NAME)
        try:
            thread.start()
        except RuntimeError as error:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), "a thread to wait for it") from error
        self._thread = thread

    def attend(self, wait: Callable[[], Any]) -> None:
        """Call `wait` in the thread, which has been started, and post what it returns."""
        self._work.put(wait)

    def close(self) -> None:
        """Wait for what is attended to, then end the thread."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while self._do(self._work.get()):
            # In a frame of its own: what has been waited for, and may be large, must not be kept until the next.
            continue

    def _do(self, wait: Callable[[], Any] | None) -> bool:
        if wait is None:
            return False
        try:
            self._post(wait())
        except BaseException as error:
            self._post(error)
        return True
