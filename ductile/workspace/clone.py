"""A clone of a workspace: the same tree, its files by hard links, and each of them what the ledger says it is."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping

from ductile.workspace.artifact import Aborted, Artifact, ArtifactFault, named
from ductile.workspace.seal import WRITE_BITS, sealed, take_write_bits
from ductile.workspace.tree import Cursor, opened, walk
from ductile.workspace.verify import copy, digest, has_content, is_same

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_PERMISSIONS = 0o777
# What this file system says of one file that it does not link, though it links others (link(2)).
_NOT_LINKED = {errno.EMLINK, errno.EXDEV, errno.EPERM}


class Clone:
    """One clone in the making. A file that was put there after the parent had ended is not part of it."""

    def __init__(self, target: Cursor, artifacts: Mapping[str, Artifact], *, deep: bool,
                 abort: Callable[[], bool]) -> None:
        """`target` is new and empty, `artifacts` are the parent's by path; `deep` copies instead of linking."""
        self._target = target
        self.faults: list[ArtifactFault] = []
        self._missing = dict(artifacts)
        self._deep = deep
        self._abort = abort
        self._copied: list[str] = []
        self._unlisted: list[str] = []
        self._special: list[str] = []

    def fill(self, source: Cursor, where: str) -> None:
        """Fill the target from the parent's tree, whose path is `where`, for errors.

        What is wrong with files is in `faults` afterwards. Raises OSError, Aborted.
        """
        walk(source, where, self._visit, self._leave)
        self.faults += [ArtifactFault(path=path, what="gone") for path in self._missing]

    def warnings(self) -> tuple[str, ...]:
        """Return what the clone lacks, or has in another way than was asked for, a line each."""
        lines = (
            ("put into the input workspace after its job had ended, and left out", self._unlisted),
            ("left out because they are sockets, devices or FIFOs", self._special),
            ("copied because the file system does not link them", self._copied),
        )
        return tuple(f"files {what}: {named(paths)}" for what, paths in lines if paths)

    def _visit(self, fd: int, path: str) -> list[str]:
        if self._abort():
            raise Aborted
        if path:
            self._enter(fd, path)
        below = []
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                artifact = self._missing.pop(path + name, None)
                if entry.is_file(follow_symlinks=False):
                    if artifact is None:
                        self._unlisted.append(path + name)
                    elif not self._place(artifact, name, fd):
                        self.faults.append(ArtifactFault(path=artifact.path, what="changed"))
                    continue
                if artifact is not None:
                    self.faults.append(ArtifactFault(path=artifact.path, what="no regular file any more"))
                if entry.is_dir(follow_symlinks=False):
                    os.mkdir(name, _DIRECTORY_MODE, dir_fd=self._target.fd)
                    below.append(name)
                elif entry.is_symlink():
                    os.symlink(os.readlink(name, dir_fd=fd), name, dir_fd=self._target.fd)
                else:
                    self._special.append(path + name)
        return below

    def _enter(self, fd: int, path: str) -> None:
        """Follow the walk into a directory, and give the new one the old one's mode."""
        self._target.down(path[path.rfind("/", 0, -1) + 1:-1])
        mode = os.fstat(fd).st_mode & _PERMISSIONS
        if mode != _DIRECTORY_MODE:
            os.fchmod(self._target.fd, mode)

    def _leave(self, fd: int, name: str) -> None:
        self._target.up()

    def _place(self, artifact: Artifact, name: str, fd: int) -> bool:
        """Bring one file into the clone. Return whether it is what the ledger says."""
        if self._deep:
            return self._copy(artifact, name, fd)
        target = self._target.fd
        try:
            os.link(name, name, src_dir_fd=fd, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_LINKED:
                raise
            self._copied.append(artifact.path)
            return self._copy(artifact, name, fd)
        # The new name is looked at and not the old one: what that means may have changed in between.
        found = os.stat(name, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            return False
        if found.st_mode & WRITE_BITS:
            # What a failed attempt has opened up through its own link must not stay open.
            with opened(name, target) as (file, found):
                take_write_bits(file, found)
        return is_same(artifact, found) or has_content(artifact, name, target, self._abort)

    def _copy(self, artifact: Artifact, name: str, fd: int) -> bool:
        """Copy one file with its time. Return whether it is what the ledger says."""
        with opened(name, fd) as (source, found):
            if found.st_size != artifact.size:
                return False
            target = os.open(name, _NEW_FILE, _NEW_FILE_MODE, dir_fd=self._target.fd)
            try:
                copy(source, target, found.st_size, self._abort)
                # A write while it was copied has changed its time: the copy itself is held against the ledger then.
                if not is_same(artifact, os.fstat(source)) and digest(target, self._abort) != artifact.digest:
                    return False
                os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
                mode = sealed(found.st_mode)
                os.fchmod(target, mode | stat.S_IWUSR if self._deep else mode)
            finally:
                os.close(target)
        return True
