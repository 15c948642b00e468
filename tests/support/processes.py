"""The children of the test run, and those that programs under test leave to it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time

_PR_SET_CHILD_SUBREAPER = 36   # prctl(2)
_TASKS = "/proc/self/task"


def adopt_orphans() -> None:
    """Have what a killed program leaves behind become a child of this process, where it is found (prctl(2))."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("this process cannot become a subreaper")


def children() -> set[int]:
    """Return the PIDs of this process's children, zombies among them (proc(5), `children`)."""
    found: set[int] = set()
    for task in os.listdir(_TASKS):
        try:
            with open(f"{_TASKS}/{task}/children", encoding="ascii") as file:
                found |= set(map(int, file.read().split()))
        except FileNotFoundError:
            continue
    return found


def in_other_sessions(pids: set[int]) -> set[int]:
    """Return those of our children that are not in this process's session."""
    return {pid for pid in pids if os.getsid(pid) != os.getsid(0)}


def living(pids: set[int]) -> set[int]:
    """Reap those of our children that have ended; return the others."""
    return {pid for pid in pids if not _reap(pid)}


def end_all(pids: set[int]) -> None:
    """Kill children, and what they leave to us, and reap them. Raises TimeoutError for one that does not die."""
    before = children() - pids
    while pids := living(pids):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            await_end(pid, 10)
        pids = pids | (children() - before)


def await_end(pid: int, seconds: float) -> None:
    """Wait until a process has ended; it is not reaped. Raises TimeoutError."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([pidfd], [], [], seconds)[0]:
            raise TimeoutError(f"process {pid} is still there after {seconds} s: {command(pid)}")
    finally:
        os.close(pidfd)


def command(pid: int) -> str:
    """Return the command line of a process, for messages."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip() or "(no command line)"
    except OSError:
        return "(gone)"


def status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status as a mapping (proc(5))."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return parse_status(file.read())


def parse_status(text: str) -> dict[str, str]:
    """Return what /proc/PID/status says as a mapping."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def leftovers(before: set[int], *, seconds: float) -> set[int]:
    """Return the children that were not there `before` and do not end within `seconds`."""
    deadline = time.monotonic() + seconds
    left = living(children() - before)
    if not left:
        return left
    for pid in left:
        try:
            await_end(pid, max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            continue
    return living(children() - before)


def _reap(pid: int) -> bool:
    """Reap a child that has ended. Return whether it is gone."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return True
