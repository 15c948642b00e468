"""`ductilectl inspect`: one job with all its attempts, and the whole chain it belongs to."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from datetime import datetime
from io import TextIOBase

from ductile.ctl import attempts, chain, table
from ductile.ctl.job import find
from ductile.ctl.output import document
from ductile.errors import EXIT_OK
from ductile.queue import attempt_table
from ductile.queue.job import Job
from ductile.units import utc_text


def inspect(conn: sqlite3.Connection, *, job: str, as_json: bool, out: TextIOBase) -> int:
    """Show one job with all its attempts, and its chain. Raises DuctileError as `find` does."""
    found = find(conn, job)
    row = _row(found)
    tried = [attempts.row(attempt) for attempt in attempt_table.of_job(conn, found.id)]
    links = chain.rows(conn, found)
    if as_json:
        out.write(document({**row, "attempts": tried, "chain": links}))
        return EXIT_OK
    out.write(_facts(found, row))
    for attempt in tried:
        out.write("\n" + attempts.text(attempt))
    out.write(f"\nchain of {len(links)} {'job' if len(links) == 1 else 'jobs'}:\n")
    for link in links:
        out.write(chain.text(link))
    return EXIT_OK


def _row(job: Job) -> dict:
    row = {field.name: getattr(job, field.name) for field in dataclasses.fields(job) if field.name != "seq"}
    row = {name: utc_text(value) if isinstance(value, datetime) else value for name, value in row.items()}
    return {**row, "payload": None if job.payload is None else json.loads(job.payload)}


def _facts(job: Job, row: dict) -> str:
    facts = {name: value for name, value in row.items() if value is not None}
    facts["payload"] = None if job.payload is None else json.dumps(row["payload"])
    facts["attempt"] = f"{job.attempt} of {job.max_attempts}"
    del facts["max_attempts"]
    width = max(map(len, facts))
    return "".join(f"{name.replace('_', ' '):<{width}}  {table.cell(value)}\n"
                   for name, value in facts.items() if value is not None)
