"""The chain that a job belongs to: its jobs as a tree, and for each what it added and where its events went."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any

from ductile.ctl import attempts, table
from ductile.ctl.monitor import tree
from ductile.ctl.queries import Row
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Job
from ductile.routing import context_table
from ductile.text import one_line
from ductile.units import format_size, utc_text
from ductile.workspace import artifact_table
from ductile.workspace.artifact import Artifact

_STEP = "  "
_BELOW = "    "
# Deeper jobs are not indented further: in a chain of thousands the indents would be most of the text.
_DEEPEST_INDENT = 20
_KEY_LIMIT = 60
_VALUE_LIMIT = 160
# `--json` has the whole list.
_MOST_FILES = 20
_DIGEST_SHOWN = 12


def rows(conn: sqlite3.Connection, asked: Job) -> list[Row]:
    """Return the jobs of a chain, each before those that follow from it; `depth` counts from 0 at a root.

    `baggage_added` is what a job's context has that its parent's has not, or has with another value; `files` are those
    of its workspace, also after that is removed.
    """
    links = list(tree.in_tree_order(job_table.of_chain(conn, asked.root_job_id), own=attrgetter("id"),
                               parent=attrgetter("parent_job_id")))
    jobs = [job for _, job in links]
    tried: dict[str, list[Row]] = {job.id: [] for job in jobs}
    for attempt in attempt_table.of_jobs(conn, tried):
        tried[attempt.job_id].append(attempts.brief(attempt))
    carried = {job.event_context_id for job in jobs if job.event_context_id is not None}
    added = {context_id: _added(accumulated, before or {})
             for context_id, accumulated, before in context_table.with_parents(conn, carried)}
    files = _files(conn, links)
    return [{**_facts(job), "depth": depth, "asked": job.id == asked.id,
             "baggage_added": added.get(job.event_context_id or "", {}), "attempts": tried[job.id],
             "files": next(files)} for depth, job in links]


def _files(conn: sqlite3.Connection, links: list[tuple[int, Job]]) -> Iterator[list[Row]]:
    """Yield the files that each job had when it succeeded; `inherited` marks those unchanged since its parent.

    The files of each job are read once: in tree order the parent is the last job above.
    """
    above: list[Mapping[str, Artifact]] = []
    for depth, job in links:
        del above[depth:]
        before = above[-1] if above else {}
        own = artifact_table.of_job(conn, job.id)
        above.append(own)
        yield [{"path": each.path, "size": each.size, "digest": each.digest,
                "inherited": each.path in before and before[each.path].digest == each.digest} for each in own.values()]


def _added(accumulated: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    # As JSON, because true equals 1 in Python.
    return {key: value for key, value in accumulated.items()
            if key not in before or json.dumps(before[key]) != json.dumps(value)}


def _facts(job: Job) -> Row:
    return {
        "job_id": job.id, "parent_job_id": job.parent_job_id, "plugin": job.plugin, "command": job.command,
        "pipeline_name": job.pipeline_name, "step_id": job.step_id, "submitted_by": job.submitted_by,
        "replay_of": job.replay_of, "status": job.status, "attempt": job.attempt, "max_attempts": job.max_attempts,
        "created_at": utc_text(job.created_at), "started_at": _time(job.started_at),
        "completed_at": _time(job.completed_at), "next_retry_at": _time(job.next_retry_at),
        "last_error": job.last_error,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else utc_text(moment)


def text(link: Row) -> str:
    """Return a row of `rows` as lines: the job, and its details below.

    `*` marks the asked job; its attempts are left out, because `inspect` shows them in full.
    """
    indent = _STEP * min(link["depth"], _DEEPEST_INDENT)
    below = indent + _BELOW
    parts = [table.block(f"{'*' if link['asked'] else '-'} {_title(link)}", indent), table.block(_times(link), below)]
    if link["last_error"]:
        parts.append(table.block(f"error: {table.cell(link['last_error'])}", below))
    parts += [table.block(f"+ {one_line(key, _KEY_LIMIT)}: {one_line(json.dumps(value), _VALUE_LIMIT)}", below)
              for key, value in link["baggage_added"].items()]
    parts += [table.block(line, below) for line in _file_lines(link["files"])]
    for attempt in link["attempts"]:
        if not link["asked"]:
            parts.append(table.block(attempts.line(attempt), below))
            parts += [table.block(f"note: {table.cell(note)}", below + _STEP) for note in attempt["notes"]]
        parts += [table.block(line, below + _STEP) for line in _events(attempt)]
    return "".join(parts)


def _file_lines(files: list[Row]) -> Iterator[str]:
    """Yield a line for each file of the job's own, and one that counts those of its parent."""
    own = [each for each in files if not each["inherited"]]
    for each in own[:_MOST_FILES]:
        path, digest = one_line(each["path"], _VALUE_LIMIT), each["digest"][:_DIGEST_SHOWN]
        yield f"file {path}  {format_size(each['size'])}  {digest}"
    if len(own) > _MOST_FILES:
        yield f"and {len(own) - _MOST_FILES:,} files more"
    if len(files) > len(own):
        count = len(files) - len(own)
        yield f"and {count:,} {'file' if count == 1 else 'files'} of the job before it"


def _title(link: Row) -> str:
    title = tree.title(link)
    if link["depth"] > _DEEPEST_INDENT:
        title = f"(depth {link['depth']}) {title}"
    waiting = link["next_retry_at"] is not None
    status = f"waiting until {link['next_retry_at']}" if waiting else link["status"]
    return f"{title}: {status}, attempt {link['attempt']} of {link['max_attempts']}"


def _times(link: Row) -> str:
    moments = {"queued": link["created_at"], "started": link["started_at"], "ended": link["completed_at"]}
    return ", ".join(f"{what} {moment}" for what, moment in moments.items() if moment is not None)


def _events(attempt: Row) -> Iterator[str]:
    """Yield a line for each job or duplicate that an event of an attempt led to."""
    for way in attempt["passed_on"]:
        yield f"no event -> {_place(way)}"
    for event in attempt["events"]:
        for place in _places(event["ways"]):
            yield f"event {table.cell(event['type'])} -> {place}"


def _places(ways: list[Row] | None) -> list[str]:
    if ways is None:
        return ["dropped: the attempt failed"]
    return [_place(way) for way in ways] or ["no subscribers"]


def _place(way: Row) -> str:
    step = f", step {way['step_id']}" if "step_id" in way else ""
    if "duplicate_of" in way:
        return f"{way['plugin']}{step}: a duplicate of job {table.short(way['duplicate_of'])}"
    return f"job {table.short(way['job_id'])} {way['plugin']}{step}"
