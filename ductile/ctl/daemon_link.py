"""How `ductilectl` reaches the daemon: it wakes it with a signal, and watches whether it runs."""

from __future__ import annotations

import select
import signal

from ductile.ctl.session import Session
from ductile.pidfile import PidFileRemoved, pid_file, pin_daemon, signal_daemon


def wake(session: Session) -> bool:
    """Have the daemon look at the queue now. Return whether one runs.

    What was stored stays stored: a daemon that cannot be signalled finds it at the next scheduler interval, and the
    operator is informed.
    """
    try:
        return signal_daemon(pid_file(session.state_path), signal.SIGUSR1) is not None
    except PidFileRemoved as error:
        session.err.write(f"{error}; until then it looks at the queue once per scheduler interval\n")
        return True
    except OSError as error:
        session.err.write(f"cannot signal ductiled ({error.strerror}); it looks at the queue at the next scheduler"
                          " interval\n")
        return True


def pidfd(session: Session) -> int | None:
    """Return a descriptor that becomes readable when the running daemon ends, or None if none runs.

    Raises PidFileRemoved, and OSError if the PID file cannot be read.
    """
    pinned = pin_daemon(pid_file(session.state_path))
    return None if pinned is None else pinned[1]


def is_running_after(pidfd: int, seconds: float) -> bool:
    """Wait for `seconds`, or until the daemon ends. Return whether it runs."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(int(seconds * 1000))
