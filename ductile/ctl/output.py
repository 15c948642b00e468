"""Whether what is shown goes to a terminal, and what that one can do."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from io import TextIOBase
from types import FrameType

from ductile.ctl.table import Terminal

_USUAL_COLUMNS = 80


def terminal(out: TextIOBase, environ: Mapping[str, str], now: datetime) -> Terminal:
    """Return the terminal that `out` is.

    As wide as `COLUMNS` says, or as it says itself; with colours unless `NO_COLOR` is set (no-color.org) or it is a
    dumb one.
    """
    dumb = environ.get("TERM", "dumb") == "dumb"
    return Terminal(_columns(out, environ), colours=not dumb and not environ.get("NO_COLOR"),
                    ascii_only=not out.encoding.lower().startswith("utf"), now=now)


def _columns(out: TextIOBase, environ: Mapping[str, str]) -> int:
    # What shutil.get_terminal_size does, whose import takes as long as all of `status`.
    told = environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and len(told) < 6 and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(out.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        return _USUAL_COLUMNS


def document(value: object) -> str:
    """Return `value` as one JSON document: indented, in ASCII, so that no text of a stranger reaches a terminal raw."""
    return json.dumps(value, indent=2) + "\n"


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


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def noted(act: Callable[[], None] = lambda: None) -> Iterator[list[int]]:
    """Note the signals that ask for our end in the list that is given, and `act` on each, instead of ending.

    After the block, also one that raised, raises KeyboardInterrupt for SIGINT and SystemExit with 128 and its number
    for another one. What the shell has us ignore stays ignored.
    """
    got: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        got.append(number)
        act()

    before = {number: signal.signal(number, note) for number in _ENDING
              if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if got:
            raise KeyboardInterrupt if got[0] == signal.SIGINT else SystemExit(128 + got[0])
