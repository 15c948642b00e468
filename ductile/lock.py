"""The PID file: one daemon per database, proved by a lock that dies with its process."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time
from pathlib import Path

from ductile.errors import EXIT_RUNNING, EXIT_SYSTEM, DuctileError

_MODE = 0o600
# Not waiting, because opening what somebody has put there in its place, such as a FIFO, might not return.
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_PATIENCE_SECONDS = 1.0   # ductilectl probes with a shared lock for an instant
_PAUSE_SECONDS = 0.02


def pid_file(database: Path) -> Path:
    """Return the place of the PID file for a database."""
    return database.with_name("ductiled.pid")


class PidLock:
    """The PID file, locked for the life of this process. It is never removed or replaced."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises DuctileError: 75 where another daemon holds it, 71 where it cannot be written."""
        self._path = path
        try:
            self._fd = os.open(path, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _MODE)
        except OSError as error:
            raise DuctileError(f"cannot open the PID file {path}: {error.strerror}", exit_code=EXIT_SYSTEM) from error
        try:
            self._take()
        except DuctileError:
            os.close(self._fd)
            raise
        except OSError as error:
            os.close(self._fd)
            raise DuctileError(f"cannot lock the PID file {path}: {error.strerror}", exit_code=EXIT_SYSTEM) from error

    def _take(self) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise DuctileError(f"the PID file {self._path} is not a regular file: remove it", exit_code=EXIT_SYSTEM)
        if not _lock(self._fd):
            other = _read_pid(self._fd)
            who = f"as PID {other}" if other else "and is just starting"
            raise DuctileError(f"ductiled is already running {who} (it holds {self._path})", exit_code=EXIT_RUNNING)
        # A killed daemon's PID may be another process's by now: nobody may read it as the holder's.
        os.ftruncate(self._fd, 0)

    def write(self) -> None:
        """Write this process's PID. Raises DuctileError (71)."""
        try:
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise DuctileError(f"cannot write the PID file {self._path}: {error.strerror}",
                               exit_code=EXIT_SYSTEM) from error

    def release(self) -> None:
        """Empty the file and give the lock up: a clean stop. A file that cannot be emptied is only untidy."""
        try:
            os.ftruncate(self._fd, 0)
        except OSError:
            pass
        os.close(self._fd)


def running_pid(path: Path) -> int | None:
    """Return the PID of the daemon that holds the PID file, or None where none does.

    Raises OSError where the file is there but cannot be read.
    """
    try:
        fd = os.open(path, _FLAGS | os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read_pid(fd)
    finally:
        os.close(fd)


def pin_daemon(path: Path) -> tuple[int, int] | None:
    """Return the PID of the daemon that holds the PID file and a pidfd of it, to be closed; None where none runs.

    The process is pinned before the lock is looked at again, so that a PID used anew is never taken for it.
    Raises OSError where the file cannot be read.
    """
    pid = running_pid(path)
    if pid is None:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if running_pid(path) == pid:
        return pid, pidfd
    os.close(pidfd)
    return None


def signal_daemon(path: Path, number: int) -> int | None:
    """Send a signal to the daemon that holds the PID file and return its PID; None where none runs.

    Raises OSError (PermissionError) where it may not be signalled.
    """
    pinned = pin_daemon(path)
    if pinned is None:
        return None
    pid, pidfd = pinned
    try:
        signal.pidfd_send_signal(pidfd, number)
        return pid
    except ProcessLookupError:
        return None
    finally:
        os.close(pidfd)


def _lock(fd: int) -> bool:
    """Take the exclusive lock, waiting out a probe. The wait is real time: nothing else runs yet."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
