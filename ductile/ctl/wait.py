"""`ductilectl wait`: return once the daemon is ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ductile import daemon_run_table
from ductile.ctl.session import Session
from ductile.errors import EXIT_OK, EXIT_UNAVAILABLE, DuctileError
from ductile.pidfile import pid_file, running_pid
from ductile.units import format_duration

_LOOK_SECONDS = 0.02


def wait(session: Session, *, seconds: int, sleep: Callable[[float], None]) -> int:
    """Look until the daemon is ready, for `seconds` at most.

    Raises DuctileError: 69 if it is not ready in time, and as `open_for_operator` does; OSError if the PID file cannot
    be read.
    """
    deadline = session.clock.monotonic() + seconds
    while True:
        pid = running_pid(pid_file(session.state_path))
        run = None if pid is None else _ready_run(session, pid)
        if run is not None:
            session.emit(run, "")
            return EXIT_OK
        if session.clock.monotonic() >= deadline:
            raise DuctileError(_not_ready(pid, format_duration(seconds)), exit_code=EXIT_UNAVAILABLE)
        sleep(_LOOK_SECONDS)


def _not_ready(pid: int | None, waited: str) -> str:
    if pid is None:
        return f"ductiled is not running after {waited}; if it was started, its log says why it ended"
    return f"ductiled, PID {pid}, is not ready after {waited}; its log says what it is doing"


def _ready_run(session: Session, pid: int) -> dict[str, Any] | None:
    """Return the row of the daemon with this PID, None while it is not ready."""
    with session.database() as conn:
        run = None if conn is None else daemon_run_table.latest(conn)
    return run if run is not None and run["pid"] == pid and run["ready_at"] is not None else None
