"""Proof that nothing of a run still lives: the lock that its processes inherit, and the marks they carry."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ductile.dispatch.procfs import (
    Process,
    boot_id,
    environment_has,
    has_open,
    kill,
    process,
    processes,
    ticks_since_boot,
    wait_for_exit,
)

JOB_ID_VARIABLE = "DUCTILE_JOB_ID"
_MODE = 0o600
_DIRECTORY_MODE = 0o700
_CURRENT = "current"
# Each mark overwrites the last one, so they all have this length: no file is made, cut or removed for a run.
_MARK_BYTES = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """Whose run a lock file was last taken for, its leader, and when that was known to run, in ticks since the boot."""

    job_id: str
    boot: str
    leader: int
    noted: int


class RunLocks:
    """The lock files of the runs that may still live, in one directory.

    One file, `current`, serves run after run. Where something of a run still holds its lock when the run has ended,
    the file is renamed to the job's id, and stays until the lock is free.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._current = directory / _CURRENT

    def take(self) -> int:
        """Return a locked descriptor for the next run to inherit.

        Raises OSError; BlockingIOError where something of the run before still holds the lock.
        """
        try:
            fd = os.open(self._current, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        except FileNotFoundError:
            self._directory.mkdir(mode=_DIRECTORY_MODE)
            fd = os.open(self._current, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def mark(self, job_id: str, pid: int) -> None:
        """Write whose run it is and who leads it into the lock file, for a start after a crash.

        To be called before the leader is reaped: its PID is then its own.
        """
        text = f"{job_id} {boot_id()} {pid} {ticks_since_boot()}".ljust(_MARK_BYTES - 1) + "\n"
        try:
            fd = os.open(self._current, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, text.encode(), 0)
            finally:
                os.close(fd)
        except OSError:
            # A full disk: the plugin runs already, and the lock and its environment mark it too.
            return

    def release(self, job_id: str) -> bool:
        """Say whether the lock of a job's run is free, so that nothing of it lives; if not, keep it for that job."""
        if _is_free(self._current):
            return True
        with suppress(OSError):
            os.rename(self._current, self._directory / job_id)
        return False

    def job_ids(self) -> list[str]:
        """Return the jobs of whose runs something may still live. Raises OSError."""
        try:
            kept = sorted(set(os.listdir(self._directory)) - {_CURRENT})
        except FileNotFoundError:
            return []
        mark = _read_mark(self._current)
        if mark is not None and not _is_free(self._current):
            kept.append(mark.job_id)
        return kept

    def end(self, job_id: str, seconds: float) -> tuple[bool, list[int]]:
        """Kill what still lives of a run, by evidence, for at most `seconds`.

        Return whether it is proved that nothing does, and the PIDs that were killed. The evidence: a process
        has the lock file open, was started with the job's id in its environment, or belongs to the leader's session.
        Raises OSError where that cannot be looked for.
        """
        deadline = time.monotonic() + seconds
        killed: list[int] = []
        while True:
            found = self._evidence(job_id)
            if not found and self._is_over(job_id):
                return True, killed
            for pid in found:
                kill(pid)
            killed += [pid for pid in found if pid not in killed]
            left = deadline - time.monotonic()
            if left <= 0 or not found:
                # What lives cannot be killed, or not be found, as another user's process: that job has to wait.
                self._keep(job_id)
                return False, killed
            wait_for_exit(found[0], left)

    def _evidence(self, job_id: str) -> list[int]:
        path = self._path(job_id)
        mark = _read_mark(path)
        if mark is not None and mark.job_id != job_id:
            mark = None
        ours = {os.getpid(), os.getppid()}
        assignment = f"{JOB_ID_VARIABLE}={job_id}".encode()
        lock = path.resolve()
        return [
            found.pid for found in processes() if found.pid not in ours and (
                environment_has(found.pid, assignment) or _in_session(found, mark) or has_open(found.pid, lock)
            )
        ]

    def _is_over(self, job_id: str) -> bool:
        """Say whether the lock is free; a file that was kept for the job is then removed."""
        path = self._path(job_id)
        if not _is_free(path):
            return False
        if path != self._current:
            path.unlink()
        return True

    def _keep(self, job_id: str) -> None:
        """Have the lock file wait for this job alone, so that other jobs can run."""
        path = self._path(job_id)
        if path == self._current:
            with suppress(FileNotFoundError):
                path.rename(self._directory / job_id)

    def _path(self, job_id: str) -> Path:
        """Return the lock file of a job's last run: the one that was kept for it, or the current one."""
        kept = self._directory / job_id
        try:
            kept.stat()
        except FileNotFoundError:
            return self._current
        return kept


def _is_free(path: Path) -> bool:
    """Say whether nobody holds the lock of a file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        # The process is out of descriptors, say: what cannot be looked at is not known to be free.
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def _read_mark(path: Path) -> _Mark | None:
    try:
        job_id, boot, leader, noted = path.read_text(encoding="ascii").split()
        return _Mark(job_id=job_id, boot=boot, leader=int(leader), noted=int(noted))
    except (OSError, ValueError):
        return None


def _in_session(found: Process, mark: _Mark | None) -> bool:
    """Say whether a process belongs to the session that a run's leader has made.

    A session's number is not used again while it has a member. Where a process has the leader's PID it must have
    run already when that was noted: one that has the PID anew is younger.
    """
    if mark is None or found.session != mark.leader or mark.boot != boot_id():
        return False
    leader = process(mark.leader)
    return leader is None or leader.started <= mark.noted
