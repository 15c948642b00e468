"""One attempt outside the database: start the plugin, classify how it ended, collect its files."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ductile.dispatch.job_workspace import Inherited, complete, with_portable_paths
from ductile.dispatch.outcome import Facts, Outcome, Refused, Succeeded, Unrunnable, classify
from ductile.dispatch.run_lock import JOB_ID_VARIABLE, RunLocks
from ductile.dispatch.runner import Launch, Run
from ductile.pipeline.templates import Unrenderable
from ductile.plugin.discovery import ConfiguredPlugin, Plugin
from ductile.plugin.entrypoint import changed, interpreter_fault
from ductile.protocol import encode_request
from ductile.queue.job import Job
from ductile.routing.baggage import Context, visible
from ductile.routing.portable_paths import from_portable
from ductile.text import one_line
from ductile.units import utc_text
from ductile.workspace.manager import Workspaces

# Variables of the daemon that every plugin gets. All others, secrets among them, are withheld.
_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR")

# Output that is read in the loop's thread; parsing more takes too long there.
_QUICK_BYTES = 64 * 1024

# The machine is short of something for the moment, or the plugin's file is just being written.
_TEMPORARY = {errno.EAGAIN, errno.ENOMEM, errno.ETXTBSY, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a request takes from the database: the plugin's state and the job's baggage, None if it carries none.

    `template` is the `with` of the job's step. `fault` says why the job cannot run at all.
    """

    state: Mapping[str, Any]
    context: Context | None
    template: Mapping[str, Any] | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """How an attempt ended.

    `proved_dead`: no process of the run is alive. `workspace_fault`: what could not be removed. `warnings`: oddities
    among the files of a success.
    """

    outcome: Outcome
    proved_dead: bool
    workspace_fault: str | None = None
    warnings: tuple[str, ...] = ()


class NotNow(Exception):
    """The plugin cannot be started for a temporary reason."""


def start(job: Job, plugin: ConfiguredPlugin, inputs: Inputs, *, environ: Mapping[str, str], workspaces: Workspaces,
          cloned: Path | None, locks: RunLocks, now: datetime) -> Run | Refused | Unrunnable:
    """Start the plugin of a claimed job. Return the outcome instead if that is impossible.

    The plugin runs in the workspace `cloned`, or in a new and empty one for None. Calling it again after a failure is
    safe. Raises NotNow if another try may help soon.
    """
    loaded = plugin.plugin
    assert loaded is not None, "only jobs of loaded plugins are claimed"
    if job.command not in loaded.manifest.commands:
        # Another attempt cannot help: this needs a reload, and then `ductilectl retry`.
        return Refused(error=f"plugin {job.plugin} {plugin.version} has no command {job.command!r}")
    if inputs.fault is not None:
        return Refused(error=inputs.fault)
    try:
        change = changed(loaded.program)
        if change is not None:
            return Unrunnable(error=one_line(f"could not be started: {change}"))
        lock = locks.take()
        try:
            workspace = cloned or workspaces.create(job.id)
            run = Run(_launch(job, plugin, loaded, inputs, environ=environ, workspace=workspace, lock=lock,
                              stderr_file=locks.stderr_file(job.id), now=now))
            locks.mark(job.id, run.pid)
            return run
        finally:
            os.close(lock)
    except Unrenderable as error:
        return Refused(error=str(error))
    except OSError as error:
        return not_started(error, os.fspath(error.filename or loaded.entrypoint), job, workspaces)


def not_started(error: OSError, where: str, job: Job, workspaces: Workspaces) -> Unrunnable:
    """Return the outcome of a start that raised `error`. Raises NotNow if another try may help soon."""
    why = interpreter_fault(Path(where)) if error.errno == errno.ENOENT else None
    text = one_line(f"could not be started: {why or error.strerror}: {with_portable_paths(where, job, workspaces)}")
    if error.errno in _TEMPORARY or workspaces.fault() is not None:
        raise NotNow(text) from error
    return Unrunnable(error=text)


def _launch(job: Job, plugin: ConfiguredPlugin, loaded: Plugin, inputs: Inputs, *, environ: Mapping[str, str],
            workspace: Path, lock: int, stderr_file: Path, now: datetime) -> Launch:
    timeout = plugin.settings.timeout(job.command)
    here = os.fspath(workspace)
    event: dict[str, Any] | None = None if job.payload is None else from_portable(json.loads(job.payload), here)
    baggage: Mapping[str, Any] = {}
    if inputs.context is not None:
        baggage = from_portable(inputs.context.accumulated, here)
        assert event is not None, "a job with a context has an event"
        event["payload"] = visible(baggage, event["payload"], inputs.template)
    request = encode_request(
        protocol=loaded.manifest.protocol, job_id=job.id, command=job.command, config=plugin.settings.config,
        state=from_portable(inputs.state, here), event=event, context=baggage,
        deadline_at=utc_text(now + timedelta(seconds=timeout)), workspace_dir=here,
    )
    return Launch(
        entrypoint=loaded.entrypoint, cwd=workspace, stdin=request, timeout=timeout, keep_open=lock,
        stderr_file=stderr_file,
        environ=plugin_environment(environ, plugin, job_id=job.id, attempt=job.attempt, workspace=workspace),
    )


def plugin_environment(environ: Mapping[str, str], plugin: ConfiguredPlugin, *, job_id: str, attempt: int,
                       workspace: Path) -> dict[str, str]:
    """Return a plugin's environment: the few variables that all get, the configured ones, and DUCTILE_*."""
    names = {*_PASSED_ON, *plugin.settings.env}
    passed = {name: value for name, value in environ.items() if name in names or name.startswith("LC_")}
    return passed | {
        JOB_ID_VARIABLE: job_id, "DUCTILE_ATTEMPT": str(attempt), "DUCTILE_PLUGIN": plugin.settings.name,
        "DUCTILE_WORKSPACE": os.fspath(workspace),
    }


def is_quick(facts: Facts, job: Job, workspaces: Workspaces) -> bool:
    """Return whether `ended` takes a moment only: little output and no files."""
    return len(facts.stdout) <= _QUICK_BYTES and workspaces.is_empty(job.id)


def ended(facts: Facts, job: Job, timeout: int, *, parent: Inherited | None, workspaces: Workspaces, locks: RunLocks,
          aborted: Callable[[], bool], is_empty: bool = False) -> AttemptEnd:
    """Return how a run ended. Seal the files of a success; remove those of any other outcome.

    It may take long, unless the workspace `is_empty`, and does not touch the database. `parent` is what the workspace
    is a clone of, None for an empty one. The workspace of a success is finalized once the database has the result.
    """
    outcome = classify(facts, timeout=timeout, workspace_dir=os.fspath(workspaces.root / job.id))
    warnings: tuple[str, ...] = ()
    if isinstance(outcome, Succeeded) and not is_empty:
        outcome, warnings = complete(job, parent, outcome, workspaces, aborted)
    fault = None if isinstance(outcome, Succeeded) else cleanup_workspace(workspaces, job, keep=False)
    return AttemptEnd(outcome=outcome, proved_dead=locks.release(job.id), workspace_fault=fault, warnings=warnings)


def unstarted(outcome: Outcome, job: Job, *, workspaces: Workspaces, locks: RunLocks) -> AttemptEnd:
    """Return how an attempt ended whose plugin did not run, and remove its workspace."""
    fault = cleanup_workspace(workspaces, job, keep=False)
    return AttemptEnd(outcome=outcome, proved_dead=locks.release(job.id), workspace_fault=fault)


def cleanup_workspace(workspaces: Workspaces, job: Job, *, keep: bool) -> str | None:
    """Finalize the workspace of a success, or remove any other. Return what failed; that changes no outcome."""
    try:
        if keep:
            workspaces.keep(job.id)
        else:
            workspaces.cleanup(job.id)
    except OSError as error:
        where = with_portable_paths(os.fspath(error.filename or job.id), job, workspaces)
        return one_line(f"{error.strerror}: {where}")
    return None


def fills_the_disk(database: Path, job: Job, workspaces: Workspaces, least: int) -> bool:
    """Return whether a job's workspace is on the database's file system and would free at least `least` bytes."""
    try:
        here = workspaces.open(job.id)
        return (here is not None and here.stat().st_dev == database.stat().st_dev
                and workspaces.frees(job.id, least))
    except OSError:
        # What cannot be examined proves nothing.
        return False
