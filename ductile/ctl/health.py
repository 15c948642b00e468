"""`ductilectl health`: run the `health` command of plugins, outside the queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ductile.ctl import run_once, table
from ductile.ctl.on_disk import configured, load
from ductile.ctl.run_once import Input
from ductile.ctl.session import Session
from ductile.dispatch.outcome import Succeeded
from ductile.errors import EXIT_FAILED, EXIT_OK
from ductile.pidfile import pid_file, running_pid
from ductile.plugin import entrypoint, plugin_table
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.protocol import HEALTH
from ductile.state import state_table
from ductile.text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The health of one plugin; `healthy` is None if it is unknown.

    `says` is its own result, or why it is unhealthy; `stderr` is the first line of its standard error; `hint` is what
    may stop it in the daemon, though not here.
    """

    plugin: str
    healthy: bool | None
    seconds: float | None = None
    says: str | None = None
    stderr: str | None = None
    hint: str | None = None

    @property
    def message(self) -> str | None:
        """Return what it says for people, with the line of standard error if that says more, and the hint."""
        parts = [self.says, self.hint]
        if self.stderr is not None and self.stderr not in (self.says or ""):
            parts.insert(1, f"standard error: {self.stderr}")
        return "; ".join(part for part in parts if part is not None) or None


def health(session: Session, *, plugin: str | None) -> int:
    """Show the health of one plugin, or of all enabled ones; return 1 if any is unhealthy. Nothing is stored.

    Raises DuctileError (66) for a plugin that is not configured.
    """
    known = load(session, keep_unset=False).runtime
    asked = [configured(known, plugin)] if plugin is not None else [known.plugins[name] for name in known.enabled]
    with session.database() as conn:
        uninitialised = set() if conn is None else _uninitialised(conn)
        found = [_health(session, conn, each, uninitialised, known.environ) for each in asked]
    if _is_confined(session.state_path):
        found = [replace(each, hint=_hint(plugin)) for each, plugin in zip(found, asked, strict=True)]
    session.emit([asdict(each) for each in found], table.lines(("plugin", "health", "seconds", "message"), [
        (each.plugin, _WORDS[each.healthy], None if each.seconds is None else f"{each.seconds:.3f}",
         each.message) for each in found
    ], page=session.page, whole="message") if found else "no plugin is enabled\n")
    return EXIT_FAILED if any(each.healthy is False for each in found) else EXIT_OK


_WORDS = {True: "healthy", False: "unhealthy", None: "unknown (no health command)"}


def _uninitialised(conn: sqlite3.Connection) -> set[str]:
    """Return the plugins whose `init` has not succeeded yet."""
    done = plugin_table.initialised(conn)
    return {load.plugin for load in plugin_table.loads(conn)
            if load.needs_init is not None and (load.plugin, load.needs_init) not in done}


def _health(session: Session, conn: sqlite3.Connection | None, plugin: ConfiguredPlugin, uninitialised: set[str],
            environ: Mapping[str, str]) -> Health:
    name = plugin.settings.name
    if plugin.plugin is None:
        return Health(plugin=name, healthy=False, says=f"not loaded: {plugin.reason}")
    if name in uninitialised:
        return Health(plugin=name, healthy=False, says="init has not succeeded")
    if HEALTH not in plugin.plugin.manifest.commands:
        return Health(plugin=name, healthy=None)
    state = {} if conn is None else state_table.get(conn, name)
    ran = run_once.run(session, plugin, HEALTH, Input(state=state), environ=environ)
    message = ran.outcome.error or (ran.outcome.response.result if ran.outcome.response is not None else None)
    return Health(plugin=name, healthy=isinstance(ran.outcome, Succeeded), seconds=ran.seconds,
                  says=message and one_line(message), stderr=_first_line(ran.outcome.stderr))


def _is_confined(state_path: Path) -> bool:
    """Return whether the daemon runs under a filter of system calls, as in the systemd unit."""
    pid = running_pid(pid_file(state_path))
    try:
        status = "" if pid is None else Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "\nSeccomp:\t2\n" in status


def _hint(plugin: ConfiguredPlugin) -> str | None:
    """Return what to do about a plugin that the unit's MemoryDenyWriteExecute= stops; it does not stop it here."""
    name = None if plugin.plugin is None else entrypoint.compiler(plugin.plugin.entrypoint)
    return None if name is None else (f"{name} compiles at run time, which the systemd unit does not allow: install"
                                      " contrib/systemd/jit.conf, as contrib/INSTALL.md says")


def _first_line(stderr: str) -> str | None:
    lines = stderr.strip().splitlines()
    return one_line(lines[0]) if lines else None
