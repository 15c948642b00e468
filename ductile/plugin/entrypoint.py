"""Finds a plugin's entrypoint inside its directory, and checks it again before each start."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ductile.safe_files import is_writable_by_others, printable, quoted, why_unreadable
from ductile.text import one_line

# Linux reads this much of a script to find its interpreter (BINPRM_BUF_SIZE, execve(2)).
_FIRST_LINE_BYTES = 256
# Files checked beside an entrypoint.
_MOST_LIBRARIES = 1000


class NotTrusted(Exception):
    """The reason why a file of a plugin is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint:
    """A program that can run: its real path, and its device, inode and mode when it was loaded."""

    path: Path
    device: int
    inode: int
    mode: int


def find(directory: Path, named: str, manifest: Path) -> Entrypoint:
    """Return the entrypoint that the `manifest` of the plugin in `directory` names.

    Raises NotTrusted if it cannot run or be trusted.
    """
    # The bytes of its UTF-8 name, whatever the locale makes of them.
    path = directory / os.fsdecode(named.encode())
    try:
        home = Path(os.path.realpath(directory, strict=True))
        real = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError as error:
        raise NotTrusted(f"{printable(path)}: the entrypoint is missing; put it there, or mend 'entrypoint' in"
                         f" {printable(manifest)}") from error
    except OSError as error:
        raise NotTrusted(why_unreadable(path, error)) from error
    if not real.is_relative_to(home):
        raise NotTrusted(
            f"{printable(path)}: the entrypoint leads out of the plugin's directory, to {printable(real)}; "
            f"replace the link by the file: cp --remove-destination {quoted(real)} {quoted(path)}"
        )
    found = _status(real)
    if not stat.S_ISREG(found.st_mode):
        raise NotTrusted(
            f"{printable(path)}: the entrypoint is not a regular file; mend 'entrypoint' in {printable(manifest)}")
    # Whoever can write to a directory on the way can replace the entrypoint.
    on_the_way = real.parents[: len(real.relative_to(home).parts) - 1]
    for each in (real, *on_the_way):
        refuse_writable(each)
    if not os.access(real, os.X_OK):
        raise NotTrusted(f"{printable(path)}: the entrypoint is not executable: chmod a+rx {quoted(real)}")
    fault = interpreter_fault(real)
    if fault is not None:
        raise NotTrusted(f"{printable(path)}: {fault}")
    return Entrypoint(path=real, device=found.st_dev, inode=found.st_ino, mode=found.st_mode)


def changed(entrypoint: Entrypoint) -> str | None:
    """Return how a program differs from the loaded one, or None. Raises OSError if it is missing."""
    found = os.lstat(entrypoint.path)
    if stat.S_ISLNK(found.st_mode):
        what = "it is a link now"
    elif ((found.st_dev, found.st_ino) != (entrypoint.device, entrypoint.inode)
          or stat.S_IFMT(found.st_mode) != stat.S_IFMT(entrypoint.mode)):
        what = "another file took its place"
    elif found.st_mode != entrypoint.mode:
        what = f"its mode is {stat.S_IMODE(found.st_mode):04o} and was {stat.S_IMODE(entrypoint.mode):04o}"
    else:
        return None
    return f"{printable(entrypoint.path)} changed after it was loaded: {what}; load it with `ductilectl reload`"


def gone(entrypoint: Entrypoint) -> str | None:
    """Return why a program that was loaded cannot be found, None if it can."""
    try:
        os.stat(entrypoint.path)
    except OSError as error:
        return f"{printable(entrypoint.path)}: {error.strerror}"
    return None


def interpreter_fault(program: Path) -> str | None:
    """Return what is wrong with a script's interpreter line, or None.

    execve(2) reports a missing interpreter as if the script were missing.
    """
    try:
        with open(program, "rb", opener=_open_without_waiting) as file:
            first, newline, _ = file.read(_FIRST_LINE_BYTES).partition(b"\n")
    except OSError:
        # A program may be executable without being readable.
        return None
    if not first.startswith(b"#!"):
        return None
    if newline and first.endswith(b"\r"):
        return f"its first line ends in CR LF, as on Windows: sed -i 's/\\r$//' {quoted(program)}"
    words = first[2:].split(maxsplit=1)
    if not words:
        return "its first line names no interpreter; write one such as #!/bin/sh"
    interpreter = os.fsdecode(words[0])
    # A line that was cut off may end in the middle of the name.
    if os.path.exists(interpreter) or not (newline or len(first) < _FIRST_LINE_BYTES):
        return None
    return (f"its first line names the interpreter {one_line(interpreter)!r}, which does not exist; install it or mend"
            " the line")


# Interpreters that compile at run time: they map memory that they write and execute.
_COMPILERS = {"node", "nodejs", "deno", "bun", "java", "luajit", "pypy", "pypy3", "pwsh", "dotnet"}


def compiler(program: Path) -> str | None:
    """Return the interpreter in a script's first line if it is one that compiles at run time, else None."""
    try:
        with open(program, "rb", opener=_open_without_waiting) as file:
            first = file.read(_FIRST_LINE_BYTES).partition(b"\n")[0]
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return None
    # `#!/usr/bin/env -S NAME=value node --option`: any word but an option's value could be the interpreter.
    names = (os.path.basename(os.fsdecode(word)) for word in first[2:].split())
    return next((name for name in names if name in _COMPILERS), None)


def writable_libraries(directory: Path, entrypoint: Path) -> Iterator[Path]:
    """Yield files that others may write and the entrypoint may load: beside it, or in `lib` beside it or the plugin."""
    for place in dict.fromkeys((entrypoint.parent, entrypoint.parent / "lib", directory.parent / "lib")):
        try:
            entries = [place / name for name in islice(sorted(os.listdir(place)), _MOST_LIBRARIES)]
        except OSError:
            continue
        if place.name == "lib" and is_writable_by_others(place):
            yield place
        yield from (each for each in entries if each != entrypoint and is_writable_by_others(each))


def refuse_writable(path: Path) -> None:
    """Raise NotTrusted if others may write to a path of a plugin."""
    if _status(path).st_mode & stat.S_IWOTH:
        raise NotTrusted(f"{printable(path)}: writable by others: chmod o-w {quoted(path)}")


def _status(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise NotTrusted(why_unreadable(path, error)) from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
