"""`ductilectl reload`: have the daemon load its configuration again, and show what changed."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

from ductile.config import load_table
from ductile.config.load_table import ConfigLoad
from ductile.ctl import table
from ductile.ctl.daemon_link import is_running_after
from ductile.ctl.on_disk import load
from ductile.ctl.output import progress
from ductile.ctl.session import Session
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_PERMISSION, EXIT_UNAVAILABLE, DuctileError
from ductile.pidfile import pid_file, pin_daemon
from ductile.plugin import plugin_table
from ductile.queue import job_table
from ductile.runtime_config import LoadResult, RuntimeConfig
from ductile.text import counted, one_line

_PATIENCE_SECONDS = 30
_LOOK_SECONDS = 0.1


def reload(session: Session, *, ask: bool) -> int:
    """Validate the configuration, signal the daemon, wait for its answer and show it.

    With `ask` the operator confirms on the terminal if queued jobs would end. Return 78 if the daemon rejects the
    configuration, 1 if a plugin is no longer loaded. Raises DuctileError: 78 with the problems found here, 69 if no
    daemon runs or it ends, 77 if it may not be signalled, 1 if the operator declines, if the daemon does not answer
    within 30 s or has loaded other files.
    """
    read_here = load(session)
    with session.changing() as conn:
        before = _unavailable(conn)
        if ask:
            _confirm(session, conn, read_here.runtime)
        loaded = _signal_and_wait(session, conn)
        if loaded.ok and loaded.digest != read_here.runtime.digest:
            raise _other_files(read_here)
        after = _unavailable(conn)
    for name in sorted(after.keys() & before.keys()):
        session.err.write(f"warning: plugin {name} is still not loaded: {table.cell(after[name])}\n")
    newly = sorted(after.keys() - before.keys()) if loaded.ok else []
    if not loaded.ok and not session.as_json:
        session.err.write("".join(f"{table.cell(error)}\n" for error in loaded.errors))
    text = "".join(f"{table.cell(change)}\n" for change in loaded.changes) or "nothing changed\n"
    session.emit({"loaded_at": loaded.loaded_at, "ok": loaded.ok, "changes": loaded.changes, "errors": loaded.errors,
                  "unavailable": newly}, text if loaded.ok else "")
    if not loaded.ok:
        return EXIT_CONFIG
    return EXIT_FAILED if newly else EXIT_OK


def _other_files(read_here: LoadResult) -> DuctileError:
    return DuctileError(f"ductiled has loaded other files than {read_here.path} and those that it names: they"
                        " have just changed, or it runs on another configuration", exit_code=EXIT_FAILED)


def _unavailable(conn: sqlite3.Connection) -> dict[str, str]:
    """Return the enabled plugins that the daemon could not load, each with the reason. Their jobs wait."""
    return {load.plugin: load.reason for load in plugin_table.loads(conn) if load.enabled and load.reason is not None}


def _confirm(session: Session, conn: sqlite3.Connection, known: RuntimeConfig) -> None:
    """Ask if queued jobs would end, on a terminal only. Raises DuctileError (1) if the operator declines."""
    ending = job_table.count_queued_outside(conn, known.enabled)
    if not ending or not session.can_ask:
        return
    jobs = ", ".join(f"{counted(count, 'queued job')} of plugin {one_line(name)},"
                     f" which is {'disabled' if name in known.plugins else 'not configured'}"
                     for name, count in ending.items())
    if not session.ask(f"This ends {jobs}. Reload?"):
        raise DuctileError("not reloaded; nothing was changed", exit_code=EXIT_FAILED)


def _signal_and_wait(session: Session, conn: sqlite3.Connection) -> ConfigLoad:
    last = load_table.last_id(conn)
    pid, daemon = _pin(pid_file(session.state_path))
    try:
        _signal(pid, daemon)
        with progress(f"waiting for ductiled, PID {pid}", session.err):
            return _answer(session, conn, last, daemon)
    finally:
        os.close(daemon)


def _pin(file: Path) -> tuple[int, int]:
    try:
        pinned = pin_daemon(file)
    except PermissionError as error:
        raise DuctileError(f"cannot read the PID file {file}: {error.strerror}; run this as the user that runs"
                           " ductiled", exit_code=EXIT_PERMISSION) from error
    if pinned is None:
        raise _not_running()
    return pinned


def _signal(pid: int, daemon: int) -> None:
    try:
        signal.pidfd_send_signal(daemon, signal.SIGHUP)
    except ProcessLookupError as error:
        raise _not_running() from error
    except PermissionError as error:
        raise DuctileError(f"may not signal ductiled, PID {pid}; run this as the user that runs it",
                           exit_code=EXIT_PERMISSION) from error


def _not_running() -> DuctileError:
    return DuctileError("ductiled is not running; it reads the configuration when it starts",
                        exit_code=EXIT_UNAVAILABLE)


def _answer(session: Session, conn: sqlite3.Connection, last: int, daemon: int) -> ConfigLoad:
    """Return the first configuration load after the row `last`."""
    deadline = session.clock.monotonic() + _PATIENCE_SECONDS
    runs = True
    while True:
        loaded = load_table.after(conn, last)
        if loaded is not None:
            return loaded
        if not runs:
            raise DuctileError("ductiled ended before it had loaded the configuration; its log says why",
                               exit_code=EXIT_UNAVAILABLE)
        if session.clock.monotonic() >= deadline:
            raise DuctileError(f"ductiled has not answered within {_PATIENCE_SECONDS} s; `ductilectl status` shows what"
                               " it is doing", exit_code=EXIT_FAILED)
        runs = is_running_after(daemon, _LOOK_SECONDS)
