"""How long the programs take to start on a database with many jobs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks import ledger
from benchmarks.figures import BenchmarkFailed, Figure, Scale
from benchmarks.site import OPERATOR, Site, make_site, running

_ECHO = {"echo": "schedule: {every: 1w}\nconfig: {message: hello}"}
_MILLISECONDS = 1000


def ready(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """From the start of the daemon to its word that it is ready, half of the jobs waiting and half finished."""
    site = _filled(scratch / "ready", waiting=scale.stored // 2, finished=scale.stored - scale.stored // 2)
    seconds = []
    for _ in range(scale.starts):
        with running(site) as daemon:
            seconds.append(daemon.ready_seconds)
    yield Figure(what=f"ready after start, {scale.stored:,} jobs in the database", value=median(seconds), limit=0.5,
                 unit="s")


def status(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """`ductilectl status` beside the same interpreter that does nothing."""
    site = _filled(scratch / "status", waiting=0, finished=scale.stored)
    asked, nothing = [], []
    with running(site):
        for _ in range(scale.starts):
            asked.append(_seconds([*OPERATOR, "-c", str(site.directory), "status"]))
            nothing.append(_seconds([sys.executable, "-c", "pass"]))
    yield Figure(
        what=f"ductilectl status, {scale.stored:,} jobs in the database", value=_MILLISECONDS * median(asked),
        limit=150, unit="ms", detail=f"python3 -c pass: {_MILLISECONDS * median(nothing):.0f} ms",
    )


def _filled(directory: Path, *, waiting: int, finished: int) -> Site:
    site = make_site(directory, _ECHO)
    with site.ledger() as conn:
        ledger.fill(conn, "echo", waiting=waiting, finished=finished)
    return site


def _seconds(command: Sequence[str]) -> float:
    started = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode != 0:
        raise BenchmarkFailed(f"{command[-1]!r} exited {done.returncode}: {done.stderr.strip()[-200:]}")
    return seconds
