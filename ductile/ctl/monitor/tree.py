"""A chain as the lines of a tree: its jobs, and below the chosen one its error, its output and its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, TypeVar

from ductile.ctl import table, times
from ductile.text import one_line
from ductile.units import format_duration, format_size, parse_utc

# Deeper jobs are not indented further: half of the smallest screen is left for text.
_DEEPEST_INDENT = 8
_STEP = "  "
_BELOW = "    "
_OUTPUT_LINES = 60
_KEY_LIMIT = 60
_VALUE_LIMIT = 160

T = TypeVar("T")

# The sign of a status, for terminals without colours. A queued job that waits for a retry has the status "retry".
SIGNS = {"queued": ".", "retry": "!", "running": "*", "succeeded": "+", "dead": "x", "deduped": "~"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """One line of a chain, not yet escaped for a terminal, and its job; `status` is a key of SIGNS, or empty."""

    text: str
    status: str
    job_id: str


def entries(chain: Mapping[str, Any] | None, now: datetime) -> list[TreeEntry]:
    """Return the lines of what `chain.glance` returned."""
    if chain is None:
        return []
    lines = []
    for depth, job in in_tree_order(chain["jobs"], own=itemgetter("job_id"), parent=itemgetter("parent_job_id")):
        indent = _STEP * min(depth, _DEEPEST_INDENT)
        asked = job["job_id"] == chain["job_id"]
        status = status_of(job)
        lines.append(TreeEntry(text=f"{indent}{SIGNS[status]} {_line(job, now)}", status=status, job_id=job["job_id"]))
        if asked:
            lines += [TreeEntry(text=f"{indent}{_BELOW}{text}", status="", job_id=job["job_id"])
                      for text in _below(job, chain)]
    missing = chain["total"] - len(chain["jobs"])
    if missing > 0:
        lines.append(TreeEntry(text=f"and {missing} more: ductilectl inspect {table.short(chain['job_id'])}", status="",
                               job_id=chain["job_id"]))
    return lines


def line_of(found: Sequence[TreeEntry], job_id: str | None) -> int:
    """Return the number of a job's first line, 0 if it has none."""
    return next((number for number, entry in enumerate(found) if entry.job_id == job_id), 0)


def status_of(job: Mapping[str, Any]) -> str:
    """Return a job's status, `retry` for one that waits for its next attempt."""
    return "retry" if job["next_retry_at"] is not None and job["status"] == "queued" else job["status"]


def took(job: Mapping[str, Any]) -> str:
    """Return how long the last attempt of an ended job took, empty if that is not known."""
    if job["started_at"] is None or job["completed_at"] is None:
        return ""
    seconds = (parse_utc(job["completed_at"]) - parse_utc(job["started_at"])).total_seconds()
    return f"{max(0.0, seconds):.1f}s" if seconds < 60 else format_duration(seconds)


def in_tree_order(jobs: Sequence[T], *, own: Callable[[T], str],
                  parent: Callable[[T], str | None]) -> Iterator[tuple[int, T]]:
    """Yield each job of a chain with its depth, then its children, in the order in which they were queued.

    `own` returns a job's id, `parent` its parent's. A job whose parent is not among them is a root.
    """
    known = {own(job) for job in jobs}
    children: dict[str | None, list[T]] = {}
    for job in jobs:
        # A replay of a root has no parent either, so a chain may have several roots.
        children.setdefault(parent(job) if parent(job) in known else None, []).append(job)
    left = [(0, job) for job in reversed(children.get(None, []))]
    while left:
        depth, job = left.pop()
        yield depth, job
        left += [(depth + 1, child) for child in reversed(children.get(own(job), []))]


def title(job: Mapping[str, Any]) -> str:
    """Return a job's short id, its plugin, its command, its step and what it replays."""
    text = f"{table.short(job['job_id'])} {job['plugin']} {job['command']}"
    if job["step_id"] is not None:
        text += f", step {job['pipeline_name']}/{job['step_id']}"
    if job["replay_of"] is not None:
        text += f", replay of {table.short(job['replay_of'])}"
    return text


def _line(job: Mapping[str, Any], now: datetime) -> str:
    text = f"{title(job)}: {job['status']}, {job['attempt']}/{job['max_attempts']}"
    if status_of(job) == "retry":
        return f"{text}, retry {times.due(job['next_retry_at'], now)}"
    return f"{text}, {took(job)}" if took(job) else text


def _below(job: Mapping[str, Any], chain: Mapping[str, Any]) -> Iterator[str]:
    if job["last_error"]:
        yield f"error: {job['last_error'].strip()}"
    yield from baggage_lines(chain)
    attempt = chain["attempt"]
    if attempt is not None:
        for name in ("stderr", "printed"):
            yield from _output(name, attempt[name])
    for file in chain["files"]:
        yield f"file: {file['path']} ({format_size(file['size'])})"
    if chain["files_total"] > len(chain["files"]):
        yield f"and {chain['files_total'] - len(chain['files'])} more files"


def baggage_lines(link: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each key of the baggage that was added, changed or removed.

    The legend of `inspect` explains the signs.
    """
    before = link["baggage_before"]
    for key, value in link["baggage_added"].items():
        was = f" (was {_value(before[key])})" if key in before else ""
        yield f"{'~' if key in before else '+'} {one_line(key, _KEY_LIMIT)}: {_value(value)}{was}"
    for key in before:
        if key not in link["baggage_added"]:
            yield f"x {one_line(key, _KEY_LIMIT)}"


def _value(value: Any) -> str:
    return one_line(json.dumps(table.shortened(value), ensure_ascii=False), _VALUE_LIMIT)


def _output(name: str, text: str | None) -> Iterator[str]:
    lines = (text or "").splitlines()
    for line in lines[:_OUTPUT_LINES]:
        yield f"{name}: {line}"
    if len(lines) > _OUTPUT_LINES:
        yield f"{name}: and {len(lines) - _OUTPUT_LINES} lines more"
