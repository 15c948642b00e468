"""Ends descendants of a plugin that left its process group: as orphans they become children of this process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ductile.dispatch.procfs import Process, children_of, environment_has, has_open, kill, process

_TASKS = "/proc/self/task"

# Children that survived SIGKILL: each search checks them again, but does not wait for them again.
_ignored_children: set[int] = set()
# Sessions that no plugin can be in: our own, and those of children from before the exec(2) of this program.
_foreign_sessions: set[int] = set()
# The children from before the exec.
_foreign_children: set[int] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What identifies a process of a run: the job's id in its environment, its session, the run's lock.

    `assignment` is `NAME=value` in the environment, empty for a run without it. `lock` is None for a run without one.
    """

    assignment: bytes
    leader: int
    lock: Path | None


def kill_strays(marks: Marks) -> list[int]:
    """Kill orphans of a run and reap those that have ended. Return the killed ones that are still alive.

    It waits for nothing: call it again until nothing is left. This process is a subreaper, so usually every child that
    it finds belongs to the run. If it had children before it became this program, or if it is PID 1, it also gets
    orphans of others, and kills only children with one of the `marks`. It reaps PIDs by name, so that it never takes
    the exit status of a process that other code waits for.
    """
    # A new leader has this number, so the old session of that number has no process left.
    _foreign_sessions.discard(marks.leader)
    while _has_children():
        found = _strays(marks)
        alive = _reap(found)
        killed = [pid for pid in alive if pid not in _ignored_children]
        for pid in killed:
            kill(pid)
        if killed or alive == found:
            return killed
        # A child that was reaped may have left another one.
    return []


def ignore_unkillable(pids: Iterable[int]) -> None:
    """Do not wait for these again: they survived SIGKILL."""
    _ignored_children.update(pids)


def ignore_existing_children() -> None:
    """Exempt the current children and their sessions: they were started before the exec(2) of this program.

    A second call adds the children since the first.
    """
    _foreign_sessions.add(os.getsid(0))
    for pid in _children():
        _foreign_children.add(pid)
        found = process(pid)
        if found is not None:
            _foreign_sessions.add(found.session)


def _strays(marks: Marks) -> list[int]:
    """Return our children that belong to the run, or that have ended and can be reaped."""
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
    """Return whether this process has a child. This is one call; listing them reads several files."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        return False


def _children() -> list[int]:
    """Return the PIDs of this process's children, including zombies (proc(5), `children`)."""
    found: list[int] = []
    listed = False
    for task in os.listdir(_TASKS):
        try:
            with open(f"{_TASKS}/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
            listed = True
        except FileNotFoundError:
            # The thread has just ended, or the kernel has no such file.
            continue
    return found if listed else children_of(os.getpid())


def _reap(pids: list[int]) -> list[int]:
    """Reap the processes that have ended. Return the others."""
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
