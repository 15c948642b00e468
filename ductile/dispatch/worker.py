"""The thread for work on files that may take long, so that the loop goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.inbox import start_thread

_NAME = "files"


class Worker:
    """One thread, from the daemon's start to its end."""

    def __init__(self, post: Callable[[Any], None]) -> None:
        """`post` receives the result of each piece of work, or the exception that it raised."""
        self._post = post
        self._work: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread unless it runs. Raises DuctileError (71) if the system has none left."""
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name=_NAME)
        try:
            start_thread(thread)
        except RuntimeError as error:
            raise DuctileError("cannot start a thread: the limit on processes or memory is reached (ulimit -u)",
                               exit_code=EXIT_SYSTEM) from error
        self._thread = thread

    def submit(self, work: Callable[[], Any]) -> None:
        """Call `work` in the thread, which must be started, and post what it returns."""
        self._work.put(work)

    def close(self) -> None:
        """Wait for the current work, then end the thread."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while self._do(self._work.get()):
            # `_do` has a frame of its own: results may be large and must not be kept until the next one.
            continue

    def _do(self, work: Callable[[], Any] | None) -> bool:
        if work is None:
            return False
        try:
            self._post(work())
        except BaseException as error:
            self._post(error)
        return True
