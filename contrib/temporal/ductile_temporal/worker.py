"""The worker: runs workflows, and one plugin at a time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from ductile import embed
from ductile.errors import DuctileError
from ductile_temporal import workflows

WORKFLOWS = [workflows.Chain, workflows.Plugin, workflows.Schedule]
_SIGN_OF_LIFE_SECONDS = 5.0
# A response has at most 10 MiB, and a job's payload and baggage come on top.
_LINE_BYTES = 256 * 1024 * 1024
_GRACE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker finds the configuration, what all machines share, and a directory of its own."""

    config: Path
    shared: Path
    local: Path


class Activities:
    """What workflows ask of a worker. `ends` is set when it must do no more: by a signal, or by what it cannot mend."""

    def __init__(self, place: Place, site: embed.Site) -> None:
        self.ends = asyncio.Event()
        self.fault: str | None = None
        self._place = place
        self._site = site
        self._runner: asyncio.subprocess.Process | None = None

    @activity.defn
    async def attempt(self, job: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        """Run one attempt of a job. Raises what Temporal repeats, also on another worker."""
        alive = asyncio.create_task(_show_life())
        try:
            result = await self._exchange({"job": job, "state": state})
        except asyncio.CancelledError:
            # Temporal has given the job to another worker, because it did not hear from this one.
            self._fail(f"job {job['id']} was taken away")
            raise
        finally:
            alive.cancel()
        if "refused" in result:
            raise ApplicationError(result["refused"], non_retryable=result["is_final"])
        for text in (result["error"], *result["warnings"]):
            if text:
                activity.logger.warning("%s %s of job %s: %s", job["plugin"], job["command"], job["id"], text)
        return result

    async def _exchange(self, given: dict[str, Any]) -> dict[str, Any]:
        """Hand a job to the process that runs plugins, and return its answer."""
        if self.ends.is_set():
            raise ApplicationError("this worker stops")
        if self._runner is None:
            self._runner = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ductile_temporal.runner", self._place.config, self._place.shared,
                self._place.local / "running", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES)
        assert self._runner.stdin is not None and self._runner.stdout is not None
        self._runner.stdin.write(json.dumps(given).encode() + b"\n")
        answer = await self._runner.stdout.readline()
        if not answer:
            # What it has left alive is unknown; the end of the service ends that too.
            self._fail("the process that runs plugins has ended")
            raise ApplicationError("the process that runs plugins has ended")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _fail(self, why: str) -> None:
        self.fault = self.fault or (None if self.ends.is_set() else why)
        self.ends.set()

    def stop(self) -> None:
        """End the running plugin as at its deadline; its result says so."""
        if self._runner is not None and self._runner.returncode is None:
            assert self._runner.stdin is not None
            self._runner.stdin.close()
            self._runner.terminate()

    async def wait(self) -> None:
        """Wait until the running plugin has ended."""
        if self._runner is not None:
            await self._runner.wait()

    @activity.defn
    async def next_slot(self, plugin: str, schedule: str, slot: dict[str, str] | None) -> list[Any]:
        """Return the next slot of a schedule, its job, and how many of them may be outstanding."""
        try:
            found, job = embed.next_slot(self._site, plugin, schedule, slot)
        except DuctileError as error:
            raise ApplicationError(str(error)) from error
        return [found, job, self._site.runtime.plugins[plugin].settings.max_outstanding_polls]


async def _show_life() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(_SIGN_OF_LIFE_SECONDS)


async def serve(client: Client, place: Place) -> int:
    """Work until SIGTERM or SIGINT, which let nothing new begin and end the running plugin; return the exit code.

    Raises DuctileError if the configuration cannot be used.
    """
    site = embed.open_site(place.config, place.shared, os.environ, running=place.local / "running")
    activities = Activities(place, site)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, activities.ends.set)
    worker = Worker(
        client, task_queue=workflows.TASK_QUEUE, max_concurrent_activities=1,
        workflows=WORKFLOWS,
        activities=[activities.attempt, activities.next_slot],
        max_heartbeat_throttle_interval=timedelta(seconds=_SIGN_OF_LIFE_SECONDS),
        default_heartbeat_throttle_interval=timedelta(seconds=_SIGN_OF_LIFE_SECONDS),
        graceful_shutdown_timeout=_GRACE)
    await _announce(client, site)
    async with worker:
        print("worker ready", flush=True)
        await activities.ends.wait()
        activities.stop()
    await activities.wait()
    if activities.fault is not None:
        print(f"worker ends: {activities.fault}", file=sys.stderr)
    return 0 if activities.fault is None else 1


async def _announce(client: Client, site: embed.Site) -> None:
    """Have a workflow for each plugin and schedule of the configuration, and tell it what the configuration says."""
    schedules = set()
    for name, plugin in site.runtime.plugins.items():
        await client.start_workflow(
            workflows.Plugin.run, workflows.Held(), id=workflows.plugin_workflow(name), task_queue=workflows.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING, start_signal="configure",
            start_signal_args=[site.runtime.config.service.dedupe_ttl])
        # Also if the plugin cannot be loaded here: another worker may have it.
        for rule in plugin.settings.schedules if plugin.settings.enabled else ():
            schedules.add(workflows.schedule_workflow(name, rule.id))
            await client.start_workflow(
                workflows.Schedule.run, args=[name, rule.id, rule.rule()], task_queue=workflows.TASK_QUEUE,
                id=workflows.schedule_workflow(name, rule.id), start_signal="configure",
                start_signal_args=[rule.rule()],
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)
    async for found in client.list_workflows("WorkflowType = 'Schedule' AND ExecutionStatus = 'Running'"):
        if found.id not in schedules:
            await client.get_workflow_handle(found.id).signal(workflows.Schedule.configure, None)
