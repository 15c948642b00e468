"""How fast the queue empties, beside a bare loop, and with a full ledger beside an empty one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import bare, ledger
from benchmarks.figures import BenchmarkFailed, Figure, Scale
from benchmarks.site import Site, make_site, running, until
from ductile.units import parse_utc

_ECHO = {"echo": "config: {message: hello}"}
# The first jobs after a start find nothing in any cache.
_WARM_UP = 50
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


def drain_million(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """What a job costs with a full ledger, against one with a few rows."""
    sites = {rows: make_site(scratch / f"rows-{rows}", _ECHO) for rows in (scale.few_rows, scale.many_rows)}
    for rows, site in sites.items():
        with site.ledger() as conn:
            ledger.fill(conn, "echo", waiting=rows, finished=rows)
    costs: dict[int, list[float]] = {rows: [] for rows in sites}
    for _ in range(scale.rounds):
        for rows, site in sites.items():
            costs[rows].append(_cost(site, scale.between))
    few, many = costs.values()
    yield Figure(
        what=f"a job's cost with {scale.many_rows:,} rows waiting and finished, of that with {scale.few_rows:,}",
        value=median(full / empty for empty, full in zip(few, many, strict=False)), limit=1.1,
        detail=f"{1000 * median(many):.2f} of {1000 * median(few):.2f} ms",
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


def _cost(site: Site, jobs: int) -> float:
    """Return the seconds that each of so many jobs took; the site has as many waiting jobs afterwards as before."""
    with site.ledger() as conn:
        before = ledger.last_logged(conn)
        waiting = _waiting(conn)
        ledger.submit(conn, "echo", jobs + _WARM_UP)
    with running(site), site.follower() as conn:
        until(lambda: ledger.last_logged(conn) >= before + _WARM_UP + jobs, "the jobs to end")
    with site.ledger() as conn:
        ends = conn.execute("SELECT completed_at FROM job_log WHERE seq IN (?, ?) ORDER BY seq",
                            (before + _WARM_UP, before + _WARM_UP + jobs)).fetchall()
        ledger.submit(conn, "echo", max(0, waiting - _waiting(conn)))
    (first,), (last,) = ends
    return (parse_utc(last) - parse_utc(first)).total_seconds() / jobs


def _waiting(conn: sqlite3.Connection) -> int:
    return conn.execute("SELECT count(*) FROM job_queue WHERE completed_at IS NULL").fetchone()[0]
