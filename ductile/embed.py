"""What another engine needs to run a configuration of Ductile: plain JSON in and out, no queue and no database.

A job is a JSON object: what `arrivals`, `next_slot` or an `attempt` returned, stored by the engine, and
handed to `attempt` with what has become of it since. These functions are those that the daemon itself uses.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ductile import runtime_config, submit
from ductile.dispatch import attempt as attempts
from ductile.dispatch import job_workspace
from ductile.dispatch.attempt import AttemptEnd, Inputs, NotNow
from ductile.dispatch.conclude import Before, Conclusion, conclude
from ductile.dispatch.job_workspace import Inherited
from ductile.dispatch.outcome import Interrupted, Succeeded
from ductile.dispatch.reaper import ignore_existing_children
from ductile.dispatch.result_record import encode_result
from ductile.dispatch.run_lock import RunLocks
from ductile.dispatch.runner import Run, become_subreaper
from ductile.dispatch.transactions import rules_for
from ductile.errors import EXIT_DATA, EXIT_NOT_FOUND, EXIT_SYSTEM, DuctileError
from ductile.pipeline.graph import Position, canonical, from_canonical, lost
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.queue.job import Job, NewJob, Status, Submitter
from ductile.routing.baggage import Context, NewContext
from ductile.runtime_config import RuntimeConfig
from ductile.scheduler.breaker import CLOSED
from ductile.scheduler.schedule import Slot, advance, first
from ductile.strictjson import canonical as canonical_json
from ductile.strictjson import encode
from ductile.units import parse_utc, utc_text
from ductile.webhook import accept as webhooks
from ductile.webhook.accept import Greeting
from ductile.webhook.http_head import Head, Refused, too_large
from ductile.workspace.artifact import Artifact
from ductile.workspace.manager import ClonedWorkspace, Workspaces

_RUNNING = "running"
_WORKSPACES = "ws"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A configuration, and where its jobs run. `workspaces` may be shared by machines, `locks` belong to a process."""

    runtime: RuntimeConfig
    workspaces: Workspaces
    locks: RunLocks


def open_site(config: Path, directory: Path, environ: Mapping[str, str], *, running: Path | None = None) -> Site:
    """Read a configuration and create the directory of its workspaces, `directory/ws`.

    `running` is a directory for the locks of this process's runs; no other process may use it at the same time. A run
    ends every orphan of this process, so a process runs one attempt at a time, and should do nothing else with
    children. Raises DuctileError: 78 if the configuration cannot be used, 71 for the directory.
    """
    site = Site(runtime=runtime_config.build(config, environ).runtime, workspaces=Workspaces(directory / _WORKSPACES),
                locks=RunLocks(running or directory / _RUNNING))
    site.workspaces.make_root()
    ignore_existing_children()
    become_subreaper()
    return site


def arrivals(site: Site, event: Mapping[str, Any], source: str | None = None) -> list[dict[str, Any]]:
    """Return the jobs that an external event becomes, each the first of a chain; none if nothing subscribes to it.

    `event` has a `type`, a `payload`, and perhaps a `dedupe_key`. `source` is the plugin whose routes apply. Raises
    DuctileError (65) if the event is not valid or too large.
    """
    if not isinstance(event.get("type"), str) or not isinstance(event.get("payload", {}), dict):
        raise DuctileError("an event needs a type, a string, and a payload, an object", exit_code=EXIT_DATA)
    whole = submit.new_event(event["type"], event.get("payload", {}), source or "cli", new_id=_new_id, now=_now())
    if event.get("dedupe_key") is not None:
        whole["dedupe_key"] = event["dedupe_key"]
    found = submit.jobs_for_event(site.runtime, whole, source, Submitter.CLI, new_id=_new_id)
    return [_document(site.runtime, each.job, each.context, None) for each in found]


def accept(site: Site, head: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Return what a webhook becomes, after the checks that the daemon makes, and how to answer it.

    `head` has the `method`, the raw `path`, the `query`, and `headers`, a list of pairs as received. The caller reads
    the body and bounds it.

    The result: `status`, `headers` and `body` of the answer; `event` and `jobs`, each the first of a chain, which the
    engine must have stored before it answers, or None and none for a handshake or a refusal; `reason`, a text for the
    log, for a refusal. Raises DuctileError (65) if `head` is not valid.
    """
    try:
        texts = (head["method"], head["path"], head.get("query", ""))
        headers = tuple((name, value) for name, value in head.get("headers", ()))
        if not all(isinstance(text, str) for text in (*texts, *(text for pair in headers for text in pair))):
            raise ValueError("a part of it is not a string")
        request = Head(method=texts[0], path=texts[1], query=texts[2], version="HTTP/1.1", headers=headers)
    except (KeyError, TypeError, ValueError) as error:
        raise DuctileError(f"not the head of a request: {error}", exit_code=EXIT_DATA) from error
    try:
        return _accepted(site.runtime, request, body)
    except Refused as refused:
        return {**_answer(refused.status, refused.headers, b""), "reason": refused.reason}


def _accepted(runtime: RuntimeConfig, head: Head, body: bytes) -> dict[str, Any]:
    """Return the result of `accept`. Raises Refused."""
    endpoint = webhooks.find_endpoint(runtime.config.webhooks, head.path)
    if endpoint is None:
        raise Refused(HTTPStatus.NOT_FOUND, "no endpoint has this path")
    if len(body) > endpoint.max_body_size:
        raise too_large()
    accepted = webhooks.accept(endpoint, head, body, new_id=_new_id, now=_now())
    if isinstance(accepted, Greeting):
        return _answer(HTTPStatus.OK, accepted.headers, accepted.body)
    jobs = webhooks.jobs_of(runtime, endpoint, accepted, new_id=_new_id)
    found = webhooks.success(endpoint, [each.job.id for each in jobs], is_new=True)
    return {**_answer(found.status, found.headers, found.body), "event": accepted,
            "jobs": [_document(runtime, each.job, each.context, None) for each in jobs]}


def _answer(status: HTTPStatus, headers: Sequence[tuple[str, str]], body: bytes) -> dict[str, Any]:
    return {"status": int(status), "headers": [list(each) for each in headers], "body": body.decode(), "event": None,
            "jobs": [], "reason": None}


def next_slot(site: Site, plugin: str, schedule: str, slot: Mapping[str, str] | None = None
              ) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the next slot of a schedule and the job to run at its `next_run_at`.

    `slot` is the last one, None for a new grid. Missed runs are skipped. Raises DuctileError (66) if there is no such
    plugin or schedule.
    """
    configured = _plugin(site.runtime, plugin)
    rule = next((each for each in configured.settings.schedules if each.id == schedule), None)
    if rule is None:
        raise DuctileError(f"plugin {plugin} has no schedule {schedule!r}", exit_code=EXIT_NOT_FOUND)
    now = _now()
    rng = random.Random()
    found = first(rule, now, rng) if slot is None else advance(rule, _slot(slot), now, rng)
    job = submit.scheduled_job(configured, rule, new_id=_new_id, now=now)
    return ({"base_at": utc_text(found.base_at), "next_run_at": utc_text(found.next_run_at), "anchor": found.anchor},
            _document(site.runtime, job, None, None))


def attempt(site: Site, job: Mapping[str, Any], state: Mapping[str, Any],
            is_stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Run one attempt of a job and return everything that follows from it.

    `job` is a job as these functions return it, with `attempt` (from 1) and `interruptions` as the last result said,
    and `inputs`, the `artifacts` of its parent. `state` is its plugin's. `is_stopped` ends the plugin as at its
    deadline.

    The result: `status` (`succeeded`, `dead`, or `queued` for another attempt `retry_in` seconds from now), `job` as
    it is to be handed over for that, `state` (None: unchanged), `artifacts`, `jobs` that follow, `error`, `log` (the
    attempt's `status`, `exit_code`, `error`, `stderr`, `printed`), `response` and `warnings`. A plugin that fails is a
    result. Raises DuctileError if no attempt was made and another process or time may do better: 66 if the plugin is
    not loaded here, 71 for a shortage, 65 if `job` is not valid.
    """
    configured = _plugin(site.runtime, str(job.get("plugin")))
    now = _now()
    try:
        running, context, position = _job(job, now), _context(job), _position(site.runtime, job)
        interruptions = int(job.get("interruptions", 0))
        # Both name a directory.
        for job_id in filter(None, (running.id, running.parent_job_id)):
            site.workspaces.open(job_id)
        inherited = _inherited(job, position)
    except (KeyError, TypeError, ValueError) as error:
        raise DuctileError(f"not a job: {error}", exit_code=EXIT_DATA) from error
    inputs = Inputs(state=state, context=context, template=None if position is None else position.node.template,
                    fault=lost(running.pipeline_name, running.pipeline_hash)
                    if running.pipeline_hash is not None and position is None else None)
    end = _run(site, running, configured, inputs, inherited, is_stopped)
    before = Before(state=state, breaker=CLOSED, interruptions=interruptions, context=context,
                    position=position)
    ended_at = _now()
    found = conclude(running, end.outcome, before, rules_for(site.runtime, running.plugin), now=ended_at,
                     rng=random.Random(), new_id=_new_id)
    if isinstance(end.outcome, Succeeded):
        attempts.cleanup_workspace(site.workspaces, running, keep=found.status is Status.SUCCEEDED)
    return _result(site.runtime, job, end, found, ended_at)


def _run(site: Site, job: Job, plugin: ConfiguredPlugin, inputs: Inputs, inherited: Inherited | None,
         is_stopped: Callable[[], bool]) -> AttemptEnd:
    """Run the plugin to its end. Raises DuctileError (71) for what may be better soon."""
    try:
        cloned = None
        warnings: tuple[str, ...] = ()
        if inherited is not None:
            made = job_workspace.clone(job, inherited, site.workspaces, is_stopped)
            if not isinstance(made, ClonedWorkspace):
                return attempts.unstarted(made, job, workspaces=site.workspaces, locks=site.locks)
            cloned, warnings = made.path, made.warnings
        started = attempts.start(job, plugin, inputs, environ=site.runtime.environ, workspaces=site.workspaces,
                                 cloned=cloned, locks=site.locks, now=_now())
    except (NotNow, OSError) as error:
        raise DuctileError(str(error), exit_code=EXIT_SYSTEM) from error
    if not isinstance(started, Run):
        return attempts.unstarted(started, job, workspaces=site.workspaces, locks=site.locks)
    facts = started.wait(is_stopped)
    end = attempts.ended(facts, job, plugin.settings.timeout(job.command), parent=inherited,
                         workspaces=site.workspaces, locks=site.locks, aborted=is_stopped)
    site.locks.remove_stderr(job.id)
    return replace(end, warnings=(*warnings, *end.warnings))


def _result(runtime: RuntimeConfig, job: Mapping[str, Any], end: AttemptEnd, found: Conclusion,
            now: datetime) -> dict[str, Any]:
    is_retry = found.status is Status.QUEUED
    wait = 0.0 if found.retry_at is None else (found.retry_at - now).total_seconds()
    again = {**job, "attempt": found.attempt, "max_attempts": found.max_attempts,
             "interruptions": int(job.get("interruptions", 0)) + isinstance(end.outcome, Interrupted)}
    notes = (*found.warnings, *found.large_state, *found.notes)
    return {
        "status": str(found.status), "retry_in": wait if is_retry else None, "job": again if is_retry else None,
        "state": found.state, "error": found.error,
        "artifacts": [asdict(each) for each in found.artifacts],
        "jobs": [_document(runtime, each.job, each.context, job.get("pipeline")) for each in found.jobs],
        "log": {"status": found.log.status, "exit_code": found.log.exit_code, "error": found.log.error,
                "stderr": found.log.stderr, "printed": found.log.printed},
        "response": None if found.response is None else json.loads(encode_result(found.response, None, notes)),
        "warnings": [*notes, *end.warnings],
    }


def _document(runtime: RuntimeConfig, job: NewJob, context: NewContext | None, pipeline: Any) -> dict[str, Any]:
    """Return a job as JSON: its fields, its event, its baggage, and the pipeline that it goes on with."""
    fields = {name: value for name, value in asdict(job).items() if name not in ("payload", "event_context_id")}
    version = None if job.pipeline_name is None else runtime.router.pipelines.get(job.pipeline_name)
    if job.pipeline_hash is not None and (version is None or version.hash != job.pipeline_hash):
        # A chain keeps the version that it began with.
        definition = pipeline
    else:
        definition = None if version is None else json.loads(canonical(version))
    return {**fields, "submitted_by": str(job.submitted_by), "root_job_id": job.root_job_id or job.id,
            "event": None if job.payload is None else json.loads(job.payload),
            "context": None if context is None else {"id": context.id, "hop": context.hop,
                                                     "accumulated": context.accumulated},
            "pipeline": definition, "attempt": 1, "interruptions": 0}


def _job(document: Mapping[str, Any], now: datetime) -> Job:
    """Raises KeyError, TypeError or ValueError for what is not a job."""
    event, context = document.get("event"), document.get("context")
    texts = {name: document.get(name) for name in (
        "dedupe_key", "parent_job_id", "source_event_id", "pipeline_name", "pipeline_hash", "step_id", "replay_of",
        "core_event", "schedule_id")}
    for name, value in {**texts, "id": document["id"], "command": document["command"]}.items():
        if not isinstance(value, str | None):
            raise ValueError(f"{name} is not a string")
    return Job(
        seq=0, id=document["id"], plugin=document["plugin"], command=document["command"],
        payload=None if event is None else encode(event), status=Status.RUNNING,
        attempt=int(document.get("attempt", 1)), max_attempts=int(document["max_attempts"]),
        submitted_by=Submitter(document["submitted_by"]), created_at=now, started_at=now, completed_at=None,
        next_retry_at=None, last_error=None, root_job_id=document.get("root_job_id") or document["id"],
        event_context_id=None if context is None else context["id"], **texts)


def _context(document: Mapping[str, Any]) -> Context | None:
    context = document.get("context")
    return None if context is None else Context(id=context["id"], hop=int(context["hop"]),
                                                accumulated=context["accumulated"])


def _position(runtime: RuntimeConfig, document: Mapping[str, Any]) -> Position | None:
    """Return the job's step in the version of the pipeline that its chain began with."""
    digest, step = document.get("pipeline_hash"), document.get("step_id")
    if digest is None or step is None:
        return None
    version = runtime.router.pipelines.get(document["pipeline_name"])
    if version is None or version.hash != digest:
        version = from_canonical(canonical_json(document["pipeline"])) if document.get("pipeline") else None
    if version is None or version.hash != digest or step not in version.nodes:
        return None
    return Position(pipeline=version, step_id=step)


def _inherited(document: Mapping[str, Any], position: Position | None) -> Inherited | None:
    parent = document.get("parent_job_id")
    if parent is None:
        return None
    artifacts: Sequence[Mapping[str, Any]] = document.get("inputs") or ()
    return Inherited(parent_id=parent, artifacts={each["path"]: Artifact(**each) for each in artifacts},
                     deep=position is not None and position.node.deep_copy)


def _plugin(runtime: RuntimeConfig, name: str) -> ConfiguredPlugin:
    plugin = runtime.plugins.get(name)
    if plugin is None or not plugin.runnable:
        why = "not configured" if plugin is None else plugin.reason or "disabled"
        raise DuctileError(f"plugin {name} cannot run here: {why}", exit_code=EXIT_NOT_FOUND)
    return plugin


def _slot(document: Mapping[str, str]) -> Slot:
    try:
        return Slot(base_at=parse_utc(document["base_at"]), next_run_at=parse_utc(document["next_run_at"]),
                    anchor=document["anchor"])
    except (KeyError, TypeError, ValueError) as error:
        raise DuctileError(f"not a slot: {error}", exit_code=EXIT_DATA) from error


def _now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid.uuid4())
