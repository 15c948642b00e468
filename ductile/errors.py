"""Errors that the operator can mend, and the exit codes of both programs."""

from __future__ import annotations

# Exit codes follow sysexits.h where it has a name for the case.
EXIT_OK = 0
EXIT_FAILED = 1
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
    """Return what `ductilectl` ends with where a file cannot be read or written: 77 for want of permission, else 74."""
    return EXIT_PERMISSION if isinstance(error, PermissionError) else EXIT_IO


class DuctileError(Exception):
    """A condition that the operator can mend; each line says what, where and how.

    `lines` are printed one by one without a traceback; `exit_code` is what the program ends with.
    Anything that is not a DuctileError is a bug and keeps its traceback.
    """

    def __init__(self, *lines: str, exit_code: int) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.exit_code = exit_code
