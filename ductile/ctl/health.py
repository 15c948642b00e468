"""`ductilectl health`: the `health` command of plugins, run outside the queue."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from io import TextIOBase
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from ductile.chance import NewId
from ductile.clock import Clock
from ductile.ctl import table
from ductile.ctl.configured import configured
from ductile.ctl.document import document
from ductile.dispatch.lifecycle import plugin_environment
from ductile.dispatch.outcome import Facts, Outcome, Succeeded, Unrunnable, classify
from ductile.dispatch.runner import Launch, Run, become_subreaper
from ductile.errors import EXIT_FAILED, EXIT_OK
from ductile.plugin import rows as plugin_rows
from ductile.plugin.configured import ConfiguredPlugin
from ductile.plugin.manifest import HEALTH
from ductile.protocol import encode_request
from ductile.state import rows as state_rows
from ductile.text import one_line
from ductile.units import utc_text
from ductile.world import World

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How one plugin is. `says` is its own result, or why it is not healthy."""

    plugin: str
    healthy: bool
    seconds: float | None = None
    says: str | None = None


def health(conn: sqlite3.Connection | None, *, plugin: str | None, world: World, clock: Clock, new_id: NewId,
           as_json: bool, out: TextIOBase) -> int:
    """Show how one plugin is, or all enabled ones; 1 where any is not healthy. Nothing is stored.

    `conn` is None where there is no database yet. Raises DuctileError (66) for a plugin that is not configured.
    """
    asked = [configured(world, plugin)] if plugin is not None else [world.plugins[name] for name in world.enabled]
    become_subreaper()
    uninitialised = set() if conn is None else _uninitialised(conn)
    found = [_look(conn, each, uninitialised, world.environ, clock, new_id) for each in asked]
    if as_json:
        out.write(document([asdict(each) for each in found]))
    else:
        out.write(table.lines(("plugin", "health", "seconds", "says"), [
            (each.plugin, "healthy" if each.healthy else "unhealthy",
             None if each.seconds is None else f"{each.seconds:.3f}", each.says) for each in found
        ]) if found else "no plugin is enabled\n")
    return EXIT_OK if all(each.healthy for each in found) else EXIT_FAILED


def _uninitialised(conn: sqlite3.Connection) -> set[str]:
    """Return the plugins whose `init` the daemon waits for."""
    done = plugin_rows.initialised(conn)
    return {load.plugin for load in plugin_rows.loads(conn)
            if load.needs_init is not None and (load.plugin, load.needs_init) not in done}


def _look(conn: sqlite3.Connection | None, plugin: ConfiguredPlugin, uninitialised: set[str],
          environ: Mapping[str, str], clock: Clock, new_id: NewId) -> Health:
    name = plugin.settings.name
    if plugin.plugin is None:
        return Health(plugin=name, healthy=False, says=f"not loaded: {plugin.reason}")
    if name in uninitialised:
        return Health(plugin=name, healthy=False, says="init has not succeeded")
    if HEALTH not in plugin.plugin.manifest.commands:
        return Health(plugin=name, healthy=True, says="has no health command")
    state = {} if conn is None else state_rows.get(conn, name)
    started = clock.monotonic()
    outcome = _run(plugin, state, environ, clock.now(), new_id())
    said = outcome.error or (outcome.response.result if outcome.response is not None else None)
    return Health(plugin=name, healthy=isinstance(outcome, Succeeded), seconds=round(clock.monotonic() - started, 3),
                  says=said and one_line(said))


def _run(plugin: ConfiguredPlugin, state: Mapping[str, object], environ: Mapping[str, str], now: datetime,
         job_id: str) -> Outcome:
    timeout = plugin.settings.timeout(HEALTH)
    # What cannot be removed afterwards is the plugin's doing and no reason to fail.
    with TemporaryDirectory(prefix="ductile-health-", ignore_cleanup_errors=True) as scratch:
        workspace = Path(scratch).resolve()
        request = encode_request(
            protocol=plugin.plugin.manifest.protocol, job_id=job_id, command=HEALTH, config=plugin.settings.config,
            state=state, event=None, deadline_at=utc_text(now + timedelta(seconds=timeout)), context={},
            workspace_dir=os.fspath(workspace),
        )
        launch = Launch(
            entrypoint=plugin.plugin.entrypoint, cwd=workspace, stdin=request, timeout=timeout,
            environ=plugin_environment(environ, plugin, job_id=job_id, attempt=1, workspace=workspace),
        )
        try:
            return classify(_attend(launch), timeout=timeout)
        except OSError as error:
            return Unrunnable(error=one_line(f"could not be started: {error.strerror}: {launch.entrypoint}"))


def _attend(launch: Launch) -> Facts:
    """Run a plugin to its end. A signal that ends us ends it first: in a session of its own it would live on.

    Raises OSError where it cannot be started, KeyboardInterrupt or SystemExit after such a signal.
    """
    got: list[int] = []
    runs: list[Run] = []

    def end(number: int, frame: FrameType | None) -> None:
        got.append(number)
        for run in runs:
            run.end()

    before = {number: signal.signal(number, end) for number in _ENDING
              if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        runs.append(Run(launch))
        if got:
            # It came before there was anything to end.
            runs[0].end()
        facts = runs[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if got:
        raise KeyboardInterrupt if got[0] == signal.SIGINT else SystemExit(128 + got[0])
    return facts
