"""The files that a job starts from: held against what the ledger says of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping

from blake3 import blake3

from ductile.workspace.artifact import Aborted, Artifact
from ductile.workspace.tree import Cursor, opened, walk


def is_same(artifact: Artifact, found: os.stat_result) -> bool:
    """Say whether a file has the size and time that the ledger says: what has both is not read again."""
    return found.st_size == artifact.size and found.st_mtime_ns == artifact.mtime_ns


def has_content(artifact: Artifact, name: str, fd: int, abort: Callable[[], bool]) -> bool:
    """Say whether a regular file in an open directory has the content of an artifact. Raises OSError, Aborted."""
    with opened(name, fd) as (file, found):
        return is_same(artifact, found) or (found.st_size == artifact.size and digest(file, abort) == artifact.digest)


def unchanged(top: Cursor, where: str, artifacts: Mapping[str, Artifact]) -> set[str]:
    """Return the paths of those files of a tree that are there as the ledger says.

    `where` is the tree's path, for errors. Raises OSError.
    """
    good = set()

    def visit(fd: int, path: str) -> list[str]:
        below = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    artifact = artifacts.get(path + entry.name)
                    if artifact is not None and (is_same(artifact, entry.stat(follow_symlinks=False))
                                                 or has_content(artifact, entry.name, fd, _never)):
                        good.add(artifact.path)
        return below

    walk(top, where, visit)
    return good


def by_inode(top: Cursor, where: str, artifacts: Mapping[str, Artifact],
             abort: Callable[[], bool]) -> dict[tuple[int, int], Artifact]:
    """Return what the ledger says of each file of a tree, by device and inode.

    By their inodes files are known in the tree of a job that has them by hard links, under whatever name. Raises
    OSError, Aborted.
    """
    found = {}

    def visit(fd: int, path: str) -> list[str]:
        if abort():
            raise Aborted
        below = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif entry.is_file(follow_symlinks=False) and path + entry.name in artifacts:
                    seen = entry.stat(follow_symlinks=False)
                    found[seen.st_dev, seen.st_ino] = artifacts[path + entry.name]
        return below

    walk(top, where, visit)
    return found


def _never() -> bool:
    return False


# Fits the processor's cache, and is soon enough for a stop.
_PIECE_BYTES = 1024 * 1024
# The kernel cannot copy between these two files by itself (copy_file_range(2)).
_NOT_BY_KERNEL = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM}


def digest(fd: int, abort: Callable[[], bool]) -> str:
    """Return the BLAKE3 digest, in hex, of a file from its beginning. Raises OSError, Aborted."""
    hasher = blake3()
    offset = 0
    while True:
        _go_on(abort)
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
            _go_on(abort)
            offset += _copy_piece(source, target, offset, min(_PIECE_BYTES, end - offset))
    os.ftruncate(target, size)


def _next_data(fd: int, offset: int) -> int | None:
    """Return where the next data begins that is no hole; None where there is no more (lseek(2))."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _copy_piece(source: int, target: int, offset: int, count: int) -> int:
    """Copy up to `count` bytes to the same place of another file. Return how many, at least one. Raises OSError."""
    try:
        copied = os.copy_file_range(source, target, count, offset, offset)
    except OSError as error:
        if error.errno not in _NOT_BY_KERNEL:
            raise
        copied = os.pwrite(target, os.pread(source, count, offset), offset)
    if copied == 0:
        raise OSError(errno.ESTALE, "the file became shorter while it was copied")
    return copied


def _go_on(abort: Callable[[], bool]) -> None:
    if abort():
        raise Aborted
