"""Trees of files in workspaces: made, described, and completed as a success would be."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from ductile.workspace.artifact import Artifact
from ductile.workspace.manager import Workspaces

PARENT = "0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b10"
JOB = "0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b11"
OTHER = "0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b12"

NOT_UTF8 = os.fsdecode(b"\xff\xfe")
# 2026-02-08T10:00:00Z: no file that a test writes gets this time by itself.
LONG_AGO_NS = 1_770_544_800_000_000_000


def never() -> bool:
    return False


def after(calls: int) -> Callable[[], bool]:
    """Return what says stop at the call after so many."""
    left = [calls]

    def abort() -> bool:
        left[0] -= 1
        return left[0] < 0

    return abort


def calls_of(work: Callable[[Callable[[], bool]], object]) -> int:
    """Return how often `work` asks whether to give up."""
    asked = []
    work(lambda: asked.append(None) is not None)
    return len(asked)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file, and the directories above it, with a time long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def made(workspaces: Workspaces, files: Mapping[str, str], job_id: str = PARENT) -> dict[str, Artifact]:
    """Make a job's workspace with these files; what its success would record."""
    path = workspaces.create(job_id)
    for name, text in files.items():
        write(path / name, text)
    return completed(workspaces, job_id)


def completed(workspaces: Workspaces, job_id: str = PARENT) -> dict[str, Artifact]:
    return {each.path: each for each in workspaces.complete(job_id, None, {}, abort=never).artifacts}


def tree(top: Path) -> dict[str, str]:
    """Describe everything below a directory by its path: kind and mode, content or target."""
    found = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_dir():
            found[name] = f"directory {mode(path):04o}"
        elif path.is_file():
            found[name] = f"file {mode(path):04o} {path.read_text()}"
        else:
            found[name] = "special"
    return found


def bind(listener: socket.socket, path: Path) -> None:
    """Bind by way of a descriptor: the path may be longer than a socket's address."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{fd}/{path.name}")
    finally:
        os.close(fd)


def a_deep_tree(path: Path, levels: int) -> None:
    """Make directories below one another, deeper than any path may be long, with a file at every thousandth."""
    path.mkdir()
    fd = os.open(path, os.O_RDONLY)
    for level in range(levels):
        os.mkdir("d", dir_fd=fd)
        if level % 1000 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
