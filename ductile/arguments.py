"""Command lines that end with the exit codes of sysexits.h."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from io import TextIOBase

from ductile.errors import EXIT_USAGE
from ductile.text import one_line


class Parser(argparse.ArgumentParser):
    """An argument parser that exits with 64 and one line where the command line is wrong."""

    def error(self, message: str) -> None:
        print(f"{self.prog}: {one_line(message)}; see {self.prog} --help", file=sys.stderr)
        sys.exit(EXIT_USAGE)

    def _print_message(self, message: str, file: TextIOBase | None = None) -> None:
        """Write help or the version. Raises OSError where that cannot be, which the base class keeps to itself."""
        # A closed pipe: whoever read has seen enough.
        with suppress(BrokenPipeError):
            file.write(message)
            file.flush()
