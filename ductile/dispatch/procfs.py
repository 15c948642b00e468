"""What /proc says of running processes (proc(5))."""

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
    """A process as it stood. `started` is in clock ticks since the boot; a PID and its start name one process."""

    pid: int
    state: str
    parent: int
    session: int
    started: int


def process(pid: int) -> Process | None:
    """Return what /proc/PID/stat says, or None for a process that is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses among it.
    fields = text[text.rindex(")") + 2:].split()
    return Process(pid=pid, state=fields[0], parent=int(fields[1]), session=int(fields[3]), started=int(fields[19]))


def processes() -> Iterator[Process]:
    """Yield every process that has not ended; zombies have."""
    for name in os.listdir(_PROC):
        if name.isdigit():
            found = process(int(name))
            if found is not None and found.state not in "ZX":
                yield found


def children_of(parent: int) -> list[int]:
    """Return the PIDs of a process's children, zombies among them, by a look at every process there is."""
    found = (process(int(name)) for name in os.listdir(_PROC) if name.isdigit())
    return [each.pid for each in found if each is not None and each.parent == parent]


def environment_has(pid: int, assignment: bytes) -> bool:
    """Say whether a process was started with `NAME=value` in its environment; False where that may not be read."""
    try:
        return assignment in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def has_open(pid: int, path: Path) -> bool:
    """Say whether a process has a file open; False where that may not be read."""
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
    """Return what names this boot of the machine: a PID of another boot means nothing."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def kill(pid: int) -> None:
    """Send SIGKILL; a process that is gone, or that may not be killed, is left to who looks at it next."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def wait_for_exit(pid: int, seconds: float) -> None:
    """Wait until a process has ended, at most `seconds`. It is not reaped here."""
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
