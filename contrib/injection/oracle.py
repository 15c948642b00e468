"""Three records compared: what senders were told, what plugins wrote down, what the database says."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

LOST, DOUBLED, STUCK, BUG = KINDS = ("lost", "doubled", "stuck", "bug")
_JOBS = """
SELECT id, plugin, status, payload, parent_job_id, pipeline_name, replay_of, last_error, attempt FROM job_queue
"""
_LOGGED = """
SELECT job_id, count(*), sum(status = 'succeeded') FROM job_log GROUP BY job_id
"""
_STATES = "SELECT plugin_name, state FROM plugin_state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it must be."""

    kind: str
    text: str


@dataclass(slots=True, kw_only=True)
class Told:
    """What senders and operators were told: of each token the id of its job."""

    jobs: dict[str, str] = field(default_factory=dict)

    def note(self, token: str, job_id: str) -> Iterable[Finding]:
        """Note an acknowledgement; another job for the same token is a finding."""
        if self.jobs.setdefault(token, job_id) != job_id:
            yield Finding(kind=DOUBLED, text=f"{token}: told of job {self.jobs[token]}, then of job {job_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    id: str
    plugin: str
    status: str
    token: str | None
    parent: str | None
    pipeline: str | None
    replay_of: str | None
    error: str | None
    attempt: int

    @property
    def name(self) -> str:
        return f"{self.token or 'scheduled'}: job {self.id} of {self.plugin}"


def judge(database: Path, told: Mapping[str, str], records: Iterable[list[str]]) -> list[Finding]:
    """Return what was lost, doubled or stuck, after everything has come to rest.

    `told` gives by token the id of an acknowledged job; `records` are event, job id, attempt, plugin, token.
    """
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as conn:
            faults = [row[0] for row in conn.execute("PRAGMA integrity_check") if row[0] != "ok"]
            faults += [f"foreign key of {row[0]}" for row in conn.execute("PRAGMA foreign_key_check")]
            jobs = {row[0]: _job(*row) for row in conn.execute(_JOBS)}
            logged = {job_id: (attempts, successes) for job_id, attempts, successes in conn.execute(_LOGGED)}
            states = {name: json.loads(state) for name, state in conn.execute(_STATES)}
    except sqlite3.Error as error:
        return [Finding(kind=LOST, text=f"the database cannot be read: {error}")]
    events = Counter((line[0], line[1]) for line in records if len(line) == 5)
    findings = [Finding(kind=LOST, text=f"the database is damaged: {fault}") for fault in faults]
    findings += _of_what_was_told(told, jobs)
    for job in jobs.values():
        findings += _of_job(job, *logged.get(job.id, (0, 0)), events)
    findings += _of_pipelines(jobs.values())
    findings += _of_states(jobs.values(), states)
    return findings


def _job(job_id: str, plugin: str, status: str, payload: str | None, *rest: object) -> _Job:
    event = json.loads(payload) if payload else {}
    said = event.get("payload") if isinstance(event, dict) else None
    token = said.get("token") if isinstance(said, dict) else None
    parent, pipeline, replay_of, error, attempt = rest
    return _Job(id=job_id, plugin=plugin, status=status, token=token, parent=parent, pipeline=pipeline,
                replay_of=replay_of, error=error, attempt=attempt)


def _of_what_was_told(told: Mapping[str, str], jobs: Mapping[str, _Job]) -> Iterable[Finding]:
    for token, job_id in told.items():
        if job_id not in jobs:
            yield Finding(kind=LOST, text=f"{token}: job {job_id} was acknowledged and is not in the database")


def _of_job(job: _Job, attempts: int, successes: int, events: Counter[tuple[str, str]]) -> Iterable[Finding]:
    begun, done = events["begin", job.id], events["done", job.id]
    if job.status in ("queued", "running"):
        yield Finding(kind=STUCK, text=f"{job.name} is still {job.status}, attempt {job.attempt}: {job.error}")
    elif job.status != "succeeded":
        yield Finding(kind=LOST, text=f"{job.name} is {job.status}: {job.error}")
    if job.status == "succeeded" and not done:
        yield Finding(kind=LOST, text=f"{job.name} is succeeded and its plugin was never done")
    if job.status == "succeeded" and not successes:
        yield Finding(kind=LOST, text=f"{job.name} is succeeded and no attempt of it was logged so")
    if successes > 1:
        yield Finding(kind=DOUBLED, text=f"{job.name} succeeded {successes} times")
    # Every run is one attempt in the log, also one that was cut short: a further one ran after the job's end.
    if begun > attempts and job.status not in ("queued", "running"):
        yield Finding(kind=DOUBLED, text=f"{job.name} ran {begun} times in {attempts} attempts")
    if events["overlap", job.id]:
        yield Finding(kind=DOUBLED, text=f"{job.name} ran twice at the same time")


def _of_pipelines(jobs: Iterable[_Job]) -> Iterable[Finding]:
    jobs = list(jobs)
    followers = Counter(job.parent for job in jobs if job.plugin == "second" and not job.replay_of)
    for job in jobs:
        if job.plugin == "first" and job.pipeline and job.status == "succeeded" and not followers[job.id]:
            yield Finding(kind=LOST, text=f"{job.name} has succeeded and the pipeline's next step was never queued")
    named = Counter((job.token, job.plugin) for job in jobs if job.token and not job.replay_of)
    for (token, plugin), count in named.items():
        if count > 1:
            yield Finding(kind=DOUBLED, text=f"{token}: {count} jobs of {plugin}")


def _of_states(jobs: Iterable[_Job], states: Mapping[str, dict]) -> Iterable[Finding]:
    succeeded = Counter(job.plugin for job in jobs if job.status == "succeeded")
    for plugin in sorted(succeeded.keys() | states.keys()):
        counted = states.get(plugin, {}).get(f"count_{plugin}", 0)
        if counted != succeeded[plugin]:
            yield Finding(kind=LOST if counted < succeeded[plugin] else DOUBLED,
                          text=f"the state of {plugin} counts {counted} successes, the queue {succeeded[plugin]}")
