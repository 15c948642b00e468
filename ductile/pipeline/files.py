"""The directory of pipelines: reads every file in it and gathers all that is wrong."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ductile.errors import DuctileError
from ductile.pipeline.spec import Fault, PipelineFile, PipelineSpec, read_specs
from ductile.text import one_line
from ductile.yamlfile import read_yaml

# Some ten thousand steps; what is larger is something else.
PIPELINES_LIMIT_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Authored:
    """What the files say, right or wrong, in the order of their names.

    `files` are the names and contents of what was read, for a digest. Problems that the compiler finds are of the
    same kind: the two lists, put together and sorted, are what the operator reads.
    """

    specs: tuple[PipelineSpec, ...]
    problems: tuple[Fault, ...]
    files: tuple[tuple[str, bytes], ...]


class _Unreadable(Exception):
    """Carries the reason why a file cannot be read."""


def read_pipelines(directory: Path) -> Authored:
    """Return every pipeline of every `*.yaml` in a directory, hidden ones apart; one that is not there holds none.

    Nothing on disk makes this raise; every fault is a problem.
    """
    specs: list[PipelineSpec] = []
    problems: list[Fault] = []
    files: list[tuple[str, bytes]] = []
    try:
        names = _names(directory)
    except _Unreadable as error:
        return Authored(specs=(), problems=(_fault(directory, str(error)),), files=())
    for name in names:
        path = directory / name
        try:
            content = _content(path)
            files.append((name, content))
            document = read_yaml(content, _shown(path))
        except _Unreadable as error:
            problems.append(_fault(path, str(error)))
        except DuctileError as error:
            problems.append(Fault(file=_shown(path), text=error.lines[0]))
        else:
            found, faults = read_specs(PipelineFile(name=_shown(path), document=document))
            specs += found
            problems += faults
    return Authored(specs=tuple(specs), problems=tuple(sorted(problems)), files=tuple(files))


def _names(directory: Path) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise _Unreadable("not a directory; put the pipelines into one, or mend pipelines_dir") from error
    except OSError as error:
        raise _unreadable(error) from error
    # Editors keep their locks and copies under hidden names.
    return sorted(name for name in names if name.endswith(".yaml") and not name.startswith("."))


def _content(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK, opening a FIFO waits for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _unreadable(error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _Unreadable("not a regular file; put a file in its place, or give it another ending than .yaml")
        with open(descriptor, "rb", closefd=False) as file:
            # Some files under /proc would block, and then read as None.
            content = file.read(PIPELINES_LIMIT_BYTES + 1) or b""
    except OSError as error:
        raise _unreadable(error) from error
    finally:
        os.close(descriptor)
    if len(content) > PIPELINES_LIMIT_BYTES:
        raise _Unreadable("larger than 4 MiB; spread its pipelines over several files")
    return content


def _unreadable(error: OSError) -> _Unreadable:
    mend = "let the daemon's user read it" if error.errno == errno.EACCES else "mend or remove it"
    return _Unreadable(f"cannot be read: {error.strerror}; {mend}")


def _fault(path: Path, reason: str) -> Fault:
    return Fault(file=_shown(path), text=f"{_shown(path)}: {reason}")


def _shown(path: Path) -> str:
    """Return a path as one line of text that can be printed, whatever bytes it is made of."""
    return one_line(os.fsencode(path).decode("utf-8", "backslashreplace"), limit=4096)
