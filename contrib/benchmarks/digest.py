"""How fast a large artifact is completed, beside BLAKE3 alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from blake3 import blake3

from benchmarks.figures import BenchmarkFailed, Figure, Scale
from ductile.workspace.manager import Workspaces

_JOB = "job"
_MIB = 1024 * 1024


def digest(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """One file that is in the page cache and on the disk already: neither side waits for the disk.

    Ours opens, seals, syncs, reads and digests it, and syncs its directories; the other side maps it into memory
    and digests it in one thread.
    """
    workspaces = Workspaces(scratch / "ws")
    workspaces.make_root()
    file = workspaces.create(_JOB) / "large"
    _write(file, scale.digested_mib)
    ours, alone = [], []
    for _ in range(scale.rounds):
        started = time.monotonic()
        [artifact] = workspaces.complete(_JOB, None, {}, abort=lambda: False).artifacts
        ours.append(time.monotonic() - started)
        started = time.monotonic()
        expected = blake3().update_mmap(file).hexdigest()
        alone.append(time.monotonic() - started)
        if artifact.digest != expected:
            raise BenchmarkFailed(f"the digest of a file is {expected} and not {artifact.digest}")
    yield Figure(
        what=f"completing an artifact of {scale.digested_mib:,} MiB in the page cache, of BLAKE3's rate",
        value=median(theirs / mine for mine, theirs in zip(ours, alone, strict=False)), limit=0.5, is_floor=True,
        detail=f"{scale.digested_mib / median(ours):,.0f} of {scale.digested_mib / median(alone):,.0f} MiB/s",
    )


def _write(file: Path, mib: int) -> None:
    piece = os.urandom(_MIB)
    with file.open("wb") as output:
        for _ in range(mib):
            output.write(piece)
        output.flush()
        os.fsync(output.fileno())
