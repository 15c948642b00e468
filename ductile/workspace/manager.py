"""Creates, clones, seals and removes the directories of jobs."""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.safe_files import printable
from ductile.workspace.artifact import Aborted, Artifact, ArtifactFault, ChangedInPlace, InputLost
from ductile.workspace.clone import Clone
from ductile.workspace.seal import Altered, Seal
from ductile.workspace.tree import Cursor, open_directory, open_tree, remove, walk
from ductile.workspace.verify import by_inode, unchanged

_MODE = 0o700
# An empty directory that passes from job to job: mkdir and rmdir cost a tenth of a short job, a rename nothing.
_SPARE = ".spare"
# Prefix of what is about to be removed; a long name is cut to fit (pathconf(3)).
_RETIRED = ".gone-"
_RETIRED_BYTES = 200
# A file and a link to it, created at start to prove that the file system has hard links.
_PROOF = ".proof"
_PROOF_LINK = ".proof-link"
# The unit of `st_blocks` on every file system (stat(3type)).
_BLOCK_BYTES = 512
# A full disk proves nothing about links; jobs wait for space by themselves.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClonedWorkspace:
    """A new clone; each warning is one line about what it lacks or what was copied instead of linked."""

    path: Path
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedWorkspace:
    """The files of a successful job, sorted by path; each warning is one line."""

    artifacts: tuple[Artifact, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RootEntry:
    """An entry of the workspace root; `mtime` is in seconds since the epoch."""

    name: str
    mtime: float


class Workspaces:
    """The directories `<root>/<job id>`. The methods raise OSError with the path of the file."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self._spare = self.root / _SPARE

    def make_root(self) -> None:
        """Create the root directory, mode 0700, if it is missing.

        Raises DuctileError (71), also if its file system has no hard links.
        """
        try:
            self.root.mkdir(mode=_MODE, parents=True, exist_ok=True)
            writable = os.access(self.root, os.W_OK | os.X_OK)
        except OSError as error:
            raise DuctileError(f"cannot create the workspace directory {self.root}: {error.strerror}",
                               exit_code=EXIT_SYSTEM) from error
        if not writable:
            raise DuctileError(f"the workspace directory {self.root} is not writable by this user; "
                               f"change its owner or set workspace.path", exit_code=EXIT_SYSTEM)
        self._prove_links()

    def fault(self) -> str | None:
        """Return why no job can have a directory now, or None. Changes nothing."""
        try:
            # The dot makes the check fail unless this is a directory that can be entered.
            inside = os.path.join(self.root, os.curdir)
            if os.access(inside, os.W_OK | os.X_OK):
                return None
            os.stat(inside)
        except FileNotFoundError:
            return f"the workspace directory {printable(self.root)} is gone"
        except OSError as error:
            return f"cannot enter the workspace directory {printable(self.root)}: {error.strerror}"
        return f"the workspace directory {printable(self.root)} is not writable by this user"

    def _prove_links(self) -> None:
        """Create a file and a hard link to it. Raises DuctileError (71) if that fails."""
        file, link = os.fspath(self.root / _PROOF), os.fspath(self.root / _PROOF_LINK)
        problem = f"cannot write in the workspace directory {self.root}"
        try:
            remove(file)
            remove(link)
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))
            problem = f"workspace.path {self.root} is on a file system without hard links"
            try:
                os.link(file, link, follow_symlinks=False)
            finally:
                remove(file)
            remove(link)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise DuctileError(f"{problem}: {error.strerror}; set workspace.path elsewhere",
                                   exit_code=EXIT_SYSTEM) from error

    def create(self, job_id: str) -> Path:
        """Create the job's directory, empty even after an earlier attempt. Return its real path."""
        path = self._path(job_id)
        if not self._take_spare(path):
            self.cleanup(job_id)
            os.mkdir(path, _MODE)
        return path

    def clone(self, job_id: str, parent_id: str, artifacts: Mapping[str, Artifact], *, deep: bool,
              abort: Callable[[], bool]) -> ClonedWorkspace:
        """Create the job's directory as a clone of its parent's; `artifacts` are the parent's files.

        Files become hard links and stay sealed; with `deep` they become copies that the owner may write. Symbolic
        links stay links. Sockets, devices, FIFOs and files that are no artifacts are left out with a warning. A file
        that cannot be linked is copied with a warning. Only a file whose size or time differs is read, and then its
        digest decides.

        Raises InputLost if files are gone or have changed, Aborted soon after `abort()` is true, and OSError. The next
        `create`, `clone` or `cleanup` removes a partial clone.
        """
        path = self.create(job_id)
        parent = os.fspath(self._path(parent_id))
        source = open_tree(parent)
        if source is None:
            if artifacts:
                raise InputLost(parent_id, [ArtifactFault(path=each, what="gone") for each in artifacts])
            return ClonedWorkspace(path=path)
        with source, Cursor(open_directory(path)) as target:
            clone = Clone(target, artifacts, deep=deep, abort=abort)
            clone.fill(source, parent)
        if clone.faults:
            raise InputLost(parent_id, sorted(clone.faults, key=lambda fault: fault.path))
        return ClonedWorkspace(path=path, warnings=clone.warnings())

    def open(self, job_id: str) -> Path | None:
        """Return the real path of the job's directory, or None if it has none."""
        path = self._path(job_id)
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return path if stat.S_ISDIR(found.st_mode) else None

    def complete(self, job_id: str, parent_id: str | None, inherited: Mapping[str, Artifact], *,
                 abort: Callable[[], bool]) -> CompletedWorkspace:
        """Sync the directory of a successful job to disk, seal its files and list them.

        `inherited` are its parent's files: one with the same inode, size and time is not read and keeps its digest.
        Symbolic links are not listed; neither are, with a warning, sockets, devices and FIFOs.

        Raises ChangedInPlace if a shared file has changed, Aborted, OSError.
        """
        path = os.fspath(self._path(job_id))
        top = open_tree(path)
        if top is None:
            return CompletedWorkspace()
        with top:
            # Most jobs create no files.
            if not os.listdir(top.fd):
                return CompletedWorkspace()
            shared = {} if parent_id is None else self._shared(parent_id, inherited, abort)
            seal = Seal(shared, abort=abort)
            try:
                artifacts = seal.close(top, path)
            except Altered as error:
                # Only the files of a parent are shared, so there is one.
                raise ChangedInPlace(job_id, str(parent_id), error.path) from error
        self._sync_root()
        return CompletedWorkspace(artifacts=artifacts, warnings=seal.warnings())

    def _shared(self, parent_id: str, inherited: Mapping[str, Artifact],
                abort: Callable[[], bool]) -> Mapping[tuple[int, int], Artifact]:
        """Return the parent's artifacts by device and inode."""
        parent = os.fspath(self._path(parent_id))
        top = open_tree(parent) if inherited else None
        if top is None:
            return {}
        with top:
            return by_inode(top, parent, inherited, abort)

    def _sync_root(self) -> None:
        fd = open_directory(self.root)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def verify(self, job_id: str, artifacts: Mapping[str, Artifact]) -> tuple[str, ...]:
        """Return the paths of a job's files that are gone or have changed."""
        path = os.fspath(self._path(job_id))
        top = open_tree(path)
        if top is None:
            return tuple(artifacts)
        with top:
            good = unchanged(top, path, artifacts)
        return tuple(each for each in artifacts if each not in good)

    def frees(self, job_id: str, least: int) -> bool:
        """Return whether removing the job's directory frees `least` bytes; shared files free nothing."""
        path = os.fspath(self._path(job_id))
        top = open_tree(path)
        if top is None:
            return False
        freed = 0

        def visit(fd: int, where: str, entry: os.DirEntry[str]) -> None:
            nonlocal freed
            found = entry.stat(follow_symlinks=False)
            freed += found.st_blocks * _BLOCK_BYTES if found.st_nlink == 1 else 0

        with top, suppress(Aborted):
            walk(top, path, visit, abort=lambda: freed >= least)
        return freed >= least

    def is_empty(self, job_id: str) -> bool:
        """Return whether the job's directory is one without entries. One look is enough, however many it has."""
        try:
            with os.scandir(self._path(job_id)) as entries:
                return next(entries, None) is None
        except OSError:
            return False

    def keep(self, job_id: str) -> None:
        """Keep a job's files. An empty directory becomes the spare one for the next job."""
        path = self._path(job_id)
        if _is_empty_directory(path):
            os.rename(path, self._spare)

    def _take_spare(self, path: Path) -> bool:
        """Give the spare directory to a job. Return whether that worked: a plugin may have spoiled it."""
        try:
            os.rename(self._spare, path)
        except OSError:
            return False
        return _is_empty_directory(path)

    def cleanup(self, job_id: str) -> None:
        """Remove the job's directory, or whatever has its name, if it exists. A symbolic link is not followed.
        """
        remove(os.fspath(self._path(job_id)))

    def entries(self, after: str, limit: int) -> list[RootEntry]:
        """Return up to `limit` entries of the root whose names sort after `after`, except the spare directory.
        """
        with os.scandir(self.root) as found:
            names = heapq.nsmallest(limit, (each.name for each in found if each.name > after and each.name != _SPARE))
        return list(self._dated(names))

    def retire(self, name: str) -> str:
        """Rename an entry so that no job can use it again. Return its new name."""
        retired = _RETIRED + os.fsdecode(os.fsencode(name)[:_RETIRED_BYTES])
        os.rename(self._path(name), self._path(retired))
        return retired

    def is_retired(self, name: str) -> bool:
        """Return whether an entry is waiting for its removal."""
        return name.startswith(_RETIRED)

    def _dated(self, names: Iterable[str]) -> Iterator[RootEntry]:
        for name in names:
            try:
                yield RootEntry(name=name, mtime=os.lstat(self.root / name).st_mtime)
            except FileNotFoundError:
                continue

    def _path(self, name: str) -> Path:
        """Return the path of a job's directory. Raises ValueError for a name that leads elsewhere."""
        if name in ("", os.curdir, os.pardir) or os.sep in name:
            raise ValueError(f"not the name of a workspace: {name!r}")
        return self.root / name


def _is_empty_directory(path: Path) -> bool:
    """Return whether `path` is an empty directory (not a link to one), and set its mode."""
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISDIR(mode) or os.listdir(path):
            return False
        if stat.S_IMODE(mode) != _MODE:
            os.chmod(path, _MODE)
    except OSError:
        return False
    return True
