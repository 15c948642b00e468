"""One line on a terminal for what takes longer than a moment, and nothing for the rest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOBase

_PATIENCE_SECONDS = 1.0
_CLEAR = "\r\x1b[K"


@contextmanager
def progress(text: str, err: TextIOBase) -> Iterator[None]:
    """Show `text` while the block lasts, from its second second on, where `err` is a terminal."""
    if not err.isatty():
        yield
        return
    timer = _Line(text, err)
    timer.start()
    try:
        yield
    finally:
        timer.end()


class _Line(threading.Thread):
    """Waits, then writes its line, and takes it back in the end."""

    def __init__(self, text: str, err: TextIOBase) -> None:
        super().__init__(daemon=True)
        self._text, self._err = text, err
        self._ended = threading.Event()
        self._shown = False

    def run(self) -> None:
        if not self._ended.wait(_PATIENCE_SECONDS):
            self._shown = True
            self._write(f"\r{self._text} …")

    def end(self) -> None:
        """Have the line be gone, if it was ever there."""
        self._ended.set()
        self.join()
        if self._shown:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        try:
            self._err.write(text)
            self._err.flush()
        except OSError:
            # The terminal is gone: what is done does not depend on it.
            return
