"""A file that a job has made, as the ledger records it, and what can be wrong with such files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ductile.text import one_line

_MOST_NAMED = 3
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A regular file of a workspace at the moment when its job succeeded.

    `path` is relative to the workspace, separated by `/`, as `os.fsdecode` gives it; `size` is in bytes,
    `mtime_ns` in nanoseconds since the epoch, `digest` BLAKE3 in hex.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFault:
    """A file that is not as the ledger says, and what is wrong with it."""

    path: str
    what: str


class InputLost(Exception):
    """What a job starts from is gone or was changed: no further attempt would find it."""

    def __init__(self, parent_id: str, faults: Sequence[ArtifactFault]) -> None:
        found = _listed([f"{_name(fault.path)} ({fault.what})" for fault in faults])
        super().__init__(f"files of job {parent_id}'s workspace are not what it made: {found}; "
                         f"replay job {parent_id} to make them anew")


class ChangedInPlace(Exception):
    """A job wrote into a file that it shares with an earlier job's workspace, in spite of the seal."""

    def __init__(self, job_id: str, parent_id: str, path: str) -> None:
        super().__init__(f"job {job_id} changed in place a file that it shares with job {parent_id}'s workspace: "
                         f"{_name(path)}; replace it (write a new file and rename) or give the step workspace: copy")


class Aborted(Exception):
    """Work on a workspace was given up because somebody asked for that."""


def named(paths: Sequence[str]) -> str:
    """Return the first few paths on one line, and how many more there are."""
    return _listed([_name(path) for path in paths])


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _name(path: str) -> str:
    return one_line(path, _LONGEST_NAME)
