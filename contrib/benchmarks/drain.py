"""How fast the queue empties, beside a bare loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import bare, ledger
from benchmarks.figures import BenchmarkFailed, Figure, Scale
from benchmarks.site import Site, make_site, running, until
from ductile.units import parse_utc

_ECHO = {"echo": "config: {message: hello}"}
# How much the ledger's clock and ours may differ, in parts of the whole.
_TRUSTED = 0.1
_SLACK_SECONDS = 0.5


def drain(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """Queued jobs of the shipped echo plugin by a real daemon, against a bare loop."""
    daemon, loop = [], []
    for number in range(scale.rounds):
        daemon.append(_seconds_to_drain(make_site(scratch / f"drain-{number}", _ECHO), scale.drained))
        loop.append(bare.seconds_to_drain(scratch / f"bare-{number}", scale.drained))
    yield Figure(
        what=f"draining {scale.drained:,} queued jobs, of a bare loop's rate",
        value=median(alone / ours for ours, alone in zip(daemon, loop, strict=False)), limit=0.85, is_floor=True,
        detail=f"{scale.drained / median(daemon):,.0f} of {scale.drained / median(loop):,.0f} jobs/s",
    )


def _seconds_to_drain(site: Site, jobs: int) -> float:
    with site.ledger() as conn:
        ledger.submit(conn, "echo", jobs)
    with running(site):
        started = time.monotonic()
        with site.follower() as conn:
            until(lambda: ledger.is_idle(conn), "the queue to be empty")
            outside = time.monotonic() - started
            first, last, succeeded = conn.execute(
                "SELECT min(started_at), max(completed_at), sum(status = 'succeeded') FROM job_log"
                " WHERE command = 'poll'").fetchone()
    if succeeded != jobs:
        raise BenchmarkFailed(f"{succeeded} of {jobs} jobs succeeded")
    inside = (parse_utc(last) - parse_utc(first)).total_seconds()
    if abs(outside - inside) > _SLACK_SECONDS + _TRUSTED * outside:
        raise BenchmarkFailed(f"the ledger says {inside:.2f} s where {outside:.2f} s have passed: was the clock set?")
    return inside
