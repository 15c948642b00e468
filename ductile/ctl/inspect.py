"""`ductilectl inspect`: one job with all its attempts, and the whole chain it belongs to."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import Any

from ductile.ctl import attempts, chain, table
from ductile.ctl.job import find
from ductile.ctl.session import Session
from ductile.errors import EXIT_OK
from ductile.queue import attempt_table
from ductile.queue.job import Job
from ductile.text import counted
from ductile.units import utc_text


def inspect(session: Session, *, job: str) -> int:
    """Show one job with all its attempts, and its chain. Raises DuctileError as `find` does."""
    with session.reading() as conn:
        found = find(conn, job)
        tried = [attempts.row(attempt) for attempt in attempt_table.of_job(conn, found.id)]
        links = chain.rows(conn, found)
    row = _row(found)
    session.emit({**row, "attempts": tried, "chain": links}, "".join([
        _facts(found, row), *(f"\n{attempts.text(attempt)}" for attempt in tried),
        f"\nchain of {counted(len(links), 'job')}:\n", *map(chain.text, links)]))
    return EXIT_OK


def _row(job: Job) -> dict[str, Any]:
    row = {field.name: getattr(job, field.name) for field in dataclasses.fields(job) if field.name != "seq"}
    row = {name: utc_text(value) if isinstance(value, datetime) else value for name, value in row.items()}
    return {**row, "payload": None if job.payload is None else json.loads(job.payload)}


def _facts(job: Job, row: dict[str, Any]) -> str:
    facts = {name: value for name, value in row.items() if value is not None}
    facts["payload"] = None if job.payload is None else json.dumps(row["payload"])
    facts["attempt"] = f"{job.attempt} of {job.max_attempts}"
    del facts["max_attempts"]
    width = max(map(len, facts))
    return "".join(f"{name.replace('_', ' '):<{width}}  {table.cell(value)}\n"
                   for name, value in facts.items() if value is not None)
