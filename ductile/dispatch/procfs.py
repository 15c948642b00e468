"""Reads running processes from /proc (proc(5))."""

from __future__ import annotations

import functools
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process. `started` is in clock ticks since boot; PID and start together identify a process."""

    pid: int
    state: str
    parent: int
    session: int
    started: int


def process(pid: int) -> Process | None:
    """Return what /proc/PID/stat says, None if the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name in parentheses may contain anything, even parentheses.
    fields = text[text.rindex(")") + 2:].split()
    return Process(pid=pid, state=fields[0], parent=int(fields[1]), session=int(fields[3]), started=int(fields[19]))


def processes() -> Iterator[Process]:
    """Yield every process except zombies."""
    for name in os.listdir(_PROC):
        if name.isdigit():
            found = process(int(name))
            if found is not None and found.state not in "ZX":
                yield found


def children_of(parent: int) -> list[int]:
    """Return the PIDs of a process's children, including zombies, by reading every process."""
    found = (process(int(name)) for name in os.listdir(_PROC) if name.isdigit())
    return [each.pid for each in found if each is not None and each.parent == parent]


def environment_has(pid: int, assignment: bytes) -> bool:
    """Return whether a process was started with `NAME=value` in its environment; False if that is unreadable."""
    try:
        return assignment in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def has_open(pid: int, path: Path) -> bool:
    """Return whether a process has a file open; False if that is unreadable."""
    try:
        with os.scandir(_PROC / str(pid) / "fd") as entries:
            for entry in entries:
                try:
                    if os.readlink(entry.path) == os.fspath(path):
                        return True
                except OSError:
                    continue
    except OSError:
        return False
    return False


def ticks_since_boot() -> int:
    """Return the time in the unit of `Process.started`, rounded up."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_A_SECOND) + 1


@functools.cache
def boot_id() -> str:
    """Return the id of this boot: PIDs of another boot mean nothing."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def kill(pid: int) -> None:
    """Send SIGKILL. A process that is gone, or that may not be killed, is left alone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def wait_for_exit(pid: int, seconds: float) -> None:
    """Wait up to `seconds` for a process to end. This does not reap it."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(int(seconds * 1000) + 1)
    finally:
        os.close(pidfd)
