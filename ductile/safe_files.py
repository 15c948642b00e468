"""What somebody has put on disk: files read without ever waiting for them, and paths and reasons on one line."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ductile.text import one_line


class NotRegular(Exception):
    """The path leads to something else than a regular file."""


class TooLarge(Exception):
    """The file holds more than it may."""


def read(path: Path, limit_bytes: int, *, accept: Callable[[int], None] = lambda mode: None) -> bytes:
    """Return what a regular file holds. Raises OSError, NotRegular, and TooLarge past `limit_bytes`.

    `accept` is called with the file's mode before anything of it is read, and may raise: nothing else can be put in
    its place any more.
    """
    # Without O_NONBLOCK, opening a FIFO waits for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise NotRegular
        accept(mode)
        with open(descriptor, "rb", closefd=False) as file:
            # Some files under /proc would block, and then read as None.
            content = file.read(limit_bytes + 1) or b""
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        raise TooLarge
    return content


def why_not_listed(directory: Path, error: OSError) -> str:
    """Return, on one line, why a directory that the operator has named cannot be listed."""
    if isinstance(error, FileNotFoundError):
        return f"expected a directory that exists, got {printable(directory)}"
    if isinstance(error, PermissionError):
        return f"expected a directory that the daemon's user can read, got {printable(directory)}: {error.strerror}"
    return f"expected a directory, got {printable(directory)}: {error.strerror}"


def is_writable_by_others(path: Path) -> bool:
    """Say whether others may change what is at `path`; a sticky directory does not let them."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IWOTH) and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)


def exposed(path: Path) -> Iterator[Path]:
    """Yield a path and those directories above it which others may write, so that they can put something else there."""
    try:
        real = Path(os.path.realpath(path))
    except OSError:
        return
    yield from (each for each in (real, *real.parents) if is_writable_by_others(each))


def quoted(path: Path) -> str:
    """Return a path for a command of the shell."""
    return shlex.quote(printable(path))


def printable(path: Path) -> str:
    """Return a path as one line of text that can be printed, whatever bytes it is made of."""
    return one_line(os.fsencode(path).decode("utf-8", "backslashreplace"), limit=4096)


MOUNTINFO = Path("/proc/self/mountinfo")

# File systems whose locks or shared memory do not reach other machines, or not reliably (sqlite.org/wal.html).
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.davfs", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb2",
    "smb3", "smbfs",
}


def network_file_system(directory: Path, mountinfo: Path = MOUNTINFO) -> str | None:
    """Return the type of the network file system that `directory` is on, or None for a local one.

    `mountinfo` is in the form of proc(5). Where it cannot be read the answer is None.
    """
    try:
        table = mountinfo.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    kind = _type_of(Path(directory).resolve(), table)
    return kind if kind in _NETWORK else None


def _type_of(directory: Path, table: str) -> str | None:
    """Return the type of the innermost mount above `directory`; of two on one place the later."""
    best, kind = -1, None
    for line in table.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5:
            continue
        place = Path(_unescape(fields[4]))
        if directory.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), after.split()[0]
    return kind


def _unescape(text: str) -> str:
    r"""Undo mountinfo's octal escapes: a space is written `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
