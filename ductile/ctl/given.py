"""JSON that the operator gives in a file or on standard input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ductile import disk
from ductile.check import kind_of
from ductile.disk import NotRegular, TooLarge
from ductile.errors import EXIT_DATA, EXIT_IO, DuctileError, io_exit_code
from ductile.strictjson import JSONRefused, decode
from ductile.text import one_line
from ductile.units import format_size

STDIN = "-"
# A state or payload has 1 MiB at most, and a request holds some of them.
_LARGEST_BYTES = 16 * 1024**2


def place(name: str) -> str:
    """Return a file as messages name it."""
    return "standard input" if name == STDIN else name


def read_json(name: str, stdin: BinaryIO) -> Any:
    """Return the value in a file, or on standard input where `name` is `-`.

    Raises DuctileError: 77 where it may not be read, 74 where it cannot be or is no regular file, 65 where it is not
    one strict JSON value or larger than any that is used.
    """
    try:
        content = _from_stdin(stdin) if name == STDIN else disk.read(Path(name), _LARGEST_BYTES)
    except OSError as error:
        raise DuctileError(f"{place(name)}: cannot be read: {error.strerror}", exit_code=io_exit_code(error)) from error
    except NotRegular as error:
        raise DuctileError(f"{place(name)}: not a regular file; use - to read from standard input",
                           exit_code=EXIT_IO) from error
    except TooLarge as error:
        raise DuctileError(f"{place(name)}: larger than {format_size(_LARGEST_BYTES)}", exit_code=EXIT_DATA) from error
    try:
        return decode(content)
    except JSONRefused as error:
        raise DuctileError(f"{place(name)}: not strict JSON: {error}", exit_code=EXIT_DATA) from error


def _from_stdin(stdin: BinaryIO) -> bytes:
    content = stdin.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        raise TooLarge
    return content


def as_object(value: Any, where: str) -> Mapping[str, Any]:
    """Return `value` where it is an object. Raises DuctileError (65), with `where` it stands."""
    if not isinstance(value, dict):
        raise DuctileError(f"{where}: expected one JSON object, got {one_line(kind_of(value))}", exit_code=EXIT_DATA)
    return value
