"""A question to the operator before something that cannot be taken back."""

from __future__ import annotations

from collections.abc import Callable
from io import TextIOBase
from typing import BinaryIO

# Asks, and says whether the answer is yes.
Confirm = Callable[[str], bool]


def on_terminal(stdin: BinaryIO, err: TextIOBase) -> Confirm | None:
    """Return what asks on a terminal; None where nobody could answer."""
    if not (stdin.isatty() and err.isatty()):
        return None

    def confirm(question: str) -> bool:
        err.write(f"{question} [y/N] ")
        err.flush()
        # The end of input is no answer, and no answer is no.
        return stdin.readline().strip().lower() in (b"y", b"yes")

    return confirm
