"""How long a verified clone of a workspace takes, beside `cp -al` of the same tree."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from benchmarks.figures import BenchmarkFailed, Figure, Scale
from ductile.workspace.artifact import Artifact
from ductile.workspace.manager import Workspaces

_PARENT = "parent"
_CLONE = "clone"
_COPY = "copy"
_FILES_IN_A_DIRECTORY = 100
_MILLISECONDS = 1000


def clone(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """Small files, each held against its size, time and digest as recorded; both trees start from nothing."""
    workspaces = Workspaces(scratch / "ws")
    workspaces.make_root()
    artifacts = _parent(workspaces, scale.cloned)
    ours, alone = [], []
    for _ in range(scale.rounds):
        ours.append(_seconds_to_clone(workspaces, artifacts))
        alone.append(_seconds_to_copy(workspaces.root))
    yield Figure(
        what=f"clone of {scale.cloned:,} files, verified, of cp -al's time",
        value=median(clone / copy for clone, copy in zip(ours, alone, strict=False)), limit=1.5, unit="times",
        detail=f"{_MILLISECONDS * median(ours):.0f} of {_MILLISECONDS * median(alone):.0f} ms",
    )


def _parent(workspaces: Workspaces, files: int) -> Mapping[str, Artifact]:
    top = workspaces.create(_PARENT)
    for number in range(files):
        directory = top / f"directory-{number // _FILES_IN_A_DIRECTORY}"
        directory.mkdir(exist_ok=True)
        (directory / f"file-{number}").write_text(f"content of file {number}\n", encoding="utf-8")
    artifacts = workspaces.complete(_PARENT, None, {}, abort=lambda: False).artifacts
    return {artifact.path: artifact for artifact in artifacts}


def _seconds_to_clone(workspaces: Workspaces, artifacts: Mapping[str, Artifact]) -> float:
    started = time.monotonic()
    cloned = workspaces.clone(_CLONE, _PARENT, artifacts, deep=False, abort=lambda: False)
    seconds = time.monotonic() - started
    if cloned.warnings:
        raise BenchmarkFailed(cloned.warnings[0])
    workspaces.cleanup(_CLONE)
    return seconds


def _seconds_to_copy(root: Path) -> float:
    started = time.monotonic()
    done = subprocess.run(["cp", "-al", "--", root / _PARENT, root / _COPY], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode != 0:
        raise BenchmarkFailed(f"cp -al exited {done.returncode}: {done.stderr.strip()[-200:]}")
    shutil.rmtree(root / _COPY)
    return seconds
