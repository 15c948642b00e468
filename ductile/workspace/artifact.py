"""A file that a job has made, as the database records it, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ductile.text import one_line

_MOST_NAMED = 3
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A regular file of a workspace, as it was when its job succeeded.

    `path` is relative to the workspace, separated by `/`, as `os.fsdecode` gives it; `size` is in bytes,
    `mtime_ns` in nanoseconds since the epoch, `digest` BLAKE3 in hex.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFault:
    """A file that differs from its artifact, and how."""

    path: str
    what: str


class InputLost(Exception):
    """Input files are gone or have changed, so another attempt would fail, too."""

    def __init__(self, parent_id: str, faults: Sequence[ArtifactFault]) -> None:
        found = _listed([f"{_name(fault.path)} ({fault.what})" for fault in faults])
        super().__init__(f"files of job {parent_id}'s workspace have changed: {found}; "
                         f"replay job {parent_id} to create them again")


class ChangedInPlace(Exception):
    """A job wrote into a sealed file that it shares with an earlier job's workspace."""

    def __init__(self, job_id: str, parent_id: str, path: str) -> None:
        super().__init__(f"job {job_id} changed a file in place that it shares with job {parent_id}'s workspace: "
                         f"{_name(path)}; replace it (write a new file and rename) or give the step workspace: copy")


class Aborted(Exception):
    """Work on a workspace ended early because the caller asked for it."""


def named(paths: Sequence[str]) -> str:
    """Return the first few paths on one line, and how many more there are."""
    return _listed([_name(path) for path in paths])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _name(path: str) -> str:
    return one_line(path, _LONGEST_NAME)
