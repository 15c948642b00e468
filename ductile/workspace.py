"""Each job's own directory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ductile.errors import EXIT_SYSTEM, DuctileError

_MODE = 0o700
# An empty directory from job to job: to make and remove one costs a tenth of a short job, to rename it nothing.
_SPARE = ".spare"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Workspaces:
    """The directories `<root>/<job id>`. The operations raise OSError."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._spare = self._root / _SPARE

    def make_root(self) -> None:
        """Make the directory of all workspaces, for its owner alone. Raises DuctileError (71)."""
        try:
            self._root.mkdir(mode=_MODE, parents=True, exist_ok=True)
            writable = os.access(self._root, os.W_OK | os.X_OK)
        except OSError as error:
            raise DuctileError(f"cannot make the workspace directory {self._root}: {error.strerror}",
                               exit_code=EXIT_SYSTEM) from error
        if not writable:
            raise DuctileError(f"the workspace directory {self._root} is not writable by this user; "
                               f"change its owner or set workspace.path", exit_code=EXIT_SYSTEM)

    def create(self, job_id: str) -> Path:
        """Return the job's directory, new and empty, as a real path: what an earlier attempt left in it is gone."""
        path = self._root / job_id
        if not self._take_spare(path):
            self.discard(job_id)
            os.mkdir(path, _MODE)
        return path

    def keep(self, job_id: str) -> None:
        """Keep what a job has made; an empty directory goes, and waits as the spare one for the next job."""
        path = self._root / job_id
        if _is_empty_directory(path):
            os.rename(path, self._spare)

    def _take_spare(self, path: Path) -> bool:
        """Make the spare directory the job's. Return whether that worked: what plugins own they can also spoil."""
        try:
            os.rename(self._spare, path)
        except OSError:
            return False
        return _is_empty_directory(path)

    def discard(self, job_id: str) -> None:
        """Remove the job's directory with all that is in it; one that is not there is no error."""
        path = self._root / job_id
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            # PermissionError: what POSIX says of a directory.
            os.chmod(path, _MODE)
            _empty(os.open(path, _OPEN_DIRECTORY))
            os.rmdir(path)


def _is_empty_directory(path: Path) -> bool:
    """Say whether `path` is a directory, no link to one, with nothing in it; its mode is then made right."""
    try:
        fd = os.open(path, _OPEN_DIRECTORY)
    except OSError:
        return False
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) != _MODE:
            os.fchmod(fd, _MODE)
        return not os.listdir(fd)
    finally:
        os.close(fd)


def _empty(fd: int) -> None:
    """Remove everything below an open directory, and close it.

    One descriptor and no recursion, however deep the tree; no symbolic link is followed. Raises OSError,
    also where a directory is moved away meanwhile.
    """
    above: list[tuple[str, os.stat_result, list[str]]] = []
    try:
        left = _unlink_files(fd)
        while True:
            if left:
                name = left[-1]
                above.append((name, os.fstat(fd), left))
                fd = _step(fd, name)
                left = _unlink_files(fd)
            elif above:
                name, parent, left = above.pop()
                fd = _step(fd, "..")
                if not os.path.samestat(parent, os.fstat(fd)):
                    raise OSError(errno.ESTALE, "a directory was moved while it was being removed", name)
                os.rmdir(name, dir_fd=fd)
                left.pop()
            else:
                return
    finally:
        os.close(fd)


def _unlink_files(fd: int) -> list[str]:
    """Remove all of an open directory but its directories; return their names, each opened up for its owner."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.name, _MODE, dir_fd=fd)
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=fd)
    return directories


def _step(fd: int, name: str) -> int:
    """Open a directory next to an open one, which is closed."""
    there = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
    os.close(fd)
    return there
