"""`ductilectl reload`: the daemon reads its configuration anew, and says what came of it."""

from __future__ import annotations

import os
import signal
import sqlite3
from io import TextIOBase
from pathlib import Path

from ductile.clock import Clock
from ductile.config import load_table
from ductile.config.load_table import ConfigLoad
from ductile.ctl import table
from ductile.ctl.daemon_link import lives
from ductile.ctl.output import document, progress
from ductile.ctl.question import Confirm
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_PERMISSION, EXIT_UNAVAILABLE, DuctileError
from ductile.pidfile import pid_file, pin_daemon
from ductile.plugin import plugin_table
from ductile.queue import job_table
from ductile.runtime_config import LoadResult, RuntimeConfig
from ductile.text import counted, one_line

_PATIENCE_SECONDS = 30
_LOOK_SECONDS = 0.1


def reload(conn: sqlite3.Connection, *, reading: LoadResult, confirm: Confirm | None, clock: Clock, as_json: bool,
           out: TextIOBase, err: TextIOBase) -> int:
    """Have the daemon take the configuration that was read here without a problem, and show what it changed.

    `confirm` asks the operator where waiting jobs would end; None goes through. Return 78 where the daemon rejects it,
    1 where it makes a plugin unavailable. Raises DuctileError: 69 where none runs or it ends, 77 where it may not be
    signalled, 1 where the operator refuses, where it does not answer within 30 s or has read something else.
    """
    unavailable = _unavailable(conn)
    _confirm(conn, reading.runtime, confirm)
    load = _signal_and_wait(conn, reading, clock, err)
    if load.ok and load.digest != reading.runtime.digest:
        raise DuctileError(f"ductiled has read other files than {reading.path} and what belongs to it: they have"
                           " changed just now, or it runs on another configuration", exit_code=EXIT_FAILED)
    after = _unavailable(conn)
    for name in sorted(after.keys() & unavailable.keys()):
        err.write(f"warning: plugin {name} is still not loaded: {table.cell(after[name])}\n")
    newly = sorted(after.keys() - unavailable.keys()) if load.ok else []
    if as_json:
        out.write(document({"loaded_at": load.loaded_at, "ok": load.ok, "changes": load.changes,
                            "errors": load.errors, "unavailable": newly}))
    elif load.ok:
        out.write("".join(f"{table.cell(change)}\n" for change in load.changes) or "nothing changed\n")
    else:
        err.write("".join(f"{table.cell(error)}\n" for error in load.errors))
    if not load.ok:
        return EXIT_CONFIG
    return EXIT_FAILED if newly else EXIT_OK


def _unavailable(conn: sqlite3.Connection) -> dict[str, str]:
    """Return the plugins whose jobs wait because the daemon could not load them, each with the reason."""
    return {load.plugin: load.reason for load in plugin_table.loads(conn) if load.enabled and load.reason is not None}


def _confirm(conn: sqlite3.Connection, runtime: RuntimeConfig, confirm: Confirm | None) -> None:
    """Ask where waiting jobs would end. Raises DuctileError (1) where the operator does not want that."""
    ending = job_table.count_queued_outside(conn, runtime.enabled)
    if confirm is None or not ending:
        return
    jobs = ", ".join(f"{counted(count, 'queued job')} of plugin {one_line(name)},"
                     f" which is {'disabled' if name in runtime.plugins else 'not configured'}"
                     for name, count in ending.items())
    if not confirm(f"This ends {jobs}. Reload?"):
        raise DuctileError("not reloaded; nothing was changed", exit_code=EXIT_FAILED)


def _signal_and_wait(conn: sqlite3.Connection, reading: LoadResult, clock: Clock, err: TextIOBase) -> ConfigLoad:
    last = load_table.last_id(conn)
    pid, daemon = _pin(pid_file(reading.runtime.config.state_path))
    try:
        _signal(pid, daemon)
        with progress(f"waiting for ductiled, PID {pid}", err):
            return _answer(conn, last, daemon, clock)
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


def _answer(conn: sqlite3.Connection, last: int, daemon: int, clock: Clock) -> ConfigLoad:
    """Return the first load after the row `last`."""
    deadline = clock.monotonic() + _PATIENCE_SECONDS
    runs = True
    while True:
        load = load_table.after(conn, last)
        if load is not None:
            return load
        if not runs:
            raise DuctileError("ductiled ended before it had read the configuration; its log says why",
                               exit_code=EXIT_UNAVAILABLE)
        if clock.monotonic() >= deadline:
            raise DuctileError(f"ductiled has not answered within {_PATIENCE_SECONDS} s; `ductilectl status` shows what"
                               " it is doing", exit_code=EXIT_FAILED)
        runs = lives(daemon, _LOOK_SECONDS)
