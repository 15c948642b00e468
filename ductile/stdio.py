"""The standard streams of both programs: open, no danger to the exit code, and fed with whole lines."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from ductile.text import one_line

_LONGEST = 10_000    # characters of a line; the longest that is useful is far shorter


class OutputError(OSError):
    """Standard output does not take what is written, for another reason than a closed pipe."""

    def __str__(self) -> str:
        return f"cannot write standard output: {self.strerror}"


class _Output(TextIOWrapper):
    """Standard output, whose failures can be told from those of files."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error


class _Diagnostics(TextIOWrapper):
    """Standard error, whose failures nobody could be told of: what was done and the exit code do not depend on it."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            return


def prepare() -> None:
    """Make the standard streams fit to work with; the first thing that a program does.

    Those of 0, 1 and 2 that are closed are opened, or the next file to be opened would be taken for one of them.
    What standard output does not take raises OutputError, or BrokenPipeError; what standard error does not take is
    lost. No character is beyond either.
    """
    # In this order: each gets the lowest number that is free.
    sys.stdin = sys.stdin or open(os.devnull)
    output = sys.stdout or open(os.devnull, "w")
    diagnostics = sys.stderr or open(os.devnull, "w")
    # Both names, because Python goes back to the second when it ends.
    sys.stdout = sys.__stdout__ = _as(_Output, output)
    sys.stderr = sys.__stderr__ = _as(_Diagnostics, diagnostics)


def _as(kind: type[TextIOWrapper], stream: TextIOWrapper) -> TextIOWrapper:
    like = {"encoding": stream.encoding, "line_buffering": stream.line_buffering, "write_through": stream.write_through}
    return kind(stream.detach(), errors="backslashreplace", **like)


def leave() -> None:
    """Drop what the standard streams do not take any more: Python would exit with 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
            # Where standard error has kept a failure to itself, this shows it.
            stream.buffer.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def as_line(text: str) -> str:
    """Return a text for the operator as the one line that it must be, whatever the names in it hold."""
    return one_line(text, _LONGEST)
