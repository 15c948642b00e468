"""What the operator gives: JSON in a file, on standard input or on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ductile import safe_files, submit
from ductile.ctl.lookup import quoted
from ductile.ctl.session import Session
from ductile.errors import EXIT_DATA, EXIT_USAGE, DuctileError, io_exit_code
from ductile.protocol import reserved_prefix
from ductile.safe_files import NotRegular, TooLarge
from ductile.strictjson import JSONRefused, decode
from ductile.text import one_line
from ductile.validation import kind_of

STDIN = "-"
# A state or payload has 1 MiB at most, and a request holds several.
_LARGEST_BYTES = 16 * 1024**2


def label(name: str) -> str:
    """Return a file as messages name it."""
    return "standard input" if name == STDIN else name


def read_json(name: str, stdin: BinaryIO) -> Any:
    """Return the value in a file, or on standard input if `name` is `-`.

    Raises DuctileError: 77 without permission, 74 if the file cannot be read or is not regular, 65 if it is not one
    strict JSON value or is too large.
    """
    try:
        content = _from_stdin(stdin) if name == STDIN else safe_files.read(Path(name), _LARGEST_BYTES)
    except OSError as error:
        exit_code = EXIT_DATA if isinstance(error, TooLarge) else io_exit_code(error)
        mend = "; use - to read from standard input" if isinstance(error, NotRegular) else ""
        raise DuctileError(f"{label(name)}: cannot be read: {error.strerror}{mend}", exit_code=exit_code) from error
    try:
        return decode(content)
    except JSONRefused as error:
        raise DuctileError(f"{label(name)}: not strict JSON: {error}", exit_code=EXIT_DATA) from error


def _from_stdin(stdin: BinaryIO) -> bytes:
    content = stdin.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        raise TooLarge(_LARGEST_BYTES)
    return content


def as_object(value: Any, where: str) -> Mapping[str, Any]:
    """Return `value` if it is an object. Raises DuctileError (65) that says `where` it was found."""
    if not isinstance(value, dict):
        raise DuctileError(f"{where}: expected one JSON object, got {one_line(kind_of(value))}", exit_code=EXIT_DATA)
    return value


CLI_SOURCE = "cli"


def new_event(session: Session, event_type: str, payload: str | None, *, source: str, option: str) -> dict[str, Any]:
    """Return an event with a payload given as JSON, as `@FILE` or as `-`, `{}` if there is none.

    `option` names where the type was given. Raises DuctileError: 64 for a reserved type, else as `read_json` does.
    """
    reserved = reserved_prefix(event_type)
    if reserved is not None:
        raise DuctileError(f"{option} {quoted(event_type)}: types that start with {reserved!r} are reserved",
                           exit_code=EXIT_USAGE)
    value = {} if payload is None else read_payload(payload, session.stdin)
    return submit.new_event(event_type, value, source, new_id=session.new_id, now=session.now())


def read_payload(payload: str, stdin: BinaryIO) -> Any:
    """Return the value of `--payload`: JSON, `@FILE` or `-`. Raises DuctileError as `read_json` does."""
    if payload == STDIN or payload.startswith("@"):
        return read_json(payload.removeprefix("@"), stdin)
    try:
        return decode(payload)
    except JSONRefused as error:
        raise DuctileError(f"--payload is not strict JSON: {error}", exit_code=EXIT_DATA) from error
