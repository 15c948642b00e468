"""The terminal that output goes to, the progress shown on it, and signals that must wait until work is undone."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, tzinfo
from types import FrameType
from typing import TextIO

from ductile.ctl.table import Terminal

_USUAL_COLUMNS = 80


def terminal(out: TextIO, environ: Mapping[str, str], now: datetime, zone: tzinfo | None = None) -> Terminal:
    """Return the terminal that `out` is.

    Its width is `COLUMNS`, or what the terminal reports. It has colours unless `NO_COLOR` is set (no-color.org) or
    `TERM` is dumb.
    """
    dumb = environ.get("TERM", "dumb") == "dumb"
    return Terminal(_columns(out, environ), colours=not dumb and not environ.get("NO_COLOR"),
                    ascii_only=not out.encoding.lower().startswith("utf"), now=now, zone=zone)


def _columns(out: TextIO, environ: Mapping[str, str]) -> int:
    # As shutil.get_terminal_size, whose import takes as long as the rest of `status`.
    columns = environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and len(columns) < 6 and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(out.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        return _USUAL_COLUMNS


def document(value: object) -> str:
    """Return `value` as one JSON document: indented, and in ASCII, which every terminal shows as it is."""
    return json.dumps(value, indent=2) + "\n"


_PATIENCE_SECONDS = 1.0
_CLEAR = "\r\x1b[K"


@contextmanager
def progress(text: str, err: TextIO) -> Iterator[None]:
    """Show `text` while the block lasts, after one second, if `err` is a terminal."""
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
    """Waits, then writes its line, and clears it at the end."""

    def __init__(self, text: str, err: TextIO) -> None:
        super().__init__(daemon=True)
        self._text, self._err = text, err
        self._ended = threading.Event()
        self._shown = False

    def run(self) -> None:
        if not self._ended.wait(_PATIENCE_SECONDS):
            self._shown = True
            self._write(f"\r{self._text} …")

    def end(self) -> None:
        """Clear the line if it was written."""
        self._ended.set()
        self.join()
        if self._shown:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        try:
            self._err.write(text)
            self._err.flush()
        except OSError:
            # The terminal is gone, which does not matter to the work.
            return


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle signals during the block. Those that the shell has set to be ignored stay ignored."""
    before = {number: signal.signal(number, handler) for number in numbers
              if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def deferred_signals(act: Callable[[], None] = lambda: None) -> Iterator[list[int]]:
    """Defer termination signals until the end of the block; the list has those received, and `act` is called for each.

    After the block, even one that raised, raises KeyboardInterrupt for SIGINT and SystemExit with 128 plus the number
    for others.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        act()

    try:
        with handled(_ENDING, note):
            yield received
    finally:
        if received:
            raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(128 + received[0])
