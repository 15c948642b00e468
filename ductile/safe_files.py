"""Reads regular files without blocking, and names paths and failures on one line."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from ductile.text import one_line
from ductile.units import format_size


class NotRegular(OSError):
    """The path leads to something other than a regular file."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "not a regular file")


class TooLarge(OSError):
    """The file is larger than its limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(errno.EFBIG, f"larger than {format_size(limit_bytes)}")


class Exposed(OSError):
    """The mode of the file gives a permission to its group or to others that must not be given."""

    def __init__(self, mode: int) -> None:
        super().__init__(errno.EACCES, f"others can read it, or its group can write it (mode {stat.S_IMODE(mode):04o})")


def read(path: Path, limit_bytes: int, *, forbidden_mode: int = 0) -> bytes:
    """Return the content of a regular file.

    Raises OSError, also NotRegular, TooLarge past `limit_bytes`, and Exposed if its mode has a `forbidden_mode` bit.
    """
    # Without O_NONBLOCK, open(2) of a FIFO waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise NotRegular
        if mode & forbidden_mode:
            raise Exposed(mode)
        with open(descriptor, "rb", closefd=False) as file:
            # Some files under /proc would block, and then read as None.
            content = file.read(limit_bytes + 1) or b""
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        raise TooLarge(limit_bytes)
    return content


def why_unreadable(path: Path, error: OSError) -> str:
    """Return one line that says which file cannot be read, why, and how to mend it."""
    if isinstance(error, PermissionError):
        mend = "; give the daemon's user access to it and to its directory"
    elif isinstance(error, NotRegular):
        mend = "; put a regular file in its place"
    elif isinstance(error, Exposed):
        mend = f"; chmod 640 {quoted(path)}"
    else:
        mend = ""
    return f"{printable(path)}: cannot be read: {error.strerror}{mend}"


def why_not_listed(directory: Path, error: OSError) -> str:
    """Return one line that says why a configured directory cannot be listed."""
    if isinstance(error, FileNotFoundError):
        return f"expected a directory that exists, got {printable(directory)}"
    if isinstance(error, PermissionError):
        return f"expected a directory that the daemon's user can read, got {printable(directory)}: {error.strerror}"
    return f"expected a directory, got {printable(directory)}: {error.strerror}"


def is_writable_by_others(path: Path) -> bool:
    """Return whether others may change what is at `path`; a sticky directory does not count."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IWOTH) and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)


def exposed(path: Path) -> Iterator[Path]:
    """Yield those of a path and its parent directories that others may write, so that they could replace the path."""
    try:
        real = Path(os.path.realpath(path))
    except OSError:
        return
    yield from (each for each in (real, *real.parents) if is_writable_by_others(each))


def quoted(path: Path) -> str:
    """Return a path quoted for the shell."""
    return shlex.quote(printable(path))


def printable(path: Path) -> str:
    """Return a path as one printable line, whatever bytes it contains."""
    return one_line(os.fsencode(path).decode("utf-8", "backslashreplace"), limit=4096)


MOUNTINFO = Path("/proc/self/mountinfo")

# File systems whose locks and shared memory do not work across machines (sqlite.org/wal.html).
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.davfs", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb2",
    "smb3", "smbfs",
}


def network_file_system(directory: Path, mountinfo: Path = MOUNTINFO) -> str | None:
    """Return the type of the network file system that `directory` is on, or None for a local one.

    `mountinfo` has the format of proc(5); if it cannot be read, the answer is None.
    """
    try:
        table = mountinfo.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    kind = _type_of(Path(directory).resolve(), table)
    return kind if kind in _NETWORK else None


def _type_of(directory: Path, table: str) -> str | None:
    """Return the type of the innermost mount above `directory`, the later of two at one mount point."""
    best, kind = -1, None
    for line in table.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5:
            continue
        mount_point = Path(_unescape(fields[4]))
        if directory.is_relative_to(mount_point) and len(mount_point.parts) >= best:
            best, kind = len(mount_point.parts), after.split()[0]
    return kind


def _unescape(text: str) -> str:
    r"""Undo mountinfo's octal escapes: a space is written `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
