"""Compares files with their artifacts, and reads and copies file contents."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping

from blake3 import blake3

from ductile.workspace.artifact import Aborted, Artifact
from ductile.workspace.tree import Cursor, never, opened, walk


def is_same(artifact: Artifact, found: os.stat_result) -> bool:
    """Return whether a file has the recorded size and time; then it need not be read."""
    return found.st_size == artifact.size and found.st_mtime_ns == artifact.mtime_ns


def has_content(artifact: Artifact, name: str, fd: int, abort: Callable[[], bool]) -> bool:
    """Return whether a file in an open directory has the recorded content. Raises OSError, Aborted."""
    with opened(name, fd) as (file, found):
        return is_same(artifact, found) or (found.st_size == artifact.size and digest(file, abort) == artifact.digest)


def unchanged(top: Cursor, where: str, artifacts: Mapping[str, Artifact]) -> set[str]:
    """Return the paths of the artifacts whose files in a tree still have the recorded content.

    `where` is the tree's path, for errors. Raises OSError.
    """
    good = set()

    def visit(fd: int, path: str, entry: os.DirEntry[str]) -> None:
        artifact = artifacts.get(path + entry.name)
        if artifact is None or not entry.is_file(follow_symlinks=False):
            return
        if is_same(artifact, entry.stat(follow_symlinks=False)) or has_content(artifact, entry.name, fd, never):
            good.add(artifact.path)

    walk(top, where, visit)
    return good


def by_inode(top: Cursor, where: str, artifacts: Mapping[str, Artifact],
             abort: Callable[[], bool]) -> dict[tuple[int, int], Artifact]:
    """Return the artifacts of a tree by device and inode.

    A job that has the same files by hard links may have renamed them; the inode stays. Raises OSError, Aborted.
    """
    found = {}

    def visit(fd: int, path: str, entry: os.DirEntry[str]) -> None:
        artifact = artifacts.get(path + entry.name)
        if artifact is not None and entry.is_file(follow_symlinks=False):
            seen = entry.stat(follow_symlinks=False)
            found[seen.st_dev, seen.st_ino] = artifact

    walk(top, where, visit, abort=abort)
    return found


# Fits the processor's cache, and aborts soon enough.
_PIECE_BYTES = 1024 * 1024
# copy_file_range(2) does not work between these two files.
_NOT_BY_KERNEL = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM}


def digest(fd: int, abort: Callable[[], bool]) -> str:
    """Return the BLAKE3 digest, in hex, of a file from its beginning. Raises OSError, Aborted."""
    hasher = blake3()
    offset = 0
    while True:
        _check(abort)
        piece = os.pread(fd, _PIECE_BYTES, offset)
        if not piece:
            return hasher.hexdigest()
        hasher.update(piece)
        offset += len(piece)


def copy(source: int, target: int, size: int, abort: Callable[[], bool]) -> None:
    """Copy `size` bytes into an empty file; holes stay holes. Raises OSError, Aborted."""
    offset = 0
    while (start := _next_data(source, offset)) is not None and start < size:
        offset = start
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        while offset < end:
            _check(abort)
            offset += _copy_piece(source, target, offset, min(_PIECE_BYTES, end - offset))
    os.ftruncate(target, size)


def _next_data(fd: int, offset: int) -> int | None:
    """Return the offset of the next data after holes, or None at the end (lseek(2))."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _copy_piece(source: int, target: int, offset: int, count: int) -> int:
    """Copy up to `count` bytes to the same offset of another file. Return how many, at least one. Raises OSError."""
    try:
        copied = os.copy_file_range(source, target, count, offset, offset)
    except OSError as error:
        if error.errno not in _NOT_BY_KERNEL:
            raise
        copied = os.pwrite(target, os.pread(source, count, offset), offset)
    if copied == 0:
        raise OSError(errno.ESTALE, "the file became shorter while it was copied")
    return copied


def _check(abort: Callable[[], bool]) -> None:
    if abort():
        raise Aborted
