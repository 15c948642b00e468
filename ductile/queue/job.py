"""What a job is, the statuses it can have and the moves between them."""

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
        """Say whether a job with this status has ended."""
        return self not in (Status.QUEUED, Status.RUNNING)


class Submitter(StrEnum):
    """Who asked for a job."""

    SCHEDULER = "scheduler"
    WEBHOOK = "webhook"
    ROUTE = "route"
    PIPELINE = "pipeline"
    CLI = "cli"
    INIT = "init"
    REPLAY = "replay"


MOVES = frozenset({
    (Status.QUEUED, Status.RUNNING),      # claimed
    (Status.QUEUED, Status.DEAD),         # cancelled, or its plugin is gone
    (Status.QUEUED, Status.DEDUPED),      # found to be a duplicate when about to start
    (Status.RUNNING, Status.SUCCEEDED),
    (Status.RUNNING, Status.QUEUED),      # to be tried again
    (Status.RUNNING, Status.DEAD),
    (Status.DEAD, Status.QUEUED),         # retried by the operator
})


class StaleJob(Exception):
    """The row of a job is not as it was read: somebody else has moved it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be queued.

    `payload` is the event as JSON text, `root_job_id` None for the first of a chain. `core_event` is the type of the
    core's own event that it follows from, None elsewhere.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row of the queue; the fields are its columns."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """What the ledger keeps of one attempt, but for its response. `printed` is as `job_log` has it."""

    id: str
    status: str
    completed_at: datetime
    exit_code: int | None = None
    error: str | None = None
    stderr: str | None = None
    printed: str | None = None
