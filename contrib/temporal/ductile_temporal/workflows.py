"""What Temporal keeps: a workflow for each chain of jobs, one for each plugin, and one for each schedule.

This module runs in Temporal's sandbox and is replayed: no clock, no chance, no files, no import of Ductile.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import ParentClosePolicy

TASK_QUEUE = "ductile"
# A plugin's failure is a result. What Temporal repeats is an attempt that was not made: its worker died, has no such
# plugin, or has no room.
_REPEATED = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1))
# A dead worker ends its plugin within 6 s, and a live one shows itself every 5 s: another one begins after that end. A
# server that is away for 20 s does not take a job away.
DEATH_NOTICED_AFTER = timedelta(seconds=30)
_LONGEST_ATTEMPT = timedelta(days=7)
_SHORT = timedelta(seconds=30)
# A plugin's workflow begins anew so often, and a payload that it keeps as a file is written anew with it.
_RENEWED_EVERY = timedelta(days=7)

Json = dict[str, Any]


def plugin_workflow(plugin: str) -> str:
    """Return the id of a plugin's workflow."""
    return f"plugin/{plugin}"


def schedule_workflow(plugin: str, schedule: str) -> str:
    """Return the id of a schedule's workflow."""
    return f"schedule/{plugin}/{schedule}"


@dataclass
class Request:
    """A job for a plugin's workflow, and which chain wants its result."""

    job: Json
    chain: str
    # Not if so many scheduled jobs of this command are queued or running already.
    most_outstanding: int | None = None
    # The time, in seconds, before which it does not run.
    due: float = 0.0


@workflow.defn
class Chain:
    """Runs a job and all that follow from it; each on the workflow of its plugin, branches side by side.

    It fails if its first job does, so that the same webhook may start it again.
    """

    def __init__(self) -> None:
        self._results: dict[str, Json] = {}
        self._told: list[Json] = []

    @workflow.run
    async def run(self, job: Json, most_outstanding: int | None = None) -> list[Json]:
        await self._run(job, [], most_outstanding)
        if self._told[0]["status"] == "dead":
            raise ApplicationError(self._told[0]["error"] or "failed", self._told, non_retryable=True)
        return self._told

    async def _run(self, job: Json, inputs: list[Json], most_outstanding: int | None = None) -> None:
        told = {"id": job["id"], "plugin": job["plugin"], "command": job["command"], "step": job["step_id"],
                "status": "queued", "error": None}
        self._told.append(told)
        await self._submit(Request({**job, "inputs": inputs}, workflow.info().workflow_id, most_outstanding))
        await workflow.wait_condition(lambda: job["id"] in self._results)
        result = self._results.pop(job["id"])
        told |= {"status": result["status"], "error": result["error"]}
        await asyncio.gather(*(self._run(each, result["artifacts"]) for each in result["jobs"]))

    async def _submit(self, request: Request) -> None:
        """Hand a job over, and wait while its plugin has no workflow: no worker with that plugin has started yet."""
        while True:
            try:
                await workflow.get_external_workflow_handle(plugin_workflow(request.job["plugin"])).signal(
                    Plugin.submit, request)
                return
            except ApplicationError as error:
                workflow.logger.warning("plugin %s has no workflow: %s", request.job["plugin"], error)
                await asyncio.sleep(10)

    @workflow.signal
    def ended(self, job_id: str, result: Json) -> None:
        """Take the result of a job: `status`, `error`, `artifacts` and the `jobs` that follow."""
        self._results[job_id] = result

    @workflow.query
    def jobs(self) -> list[Json]:
        """Return the jobs so far."""
        return self._told


@dataclass
class Held:
    """What a plugin's workflow keeps: its state, the jobs that wait, and when jobs with a key succeeded."""

    state: Json = field(default_factory=dict)
    waiting: list[Request] = field(default_factory=list)
    succeeded: dict[str, float] = field(default_factory=dict)
    dedupe_ttl: int = 86400


@workflow.defn
class Plugin:
    """Runs the jobs of one plugin one after the other, first in, first out, and keeps its state."""

    @workflow.init
    def __init__(self, held: Held) -> None:
        self._held = held
        self._running: str | None = None
        self._changes = 0

    @workflow.run
    async def run(self, held: Held) -> None:
        ends = workflow.time() + _RENEWED_EVERY.total_seconds()
        while workflow.time() < ends and not workflow.info().is_continue_as_new_suggested():
            request = next((each for each in self._held.waiting if each.due <= workflow.time()), None)
            if request is None:
                await self._await_work(ends)
            elif _key(request.job) in self._held.succeeded:
                await self._conclude(request, _no_attempt("deduped", "a job with its dedupe key has succeeded"))
            else:
                await self._attempt(request)
            self._forget_keys()
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(self._held)

    async def _await_work(self, ends: float) -> None:
        """Wait for a job, or until the first retry is due."""
        seen = self._changes
        due = min([ends, *(each.due for each in self._held.waiting)])
        try:
            await workflow.wait_condition(lambda: self._changes != seen, timeout=max(0.001, due - workflow.time()))
        except TimeoutError:
            return

    async def _attempt(self, request: Request) -> None:
        self._running = request.job["id"]
        try:
            result: Json = await workflow.execute_activity(
                "attempt", args=[request.job, self._held.state], result_type=dict, retry_policy=_REPEATED,
                heartbeat_timeout=DEATH_NOTICED_AFTER, start_to_close_timeout=_LONGEST_ATTEMPT)
        except ActivityError as error:
            # A job that no worker understands.
            result = _no_attempt("dead", str(error.cause or error))
        self._running = None
        if result["state"] is not None:
            self._held.state = result["state"]
        if result["status"] == "queued":
            # A retry keeps its place.
            request.job, request.due = result["job"], workflow.time() + result["retry_in"]
            return
        if result["status"] == "succeeded" and request.job["dedupe_key"] is not None:
            self._held.succeeded[_key(request.job)] = workflow.time()
        await self._conclude(request, result)

    async def _conclude(self, request: Request, result: Json) -> None:
        """Forget a job that has ended, and tell its chain."""
        self._held.waiting.remove(request)
        found = {name: result[name] for name in ("status", "error", "artifacts", "jobs")}
        try:
            await workflow.get_external_workflow_handle(request.chain).signal("ended", args=[request.job["id"], found])
        except ApplicationError as error:
            workflow.logger.warning("chain %s has gone: %s", request.chain, error)

    def _forget_keys(self) -> None:
        since = workflow.time() - self._held.dedupe_ttl
        self._held.succeeded = {key: at for key, at in self._held.succeeded.items() if at > since}

    @workflow.signal
    async def submit(self, request: Request) -> None:
        """Queue a job, unless too many scheduled ones of its command wait."""
        same = [each for each in self._held.waiting
                if each.most_outstanding is not None and each.job["command"] == request.job["command"]]
        if request.most_outstanding is not None and len(same) >= request.most_outstanding:
            self._held.waiting.append(request)
            await self._conclude(request, _no_attempt("skipped", "the run before it has not ended"))
            return
        self._held.waiting.append(request)
        self._changes += 1

    @workflow.signal
    def configure(self, dedupe_ttl: int) -> None:
        """Take what a worker has read from the configuration."""
        self._held.dedupe_ttl = dedupe_ttl

    @workflow.signal
    def set_state(self, state: Json) -> None:
        """Replace the plugin's state."""
        self._held.state = state

    @workflow.query
    def state(self) -> Json:
        """Return the plugin's state."""
        return self._held.state

    @workflow.query
    def queue(self) -> Json:
        """Return how many jobs wait, and which one runs."""
        return {"waiting": len(self._held.waiting), "running": self._running}


def _no_attempt(status: str, error: str) -> Json:
    return {"status": status, "error": error, "state": None, "artifacts": [], "jobs": []}


def _key(job: Json) -> str:
    """Return what makes a job a duplicate of another one: never for one without a dedupe key."""
    if job["dedupe_key"] is None or job["replay_of"] is not None:
        return ""
    return "\n".join(str(job[name]) for name in ("command", "pipeline_name", "step_id", "dedupe_key"))


@workflow.defn
class Schedule:
    """Starts a chain at each slot of one schedule of one plugin. The grid is Ductile's own."""

    @workflow.init
    def __init__(self, plugin: str, schedule: str, rule: str, slot: Json | None = None) -> None:
        self._rule: str | None = rule

    @workflow.run
    async def run(self, plugin: str, schedule: str, rule: str, slot: Json | None = None) -> None:
        found = workflow.start_activity("next_slot", args=[plugin, schedule, slot], result_type=list,
                                        start_to_close_timeout=_SHORT, retry_policy=_REPEATED)
        await workflow.wait_condition(lambda: found.done() or self._rule != rule)
        if self._rule == rule:
            slot, job, most = await found
            wait = datetime.fromisoformat(slot["next_run_at"]) - workflow.now()
            try:
                await workflow.wait_condition(lambda: self._rule != rule, timeout=max(wait, timedelta(milliseconds=1)))
            except TimeoutError:
                await workflow.start_child_workflow(
                    Chain.run, args=[job, most], id=job["id"], memo={"job_id": job["id"]},
                    parent_close_policy=ParentClosePolicy.ABANDON)
                workflow.continue_as_new(args=[plugin, schedule, rule, slot])
        # A changed rule starts a new grid; a removed one ends it.
        if self._rule is not None:
            workflow.continue_as_new(args=[plugin, schedule, self._rule, None])

    @workflow.signal
    def configure(self, rule: str | None) -> None:
        """Take the rule that a worker has read from the configuration; None if it has gone."""
        self._rule = rule
