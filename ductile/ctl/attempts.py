"""One attempt as `logs`, `inspect` and `run --wait` show it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from ductile.ctl import table
from ductile.ctl.queries import Row
from ductile.ctl.table import Page
from ductile.queue.attempt_table import Attempt
from ductile.units import parse_utc

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


def whole(columns: Row) -> Row:
    """Return a row of `queries.attempts` with `whole`, as `row` does."""
    result = columns["result"]
    return {**columns, "result": None if result is None else json.loads(result), "seconds": _seconds(columns)}


def parts(columns: Row) -> Row:
    """Return a row of `queries.attempts`, which has only parts of the response, as `text` takes it."""
    result = {"result": columns.pop("text"), **{name: json.loads(columns.pop(name) or "null")
                                                for name in ("logs", "notes")}}
    return {**columns, "result": result, "seconds": _seconds(columns)}


def _seconds(attempt: Row) -> float | None:
    if attempt["started_at"] is None:
        return None
    return (parse_utc(attempt["completed_at"]) - parse_utc(attempt["started_at"])).total_seconds()


def text(attempt: Row, *, page: Page = table.PLAIN, with_job: bool = False, events: bool = True) -> str:
    """Return a row of `row` or `parts` as text: one line, and below it the output of the plugin.

    `with_job` names the job too; without `events` those are left out.
    """
    return line(attempt, page=page, with_job=with_job) + "\n" + "".join(_output(attempt, events=events))


def _output(attempt: Row, *, events: bool) -> Iterator[str]:
    """Yield the log lines, the notes, the result, the events and the standard error of an attempt, each indented."""
    result = attempt["result"] if isinstance(attempt["result"], dict) else {}
    for each in _objects(result.get("logs")):
        yield _labelled(str(each.get("level", "info")), each.get("message"))
    if isinstance(result.get("notes"), list):
        yield from (_labelled("note", each) for each in result["notes"])
    if result.get("result") and isinstance(result["result"], str):
        yield _labelled("result", result["result"])
    if events:
        yield from (table.block(f"event {table.cell(each.get('type'))} {json.dumps(each.get('payload', {}))}", _INDENT)
                    for each in _objects(result.get("events")))
    for name in ("stderr", "printed"):
        if attempt[name]:
            yield _labelled(name, attempt[name])


def _labelled(label: str, value: object) -> str:
    """Return `label: text`, or a text of several lines below its label."""
    text = str(value)
    if "\n" in text.strip():
        return f"{_INDENT}{table.cell(label)}:\n{table.block(text, _INDENT * 2)}"
    return table.block(f"{table.cell(label)}: {table.cell(value)}", _INDENT)


def _objects(value: object) -> list[Row]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
