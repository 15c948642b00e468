from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from ductile.dispatch.procfs import children_of, wait_for_exit
from ductile.dispatch.reaper import Marks, ignore_existing_children, ignore_unkillable, kill_strays
from ductile.dispatch.runner import become_subreaper
from support.launch import NOBODY, children, in_a_child

FOREVER = ["sleep", "600"]
# Ignores SIGTERM, leaves its session and its parent, and says so.
LEAVES = "import os, signal\nif os.fork(): os._exit(0)\nos.setsid()\nos.write(1, b'!')\nsignal.pause()"

# Of a run that has left nothing.
MARKS = Marks(assignment=b"DUCTILE_JOB_ID=a", leader=0, lock=None)

THREADS = 300
HEIRS = 20


def end_strays(seconds: float, marks: Marks = MARKS) -> bool:
    """Look for strays until none is left, for at most `seconds`, as the end of a run does."""
    deadline = time.monotonic() + seconds
    while left := kill_strays(marks):
        if time.monotonic() >= deadline:
            ignore_unkillable(left)
            return False
        wait_for_exit(left[0], deadline - time.monotonic())
    return True


def test_children_and_what_they_leave_are_killed_and_reaped() -> None:
    assert in_a_child(end_a_family) == (True, [], True)


def end_a_family() -> tuple[bool, list[int], bool]:
    become_subreaper()
    here = subprocess.Popen(FOREVER)
    leaves = subprocess.Popen([sys.executable, "-c", LEAVES], stdout=subprocess.PIPE)
    leaves.stdout.read(1)
    # It has ended by then and is not reaped; its child is ours already.
    os.waitid(os.P_PID, leaves.pid, os.WEXITED | os.WNOWAIT)
    before = len(children())
    proved = end_strays(10)
    for process in (here, leaves):
        process.returncode = 0
    return proved, children(), before == 3


def test_a_child_that_ends_while_it_is_looked_for_leaves_nothing_behind() -> None:
    assert in_a_child(end_what_has_heirs) == [(True, [])] * HEIRS


def end_what_has_heirs() -> list[tuple[bool, list[int]]]:
    """End a child that leaves one of its own to us, often amid the look for it: with many threads that takes long."""
    become_subreaper()
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    looks = []
    for _ in range(HEIRS):
        leaves = subprocess.Popen(["/bin/sh", "-c", "sleep 600 &"])
        looks.append((end_strays(10), children()))
        leaves.returncode = 0
    over.set()
    for thread in threads:
        thread.join()
    return looks


def test_a_process_without_children_has_no_strays() -> None:
    started, proved, left = in_a_child(end_nothing)
    assert (proved, left) == (True, [])
    assert started < 1


def end_nothing() -> tuple[float, bool, list[int]]:
    started = time.monotonic()
    proved = end_strays(10)
    return time.monotonic() - started, proved, children()


def test_a_child_that_stopped_itself_is_ended() -> None:
    assert in_a_child(end_a_stopped_child) == (True, [])


def end_a_stopped_child() -> tuple[bool, list[int]]:
    child = subprocess.Popen(FOREVER)
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    proved = end_strays(10)
    child.returncode = 0
    return proved, children()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a child that its parent may not kill")
def test_what_cannot_be_killed_is_given_up_in_time_and_reaped_when_it_has_ended() -> None:
    first, second, seconds, afterwards, left = in_a_child(outranked)
    assert (first, second, afterwards, left) == (False, True, True, [])
    assert 0.3 <= seconds[0] < 5
    assert seconds[1] < 0.3


def outranked() -> tuple[bool, bool, tuple[float, float], bool, list[int]]:
    """Look twice for strays as a user who may not kill its child, root's `cat`, then let it end and look again."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = subprocess.Popen(["cat"], stdin=reader)
    os.close(reader)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    times = [time.monotonic()]
    first = end_strays(0.3)
    times.append(time.monotonic())
    second = end_strays(0.3)
    times.append(time.monotonic())
    os.close(writer)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    afterwards = end_strays(10)
    child.returncode = 0
    return first, second, (times[1] - times[0], times[2] - times[1]), afterwards, children()


def test_children_from_before_this_program_and_their_sessions_are_neither_ended_nor_waited_for() -> None:
    assert in_a_child(end_strays_beside_helpers) == (True, [], [], [])


def end_strays_beside_helpers() -> tuple[bool, list[int], list[int], list[int]]:
    """Look for strays beside helpers of others: return whether all are gone, and those that are not as they should be.

    The helpers: one in our session, one in its own that leaves an orphan there, one that has ended, and an orphan
    without any mark in a session of its own.
    """
    plain = subprocess.Popen(FOREVER)
    ended = subprocess.Popen(["/bin/true"])
    leader = subprocess.Popen(["/bin/sh", "-c", "read line; sleep 600 & exit"], stdin=subprocess.PIPE,
                              start_new_session=True)
    detaches = subprocess.Popen(["/bin/sh", "-c", "read line; setsid sleep 600 & exit"], stdin=subprocess.PIPE)
    ignore_existing_children()
    become_subreaper()
    for helper in (leader, detaches):
        helper.stdin.write(b"\n")
        helper.stdin.close()
    for helper in (ended, leader, detaches):
        os.waitid(os.P_PID, helper.pid, os.WEXITED | os.WNOWAIT)
    helpers = set(children())
    lock_fd, lock = tempfile.mkstemp()
    strays = [
        subprocess.Popen(FOREVER, start_new_session=True, env={"DUCTILE_JOB_ID": "a", "PATH": os.environ["PATH"]}),
        subprocess.Popen(FOREVER, start_new_session=True, pass_fds=[lock_fd]),
        (of_session := subprocess.Popen(FOREVER, start_new_session=True)),
    ]
    os.unlink(lock)
    marks = Marks(assignment=b"DUCTILE_JOB_ID=a", leader=of_session.pid, lock=Path(f"{lock} (deleted)"))
    proved = end_strays(10, marks)
    left = set(children())
    for process in (plain, ended, leader, detaches, *strays):
        process.returncode = 0
    missing, dead = sorted(helpers - left), [pid for pid in helpers - {each.pid for each in (ended, leader, detaches)}
                                             if _state(pid) in "ZX"]
    for pid in helpers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return proved, missing, dead, sorted(left - helpers)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_look_at_every_process_finds_the_children_that_the_kernel_lists_zombies_among_them() -> None:
    found, listed, mine = in_a_child(look_for_children)
    assert sorted(found) == sorted(listed) == sorted(mine)


def look_for_children() -> tuple[list[int], list[int], list[int]]:
    zombie = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    alive = subprocess.Popen(FOREVER)
    looked = children_of(os.getpid()), children(), [zombie.pid, alive.pid]
    for process in (zombie, alive):
        process.kill()
        process.wait()
    return looked
