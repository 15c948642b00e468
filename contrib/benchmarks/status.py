"""How long `ductilectl status` takes on a database with many jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import ledger
from benchmarks.figures import Figure, Scale
from benchmarks.site import make_site, running, seconds_to_look, seconds_to_run

_ECHO = {"echo": "schedule: {every: 1w}\nconfig: {message: hello}"}
_MILLISECONDS = 1000


def status(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """`ductilectl status` beside the same interpreter that does nothing."""
    site = make_site(scratch / "status", _ECHO)
    with site.ledger() as conn:
        ledger.fill(conn, "echo", waiting=0, finished=scale.stored)
    asked, nothing = [], []
    with running(site):
        for _ in range(scale.starts):
            asked.append(seconds_to_look(site, "status"))
            nothing.append(seconds_to_run([sys.executable, "-c", "pass"]))
    yield Figure(
        what=f"ductilectl status, {scale.stored:,} jobs in the database", value=_MILLISECONDS * median(asked),
        limit=150, unit="ms", detail=f"python3 -c pass: {_MILLISECONDS * median(nothing):.0f} ms",
    )
