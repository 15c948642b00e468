"""Command lines that end with the exit codes of sysexits.h."""

from __future__ import annotations

import argparse
import sys

from ductile.errors import EXIT_USAGE


class Parser(argparse.ArgumentParser):
    """An argument parser that exits with 64 and one line where the command line is wrong."""

    def error(self, message: str) -> None:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(EXIT_USAGE)
