"""Jobs, their statuses, and the legal moves between these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    DEDUPED = "deduped"

    @property
    def is_last(self) -> bool:
        """Whether a job with this status has ended."""
        return self not in (Status.QUEUED, Status.RUNNING)


class Submitter(StrEnum):
    """Who submitted a job."""

    SCHEDULER = "scheduler"
    WEBHOOK = "webhook"
    ROUTE = "route"
    PIPELINE = "pipeline"
    CLI = "cli"
    INIT = "init"
    REPLAY = "replay"


MOVES = frozenset({
    (Status.QUEUED, Status.RUNNING),      # claimed
    (Status.QUEUED, Status.DEAD),         # cancelled, or its plugin was removed
    (Status.QUEUED, Status.DEDUPED),      # found to be a duplicate when about to start
    (Status.RUNNING, Status.SUCCEEDED),
    (Status.RUNNING, Status.QUEUED),      # retried
    (Status.RUNNING, Status.DEAD),
    (Status.DEAD, Status.QUEUED),         # retried by the operator
})


class StaleJob(Exception):
    """A job's row has changed since it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be queued.

    `payload` is the event as JSON. `root_job_id` is None for the first job of a chain. `core_event` is the type of the
    core event that the job follows from, `schedule_id` the schedule that it was submitted for; each is None for any
    other job.
    """

    id: str
    plugin: str
    command: str
    max_attempts: int
    submitted_by: Submitter
    payload: str | None = None
    dedupe_key: str | None = None
    parent_job_id: str | None = None
    root_job_id: str | None = None
    source_event_id: str | None = None
    event_context_id: str | None = None
    pipeline_name: str | None = None
    pipeline_hash: str | None = None
    step_id: str | None = None
    replay_of: str | None = None
    core_event: str | None = None
    schedule_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row of `job_queue`; the fields are its columns."""

    seq: int
    id: str
    plugin: str
    command: str
    payload: str | None
    status: Status
    attempt: int
    max_attempts: int
    submitted_by: Submitter
    dedupe_key: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    next_retry_at: datetime | None
    last_error: str | None
    parent_job_id: str | None
    root_job_id: str
    source_event_id: str | None
    event_context_id: str | None
    pipeline_name: str | None
    pipeline_hash: str | None
    step_id: str | None
    replay_of: str | None
    core_event: str | None
    schedule_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A new row of `job_log`, without its result. `printed`: output that is no valid response."""

    id: str
    status: str
    completed_at: datetime
    exit_code: int | None = None
    error: str | None = None
    stderr: str | None = None
    printed: str | None = None
