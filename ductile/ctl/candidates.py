"""`ductilectl complete`: what a word of the command line may become, for the shell's completion."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from io import TextIOBase

from ductile.ctl import glance
from ductile.errors import EXIT_OK
from ductile.queue import rows as queue_rows

JOBS = {"jobs": None, "dead": ("dead",), "queued": ("queued",), "ended": ("succeeded", "dead", "deduped")}
_RECENT = 100
# So much of an id is enough to look for it among all jobs.
_SHORTEST_PREFIX = 4


def names(known: Iterable[str], *, prefix: str, out: TextIOBase) -> int:
    """Show the names that begin with `prefix`, one a line."""
    out.write("".join(f"{name}\n" for name in sorted(known) if name.startswith(prefix)))
    return EXIT_OK


def jobs(conn: sqlite3.Connection, *, kind: str, prefix: str, out: TextIOBase) -> int:
    """Show the ids of jobs that begin with `prefix`: the latest, and of those that are longer ago what is named more
    closely. `kind` is a key of `JOBS`.
    """
    prefix = prefix.lower()
    recent = (*glance.open_jobs(conn, _RECENT), *glance.ended_jobs(conn, _RECENT))
    found = {row["job_id"]: row["status"] for row in recent if row["job_id"].startswith(prefix)}
    if len(prefix) >= _SHORTEST_PREFIX:
        found |= {job.id: job.status for job in queue_rows.with_prefix(conn, prefix, _RECENT)}
    wanted = JOBS[kind]
    out.write("".join(f"{job_id}\n" for job_id, status in found.items() if wanted is None or status in wanted))
    return EXIT_OK
