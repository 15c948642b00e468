"""What a million jobs change: for a start, for who looks at them, and for each job."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import ledger
from benchmarks.figures import Figure, Scale
from benchmarks.site import Site, make_site, running, seconds_to_look, until
from ductile.units import parse_utc

_ECHO = {"echo": "config: {message: hello}"}
_MILLISECONDS = 1000
# The first jobs after a start find nothing in any cache.
_WARM_UP = 50


def million(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """A full ledger: so many jobs waiting, and as many finished."""
    sites = {rows: make_site(scratch / f"rows-{rows}", _ECHO) for rows in (scale.few_rows, scale.many_rows)}
    for rows, site in sites.items():
        with site.ledger() as conn:
            ledger.fill(conn, "echo", waiting=rows, finished=rows)
    full = sites[scale.many_rows]
    yield from _looks(full, scale)
    yield _ready(full, scale)
    costs: dict[int, list[float]] = {rows: [] for rows in sites}
    for _ in range(scale.rounds):
        for rows, site in sites.items():
            costs[rows].append(_cost(site, scale.between))
    few, many = costs.values()
    yield Figure(
        what=f"a job's cost with {scale.many_rows:,} rows waiting and finished, of that with {scale.few_rows:,}",
        value=median(full / empty for empty, full in zip(few, many, strict=False)), limit=1.2,
        detail=f"{_MILLISECONDS * median(many):.2f} of {_MILLISECONDS * median(few):.2f} ms",
    )


def _looks(site: Site, scale: Scale) -> Iterator[Figure]:
    with site.ledger() as conn:
        job_id = conn.execute("SELECT job_id FROM job_log ORDER BY seq DESC LIMIT 1").fetchone()[0]
    for command in (("queue",), ("jobs",), ("logs",), ("inspect", job_id)):
        asked = [seconds_to_look(site, *command) for _ in range(scale.starts)]
        yield Figure(what=f"ductilectl {command[0]}, {scale.many_rows:,} jobs waiting and finished",
                     value=_MILLISECONDS * median(asked), limit=150, unit="ms")


def _ready(site: Site, scale: Scale) -> Figure:
    """From the start of the daemon to its word that it is ready."""
    seconds = []
    for _ in range(scale.rounds):
        with running(site) as daemon:
            seconds.append(daemon.ready_seconds)
    return Figure(what=f"ready after start, {scale.many_rows:,} jobs waiting and finished", value=median(seconds),
                  limit=0.5, unit="s")


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
