"""Reads `service.env_file`: KEY=VALUE lines that nobody but the owner and the group can read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from ductile.disk import shown

# A file of secrets is some lines long; past this something else was named by mistake.
_LARGEST_BYTES = 1024**2
_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def read_env_file(path: Path) -> tuple[Mapping[str, str], list[str]]:
    """Return the variables in the file and what is wrong with it, one line each, never showing a value.

    A file that cannot be read, is no regular file, or that others can read or its group can write gives no
    variables. A key that comes twice has its last value, as in a shell.
    """
    try:
        content, fault = _read_private(path)
    except OSError as error:
        return {}, [f"cannot read {shown(path)}: {error.strerror}"]
    if fault is not None:
        return {}, [fault]
    return _parse(content, path)


def _read_private(path: Path) -> tuple[bytes, str | None]:
    # Opened first and judged by descriptor, so that nothing can be put in its place in between.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fault = _fault(os.fstat(descriptor).st_mode, shown(path))
        if fault is not None:
            return b"", fault
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_LARGEST_BYTES + 1)
    finally:
        os.close(descriptor)
    return content, f"expected at most 1MB, got more in {shown(path)}" if len(content) > _LARGEST_BYTES else None


def _fault(mode: int, path: str) -> str | None:
    if not stat.S_ISREG(mode):
        return f"expected a regular file, got something else at {path}"
    if mode & 0o027:
        expected = "expected a file that others cannot read and its group cannot write"
        return f"{expected}, got mode {stat.S_IMODE(mode):04o} (chmod 640 {path})"
    return None


def _parse(content: bytes, path: Path) -> tuple[Mapping[str, str], list[str]]:
    variables: dict[str, str] = {}
    faults = []
    name = shown(path)
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
    return variables, faults


def _unquoted(value: str) -> str | None:
    if value[:1] not in ("'", '"'):
        return value
    return value[1:-1] if len(value) > 1 and value[-1] == value[0] else None
