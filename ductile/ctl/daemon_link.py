"""How `ductilectl` reaches the daemon: a signal, and a look at whether it lives."""

from __future__ import annotations

import select
import signal
from io import TextIOBase
from pathlib import Path

from ductile.pidfile import PidFileRemoved, pid_file, pin_daemon, signal_daemon


def wake(state_path: Path, err: TextIOBase) -> bool:
    """Have the daemon look at the queue now. Return whether one runs.

    What was stored stays stored: a daemon that cannot be told finds it at its next heartbeat, and `err` says so.
    """
    try:
        return signal_daemon(pid_file(state_path), signal.SIGUSR1) is not None
    except PidFileRemoved as error:
        err.write(f"{error}; until then it looks at the queue at its next heartbeat\n")
        return True
    except OSError as error:
        err.write(f"ductiled could not be told ({error.strerror}); it looks at the queue at its next heartbeat\n")
        return True


def watch(state_path: Path) -> int | None:
    """Return a descriptor that becomes readable when the running daemon ends, or None where none runs.

    Raises PidFileRemoved, and OSError where the PID file cannot be read.
    """
    pinned = pin_daemon(pid_file(state_path))
    return None if pinned is None else pinned[1]


def lives(pidfd: int, seconds: float) -> bool:
    """Wait so long, or until the daemon ends. Return whether it lives."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(int(seconds * 1000))
