"""Reads `service.env_file`: KEY=VALUE lines that nobody but the owner and the group can read."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from ductile import disk
from ductile.disk import NotRegular, TooLarge, printable

# A file of secrets is some lines long; past this something else was named by mistake.
_LARGEST_BYTES = 1024**2
_COMMENT = re.compile(r"[ \t]#")
_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def read_env_file(path: Path) -> tuple[Mapping[str, str], list[str], list[str]]:
    """Return the variables in the file, what is wrong with it and what is odd, one line each, never showing a value.

    A file that cannot be read, is no regular file, or that others can read or its group can write gives no
    variables. A key that comes twice has its last value, as in a shell.
    """
    name = printable(path)
    try:
        content = disk.read(path, _LARGEST_BYTES, accept=_refuse_exposed)
    except OSError as error:
        return {}, [f"cannot read {name}: {error.strerror}"], []
    except NotRegular:
        return {}, [f"expected a regular file, got something else at {name}"], []
    except TooLarge:
        return {}, [f"expected at most 1MB, got more in {name}"], []
    except _Exposed as error:
        return {}, [f"expected a file that others cannot read and its group cannot write, got mode {error} "
                    f"(chmod 640 {name})"], []
    return _parse(content, name)


class _Exposed(Exception):
    """Others can read the file, or its group can write it; the text is its mode."""


def _refuse_exposed(mode: int) -> None:
    if mode & 0o027:
        raise _Exposed(f"{stat.S_IMODE(mode):04o}")


def _parse(content: bytes, name: str) -> tuple[Mapping[str, str], list[str], list[str]]:
    variables: dict[str, str] = {}
    faults, warnings = [], []
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            faults.append(f"{name}:{number}: expected UTF-8")
            continue
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None or "\0" in text:
            faults.append(f"{name}:{number}: expected KEY=VALUE")
            continue
        value = _unquoted(match[2].strip())
        if value is None:
            faults.append(f"{name}:{number}: expected a closing quote at the end of the line")
            continue
        variables[match[1]] = value
        # In quotes it was meant.
        if _COMMENT.search(value) and match[2].strip() == value:
            warnings.append(f"{name}:{number}: {match[1]}: what is behind ' #' is part of the value; put a comment on a"
                            " line of its own, or the value in quotes")
    return variables, faults, warnings


def _unquoted(value: str) -> str | None:
    if value[:1] not in ("'", '"'):
        return value
    return value[1:-1] if len(value) > 1 and value[-1] == value[0] else None
