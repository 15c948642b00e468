"""Descendants of a plugin that left its process group: find them among our own children and end them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ductile.dispatch.procfs import Process, children_of, environment_has, has_open, kill, process, wait_for_exit

_TASKS = "/proc/self/task"

# Children that SIGKILL did not end in time: looked at again at each sweep, never waited for again.
_ignored_children: set[int] = set()
# Sessions that no plugin can be in: our own, and those of the children from before the exec(2) of this program.
_foreign_sessions: set[int] = set()
# The children from before the exec.
_foreign_children: set[int] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What a process of one run carries: its job's id in the environment, its leader's session, the run's lock.

    `assignment` is the environment's `NAME=value`, empty where there is none; `lock` is None for a run without one.
    """

    assignment: bytes
    leader: int
    lock: Path | None


def kill_strays(seconds: float, marks: Marks) -> bool:
    """Kill and reap what a run has left to this process, and what that leaves, for at most `seconds`.

    Orphans become our children because this process is a subreaper, so a child is a run's by that alone. Where this
    process had children before it became this program, or is PID 1, orphans of others come to it too: then a child
    is killed only if it carries one of the `marks`. Only named PIDs are reaped, so that the exit status of a process
    that somebody else waits for is never taken. Return whether none is left.
    """
    deadline = time.monotonic() + seconds
    # A new leader has this number: no process is left of a session that had it before.
    _foreign_sessions.discard(marks.leader)
    while _has_children():
        found = _strays(marks)
        alive = _reap(found)
        fresh = [pid for pid in alive if pid not in _ignored_children]
        for pid in fresh:
            kill(pid)
        left = deadline - time.monotonic()
        if left <= 0:
            _ignored_children.update(fresh)
            return not found
        if fresh:
            wait_for_exit(fresh[0], left)
        elif alive == found:
            # Where one was reaped, it may have left us another since they were listed.
            return not found
    return True


def ignore_existing_children() -> None:
    """Leave alone the children that there are now, with their sessions: they were there before this program.

    Whoever started them has become this program by exec(2). Called again, it adds those that have come since.
    """
    _foreign_sessions.add(os.getsid(0))
    for pid in _children():
        _foreign_children.add(pid)
        found = process(pid)
        if found is not None:
            _foreign_sessions.add(found.session)


def _strays(marks: Marks) -> list[int]:
    """Return our children that are a run's, and those that have ended and that nobody else waits for."""
    found = _children()
    if not _foreign_children and os.getpid() != 1:
        return found
    return [pid for pid in found if pid not in _foreign_children and _is_stray(process(pid), marks)]


def _is_stray(child: Process | None, marks: Marks) -> bool:
    if child is None or child.session in _foreign_sessions:
        return False
    return (child.state in "ZX" or child.session == marks.leader
            or (marks.assignment != b"" and environment_has(child.pid, marks.assignment))
            or (marks.lock is not None and has_open(child.pid, marks.lock)))


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
        _ignored_children.discard(pid)
    return alive
