"""`ductilectl inspect`: one job with all its attempts, and the whole chain it belongs to."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import Any

from ductile.ctl import attempts, chain, table
from ductile.ctl.lookup import find
from ductile.ctl.session import Session
from ductile.ctl.table import Page
from ductile.errors import EXIT_OK
from ductile.queue import attempt_table
from ductile.queue.job import Job
from ductile.text import counted
from ductile.units import utc_text

_INDENT = "    "


def inspect(session: Session, *, job: str, context: bool) -> int:
    """Show one job with all its attempts, and its chain; with `context` the whole baggage of each job.

    Raises DuctileError as `find` does.
    """
    with session.reading() as conn:
        found = find(conn, job)
        tried = [attempts.row(attempt) for attempt in attempt_table.of_job(conn, found.id)]
        links = chain.rows(conn, found, contexts=context)
    row, page = _row(found), session.page
    session.emit({**row, "attempts": tried, "chain": links}, "".join([
        _facts(found, row, page), *(f"\n{attempts.text(attempt, page=page)}" for attempt in tried),
        f"\nchain of {counted(len(links), 'job')}:\n", *(chain.text(link, page) for link in links), chain.LEGEND]))
    return EXIT_OK


def _row(job: Job) -> dict[str, Any]:
    row = {field.name: getattr(job, field.name) for field in dataclasses.fields(job) if field.name != "seq"}
    row = {name: utc_text(value) if isinstance(value, datetime) else value for name, value in row.items()}
    return {**row, "payload": None if job.payload is None else json.loads(job.payload)}


def _facts(job: Job, row: dict[str, Any], page: Page) -> str:
    facts = {name: page.clock(value, seconds=True) if name.endswith("_at") else value
             for name, value in row.items() if value is not None}
    facts.pop("payload", None)
    facts["attempt"] = f"{job.attempt} of {job.max_attempts}"
    del facts["max_attempts"]
    width = max(map(len, facts))
    lines = "".join(f"{name.replace('_', ' '):<{width}}  {table.cell(value)}\n" for name, value in facts.items())
    return lines if job.payload is None else f"{lines}payload\n{table.block(table.json_text(row['payload']), _INDENT)}"
