"""The thread that waits for a run to end, so that the loop need not."""

from __future__ import annotations

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

    def attend(self, wait: Callable[[], Any]) -> None:
        """Call `wait` in the thread and post what it returns."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=_NAME)
            self._thread.start()
        self._work.put(wait)

    def close(self) -> None:
        """Wait for what is attended to, then end the thread."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (wait := self._work.get()) is not None:
            try:
                self._post(wait())
            except BaseException as error:
                self._post(error)
