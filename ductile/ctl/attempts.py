"""One attempt as `logs`, `inspect` and `run --wait` show it."""

from __future__ import annotations

import dataclasses
import json

from ductile.ctl import table
from ductile.ctl.queries import Row
from ductile.ctl.table import Page
from ductile.queue.attempt_table import Attempt

_INDENT = "    "
_JOB_FACTS = ("seq", "created_at", "submitted_by", "parent_job_id", "source_event_id")


def row(attempt: Attempt) -> Row:
    """Return an attempt as the database has it, with its response decoded and its seconds."""
    columns = {field.name: getattr(attempt, field.name) for field in dataclasses.fields(attempt)
               if field.name not in _JOB_FACTS}
    result = None if attempt.result is None else json.loads(attempt.result)
    return {**columns, "seconds": attempt.seconds, "result": result}


def brief(attempt: Attempt) -> Row:
    """Return how an attempt ended, its notes, and where its events went.

    `passed_on` is where a pipeline's step without events led. `ways` are as in `job_log`: None if the event did not
    count.
    """
    stored = None if attempt.result is None else json.loads(attempt.result)
    result = stored if isinstance(stored, dict) else {}
    return {
        "attempt": attempt.attempt, "status": attempt.status, "started_at": attempt.started_at,
        "completed_at": attempt.completed_at, "seconds": attempt.seconds, "last_error": attempt.last_error,
        "notes": result.get("notes", []), "passed_on": _objects(result.get("ways")),
        "events": [{"type": each.get("type"), "ways": each.get("ways")} for each in _objects(result.get("events"))],
    }


def line(attempt: Row, *, page: Page = table.PLAIN, with_job: bool = False) -> str:
    """Return a row of `row` or `brief` as one line. `with_job` names the job too, which only `row` does."""
    job = f"{table.short(attempt['job_id'])} {attempt['plugin']} {attempt['command']} " if with_job else ""
    text = f"{page.clock(attempt['completed_at'], seconds=True)} {job}attempt {attempt['attempt']} {attempt['status']}"
    if attempt["seconds"] is not None:
        text += f" in {attempt['seconds']:.3f} s"
    if attempt["last_error"]:
        text += f": {table.cell(attempt['last_error'])}"
    return text


def text(attempt: Row, *, page: Page = table.PLAIN, with_job: bool = False) -> str:
    """Return a row of `row` as text: one line, and below it the plugin's output. `with_job` names the job too."""
    return line(attempt, page=page, with_job=with_job) + "\n" + "".join(_said(attempt, events=not with_job))


def _said(attempt: Row, *, events: bool) -> list[str]:
    """Return the log lines, the notes, the result, the events and the standard error of an attempt, each indented."""
    result = attempt["result"] if isinstance(attempt["result"], dict) else {}
    parts = [table.block(f"{each.get('level', 'info')}: {table.cell(each.get('message'))}", _INDENT)
             for each in _objects(result.get("logs"))]
    if isinstance(result.get("notes"), list):
        parts += [table.block(f"note: {table.cell(each)}", _INDENT) for each in result["notes"]]
    if events:
        if isinstance(result.get("result"), str):
            parts.append(table.block(f"result: {table.cell(result['result'])}", _INDENT))
        parts += [table.block(f"event {table.cell(each.get('type'))} {json.dumps(each.get('payload', {}))}", _INDENT)
                  for each in _objects(result.get("events"))]
    for name in ("stderr", "printed"):
        if attempt[name]:
            parts.append(f"{_INDENT}{name}:\n" + table.block(attempt[name], _INDENT * 2))
    return parts


def _objects(value: object) -> list[Row]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
