"""`ductilectl wait`: return once the daemon is ready."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from io import TextIOBase
from pathlib import Path

from ductile import daemon_run_table, db
from ductile.clock import Clock
from ductile.ctl.output import document
from ductile.errors import EXIT_IO, EXIT_OK, EXIT_UNAVAILABLE, DuctileError
from ductile.pidfile import pid_file, running_pid
from ductile.units import format_duration

_LOOK_SECONDS = 0.02


def wait(*, state_path: Path, seconds: int, clock: Clock, sleep: Callable[[float], None], as_json: bool,
         out: TextIOBase) -> int:
    """Look until the daemon is ready, for `seconds` at most.

    Raises DuctileError: 69 where it is not ready in time, and as `db.open_for_operator` does; OSError where the PID
    file cannot be read.
    """
    deadline = clock.monotonic() + seconds
    while True:
        pid = running_pid(pid_file(state_path))
        run = None if pid is None else _ready_run(state_path, pid)
        if run is not None:
            out.write(document(run) if as_json else "")
            return EXIT_OK
        if clock.monotonic() >= deadline:
            raise DuctileError(_not_ready(pid, format_duration(seconds)), exit_code=EXIT_UNAVAILABLE)
        sleep(_LOOK_SECONDS)


def _not_ready(pid: int | None, waited: str) -> str:
    if pid is None:
        return f"ductiled is not running, {waited} later; if it was started, its log says why it ended"
    return f"ductiled, PID {pid}, is not ready, {waited} later; its log says what it is doing"


def _ready_run(state_path: Path, pid: int) -> dict | None:
    """Return the row of the daemon with this PID, None while it is not ready."""
    conn = db.open_for_operator(state_path, failed=EXIT_IO)
    if conn is None:
        return None
    with closing(conn), db.database_errors(conn):
        run = daemon_run_table.latest(conn)
    return run if run is not None and run["pid"] == pid and run["ready_at"] is not None else None
