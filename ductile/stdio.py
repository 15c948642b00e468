"""The standard streams of both programs: always open, and no danger to the exit code."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TextIO

from ductile.text import one_line

_LONGEST = 10_000    # characters of a line


class OutputError(OSError):
    """Standard output cannot be written, for another reason than a closed pipe."""

    def __str__(self) -> str:
        return f"cannot write standard output: {self.strerror}"


class _Output(TextIOWrapper):
    """Standard output, whose failures differ from those of files."""

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
    """Standard error, whose failures are ignored: nobody could see them, and the exit code must not depend on it."""

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
    """Set up the standard streams; the first thing that a program does.

    A closed one is opened on /dev/null, or the next open file would get its descriptor. Failures of standard output
    raise OutputError or BrokenPipeError; those of standard error are ignored. Both can encode every character.
    """
    # In this order: each gets the lowest free descriptor.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 (stays open)
    output, diagnostics = _take_over(_Output, sys.stdout), _take_over(_Diagnostics, sys.stderr)
    # Both names, because Python restores the second at its end.
    for name, stream in (("stdout", output), ("stderr", diagnostics)):
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _take_over(kind: type[TextIOWrapper], stream: TextIO | None) -> TextIOWrapper:
    """Return a new stream of this kind in place of another."""
    if not isinstance(stream, TextIOWrapper):
        stream = open(os.devnull, "w")  # noqa: SIM115 (stays open)
    encoding, line_buffering, write_through = stream.encoding, stream.line_buffering, stream.write_through
    return kind(stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering,
                write_through=write_through)


def leave() -> None:
    """Drop output that cannot be written any more: Python would exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
            # Standard error hides its failures; its buffer does not.
            stream.buffer.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def as_line(text: str) -> str:
    """Return a message for the operator as one line, whatever names are in it."""
    return one_line(text, _LONGEST)
