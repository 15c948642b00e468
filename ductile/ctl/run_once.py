"""Run a plugin once outside the queue and the database, in a temporary workspace."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from ductile.ctl.output import deferred_signals, progress
from ductile.ctl.session import Session
from ductile.dispatch.attempt import plugin_environment
from ductile.dispatch.outcome import Facts, Outcome, classify
from ductile.dispatch.reaper import ignore_existing_children
from ductile.dispatch.runner import Launch, Run, become_subreaper
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.protocol import encode_request
from ductile.routing.portable_paths import from_portable
from ductile.text import one_line
from ductile.units import utc_text
from ductile.workspace.tree import open_tree, remove, walk

_PREFIX = "ductile-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a request holds besides the configuration."""

    state: Mapping[str, Any] = field(default_factory=dict)
    event: Mapping[str, Any] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a plugin left in its workspace: a `file` of `size` bytes, a `link`, or `other`, which no job keeps."""

    path: str
    kind: str
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of a run. `seconds` are from start to end; `left` is sorted by path."""

    request: bytes
    facts: Facts
    outcome: Outcome
    seconds: float
    left: tuple[Left, ...]


def run(session: Session, plugin: ConfiguredPlugin, command: str, given: Input, *,
        environ: Mapping[str, str]) -> RunResult:
    """Run a command of a loaded plugin until it ends, within its own time limit.

    A signal that ends us ends the plugin first, which would otherwise survive in its own session, and then raises as
    `deferred_signals` does. Raises OSError if no workspace can be created or read. A workspace that cannot be removed
    is the fault of the plugin and no error.
    """
    ignore_existing_children()
    become_subreaper()
    seconds = plugin.settings.timeout(command)
    message = f"{plugin.settings.name} {one_line(command)} runs, for {seconds} s at most"
    runs: list[Run] = []
    with progress(message, session.err), deferred_signals(lambda: _end(runs)) as received:
        # A real path, as that of a job is.
        workspace = Path(os.path.realpath(mkdtemp(prefix=_PREFIX)))
        try:
            launch = _launch(plugin, command, given, environ, workspace, session.now(), session.new_id())
            started = session.clock.monotonic()
            facts = _run(launch, runs, received)
            return RunResult(
                request=launch.stdin, facts=facts, outcome=classify(facts, timeout=launch.timeout),
                seconds=round(session.clock.monotonic() - started, 3), left=_files_in(os.fspath(workspace)))
        finally:
            _remove(workspace)


def _launch(plugin: ConfiguredPlugin, command: str, given: Input, environ: Mapping[str, str], workspace: Path,
            now: datetime, job_id: str) -> Launch:
    assert plugin.plugin is not None, "a plugin that is not loaded cannot be run"
    timeout = plugin.settings.timeout(command)
    here = os.fspath(workspace)
    request = encode_request(
        protocol=plugin.plugin.manifest.protocol, job_id=job_id, command=command, config=plugin.settings.config,
        state=from_portable(given.state, here), event=from_portable(given.event, here),
        context=from_portable(given.context, here), deadline_at=utc_text(now + timedelta(seconds=timeout)),
        workspace_dir=here,
    )
    return Launch(
        entrypoint=plugin.plugin.entrypoint, cwd=workspace, stdin=request, timeout=timeout,
        environ=plugin_environment(environ, plugin, job_id=job_id, attempt=1, workspace=workspace),
    )


def _run(launch: Launch, runs: list[Run], received: list[int]) -> Facts:
    """Run the plugin until it ends. It is added to `runs`, so that a signal can end it sooner."""
    try:
        runs.append(Run(launch))
    except OSError as error:
        return Facts(could_not_start=f"{error.strerror}: {launch.entrypoint}")
    if received:
        # The signal came before there was a run to end.
        _end(runs)
    return runs[0].wait()


def _end(runs: list[Run]) -> None:
    for each in runs:
        each.end()


def _files_in(workspace: str) -> tuple[Left, ...]:
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


def _remove(workspace: Path) -> None:
    try:
        remove(os.fspath(workspace))
    except OSError:
        # The plugin left files that belong to another user, or that are in use.
        return
