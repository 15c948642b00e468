"""Trees of directories, walked by descriptors: no link is followed, however deep they are or whoever changes them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SHUT = os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _SHUT
# Not to wait for a writer where a FIFO has taken the place of the file that was seen.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _SHUT
# What an open of this kind says of a symbolic link or another file (open(2)).
_NO_DIRECTORY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class Cursor:
    """One open directory of a tree, moved down and up.

    It takes one descriptor however deep the tree is, which is closed at the end of a `with` block. Raises OSError,
    also where a directory was moved away.
    """

    def __init__(self, fd: int) -> None:
        """Stand in an open directory, whose descriptor is the cursor's from now on."""
        self.fd = fd
        self._above: list[tuple[int, int]] = []

    def down(self, name: str) -> None:
        """Go into a directory of this one, which is made `u+rwx`."""
        here = os.fstat(self.fd)
        self._move(open_directory(name, self.fd))
        self._above.append((here.st_dev, here.st_ino))

    def up(self) -> None:
        """Go back to where `down` came from."""
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


def walk(cursor: Cursor, where: str, visit: Callable[[int, str], list[str]],
         leave: Callable[[int, str], None] | None = None) -> None:
    """Visit the directory that a cursor stands in and all below it.

    `visit` gets a descriptor and the directory's path, empty or ending in `/`, and returns the names of those in
    it that are to be visited. `leave` gets, when all below a name is done, that name and a descriptor of the
    directory that holds it. An OSError names the file by its path below `where`, the tree's own.
    """
    path = ""
    above: list[tuple[str, list[str]]] = []
    try:
        left = visit(cursor.fd, path)
        while left or above:
            if left:
                name = left.pop()
                cursor.down(name)
                above.append((path, left))
                path = f"{path}{name}/"
                left = visit(cursor.fd, path)
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
    """Open a directory, no link to one, and make it `u+rwx`. Raises OSError."""
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
    """Open the top of a tree as `open_directory` does; None where no directory stands there. Raises OSError."""
    try:
        return Cursor(open_directory(path))
    except OSError as error:
        if error.errno in _NO_DIRECTORY:
            return None
        raise


@contextmanager
def opened(name: str, dir_fd: int) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file for reading, one that its owner has closed to himself too, until the block ends.

    An OSError, of the block also, names the file.
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
        raise OSError(errno.ESTALE, "no regular file any more", name)
    return fd, found


def _open_closed(name: str | os.PathLike[str], dir_fd: int | None, flags: int, kind: int, bits: int) -> int:
    """Open what its owner has no permission for by giving him `bits`; nothing but a file of `kind` is touched.

    By way of a handle (open(2), O_PATH): a path could be made to mean another file between two calls.
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
        # Whatever the call was: it is the opening that was refused.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(name)) from error
    except OSError as error:
        error.filename = os.fspath(name)
        raise
    finally:
        os.close(handle)


def remove(path: str) -> None:
    """Remove a file or a whole tree; one that is not there is no error.

    No symbolic link is followed, and directories are made `u+rwx` first. Raises OSError.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        # PermissionError: what POSIX says of a directory.
        with Cursor(open_directory(path)) as top:
            walk(top, path, _unlink_files, _remove_directory)
        os.rmdir(path)


def _unlink_files(fd: int, path: str) -> list[str]:
    """Remove all of an open directory but its directories, whose names are returned."""
    below = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=fd)
    return below


def _remove_directory(fd: int, name: str) -> None:
    os.rmdir(name, dir_fd=fd)
