"""One run of a plugin outside the queue and the database, in a workspace of its own that is gone afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from ductile.clock import Clock
from ductile.ctl.output import noted
from ductile.dispatch.attempt import plugin_environment
from ductile.dispatch.outcome import Facts, Outcome, classify
from ductile.dispatch.reaper import ignore_existing_children
from ductile.dispatch.runner import Launch, Run, become_subreaper
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.protocol import encode_request
from ductile.routing.portable_paths import from_portable
from ductile.units import utc_text
from ductile.workspace.tree import open_tree, remove, walk

_PREFIX = "ductile-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a plugin is told beside its configuration."""

    state: Mapping[str, Any] = field(default_factory=dict)
    event: Mapping[str, Any] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a plugin has left in its workspace: a `file` of `size` bytes, a `link`, or `other`, which no job keeps."""

    path: str
    kind: str
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What came of a run. `seconds` are from the start to the end, `left` is sorted by path."""

    request: bytes
    facts: Facts
    outcome: Outcome
    seconds: float
    left: tuple[Left, ...]


def run(plugin: ConfiguredPlugin, command: str, told: Input, *, environ: Mapping[str, str], clock: Clock,
        job_id: str) -> RunResult:
    """Run a plugin that is loaded to its end, within its own time limit.

    A signal that ends us ends the plugin first, which would live on in its session, and then raises what `noted` says.
    Raises OSError where no workspace can be made or looked at; what cannot be removed is the plugin's doing, and no
    reason to fail.
    """
    ignore_existing_children()
    become_subreaper()
    runs: list[Run] = []
    with noted(lambda: _end(runs)) as got:
        # A real path, as a job's is.
        workspace = Path(os.path.realpath(mkdtemp(prefix=_PREFIX)))
        try:
            launch = _launch(plugin, command, told, environ, workspace, clock.now(), job_id)
            started = clock.monotonic()
            facts = _attend(launch, runs, got)
            seconds = round(clock.monotonic() - started, 3)
            return RunResult(request=launch.stdin, facts=facts, outcome=classify(facts, timeout=launch.timeout),
                       seconds=seconds, left=_look_around(os.fspath(workspace)))
        finally:
            _clear_away(workspace)


def _launch(plugin: ConfiguredPlugin, command: str, told: Input, environ: Mapping[str, str], workspace: Path,
            now: datetime, job_id: str) -> Launch:
    timeout = plugin.settings.timeout(command)
    here = os.fspath(workspace)
    request = encode_request(
        protocol=plugin.plugin.manifest.protocol, job_id=job_id, command=command, config=plugin.settings.config,
        state=from_portable(told.state, here), event=from_portable(told.event, here),
        context=from_portable(told.context, here), deadline_at=utc_text(now + timedelta(seconds=timeout)),
        workspace_dir=here,
    )
    return Launch(
        entrypoint=plugin.plugin.entrypoint, cwd=workspace, stdin=request, timeout=timeout,
        environ=plugin_environment(environ, plugin, job_id=job_id, attempt=1, workspace=workspace),
    )


def _attend(launch: Launch, runs: list[Run], got: list[int]) -> Facts:
    """Run it to its end. The list of runs is for whoever wants to end it sooner; `got` says who already does."""
    try:
        runs.append(Run(launch))
    except OSError as error:
        return Facts(could_not_start=f"{error.strerror}: {launch.entrypoint}")
    if got:
        # It came before there was anything to end.
        _end(runs)
    return runs[0].wait()


def _end(runs: list[Run]) -> None:
    for each in runs:
        each.end()


def _look_around(workspace: str) -> tuple[Left, ...]:
    found: list[Left] = []

    def visit(fd: int, path: str, entry: os.DirEntry[str]) -> None:
        found.append(_left(path + entry.name, entry.stat(follow_symlinks=False)))

    top = open_tree(workspace)
    if top is not None:
        with top:
            walk(top, workspace, visit)
    return tuple(sorted(found, key=lambda each: each.path))


def _left(path: str, seen: os.stat_result) -> Left:
    if stat.S_ISREG(seen.st_mode):
        return Left(path=path, kind="file", size=seen.st_size)
    return Left(path=path, kind="link" if stat.S_ISLNK(seen.st_mode) else "other", size=None)


def _clear_away(workspace: Path) -> None:
    try:
        remove(os.fspath(workspace))
    except OSError:
        # It holds what is not ours, or what is in use: the plugin has made it so.
        return
