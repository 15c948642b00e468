"""What is in files: digested and copied piece by piece, whatever their size."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from blake3 import blake3

from ductile.workspace.artifact import Aborted

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
