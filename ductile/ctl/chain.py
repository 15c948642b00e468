"""The chain that a job belongs to: its jobs as a tree, and for each what it added and where its events went."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from ductile.ctl import attempts, queries, table
from ductile.ctl.monitor import tree
from ductile.ctl.queries import Row
from ductile.ctl.table import Page
from ductile.queue import attempt_table
from ductile.queue.job import Job
from ductile.routing import context_table
from ductile.text import one_line
from ductile.units import format_size
from ductile.workspace import artifact_table
from ductile.workspace.artifact import Artifact

_STEP = "  "
_BELOW = "    "
# Deeper jobs are not indented further: in a chain of thousands the indents would be most of the text.
_DEEPEST_INDENT = 20
_VALUE_LIMIT = 160
# `--json` has the whole list.
_MOST_FILES = 20
_DIGEST_SHOWN = 12
# Of the jobs that `monitor` reads again and again.
_GLANCE_JOBS = 300
_COLUMNS = ("job_id", "parent_job_id", "plugin", "command", "pipeline_name", "step_id", "submitted_by", "replay_of",
            "status", "attempt", "max_attempts", "created_at", "started_at", "completed_at", "next_retry_at",
            "last_error")
LEGEND = "signs: * this job; baggage: + added, ~ changed, x removed, ! left out\n"


def rows(conn: sqlite3.Connection, asked: Job, *, contexts: bool = False) -> list[Row]:
    """Return the jobs of a chain, each before those that follow from it; `depth` counts from 0 at a root.

    `baggage_added` is what a job's context has that its parent's has not, or has with another value, and
    `baggage_before` has the parent's values of keys that have another one or are gone. With `contexts` there is the
    whole `context`, too. `files` are those of its workspace, also after that is removed.
    """
    links = list(_in_tree_order(queries.chain_jobs(conn, asked.root_job_id)))
    jobs = [job for _, job in links]
    tried: dict[str, list[Row]] = {job["job_id"]: [] for job in jobs}
    for attempt in attempt_table.of_jobs(conn, tried):
        tried[attempt.job_id].append(attempts.brief(attempt))
    baggage = _baggage(conn, jobs, contexts=contexts)
    files = _files(conn, links)
    return [{**{name: job[name] for name in _COLUMNS}, "depth": depth, "asked": job["job_id"] == asked.id,
             **baggage.get(job["event_context_id"], _NO_BAGGAGE | ({"context": None} if contexts else {})),
             "attempts": tried[job["job_id"]], "files": next(files)} for depth, job in links]


def glance(conn: sqlite3.Connection, job_id: str) -> Row | None:
    """Return what `monitor` shows of a job's chain, None if there is no such job.

    `jobs` are the first of the chain, and always the asked one; `total` counts all of them. Of the asked one there are
    the output of its last attempt, its files and its baggage.
    """
    asked = queries.chain_job(conn, job_id)
    if asked is None:
        return None
    jobs = queries.chain_jobs(conn, asked["root_job_id"], _GLANCE_JOBS)
    if job_id not in {job["job_id"] for job in jobs}:
        jobs.append(asked)
    return {"job_id": job_id, "jobs": jobs, "total": queries.chain_length(conn, asked["root_job_id"]),
            **_baggage(conn, [asked]).get(asked["event_context_id"], _NO_BAGGAGE), **queries.output(conn, job_id)}


def _in_tree_order(jobs: list[Row]) -> Iterator[tuple[int, Row]]:
    return tree.in_tree_order(jobs, own=itemgetter("job_id"), parent=itemgetter("parent_job_id"))


_NO_BAGGAGE: Row = {"baggage_added": {}, "baggage_before": {}}


def _baggage(conn: sqlite3.Connection, jobs: Iterable[Row], *, contexts: bool = False) -> dict[str | None, Row]:
    """Return how the baggage of each job differs from its parent's, by the id of its context."""
    carried = {job["event_context_id"] for job in jobs if job["event_context_id"] is not None}
    found: dict[str | None, Row] = {}
    for context_id, accumulated, parent in context_table.with_parents(conn, carried):
        before = parent or {}
        row = {"baggage_added": _differing(accumulated, before), "baggage_before": _differing(before, accumulated)}
        found[context_id] = {**row, "context": accumulated} if contexts else row
    return found


def _files(conn: sqlite3.Connection, links: list[tuple[int, Row]]) -> Iterator[list[Row]]:
    """Yield the files that each job had when it succeeded; `inherited` marks those unchanged since its parent.

    The files of each job are read once: in tree order the parent is the last job above.
    """
    above: list[Mapping[str, Artifact]] = []
    for depth, job in links:
        del above[depth:]
        before = above[-1] if above else {}
        own = artifact_table.of_job(conn, job["job_id"])
        above.append(own)
        yield [{"path": each.path, "size": each.size, "digest": each.digest,
                "inherited": each.path in before and before[each.path].digest == each.digest} for each in own.values()]


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `one` that `other` has not, or has with another value."""
    # As JSON, because true equals 1 in Python.
    return {key: value for key, value in one.items()
            if key not in other or json.dumps(other[key]) != json.dumps(value)}


def text(link: Row, page: Page = table.PLAIN) -> str:
    """Return a row of `rows` as lines: the job, and its details below.

    `*` marks the asked job; its attempts are left out, because `inspect` shows them in full.
    """
    indent = _STEP * min(link["depth"], _DEEPEST_INDENT)
    below = indent + _BELOW
    parts = [table.block(f"{'*' if link['asked'] else '-'} {_title(link, page)}", indent),
             table.block(_times(link, page), below)]
    if link["last_error"]:
        parts.append(table.block(f"error: {table.cell(link['last_error'])}", below))
    parts += [table.block(line, below) for line in tree.baggage_lines(link)]
    if link.get("context") is not None:
        parts.append(table.block(f"context: {table.json_text(link['context'])}", below))
    parts += [table.block(line, below) for line in _file_lines(link["files"])]
    for attempt in link["attempts"]:
        if not link["asked"]:
            parts.append(table.block(attempts.line(attempt, page=page), below))
        parts += [table.block(f"! {table.cell(note)}", below + _STEP) for note in attempt["notes"]]
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


def _title(link: Row, page: Page) -> str:
    title = tree.title(link)
    if link["depth"] > _DEEPEST_INDENT:
        title = f"(depth {link['depth']}) {title}"
    waiting = link["next_retry_at"] is not None
    status = f"waiting until {page.clock(link['next_retry_at'], seconds=True)}" if waiting else link["status"]
    return f"{title}: {status}, attempt {link['attempt']} of {link['max_attempts']}"


def _times(link: Row, page: Page) -> str:
    moments = {"queued": link["created_at"], "started": link["started_at"], "ended": link["completed_at"]}
    return ", ".join(f"{what} {page.clock(moment, seconds=True)}"
                     for what, moment in moments.items() if moment is not None)


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
