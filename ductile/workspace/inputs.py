"""The files that a job starts from: held against what the ledger says of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ductile.workspace.artifact import Aborted, Artifact
from ductile.workspace.content import digest
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
