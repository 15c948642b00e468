"""Seals the files of a successful job: synced to disk, made read-only, digested and listed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace

from ductile.workspace.artifact import Artifact, named
from ductile.workspace.tree import Cursor, opened, walk
from ductile.workspace.verify import digest, is_same

WRITE_BITS = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH

_READ_AND_EXECUTE = 0o555


class Altered(Exception):
    """A file shared with the parent's workspace has changed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Seal:
    """One tree being sealed."""

    def __init__(self, shared: Mapping[tuple[int, int], Artifact], *, abort: Callable[[], bool]) -> None:
        """`shared` has the parent's artifacts by device and inode."""
        self._shared = shared
        self._abort = abort
        self._artifacts: list[Artifact] = []
        self._linked: dict[tuple[int, int], Artifact] = {}
        self._special: list[str] = []
        self._foreign: list[str] = []

    def close(self, top: Cursor, where: str) -> tuple[Artifact, ...]:
        """Seal a tree; `where` is its path, for errors. Return its files sorted by path.

        Raises OSError, Aborted, and Altered for the first file that was changed in place.
        """
        walk(top, where, self._visit, enter=_sync_directory, abort=self._abort)
        return tuple(sorted(self._artifacts, key=lambda artifact: artifact.path))

    def warnings(self) -> tuple[str, ...]:
        """Return one line for each kind of file that was left out or not sealed."""
        lines = (
            ("not handed on because they are sockets, devices or FIFOs", self._special),
            ("not sealed because they are another user's", self._foreign),
        )
        return tuple(f"files {what}: {named(paths)}" for what, paths in lines if paths)

    def _visit(self, fd: int, path: str, entry: os.DirEntry[str]) -> None:
        if entry.is_file(follow_symlinks=False):
            self._artifacts.append(self._artifact(entry, fd, path + entry.name))
        elif not entry.is_symlink():
            self._special.append(path + entry.name)

    def _artifact(self, entry: os.DirEntry[str], fd: int, path: str) -> Artifact:
        """Seal one file and return its artifact. An unchanged file of the parent is not read."""
        seen = entry.stat(follow_symlinks=False)
        known = self._shared.get((seen.st_dev, seen.st_ino))
        if known is not None and is_same(known, seen) and stat.S_IMODE(seen.st_mode) == sealed(seen.st_mode):
            return known if known.path == path else replace(known, path=path)
        with opened(entry.name, fd) as (file, found):
            return self._read(file, found, path)

    def _read(self, file: int, found: os.stat_result, path: str) -> Artifact:
        inode = found.st_dev, found.st_ino
        linked = self._linked.get(inode)
        if linked is not None:
            return replace(linked, path=path)
        if not take_write_bits(file, found):
            self._foreign.append(path)
        known = self._shared.get(inode)
        if known is not None and is_same(known, found):
            return replace(known, path=path)
        os.fsync(file)
        # Size and time as of before the read: a later write then makes a clone compare the digest.
        made = Artifact(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, digest=digest(file, self._abort))
        if known is not None and known.digest != made.digest:
            raise Altered(path)
        if found.st_nlink > 1:
            self._linked[inode] = made
        return made


def _sync_directory(fd: int, path: str) -> None:
    os.fsync(fd)


def take_write_bits(file: int, found: os.stat_result) -> bool:
    """Seal an open file. Return False if it belongs to another user. Raises OSError."""
    if stat.S_IMODE(found.st_mode) == sealed(found.st_mode):
        return True
    try:
        os.fchmod(file, sealed(found.st_mode))
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        return False
    return True


def sealed(mode: int) -> int:
    """Return the mode of a sealed file: no write bits, no set-id bits, readable by its owner."""
    return mode & _READ_AND_EXECUTE | stat.S_IRUSR
