"""Errors that the operator can correct, and the exit codes of both programs."""

from __future__ import annotations

# Exit codes follow sysexits.h where it has a name for the case.
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_DOWN = 3    # of `ductilectl status`, as systemctl does
EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_NOT_FOUND = 66
EXIT_UNAVAILABLE = 69
EXIT_SYSTEM = 71
EXIT_IO = 74
EXIT_RUNNING = 75
EXIT_PERMISSION = 77
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130


def io_exit_code(error: Exception) -> int:
    """Return the exit code of `ductilectl` for a failed read or write: 77 without permission, else 74."""
    return EXIT_PERMISSION if isinstance(error, PermissionError) else EXIT_IO


class DuctileError(Exception):
    """A condition that the operator can correct; each line says what, where and how.

    `lines` are printed without a traceback; the program exits with `exit_code`.
    Anything that is not a DuctileError is a bug and keeps its traceback.
    """

    def __init__(self, *lines: str, exit_code: int) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.exit_code = exit_code
