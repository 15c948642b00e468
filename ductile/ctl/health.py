"""`ductilectl health`: the `health` command of plugins, run outside the queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import TextIOBase

from ductile.clock import Clock
from ductile.ctl import run_once, table
from ductile.ctl.lookup import configured
from ductile.ctl.output import document, progress
from ductile.ctl.run_once import Input
from ductile.ctl.table import Page
from ductile.dispatch.outcome import Succeeded
from ductile.errors import EXIT_FAILED, EXIT_OK
from ductile.injected import NewId
from ductile.plugin import plugin_table
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.protocol import HEALTH
from ductile.runtime_config import RuntimeConfig
from ductile.state import state_table
from ductile.text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How one plugin is. `says` is its own result, or why it is not healthy; `stderr` the first line of that.

    `healthy` is None where it cannot be asked.
    """

    plugin: str
    healthy: bool | None
    seconds: float | None = None
    says: str | None = None
    stderr: str | None = None

    @property
    def said(self) -> str | None:
        """Return what it says for people, with the line of standard error where that says more."""
        if self.stderr is None or self.stderr in (self.says or ""):
            return self.says
        line = f"standard error: {self.stderr}"
        return line if self.says is None else f"{self.says}; {line}"


def health(conn: sqlite3.Connection | None, *, plugin: str | None, runtime: RuntimeConfig, clock: Clock, new_id: NewId,
           as_json: bool, out: TextIOBase, err: TextIOBase, page: Page = table.PLAIN) -> int:
    """Show how one plugin is, or all enabled ones; 1 where any is unhealthy. Nothing is stored.

    `conn` is None where there is no database yet. Raises DuctileError (66) for a plugin that is not configured.
    """
    asked = [configured(runtime, plugin)] if plugin is not None else [runtime.plugins[name] for name in runtime.enabled]
    uninitialised = set() if conn is None else _uninitialised(conn)
    found = [_look(conn, each, uninitialised, runtime.environ, clock, new_id, err) for each in asked]
    if as_json:
        out.write(document([asdict(each) for each in found]))
    else:
        out.write(table.lines(("plugin", "health", "seconds", "says"), [
            (each.plugin, _WORDS[each.healthy], None if each.seconds is None else f"{each.seconds:.3f}",
             each.said) for each in found
        ], page=page, whole="says") if found else "no plugin is enabled\n")
    return EXIT_FAILED if any(each.healthy is False for each in found) else EXIT_OK


_WORDS = {True: "healthy", False: "unhealthy", None: "unknown (no health command)"}


def _uninitialised(conn: sqlite3.Connection) -> set[str]:
    """Return the plugins whose `init` the daemon waits for."""
    done = plugin_table.initialised(conn)
    return {load.plugin for load in plugin_table.loads(conn)
            if load.needs_init is not None and (load.plugin, load.needs_init) not in done}


def _look(conn: sqlite3.Connection | None, plugin: ConfiguredPlugin, uninitialised: set[str],
          environ: Mapping[str, str], clock: Clock, new_id: NewId, err: TextIOBase) -> Health:
    name = plugin.settings.name
    if plugin.plugin is None:
        return Health(plugin=name, healthy=False, says=f"not loaded: {plugin.reason}")
    if name in uninitialised:
        return Health(plugin=name, healthy=False, says="init has not succeeded")
    if HEALTH not in plugin.plugin.manifest.commands:
        return Health(plugin=name, healthy=None)
    state = {} if conn is None else state_table.get(conn, name)
    with progress(f"{name} {HEALTH} runs, for {plugin.settings.timeout(HEALTH)} s at most", err):
        ran = run_once.run(plugin, HEALTH, Input(state=state), environ=environ, clock=clock, job_id=new_id())
    said = ran.outcome.error or (ran.outcome.response.result if ran.outcome.response is not None else None)
    return Health(plugin=name, healthy=isinstance(ran.outcome, Succeeded), seconds=ran.seconds,
                  says=said and one_line(said), stderr=_first_line(ran.outcome.stderr))


def _first_line(stderr: str) -> str | None:
    lines = stderr.strip().splitlines()
    return one_line(lines[0]) if lines else None
