"""Descendants of a plugin that left its process group: find them among our own children and end them."""

from __future__ import annotations

import os
import time

from ductile.dispatch.processes import await_end, children_of, kill

_TASKS = "/proc/self/task"

# Children that SIGKILL did not end in time, or that are not ours to end: looked at again at each sweep, never waited
# for again.
_unkillable: set[int] = set()


def end_strays(seconds: float) -> bool:
    """Kill and reap every child of this process, and what they leave to it, for at most `seconds`.

    Orphans become our children because this process is a subreaper. Only named PIDs are reaped, so that the
    exit status of a process that somebody else waits for is never taken. Return whether none is left.
    """
    deadline = time.monotonic() + seconds
    while _has_children():
        found = _children()
        alive = _reap(found)
        fresh = [pid for pid in alive if pid not in _unkillable]
        for pid in fresh:
            kill(pid)
        left = deadline - time.monotonic()
        if left <= 0:
            _unkillable.update(fresh)
            return False
        if fresh:
            await_end(fresh[0], left)
        elif alive and alive == found:
            # Where one was reaped, it may have left us another since they were listed.
            return False
    return True


def spare_children() -> None:
    """Leave alone, for good, the children that there are now: who started them has become this program by exec(2)."""
    _unkillable.update(_children())


def _has_children() -> bool:
    """Say whether this process has a child at all: one call, where their list takes several files."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        return False


def _children() -> list[int]:
    """Return the PIDs of this process's children, zombies among them (proc(5), `children`)."""
    found: list[int] = []
    listed = False
    for task in os.listdir(_TASKS):
        try:
            with open(f"{_TASKS}/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
            listed = True
        except FileNotFoundError:
            # A thread that has just ended, or a kernel built without that file.
            continue
    return found if listed else children_of(os.getpid())


def _reap(pids: list[int]) -> list[int]:
    """Reap those that have ended; return the others."""
    alive = []
    for pid in pids:
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is None:
                alive.append(pid)
                continue
        except ChildProcessError:
            pass
        _unkillable.discard(pid)
    return alive
