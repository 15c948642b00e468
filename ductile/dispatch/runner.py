"""Runs one plugin process: starts it, feeds it, reads it, ends it in time, and reports the facts."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from ductile.dispatch.outcome import STDERR_LIMIT_BYTES, STDOUT_LIMIT_BYTES, EndedBy, Facts
from ductile.dispatch.reaper import Marks, ignore_unkillable, kill_strays
from ductile.dispatch.run_lock import JOB_ID_VARIABLE

_GRACE_SECONDS = 5.0      # between SIGTERM and SIGKILL
_DRAIN_SECONDS = 1.0      # how long pipes may stay open after the plugin has exited
_LAST_SECONDS = 0.8       # after SIGKILL: the attempt ends after this time in any case
_SWEEP_SECONDS = 0.003    # between two searches for strays
_READ_BYTES = 64 * 1024
_READS_AT_ONCE = 16       # so that a plugin that never stops printing does not hold the loop
_LONGEST_WAIT_SECONDS = 0.1
_STDERR_MODE = 0o600
_PR_SET_CHILD_SUBREAPER = 36   # prctl(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start. `keep_open` is a descriptor that the process inherits; `timeout` is in seconds.

    `stderr_file` gets what is kept of standard error, as it comes.
    """

    entrypoint: Path
    cwd: Path
    environ: Mapping[str, str]
    stdin: bytes
    timeout: int
    keep_open: int | None = None
    stderr_file: Path | None = None


def become_subreaper() -> None:
    """Become the parent of orphaned descendants, instead of init (prctl(2)).

    If the kernel refuses, the next start finds descendants that left their group.
    """
    # Imported late, when the standard descriptors are open: libffi keeps a file open and could take their numbers.
    import_module("ctypes").CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Run:
    """A running plugin, driven by a loop.

    The loop polls `descriptors` and passes those that are readable to `on_ready`, and calls `on_time` after at most
    `seconds_left`. The run is over when there are `facts`: at most six seconds after its timeout.
    """

    def __init__(self, launch: Launch) -> None:
        """Start the plugin in its own session. Raises OSError if that fails."""
        with ExitStack() as kept, ExitStack() as lent:
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
        self._leader_lives = True
        self._polled = {self._pidfd, self._out, self._err}
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._stderr_dropped = 0
        self._stderr_file = launch.stderr_file
        self._stderr_fd: int | None = None
        self._overflowed = False
        self._ended_by: EndedBy | None = None
        # In monotonic seconds, None for what is not planned: SIGTERM, SIGKILL, the end of reading, the next search for
        # strays, the end of that search.
        self._term_at: float | None = self.started + launch.timeout
        self._kill_at: float | None = None
        self._leave_at: float | None = None
        self._sweep_at: float | None = None
        self._give_up_at = 0.0
        self.facts: Facts | None = None

    @property
    def descriptors(self) -> Collection[int]:
        """What to poll for input, until the next call of a method."""
        return self._polled

    def seconds_left(self) -> float | None:
        """Return after how many seconds `on_time` has something to do, None if that is never."""
        planned = [at for at in (self._term_at, self._kill_at, self._leave_at, self._sweep_at) if at is not None]
        return max(0.0, min(planned) - time.monotonic()) if planned else None

    def on_ready(self, descriptors: Iterable[int]) -> None:
        """Read what can be read without blocking. A descriptor that is no longer polled is ignored."""
        for fd in descriptors:
            if fd not in self._polled:
                continue
            if fd == self._pidfd:
                self._leader_ended()
            else:
                self._read(fd)
        if not self._polled and self._sweep_at is None:
            self._finish()

    def on_time(self) -> None:
        """Do what the deadlines ask for."""
        now = time.monotonic()
        if self._sweep_at is not None:
            if now >= self._sweep_at:
                self._sweep(now)
            return
        if self._leave_at is not None and now >= self._leave_at:
            self._finish()
            return
        if self._term_at is not None and now >= self._term_at:
            # The plugin may have just ended: what it did before its deadline counts.
            if _has_ended(self._pidfd):
                self.on_ready([self._pidfd])
            else:
                self._terminate("deadline")
        if self._kill_at is not None and now >= self._kill_at:
            self._kill()

    def end(self, by: Literal["stop", "cancel"] = "stop") -> None:
        """End the plugin now, as at its deadline. Nothing happens if it has ended, or is ending."""
        if self._leader_lives and self._ended_by is None:
            self._terminate(by)

    def wait(self, is_stopped: Callable[[], bool] = lambda: False) -> Facts:
        """Drive the run to its end and return the facts.

        It is ended soon after `is_stopped()` is true, or when a signal handler calls `end`.
        """
        while self.facts is None:
            if is_stopped():
                self.end()
            poll = select.poll()
            for fd in self._polled:
                poll.register(fd, select.POLLIN)
            left = self.seconds_left()
            # poll(2) goes on after a signal handler (PEP 475), which may have set an earlier deadline.
            seconds = _LONGEST_WAIT_SECONDS if left is None else min(left, _LONGEST_WAIT_SECONDS)
            self.on_ready([fd for fd, _ in poll.poll(int(seconds * 1000) + 1)])
            self.on_time()
        return self.facts

    def _terminate(self, by: EndedBy) -> None:
        self._ended_by = by
        self._term_at = None
        self._kill_at = time.monotonic() + _GRACE_SECONDS
        _signal_group(self.pid, signal.SIGTERM)

    def _kill(self) -> None:
        self._kill_at = None
        self._term_at = None
        self._leave_at = time.monotonic() + _LAST_SECONDS / 4
        _signal_group(self.pid, signal.SIGKILL)

    def _leader_ended(self) -> None:
        self._leader_lives = False
        self._polled.discard(self._pidfd)
        self._term_at = self._kill_at = None
        left = time.monotonic() + _DRAIN_SECONDS
        self._leave_at = left if self._leave_at is None else min(left, self._leave_at)
        if self._ended_by is not None:
            self._leave_at = min(self._leave_at, time.monotonic() + _LAST_SECONDS / 4)

    def _read(self, fd: int) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data = os.read(fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._polled.discard(fd)
                return
            if fd == self._err:
                self._keep_stderr(data)
            else:
                self._keep_stdout(data)

    def _keep_stderr(self, data: bytes) -> None:
        kept = data[:STDERR_LIMIT_BYTES - len(self._stderr)]
        self._stderr += kept
        self._stderr_dropped += len(data) - len(kept)
        if kept and self._stderr_file is not None:
            self._show(kept, self._stderr_file)

    def _show(self, data: bytes, path: Path) -> None:
        """Append to the file for those who watch the job. Its loss changes no outcome."""
        try:
            if self._stderr_fd is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                self._stderr_fd = _close_later(self._open, os.open(path, flags, _STDERR_MODE))
            os.write(self._stderr_fd, data)
        except OSError:
            self._stderr_file = None

    def _keep_stdout(self, data: bytes) -> None:
        if self._overflowed:
            return
        self._stdout += data
        if len(self._stdout) > STDOUT_LIMIT_BYTES:
            self._overflowed = True
            self._kill()

    def _finish(self) -> None:
        """Kill the group while its leader is still a zombie, so that its number is not reused; then reap it."""
        _signal_group(self.pid, signal.SIGKILL)
        if _has_ended(self._pidfd):
            self._process.wait()
        # Before the search for strays, which needs descriptors: these may be the last.
        self._polled.clear()
        self._open.close()
        self._term_at = self._kill_at = self._leave_at = None
        now = time.monotonic()
        self._give_up_at = now + _LAST_SECONDS
        self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Kill descendants that left the group, and look again soon until none is left or the time is up."""
        try:
            left = kill_strays(self._marks)
        except OSError:
            # A stray that is missed holds the run's lock, or the next search finds it.
            left = []
        if left and now < self._give_up_at:
            self._sweep_at = now + _SWEEP_SECONDS
            return
        ignore_unkillable(left)
        self._sweep_at = None
        if self._process.returncode is None:
            # It survived SIGKILL (a device hangs): it is a stray from now on.
            self._process.returncode = -signal.SIGKILL
        self.facts = self._facts(self._process.returncode)
        self._stdout.clear()

    def _facts(self, returncode: int) -> Facts:
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
        # PermissionError: every member has changed its user. The search for strays and the run's lock handle them.
        return


def _has_ended(pidfd: int) -> bool:
    """Return whether the process has ended and is not reaped yet."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
