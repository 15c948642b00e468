from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ductile.dispatch.processes import children_of
from ductile.dispatch.runner import become_subreaper
from ductile.dispatch.strays import end_strays
from support.launch import NOBODY, children, in_a_child

FOREVER = ["sleep", "600"]
# Ignores SIGTERM, leaves its session and its parent, and says so.
LEAVES = "import os, signal\nif os.fork(): os._exit(0)\nos.setsid()\nos.write(1, b'!')\nsignal.pause()"

THREADS = 300
HEIRS = 40


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
    assert (first, second, afterwards, left) == (False, False, True, [])
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
