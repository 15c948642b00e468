"""Command lines that end with the exit codes of sysexits.h."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import TextIOBase

from ductile.errors import EXIT_USAGE
from ductile.text import one_line


class Parser(argparse.ArgumentParser):
    """An argument parser that exits with 64 and one line where the command line is wrong.

    `nearest` returns a hint for an unknown command, of the commands that there are.
    """

    nearest: Callable[[str, Iterable[str]], str] = staticmethod(lambda name, known: "")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # The base class's words change from one Python to the next, and name every command there is.
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, f"unknown command {value!r}{self.nearest(str(value), action.choices)}")
        raise argparse.ArgumentError(action, f"expected one of {', '.join(action.choices)}, got {value!r}")

    def error(self, message: str) -> None:
        print(f"{self.prog}: {one_line(message)}; see {self.prog} --help", file=sys.stderr)
        sys.exit(EXIT_USAGE)

    def _print_message(self, message: str, file: TextIOBase | None = None) -> None:
        """Write help or the version. Raises OSError where that cannot be, which the base class keeps to itself."""
        # A closed pipe: whoever read has seen enough.
        with suppress(BrokenPipeError):
            file.write(message)
            file.flush()
