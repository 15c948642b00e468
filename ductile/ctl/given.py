"""JSON that the operator gives in a file or on standard input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ductile.check import kind_of
from ductile.errors import EXIT_DATA, DuctileError, io_exit_code
from ductile.strictjson import JSONRefused, decode
from ductile.text import one_line

STDIN = "-"


def place(name: str) -> str:
    """Return a file as messages name it."""
    return "standard input" if name == STDIN else name


def read_json(name: str, stdin: BinaryIO) -> Any:
    """Return the value in a file, or on standard input where `name` is `-`.

    Raises DuctileError: 77 where it may not be read, 74 where it cannot be, 65 where it is not one strict JSON value.
    """
    try:
        content = stdin.read() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise DuctileError(f"{place(name)}: cannot be read: {error.strerror}", exit_code=io_exit_code(error)) from error
    try:
        return decode(content)
    except JSONRefused as error:
        raise DuctileError(f"{place(name)}: not strict JSON: {error}", exit_code=EXIT_DATA) from error


def as_object(value: Any, where: str) -> Mapping[str, Any]:
    """Return `value` where it is an object. Raises DuctileError (65), with `where` it stands."""
    if not isinstance(value, dict):
        raise DuctileError(f"{where}: expected one JSON object, got {one_line(kind_of(value))}", exit_code=EXIT_DATA)
    return value
