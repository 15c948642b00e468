"""What can be done with workspaces, whoever keeps them, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ductile.workspace.artifact import Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class ClonedWorkspace:
    """A fresh clone; each warning is one line about what it lacks or what was copied instead of linked."""

    path: Path
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedWorkspace:
    """What a successful job has made, sorted by path; each warning is one line."""

    artifacts: tuple[Artifact, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """Something that stands among the workspaces; `mtime` is in seconds since the epoch."""

    name: str
    mtime: float


class WorkspaceManager(Protocol):
    """Makes, hands on and removes the directories of jobs. `Workspaces` does it with files and says what is raised."""

    def create(self, job_id: str) -> Path:
        """Return the job's directory, new and empty."""

    def clone(self, job_id: str, parent_id: str, artifacts: Mapping[str, Artifact], *, deep: bool,
              abort: Callable[[], bool]) -> ClonedWorkspace:
        """Make the job's directory anew as its parent's was when that succeeded."""

    def open(self, job_id: str) -> Path | None:
        """Return the job's directory where there is one."""

    def complete(self, job_id: str, parent_id: str | None, inherited: Mapping[str, Artifact], *,
                 abort: Callable[[], bool]) -> CompletedWorkspace:
        """Bring what the job has made to the disk, seal it and list it."""

    def cleanup(self, job_id: str) -> None:
        """Remove the job's directory with all that is in it."""
