"""The output of `ductiled --check` and `ductilectl check`."""

from __future__ import annotations

from typing import TextIO

from ductile.errors import EXIT_CONFIG, EXIT_OK
from ductile.runtime_config import LoadResult
from ductile.safe_files import printable
from ductile.stdio import as_line
from ductile.text import counted


def report(reading: LoadResult, *, out: TextIO, err: TextIO) -> int:
    """Write every problem with the configuration, the plugins and the pipelines. Return the exit code.

    Raises OSError if `out` cannot be written.
    """
    for line in (*reading.problems, *reading.faults):
        err.write(f"{as_line(line)}\n")
    for line in reading.warnings:
        err.write(f"warning: {as_line(line)}\n")
    if not is_good(reading):
        return EXIT_CONFIG
    out.write(f"{printable(reading.path)}: ok, {counted(len(reading.runtime.plugins), 'plugin')} configured\n")
    out.flush()
    return EXIT_OK


def is_good(reading: LoadResult) -> bool:
    """Return whether the daemon would start with every enabled plugin loaded."""
    return not reading.problems and not reading.faults
