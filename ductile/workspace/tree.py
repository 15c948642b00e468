"""Walks directory trees by descriptors: any depth, no link followed, safe against changes meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ductile.workspace.artifact import Aborted

_SHUT = os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _SHUT
# O_NONBLOCK: never wait if a FIFO has replaced the file.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _SHUT
# Errors of open(2) for a symbolic link or a file that is no directory.
_NO_DIRECTORY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class Cursor:
    """One open directory of a tree that moves down and up; a context manager that closes it.

    It needs one descriptor at any depth. Raises OSError, also if a directory was moved meanwhile.
    """

    def __init__(self, fd: int) -> None:
        """Start in an open directory; the cursor owns its descriptor."""
        self.fd = fd
        self._above: list[tuple[int, int]] = []

    def down(self, name: str) -> None:
        """Go into a subdirectory and make it `u+rwx`."""
        here = os.fstat(self.fd)
        self._move(open_directory(name, self.fd))
        self._above.append((here.st_dev, here.st_ino))

    def up(self) -> None:
        """Go back to the parent directory."""
        self._move(os.open("..", _DIRECTORY, dir_fd=self.fd))
        here = os.fstat(self.fd)
        if self._above.pop() != (here.st_dev, here.st_ino):
            raise OSError(errno.ESTALE, "a directory was moved meanwhile", "..")

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.fd)

    def _move(self, fd: int) -> None:
        os.close(self.fd)
        self.fd = fd


def never() -> bool:
    """Return False: an `abort` that never aborts."""
    return False


def walk(cursor: Cursor, where: str, visit: Callable[[int, str, os.DirEntry[str]], None], *,
         enter: Callable[[int, str], None] | None = None, leave: Callable[[int, str], None] | None = None,
         abort: Callable[[], bool] = never) -> None:
    """Call `visit` for each entry of a directory and of those below it, except the directories themselves.

    `visit` gets a descriptor of the entry's directory, the directory's path (empty, or ending in `/`) and the entry.
    `enter` is called first for each directory, with the same descriptor and path. `leave` is called last for each
    directory but the first, with a descriptor of its parent and its name. Raises Aborted if `abort()` is true at the
    start of a directory. An OSError names the file by its path, which starts with `where`.
    """
    path = ""

    def scan() -> list[str]:
        if abort():
            raise Aborted
        if enter is not None:
            enter(cursor.fd, path)
        below = []
        with os.scandir(cursor.fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                else:
                    visit(cursor.fd, path, entry)
        return below

    above: list[tuple[str, list[str]]] = []
    try:
        left = scan()
        while left or above:
            if left:
                name = left.pop()
                cursor.down(name)
                above.append((path, left))
                path = f"{path}{name}/"
                left = scan()
            else:
                cursor.up()
                below = path
                path, left = above.pop()
                if leave is not None:
                    leave(cursor.fd, below[len(path):-1])
    except OSError as error:
        # A call on a descriptor alone names no file: then it is the directory.
        name = error.filename if isinstance(error.filename, str) else ""
        error.filename, error.filename2 = f"{where}/{path}{name}", None
        raise


def open_directory(name: str | os.PathLike[str], dir_fd: int | None = None) -> int:
    """Open a directory (not a link to one) and make it `u+rwx`. Raises OSError."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=dir_fd)
    except PermissionError:
        fd = _open_closed(name, dir_fd, _DIRECTORY, stat.S_IFDIR, stat.S_IRWXU)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(fd, mode | stat.S_IRWXU)
    except OSError as error:
        os.close(fd)
        error.filename = os.fspath(name)
        raise
    return fd


def open_tree(path: str | os.PathLike[str]) -> Cursor | None:
    """Open the top of a tree as `open_directory` does, or return None if there is no directory. Raises OSError."""
    try:
        return Cursor(open_directory(path))
    except OSError as error:
        if error.errno in _NO_DIRECTORY:
            return None
        raise


@contextmanager
def opened(name: str, dir_fd: int) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file for reading until the block ends, even if its mode denies that to its owner.

    Every OSError names the file, also one raised in the block.
    """
    fd = None
    try:
        fd, found = _open_file(name, dir_fd)
        yield fd, found
    except OSError as error:
        error.filename, error.filename2 = name, None
        raise
    finally:
        if fd is not None:
            os.close(fd)


def _open_file(name: str, dir_fd: int) -> tuple[int, os.stat_result]:
    try:
        fd = os.open(name, _FILE, dir_fd=dir_fd)
    except PermissionError:
        fd = _open_closed(name, dir_fd, _FILE, stat.S_IFREG, stat.S_IRUSR)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(errno.ESTALE, "no longer a regular file", name)
    return fd, found


def _open_closed(name: str | os.PathLike[str], dir_fd: int | None, flags: int, kind: int, bits: int) -> int:
    """Add the permission `bits` to a file of our own and open it; only a file of `kind` is touched.

    O_PATH (open(2)) holds the file, so that nothing can replace it between the calls.
    """
    handle = os.open(name, os.O_PATH | _SHUT, dir_fd=dir_fd)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_IFMT(mode) != kind:
            raise PermissionError
        there = f"/proc/self/fd/{handle}"
        os.chmod(there, stat.S_IMODE(mode) | bits)
        return os.open(there, flags & ~os.O_NOFOLLOW)
    except PermissionError as error:
        # Report the failed open, whichever call failed.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(name)) from error
    except OSError as error:
        error.filename = os.fspath(name)
        raise
    finally:
        os.close(handle)


def remove(path: str) -> None:
    """Remove a file or a whole tree if it exists.

    Symbolic links are not followed, and directories are made `u+rwx` first. Raises OSError.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        # POSIX specifies PermissionError for a directory.
        with Cursor(open_directory(path)) as top:
            walk(top, path, _unlink, leave=_remove_directory)
        os.rmdir(path)


def _unlink(fd: int, path: str, entry: os.DirEntry[str]) -> None:
    os.unlink(entry.name, dir_fd=fd)


def _remove_directory(fd: int, name: str) -> None:
    os.rmdir(name, dir_fd=fd)
