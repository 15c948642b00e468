"""The PID file: one daemon per database, proved by locks that end with its process."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time
from pathlib import Path

from ductile.errors import EXIT_FAILED, EXIT_RUNNING, EXIT_SYSTEM, DuctileError

_MODE = 0o600
# Not waiting, because opening what somebody has put there in its place, such as a FIFO, might not return.
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_PATIENCE_SECONDS = 1.0   # ductilectl probes with a shared lock for an instant
_PAUSE_SECONDS = 0.02
_LONGEST = 64             # bytes that are read of the file
# Takes the place of a killed daemon's PID, which may be another process's by now, and keeps the file from being empty.
_UNCLEAN = "unclean"


class AlreadyRunning(DuctileError):
    """Another process holds a lock: a daemon runs or is starting, or a database is being restored."""

    def __init__(self, text: str) -> None:
        super().__init__(f"ductiled is already running{text}", exit_code=EXIT_RUNNING)


class PidFileRemoved(DuctileError):
    """A daemon runs, but its PID file was removed or replaced, so that nobody can say which process it is."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"ductiled runs, its PID file was removed ({path}); restart it", exit_code=EXIT_FAILED)


def pid_file(database: Path) -> Path:
    """Return the place of the PID file for a database."""
    return database.with_name("ductiled.pid")


def is_left(path: Path) -> bool:
    """Say whether the PID file is not empty: a daemon runs, or the last one did not stop cleanly. Raises OSError."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def leave_unclean(path: Path) -> None:
    """Have the PID file not be empty, where it was removed or replaced while the daemon ran. Raises OSError."""
    if not is_left(path):
        path.write_text(f"{_UNCLEAN}\n", encoding="ascii")


class PidLock:
    """The PID file and its directory, locked for the life of this process. The file is never removed or replaced.

    It is empty after a clean stop alone. `left` is what the last holder has left in it, "" for nothing.
    """

    def __init__(self, path: Path) -> None:
        """Take both locks. Raises DuctileError: 75 where another process holds one, 71 where that cannot be."""
        self._path = path
        # The directory first: the kernel closes the lowest descriptor of a dead process first, and who finds the
        # directory's lock alone has to conclude that the PID file was removed.
        self._directory = _open(path.parent, os.O_RDONLY | os.O_DIRECTORY, f"the directory {path.parent}")
        try:
            self._fd = _open(path, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, f"the PID file {path}")
        except DuctileError:
            os.close(self._directory)
            raise
        try:
            self.left = self._take()
        except OSError as error:
            self._close()
            raise DuctileError(f"cannot lock the PID file {path}: {error.strerror}", exit_code=EXIT_SYSTEM) from error
        except DuctileError:
            self._close()
            raise

    def _take(self) -> str:
        """Take the locks and return what was left in the file."""
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise DuctileError(f"the PID file {self._path} is not a regular file: remove it", exit_code=EXIT_SYSTEM)
        if not _lock(self._fd):
            other = _read_pid(self._fd)
            who = f"as PID {other}" if other else "and is just starting"
            raise AlreadyRunning(f" {who} (it holds {self._path})")
        if not _lock(self._directory):
            raise AlreadyRunning(f": it holds {self._path.parent}, and its PID file was removed; stop that process"
                                 f" first")
        left = os.pread(self._fd, _LONGEST, 0).decode("ascii", "replace")
        if left.strip().isdigit():
            self._put(_UNCLEAN)
        return left

    def write(self) -> None:
        """Write this process's PID. Raises DuctileError (71)."""
        self.note(str(os.getpid()))

    def note(self, text: str) -> None:
        """Write a line, on the disk when this returns: what is found after our death. Raises DuctileError (71)."""
        try:
            self._put(text)
            os.fsync(self._fd)
        except OSError as error:
            raise DuctileError(f"cannot write the PID file {self._path}: {error.strerror}",
                               exit_code=EXIT_SYSTEM) from error

    def _put(self, text: str) -> None:
        # Cut afterwards: at no moment is the file empty.
        os.ftruncate(self._fd, os.pwrite(self._fd, f"{text}\n".encode(), 0))

    def release(self) -> None:
        """Empty the file and give the locks up: a clean stop. One that cannot be emptied looks like a crash."""
        try:
            os.ftruncate(self._fd, 0)
        except OSError:
            pass
        self._close()

    def abandon(self) -> None:
        """Give the locks up and leave the file as it is: no clean stop."""
        self._close()

    def _close(self) -> None:
        os.close(self._directory)
        os.close(self._fd)


def _open(path: Path, flags: int, name: str) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise DuctileError(f"cannot open {name}: {error.strerror}", exit_code=EXIT_SYSTEM) from error


def running_pid(path: Path) -> int | None:
    """Return the PID of the daemon that holds the PID file, or None where none runs or it is just starting.

    Raises PidFileRemoved, and OSError where the file or its directory is there but cannot be read.
    """
    is_held, pid = _probe(path)
    if not is_held and _is_locked(path.parent):
        # One may have started between the two looks.
        is_held, pid = _probe(path)
        if not is_held:
            raise PidFileRemoved(path)
    return pid


def _probe(path: Path) -> tuple[bool, int | None]:
    """Return whether somebody holds the PID file, and the PID that is in it then."""
    try:
        fd = os.open(path, _FLAGS | os.O_RDONLY)
    except FileNotFoundError:
        return False, None
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False, None
    except BlockingIOError:
        return True, _read_pid(fd)
    finally:
        os.close(fd)


def _is_locked(directory: Path) -> bool:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
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
    text = os.pread(fd, _LONGEST, 0).strip()
    return int(text) if text.isdigit() else None
