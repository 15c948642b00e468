"""Runs one plugin process: starts it, feeds it, reads it, ends it in time, and reports the facts."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from ductile.dispatch.outcome import STDERR_LIMIT_BYTES, STDOUT_LIMIT_BYTES, Facts
from ductile.dispatch.reaper import Marks, kill_strays
from ductile.dispatch.run_lock import JOB_ID_VARIABLE

_GRACE_SECONDS = 5.0      # between SIGTERM and SIGKILL
_DRAIN_SECONDS = 1.0      # how long pipes may stay open after the plugin has exited
_LAST_SECONDS = 0.8       # after SIGKILL: the attempt ends after this time in any case
_READ_BYTES = 64 * 1024
_LONGEST_POLL_MS = 2**31 - 1   # poll(2) takes an int
_PR_SET_CHILD_SUBREAPER = 36   # prctl(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start. `keep_open` is a descriptor that the process inherits; `timeout` is in seconds."""

    entrypoint: Path
    cwd: Path
    environ: Mapping[str, str]
    stdin: bytes
    timeout: int
    keep_open: int | None = None


def become_subreaper() -> None:
    """Become the parent of orphaned descendants, instead of init (prctl(2)).

    If the kernel refuses, the next start finds descendants that left their group.
    """
    # Imported late, when the standard descriptors are open: libffi keeps a file open and could take their numbers.
    import_module("ctypes").CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Run:
    """A running plugin. One thread calls `wait`; another may call `end`."""

    def __init__(self, launch: Launch) -> None:
        """Start the plugin in its own session. Raises OSError if that fails."""
        self._timeout = launch.timeout
        with ExitStack() as kept, ExitStack() as lent:
            self._stop = _close_later(kept, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            self._out, out = _pipe(kept, lent)
            self._err, err = _pipe(kept, lent)
            request = _close_later(lent, _memory_file(launch.stdin))
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                [os.fspath(launch.entrypoint)], stdin=request, stdout=out, stderr=err, cwd=launch.cwd,
                env=dict(launch.environ), start_new_session=True,
                pass_fds=() if launch.keep_open is None else (launch.keep_open,),
            )
            self.pid = self._process.pid
            self._marks = _marks(launch, self.pid)
            try:
                self._pidfd = _close_later(kept, os.pidfd_open(self.pid))
            except OSError:
                _signal_group(self.pid, signal.SIGKILL)
                self._process.wait()
                raise
            self._open = kept.pop_all()
        self._ending = threading.Lock()
        self._ended = False

    def end(self) -> None:
        """Have `wait` end the plugin now, as at its deadline. Nothing happens if it has ended."""
        with self._ending:
            if not self._ended:
                os.eventfd_write(self._stop, 1)

    def wait(self) -> Facts:
        """Return the facts, at most six seconds after the timeout. Only processes that survive SIGKILL are left."""
        watch = _Watch(self)
        try:
            watch.until_the_leader_ends()
        finally:
            self._finish()
        return watch.facts(self._process.returncode)

    def _finish(self) -> None:
        """Kill the group while its leader is still a zombie, so that its number is not reused; then reap it."""
        _signal_group(self.pid, signal.SIGKILL)
        if _has_ended(self._pidfd):
            self._process.wait()
        with self._ending:
            self._ended = True
            # Before the search for strays, which needs descriptors: these may be the last.
            self._open.close()
        with suppress(OSError):
            # A stray that is missed holds the run's lock, or the next sweep finds it.
            kill_strays(_LAST_SECONDS, self._marks)
        if self._process.returncode is None:
            # It survived SIGKILL (a device hangs): it is a stray from now on.
            self._process.returncode = -signal.SIGKILL


class _Watch:
    """The wait for one plugin: its output so far, and its deadlines."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._stderr_dropped = 0
        self._overflowed = False
        self._ended_by: Literal["deadline", "stop"] | None = None
        self._term_at: float | None = run.started + run._timeout
        self._kill_at: float | None = None
        self._leave_at: float | None = None
        self._leader_lives = True
        self._poll = select.poll()
        for fd in (run._pidfd, run._out, run._err, run._stop):
            self._poll.register(fd, select.POLLIN)
        self._pipes = {run._out, run._err}

    def until_the_leader_ends(self) -> None:
        """Read and watch until the plugin has exited and its pipes are closed or past their time."""
        while self._leader_lives or self._pipes:
            now = time.monotonic()
            if self._leave_at is not None and now >= self._leave_at:
                return
            self._keep_deadlines(now)
            for fd, _ in self._poll.poll(self._milliseconds(now)):
                self._note(fd)

    def _milliseconds(self, now: float) -> int:
        """Return the time to the next deadline, rounded up, at most what one poll can wait."""
        deadlines = [at for at in (self._term_at, self._kill_at, self._leave_at) if at is not None]
        return min(max(0, int((min(deadlines) - now) * 1000) + 1), _LONGEST_POLL_MS)

    def _keep_deadlines(self, now: float) -> None:
        if self._term_at is not None and now >= self._term_at:
            # The plugin may have just ended: what it did before its deadline counts.
            if _has_ended(self._run._pidfd):
                self._leader_ended()
            else:
                self._terminate("deadline")
        if self._kill_at is not None and now >= self._kill_at:
            self._kill()

    def _note(self, fd: int) -> None:
        if fd == self._run._pidfd:
            self._leader_ended()
        elif fd == self._run._stop:
            self._poll.unregister(fd)
            if self._leader_lives and self._ended_by is None:
                self._terminate("stop")
        else:
            self._read(fd)

    def _terminate(self, reason: Literal["deadline", "stop"]) -> None:
        self._ended_by = reason
        self._term_at = None
        self._kill_at = time.monotonic() + _GRACE_SECONDS
        _signal_group(self._run.pid, signal.SIGTERM)

    def _kill(self) -> None:
        self._kill_at = None
        self._term_at = None
        self._leave_at = time.monotonic() + _LAST_SECONDS / 4
        _signal_group(self._run.pid, signal.SIGKILL)

    def _leader_ended(self) -> None:
        self._leader_lives = False
        self._poll.unregister(self._run._pidfd)
        self._term_at = self._kill_at = None
        left = time.monotonic() + _DRAIN_SECONDS
        self._leave_at = left if self._leave_at is None else min(left, self._leave_at)
        if self._ended_by is not None:
            self._leave_at = min(self._leave_at, time.monotonic() + _LAST_SECONDS / 4)

    def _read(self, fd: int) -> None:
        data = os.read(fd, _READ_BYTES)
        if not data:
            self._poll.unregister(fd)
            self._pipes.discard(fd)
        elif fd == self._run._err:
            kept = data[:STDERR_LIMIT_BYTES - len(self._stderr)]
            self._stderr += kept
            self._stderr_dropped += len(data) - len(kept)
        elif not self._overflowed:
            self._stdout += data
            if len(self._stdout) > STDOUT_LIMIT_BYTES:
                self._overflowed = True
                self._kill()

    def facts(self, returncode: int) -> Facts:
        """Return what was observed. `returncode` is as in subprocess: negative for a signal."""
        return Facts(
            exit_code=returncode if returncode >= 0 else None,
            signal=-returncode if returncode < 0 else None,
            stdout=bytes(memoryview(self._stdout)[:STDOUT_LIMIT_BYTES]),
            stdout_overflowed=self._overflowed,
            stderr=bytes(self._stderr),
            stderr_dropped=self._stderr_dropped,
            ended_by=self._ended_by,
        )


def _marks(launch: Launch, leader: int) -> Marks:
    job_id = launch.environ.get(JOB_ID_VARIABLE)
    return Marks(
        assignment=b"" if job_id is None else f"{JOB_ID_VARIABLE}={job_id}".encode(), leader=leader,
        lock=None if launch.keep_open is None else Path(os.readlink(f"/proc/self/fd/{launch.keep_open}")),
    )


def _close_later(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _pipe(kept: ExitStack, lent: ExitStack) -> tuple[int, int]:
    """Return a pipe: our end, which never blocks, and the plugin's, which is closed after the start."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    return _close_later(kept, ours), _close_later(lent, theirs)


def _memory_file(content: bytes) -> int:
    """Return a descriptor that reads as `content`, so that a plugin that does not read blocks nothing."""
    fd = os.memfd_create("request", os.MFD_CLOEXEC)
    written = os.pwrite(fd, content, 0)
    if written < len(content):
        os.close(fd)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    return fd


def _signal_group(pid: int, number: int) -> None:
    """Signal the process group of `pid`. An empty group is no error."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        # PermissionError: every member has changed its user. The sweep for strays and the run's lock handle them.
        return


def _has_ended(pidfd: int) -> bool:
    """Return whether the process has ended and is not reaped yet."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
