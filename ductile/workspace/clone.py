"""Clones a workspace: the same tree with hard links to its files, each verified against its artifact."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping

from ductile.workspace.artifact import Artifact, ArtifactFault, named
from ductile.workspace.seal import WRITE_BITS, sealed, take_write_bits
from ductile.workspace.tree import Cursor, opened, walk
from ductile.workspace.verify import copy, digest, has_content, is_same

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_PERMISSIONS = 0o777
_NOT_REGULAR = "no longer a regular file"
# A file system with hard links may still refuse to link a certain file (link(2)).
_NOT_LINKED = {errno.EMLINK, errno.EXDEV, errno.EPERM}


class Clone:
    """One clone being created. Files added after the parent job ended are left out."""

    def __init__(self, target: Cursor, artifacts: Mapping[str, Artifact], *, deep: bool,
                 abort: Callable[[], bool]) -> None:
        """`target` is new and empty; `artifacts` are the parent's, by path; `deep` copies instead of linking."""
        self._target = target
        self.faults: list[ArtifactFault] = []
        self._missing = dict(artifacts)
        self._deep = deep
        self._abort = abort
        self._copied: list[str] = []
        self._unlisted: list[str] = []
        self._special: list[str] = []

    def fill(self, source: Cursor, where: str) -> None:
        """Fill the target from the parent's tree; `where` is its path, for errors.

        `faults` then lists the files that are missing or have changed. Raises OSError, Aborted.
        """
        walk(source, where, self._visit, enter=self._enter, leave=self._leave, abort=self._abort)
        self.faults += [ArtifactFault(path=path, what="gone") for path in self._missing]

    def warnings(self) -> tuple[str, ...]:
        """Return one line for each kind of file that was left out or copied."""
        lines = (
            ("left out because they were added to the input workspace after its job ended", self._unlisted),
            ("left out because they are sockets, devices or FIFOs", self._special),
            ("copied because the file system does not link them", self._copied),
        )
        return tuple(f"files {what}: {named(paths)}" for what, paths in lines if paths)

    def _visit(self, fd: int, path: str, entry: os.DirEntry[str]) -> None:
        name = entry.name
        artifact = self._missing.pop(path + name, None)
        if entry.is_file(follow_symlinks=False):
            if artifact is None:
                self._unlisted.append(path + name)
            elif not self._place(artifact, name, fd):
                self.faults.append(ArtifactFault(path=artifact.path, what="changed"))
            return
        if artifact is not None:
            self.faults.append(ArtifactFault(path=artifact.path, what=_NOT_REGULAR))
        if entry.is_symlink():
            os.symlink(os.readlink(name, dir_fd=fd), name, dir_fd=self._target.fd)
        else:
            self._special.append(path + name)

    def _enter(self, fd: int, path: str) -> None:
        """Create the directory that the walk has entered, and follow it there."""
        if not path:
            return
        if self._missing.pop(path[:-1], None) is not None:
            self.faults.append(ArtifactFault(path=path[:-1], what=_NOT_REGULAR))
        name = path[path.rfind("/", 0, -1) + 1:-1]
        try:
            os.mkdir(name, _DIRECTORY_MODE, dir_fd=self._target.fd)
            self._target.down(name)
        except OSError as error:
            # `walk` names the directory that it is in, which is this one.
            error.filename = None
            raise
        mode = os.fstat(fd).st_mode & _PERMISSIONS
        if mode != _DIRECTORY_MODE:
            os.fchmod(self._target.fd, mode)

    def _leave(self, fd: int, name: str) -> None:
        self._target.up()

    def _place(self, artifact: Artifact, name: str, fd: int) -> bool:
        """Link or copy one file into the clone. Return whether it matches its artifact."""
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
        # Check the new name: the old one may have been replaced meanwhile.
        found = os.stat(name, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            return False
        if found.st_mode & WRITE_BITS:
            # A failed attempt may have made the file writable through its own link.
            with opened(name, target) as (file, found):
                take_write_bits(file, found)
        return is_same(artifact, found) or has_content(artifact, name, target, self._abort)

    def _copy(self, artifact: Artifact, name: str, fd: int) -> bool:
        """Copy one file with its time. Return whether it matches its artifact."""
        with opened(name, fd) as (source, found):
            if found.st_size != artifact.size:
                return False
            target = os.open(name, _NEW_FILE, _NEW_FILE_MODE, dir_fd=self._target.fd)
            try:
                copy(source, target, found.st_size, self._abort)
                # A write during the copy changes the time; then the digest of the copy decides.
                if not is_same(artifact, os.fstat(source)) and digest(target, self._abort) != artifact.digest:
                    return False
                os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
                mode = sealed(found.st_mode)
                os.fchmod(target, mode | stat.S_IWUSR if self._deep else mode)
            finally:
                os.close(target)
        return True
