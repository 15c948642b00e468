"""The directories of jobs, side by side in one directory."""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.safe_files import printable
from ductile.workspace.artifact import Artifact, ArtifactFault, ChangedInPlace, InputLost
from ductile.workspace.clone import Clone
from ductile.workspace.seal import Altered, Seal
from ductile.workspace.tree import Cursor, open_directory, open_tree, remove, walk
from ductile.workspace.verify import by_inode, unchanged

_MODE = 0o700
# An empty directory from job to job: to make and remove one costs a tenth of a short job, to rename it nothing.
_SPARE = ".spare"
# Goes before the name of what is about to be removed; of a long name only so much follows as fits (pathconf(3)).
_RETIRED = ".gone-"
_RETIRED_BYTES = 200
# A file and its link: whether the file system has hard links shows only when one is made.
_PROOF = ".proof"
_PROOF_LINK = ".proof-link"
# The unit of `st_blocks`, whatever the file system's own is (stat(3type)).
_BLOCK_BYTES = 512
# Says nothing about links, and is waited for where a job needs the room.
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
    """The directories `<root>/<job id>`. The operations raise OSError, which names the file by its path."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self._spare = self.root / _SPARE

    def make_root(self) -> None:
        """Make the directory of all workspaces, for its owner alone, unless it is there.

        Raises DuctileError (71), also where its file system has no hard links.
        """
        try:
            self.root.mkdir(mode=_MODE, parents=True, exist_ok=True)
            writable = os.access(self.root, os.W_OK | os.X_OK)
        except OSError as error:
            raise DuctileError(f"cannot make the workspace directory {self.root}: {error.strerror}",
                               exit_code=EXIT_SYSTEM) from error
        if not writable:
            raise DuctileError(f"the workspace directory {self.root} is not writable by this user; "
                               f"change its owner or set workspace.path", exit_code=EXIT_SYSTEM)
        self._prove_links()

    def fault(self) -> str | None:
        """Say why no job can have a directory; None where each can. Nothing is touched."""
        try:
            # The dot: it takes a directory, and one that can be entered.
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
        """Make a file and a link to it. Raises DuctileError (71) where that cannot be."""
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
        """Return the job's directory, new and empty, as a real path: what an earlier attempt left in it is gone."""
        path = self._path(job_id)
        if not self._take_spare(path):
            self.cleanup(job_id)
            os.mkdir(path, _MODE)
        return path

    def clone(self, job_id: str, parent_id: str, artifacts: Mapping[str, Artifact], *, deep: bool,
              abort: Callable[[], bool]) -> ClonedWorkspace:
        """Make the job's directory anew as the parent's was when that succeeded; `artifacts` is what it made.

        Files become hard links and stay sealed; `deep` makes copies that their owner may write. Symbolic links stay
        links. Left out, with a warning: sockets, devices, FIFOs, and files that the ledger does not list. What
        cannot be linked is copied, with a warning. A size or time other than the ledger's has a file read, and its
        content decides.

        Raises InputLost where files are gone or have another content, Aborted soon after `abort()` says so,
        and OSError. What is half made then is thrown away by the next `create`, `clone` or `cleanup`.
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
        """Return the job's directory as a real path; None where there is none."""
        path = self._path(job_id)
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return path if stat.S_ISDIR(found.st_mode) else None

    def complete(self, job_id: str, parent_id: str | None, inherited: Mapping[str, Artifact], *,
                 abort: Callable[[], bool]) -> CompletedWorkspace:
        """Bring all that a successful job has in its directory to the disk, seal its files and list them.

        `inherited` is what its parent made. A file that is the parent's own still (the same inode), with the size
        and time that the ledger says, is not read: it keeps its digest. Symbolic links are not listed, and
        neither are, with a warning, sockets, devices and FIFOs.

        Raises ChangedInPlace where the content of a shared file has changed, Aborted, OSError.
        """
        path = os.fspath(self._path(job_id))
        top = open_tree(path)
        if top is None:
            return CompletedWorkspace()
        with top:
            # Most jobs leave nothing there.
            if not os.listdir(top.fd):
                return CompletedWorkspace()
            shared = {} if parent_id is None else self._shared(parent_id, inherited, abort)
            seal = Seal(shared, abort=abort)
            try:
                artifacts = seal.close(top, path)
            except Altered as error:
                raise ChangedInPlace(job_id, parent_id, error.path) from error
        self._sync_root()
        return CompletedWorkspace(artifacts=artifacts, warnings=seal.warnings())

    def _shared(self, parent_id: str, inherited: Mapping[str, Artifact],
                abort: Callable[[], bool]) -> Mapping[tuple[int, int], Artifact]:
        """Return what the ledger says of the parent's files, by inode."""
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
        """Return the paths of those of a job's files that are gone or have another content."""
        path = os.fspath(self._path(job_id))
        top = open_tree(path)
        if top is None:
            return tuple(artifacts)
        with top:
            good = unchanged(top, path, artifacts)
        return tuple(each for each in artifacts if each not in good)

    def frees(self, job_id: str, least: int) -> bool:
        """Say whether to remove the job's directory would give `least` bytes back: files that others share do not."""
        path = os.fspath(self._path(job_id))
        top = open_tree(path)
        if top is None:
            return False
        freed = 0

        def visit(fd: int, where: str) -> list[str]:
            nonlocal freed
            below = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    if freed >= least:
                        return []
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    else:
                        found = entry.stat(follow_symlinks=False)
                        freed += found.st_blocks * _BLOCK_BYTES if found.st_nlink == 1 else 0
            return below

        with top:
            walk(top, path, visit)
        return freed >= least

    def keep(self, job_id: str) -> None:
        """Keep what a job has made; an empty directory goes, and waits as the spare one for the next job."""
        path = self._path(job_id)
        if _is_empty_directory(path):
            os.rename(path, self._spare)

    def _take_spare(self, path: Path) -> bool:
        """Make the spare directory the job's. Return whether that worked: what plugins own they can also spoil."""
        try:
            os.rename(self._spare, path)
        except OSError:
            return False
        return _is_empty_directory(path)

    def cleanup(self, job_id: str) -> None:
        """Remove the job's directory with all that is in it; one that is not there is no error.

        What stands in its place is removed, too; a symbolic link is not followed.
        """
        remove(os.fspath(self._path(job_id)))

    def entries(self, after: str, limit: int) -> list[RootEntry]:
        """Return up to `limit` of what stands in the root, sorted by name from the first past `after`.

        The spare directory is not among them. No link is followed.
        """
        with os.scandir(self.root) as found:
            names = heapq.nsmallest(limit, (each.name for each in found if each.name > after and each.name != _SPARE))
        return list(self._dated(names))

    def retire(self, name: str) -> str:
        """Put an entry out of every job's reach, for good. Return the name that it has from then on."""
        retired = _RETIRED + os.fsdecode(os.fsencode(name)[:_RETIRED_BYTES])
        os.rename(self._path(name), self._path(retired))
        return retired

    def is_retired(self, name: str) -> bool:
        """Say whether an entry only waits to be removed."""
        return name.startswith(_RETIRED)

    def _dated(self, names: Iterable[str]) -> Iterator[RootEntry]:
        for name in names:
            try:
                yield RootEntry(name=name, mtime=os.lstat(self.root / name).st_mtime)
            except FileNotFoundError:
                continue

    def _path(self, name: str) -> Path:
        """Return where a job's directory is. Raises ValueError for what is no name of a file in the root."""
        if name in ("", os.curdir, os.pardir) or os.sep in name:
            raise ValueError(f"no name of a workspace: {name!r}")
        return self.root / name


def _is_empty_directory(path: Path) -> bool:
    """Say whether `path` is a directory, no link to one, with nothing in it; its mode is then made right."""
    try:
        fd = open_directory(path)
    except OSError:
        return False
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) != _MODE:
            os.fchmod(fd, _MODE)
        return not os.listdir(fd)
    finally:
        os.close(fd)
