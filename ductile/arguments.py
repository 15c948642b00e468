"""An argument parser with the exit codes of sysexits.h."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from ductile.errors import EXIT_USAGE
from ductile.text import one_line


class Parser(argparse.ArgumentParser):
    """Exits with 64 and one line for a wrong command line. `nearest` returns a hint for an unknown command."""

    nearest: Callable[[str, Iterable[str]], str] = staticmethod(lambda name, known: "")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # The texts of the base class change between Python versions and list every command.
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, f"unknown command {value!r}{self.nearest(str(value), action.choices)}")
        raise argparse.ArgumentError(action, f"expected one of {', '.join(action.choices)}, got {value!r}")

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {one_line(message)}; see {self.prog} --help", file=sys.stderr)
        sys.exit(EXIT_USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help or the version. Raises OSError, which the base class suppresses."""
        # The reader has closed the pipe.
        with suppress(BrokenPipeError):
            file.write(message)
            file.flush()
