"""The PID file: one daemon per database, enforced by locks that end with its process."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

from ductile.errors import EXIT_FAILED, EXIT_RUNNING, EXIT_SYSTEM, DuctileError

_MODE = 0o600
# O_NONBLOCK, because to open a FIFO in its place would block.
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_PATIENCE_SECONDS = 1.0   # ductilectl holds a shared lock for an instant to probe
_PAUSE_SECONDS = 0.02
_READ_BYTES = 64             # bytes to read of the file
# Replaces the PID of a killed daemon, which may belong to another process by now. The file must not be empty.
_UNCLEAN = "unclean"
# In the file while `ductilectl restore` replaces the database, followed by the time in the names of the kept files.
RESTORING = "restore "


class AlreadyRunning(DuctileError):
    """Another process holds a lock: a daemon runs or is starting, or a database is being restored."""

    def __init__(self, text: str) -> None:
        super().__init__(f"ductiled is already running{text}", exit_code=EXIT_RUNNING)


class PidFileRemoved(DuctileError):
    """A daemon is running, but its PID file was removed or replaced, so its PID is unknown."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"ductiled runs, its PID file was removed ({path}); restart it", exit_code=EXIT_FAILED)


def pid_file(database: Path) -> Path:
    """Return the path of the PID file for a database."""
    return database.with_name("ductiled.pid")


def is_nonempty(path: Path) -> bool:
    """True if the PID file is not empty: a daemon runs, or the last one did not stop cleanly. Raises OSError."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def is_restoring(path: Path) -> bool:
    """True if a restore is replacing the database or was interrupted. Raises OSError."""
    try:
        fd = os.open(path, _FLAGS | os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return os.read(fd, _READ_BYTES).startswith(RESTORING.encode())
    finally:
        os.close(fd)


def mark_unclean(path: Path) -> None:
    """Write to the PID file if it was removed or emptied while the daemon ran. Raises OSError."""
    if not is_nonempty(path):
        path.write_text(f"{_UNCLEAN}\n", encoding="ascii")


class PidLock:
    """The PID file and its directory, locked for the life of this process. The file is never removed or replaced.

    It is empty only after a clean stop. `left` is its content when the lock was taken.
    """

    def __init__(self, path: Path) -> None:
        """Take both locks. Raises DuctileError: 75 if another process holds one, 71 on any other failure."""
        self._path = path
        # The directory first: the kernel closes the descriptors of a dead process in ascending order, and a lock on the
        # directory alone means that the PID file was removed.
        self._directory = _open(path.parent, os.O_RDONLY | os.O_DIRECTORY, f"the directory {path.parent}")
        self._fd = -1
        try:
            self._fd = self._open_file()
            self.left = self._take()
        except OSError as error:
            self._close()
            raise DuctileError(f"cannot lock the PID file {path}: {error.strerror}", exit_code=EXIT_SYSTEM) from error
        except DuctileError:
            self._close()
            raise

    def _open_file(self) -> int:
        """Open or create the file. One that was removed beside a running daemon is not created again.

        An empty one would say that this daemon has stopped cleanly.
        """
        # Looked at with a shared lock, as `ductilectl` does: a daemon that starts holds the file before the directory.
        if not os.path.lexists(self._path) and _is_locked(self._path.parent) and not os.path.lexists(self._path):
            raise self._removed()
        return _open(self._path, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, f"the PID file {self._path}")

    def _take(self) -> str:
        """Take the locks and return the content of the file."""
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise DuctileError(f"the PID file {self._path} is not a regular file: remove it", exit_code=EXIT_SYSTEM)
        if not _lock(self._fd):
            other = _read_pid(self._fd)
            who = f"as PID {other}" if other else "and still starting up"
            raise AlreadyRunning(f" {who} (it holds {self._path})")
        if not _lock(self._directory):
            raise self._removed()
        left = os.pread(self._fd, _READ_BYTES, 0).decode("ascii", "replace")
        if left.strip().isdigit():
            self._put(_UNCLEAN)
        return left

    def _removed(self) -> AlreadyRunning:
        return AlreadyRunning(f": it holds {self._path.parent}, and its PID file was removed; stop it first")

    def write(self) -> None:
        """Write this process's PID. Raises DuctileError (71)."""
        self.note(str(os.getpid()))

    def note(self, text: str) -> None:
        """Write and sync a line, for whoever reads the file after a crash. Raises DuctileError (71)."""
        try:
            self._put(text)
            os.fsync(self._fd)
        except OSError as error:
            raise DuctileError(f"cannot write the PID file {self._path}: {error.strerror}",
                               exit_code=EXIT_SYSTEM) from error

    def _put(self, text: str) -> None:
        # Truncated afterwards, so that the file is never empty.
        os.ftruncate(self._fd, os.pwrite(self._fd, f"{text}\n".encode(), 0))

    def release(self) -> None:
        """Empty the file and release the locks: a clean stop. If it cannot be emptied, the stop looks like a crash."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
        self._close()

    def abandon(self) -> None:
        """Release the locks and keep the file as it is: an unclean stop."""
        self._close()

    def _close(self) -> None:
        os.close(self._directory)
        if self._fd >= 0:
            os.close(self._fd)


def _open(path: Path, flags: int, name: str) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise DuctileError(f"cannot open {name}: {error.strerror}", exit_code=EXIT_SYSTEM) from error


def running_pid(path: Path) -> int | None:
    """Return the PID of the daemon that holds the PID file, or None if none runs or it is still starting.

    Raises PidFileRemoved, and OSError if the file or its directory cannot be read.
    """
    is_held, pid = _probe(path)
    if not is_held and _is_locked(path.parent):
        # A daemon may have started between the two probes.
        is_held, pid = _probe(path)
        if not is_held:
            raise PidFileRemoved(path)
    return pid


def _probe(path: Path) -> tuple[bool, int | None]:
    """Return whether a process holds the PID file, and the PID in it if so."""
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
    """Return the PID of the daemon that holds the PID file and a pidfd for it, to be closed; None if none runs.

    The lock is probed again after the pidfd is open, so a reused PID is never mistaken for the daemon. Raises OSError.
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
    """Send a signal to the daemon that holds the PID file and return its PID; None if none runs. Raises OSError."""
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
    """Take the exclusive lock; wait while a probe holds it."""
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
    text = os.pread(fd, _READ_BYTES, 0).strip()
    return int(text) if text.isdigit() else None
