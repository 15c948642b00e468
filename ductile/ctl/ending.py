"""Signals that ask for our end, held back while something has to be put away first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

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
