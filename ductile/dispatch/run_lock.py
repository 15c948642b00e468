"""Finds and kills leftover processes of a run, and proves that none is left, by the lock that they inherit."""

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
_STDERR_SUFFIX = ".stderr"
# All marks have this length and overwrite each other: a run creates, truncates and removes no file.
_MARK_BYTES = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """The job that a lock file was last taken for, its leader, and when that ran, in ticks since boot."""

    job_id: str
    boot: str
    leader: int
    noted: int


class RunLocks:
    """The directory `running`: lock files of runs that may have live processes, and the running job's standard error.

    One file, `current`, serves run after run. If a process still holds the lock when its run has ended, the file is
    renamed to the job's id and stays until the lock is free.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._current = directory / _CURRENT

    def take(self) -> int:
        """Return a locked descriptor for the next run to inherit.

        Raises OSError; BlockingIOError if a process of the previous run still holds the lock.
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
        """Write the job and the leader's PID into the lock file, for crash recovery.

        Call this before the leader is reaped, while its PID cannot be reused.
        """
        text = f"{job_id} {boot_id()} {pid} {ticks_since_boot()}".ljust(_MARK_BYTES - 1) + "\n"
        try:
            fd = os.open(self._current, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, text.encode(), 0)
            finally:
                os.close(fd)
        except OSError:
            # The disk may be full. The plugin runs already, and the lock and its environment identify it too.
            return

    def release(self, job_id: str) -> bool:
        """Return whether the run's lock is free, so that no process is left. Otherwise keep it under the job's id."""
        if _is_free(self._current):
            return True
        with suppress(OSError):
            os.rename(self._current, self._directory / job_id)
        return False

    def job_ids(self) -> list[str]:
        """Return the ids of jobs that may have live processes. Raises OSError."""
        try:
            kept = sorted(name for name in os.listdir(self._directory)
                          if name != _CURRENT and not name.endswith(_STDERR_SUFFIX))
        except FileNotFoundError:
            return []
        mark = _read_mark(self._current)
        if mark is not None and not _is_free(self._current):
            kept.append(mark.job_id)
        return kept

    def stderr_file(self, job_id: str) -> Path:
        """Return the file that shows a job's standard error while it runs."""
        return self._directory / f"{job_id}{_STDERR_SUFFIX}"

    def remove_stderr(self, job_id: str) -> None:
        """Remove that file if there is one."""
        with suppress(OSError):
            os.unlink(self.stderr_file(job_id))

    def remove_all_stderr(self) -> None:
        """Remove what an earlier daemon left of such files."""
        for path in self._directory.glob(f"*{_STDERR_SUFFIX}"):
            with suppress(OSError):
                path.unlink()

    def end(self, job_id: str, seconds: float) -> tuple[bool, list[int]]:
        """Kill the processes of a run, for at most `seconds`. Return whether surely none is left, and the killed PIDs.

        A process belongs to the run if it has the lock file open, was started with the job's id in its environment, or
        is in the leader's session. Raises OSError if processes cannot be listed.
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
                # A process cannot be killed, or not be found because it has another user: the job is blocked.
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
        """Return whether the lock is free. If so, remove a file that was kept for the job."""
        path = self._path(job_id)
        if not _is_free(path):
            return False
        if path != self._current:
            path.unlink()
        return True

    def _keep(self, job_id: str) -> None:
        """Rename the lock file to the job's id, so that other jobs can run."""
        path = self._path(job_id)
        if path == self._current:
            with suppress(FileNotFoundError):
                path.rename(self._directory / job_id)

    def _path(self, job_id: str) -> Path:
        """Return the lock file of a job's last run: one that was kept, or the current one."""
        kept = self._directory / job_id
        try:
            kept.stat()
        except FileNotFoundError:
            return self._current
        return kept


def _is_free(path: Path) -> bool:
    """Return whether no process holds the lock of a file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        # For example, no descriptor is left: a lock that cannot be checked counts as held.
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
    """Return whether a process is in the session of a run's leader.

    A session's number is not reused while the session has a member. A process with the leader's PID is the leader only
    if it already ran when the mark was written; otherwise the PID was reused.
    """
    if mark is None or found.session != mark.leader or mark.boot != boot_id():
        return False
    leader = process(mark.leader)
    return leader is None or leader.started <= mark.noted
