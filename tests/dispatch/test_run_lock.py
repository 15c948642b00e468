from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ductile.dispatch.procfs import boot_id, process, ticks_since_boot
from ductile.dispatch.run_lock import JOB_ID_VARIABLE, RunLocks
from support.launch import NOBODY, ended_pid, in_a_child, writable_by_all

JOB = "0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b11"
OTHER = "0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b12"
PATIENCE = 10.0
FOREVER = ["/bin/sleep", "600"]
# A leader that starts a child and tells its PID; it ends when its standard input does.
LEADS = ["/bin/sh", "-c", "sleep 600 >/dev/null <&- & echo $!; read line"]

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def locks(tmp_path: Path) -> RunLocks:
    return RunLocks(tmp_path / "running")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process without environment, unless it is given one; all are killed in the end."""
    started: list[subprocess.Popen] = []

    def one(command: list[str] = FOREVER, **options) -> subprocess.Popen:
        started.append(subprocess.Popen(command, **{"env": {}, **options}))
        return started[-1]

    yield one
    for each in started:
        each.kill()
        each.wait()
        for stream in (each.stdin, each.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def led(start: Start) -> Iterator[tuple[subprocess.Popen, int]]:
    """A leader and its child, in a session of their own and without any environment."""
    leader = start(LEADS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    child = int(leader.stdout.readline())
    pidfd = os.pidfd_open(child)
    yield leader, child
    if is_running(child):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    reap(child)


def is_running(pid: int) -> bool:
    found = process(pid)
    return found is not None and found.state not in "ZX"


def reap(pid: int) -> None:
    """Reap a process that its parent has left to us; where somebody else got it, that is theirs to do."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return


def leader_goes(leader: subprocess.Popen) -> None:
    leader.stdin.close()
    leader.wait(timeout=PATIENCE)


def marked_by(locks: RunLocks, pid: int, job_id: str = JOB) -> None:
    """Write the lock file of a run that nobody holds the lock of."""
    os.close(locks.take())
    locks.mark(job_id, pid)


def rewrite(directory: Path, **changes: object) -> None:
    path = directory / "current"
    mark = dict(zip(("job_id", "boot", "leader", "noted"), path.read_text().split(), strict=False)) | changes
    path.write_text(" ".join(map(str, mark.values())))


def test_the_lock_is_private_and_held_by_one_run(locks: RunLocks, tmp_path: Path) -> None:
    fd = locks.take()
    try:
        assert (tmp_path / "running").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "running" / "current").stat().st_mode & 0o777 == 0o600
        with pytest.raises(BlockingIOError):
            locks.take()
    finally:
        os.close(fd)
    assert locks.release(JOB) is True
    os.close(locks.take())
    assert locks.job_ids() == []


def test_a_lock_that_is_still_held_is_kept_for_its_job_and_stops_no_other(
    locks: RunLocks, tmp_path: Path, start: Start,
) -> None:
    fd = locks.take()
    holder = start(pass_fds=(fd,))
    locks.mark(JOB, holder.pid)
    os.close(fd)
    assert locks.release(JOB) is False
    assert locks.job_ids() == [JOB]
    marked_by(locks, ended_pid(), OTHER)
    assert locks.release(OTHER) is True
    assert locks.end(OTHER, PATIENCE) == (True, [])
    assert holder.poll() is None
    assert locks.end(JOB, PATIENCE) == (True, [holder.pid])
    assert os.listdir(tmp_path / "running") == ["current"]


def test_after_a_crash_a_lock_that_is_held_names_its_job(locks: RunLocks, start: Start) -> None:
    fd = locks.take()
    holder = start(pass_fds=(fd,))
    locks.mark(JOB, holder.pid)
    os.close(fd)
    assert locks.job_ids() == [JOB]
    assert locks.end(JOB, PATIENCE) == (True, [holder.pid])
    assert locks.job_ids() == []


def test_a_run_that_left_no_file_is_proved_dead(locks: RunLocks) -> None:
    assert locks.job_ids() == []
    assert locks.release(JOB) is True
    assert locks.end(JOB, PATIENCE) == (True, [])


def test_a_mark_names_the_job_the_boot_the_leader_and_a_time_at_which_it_ran(
    locks: RunLocks, tmp_path: Path, start: Start,
) -> None:
    leader = start(start_new_session=True)
    marked_by(locks, leader.pid, "a-much-longer-id-than-that-of-any-job-that-there-will-ever-be")
    marked_by(locks, leader.pid)
    found = (tmp_path / "running" / "current").read_text()
    *names, noted = found.split()
    assert names == [JOB, boot_id(), str(leader.pid)]
    assert process(leader.pid).started <= int(noted) <= ticks_since_boot()


def test_a_leader_that_is_gone_leaves_nothing_to_end(locks: RunLocks) -> None:
    marked_by(locks, ended_pid())
    assert locks.end(JOB, PATIENCE) == (True, [])


def test_the_mark_of_another_jobs_run_is_no_evidence(locks: RunLocks, led: tuple[subprocess.Popen, int]) -> None:
    leader, child = led
    marked_by(locks, leader.pid, OTHER)
    assert locks.end(JOB, PATIENCE) == (True, [])
    assert is_running(leader.pid) and is_running(child)


def test_who_holds_the_lock_is_ended(locks: RunLocks, start: Start) -> None:
    fd = locks.take()
    holder = start(pass_fds=(fd,))
    os.close(fd)
    assert locks.end(JOB, PATIENCE) == (True, [holder.pid])
    assert holder.wait(timeout=PATIENCE) == -signal.SIGKILL


def test_who_carries_the_jobs_id_in_its_environment_is_ended(locks: RunLocks, start: Start) -> None:
    # The lock was closed, the session left: as after a `setsid` with all descriptors closed.
    carrier = start(env={JOB_ID_VARIABLE: JOB}, start_new_session=True)
    assert locks.end(JOB, PATIENCE) == (True, [carrier.pid])
    assert carrier.wait(timeout=PATIENCE) == -signal.SIGKILL


@pytest.mark.parametrize("environ", [
    {JOB_ID_VARIABLE: OTHER}, {JOB_ID_VARIABLE: JOB + "1"}, {"X" + JOB_ID_VARIABLE: JOB},
    {"X": f"{JOB_ID_VARIABLE}={JOB}"},
])
def test_an_environment_that_only_looks_like_it_is_no_evidence(
    locks: RunLocks, start: Start, environ: dict[str, str],
) -> None:
    stranger = start(env=environ)
    assert locks.end(JOB, PATIENCE) == (True, [])
    assert stranger.poll() is None


def test_who_is_left_of_the_leaders_session_is_ended(locks: RunLocks, led: tuple[subprocess.Popen, int]) -> None:
    leader, child = led
    marked_by(locks, leader.pid)
    leader_goes(leader)
    assert locks.end(JOB, PATIENCE) == (True, [child])
    assert not is_running(child)


def test_a_leader_that_still_lives_is_ended_with_its_session(
    locks: RunLocks, led: tuple[subprocess.Popen, int],
) -> None:
    leader, child = led
    marked_by(locks, leader.pid)
    proved, killed = locks.end(JOB, PATIENCE)
    assert (proved, sorted(killed)) == (True, sorted([leader.pid, child]))
    assert not is_running(child)


@pytest.mark.parametrize("gone", [True, False], ids=["without its leader", "with its leader"])
def test_a_session_with_the_same_number_of_another_boot_is_no_evidence(
    locks: RunLocks, tmp_path: Path, led: tuple[subprocess.Popen, int], gone: bool,
) -> None:
    leader, child = led
    marked_by(locks, leader.pid)
    rewrite(tmp_path / "running", boot="00000000-0000-0000-0000-000000000000")
    if gone:
        leader_goes(leader)
    assert locks.end(JOB, PATIENCE) == (True, [])
    assert is_running(child)


def test_a_session_whose_number_a_younger_leader_has_is_no_evidence(
    locks: RunLocks, tmp_path: Path, led: tuple[subprocess.Popen, int],
) -> None:
    leader, child = led
    marked_by(locks, leader.pid)
    rewrite(tmp_path / "running", noted=process(leader.pid).started - 1)
    assert locks.end(JOB, PATIENCE) == (True, [])
    assert is_running(leader.pid) and is_running(child)


@pytest.mark.parametrize("content", [b"", b"x", b"a b c d\n", b"\xff\n", b"job boot 1 2 3\n", b"job boot -1 1\n"])
def test_a_mark_that_cannot_be_read_is_no_evidence_and_no_error(
    locks: RunLocks, tmp_path: Path, content: bytes,
) -> None:
    os.close(locks.take())
    (tmp_path / "running" / "current").write_bytes(content)
    assert locks.job_ids() == []
    assert locks.end(JOB, PATIENCE) == (True, [])


def test_neither_this_process_nor_its_parent_is_ever_evidence(locks: RunLocks) -> None:
    fd = locks.take()
    locks.mark(JOB, ended_pid())
    try:
        assert locks.end(JOB, PATIENCE) == (False, [])
    finally:
        os.close(fd)


def test_a_family_that_has_unlocked_the_lock_is_found_by_its_environment(locks: RunLocks, start: Start) -> None:
    fd = locks.take()
    unlocker = start(env={JOB_ID_VARIABLE: JOB}, pass_fds=(fd,), start_new_session=True)
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
    assert locks.end(JOB, PATIENCE) == (True, [unlocker.pid])


def test_many_are_ended_at_once(locks: RunLocks, start: Start) -> None:
    carriers = [start(env={JOB_ID_VARIABLE: JOB}).pid for _ in range(20)]
    proved, killed = locks.end(JOB, PATIENCE)
    assert (proved, sorted(killed)) == (True, sorted(carriers))


def test_a_lock_that_cannot_be_opened_is_not_known_to_be_free() -> None:
    def looked_at(directory: Path) -> tuple[list[str], tuple[bool, list[int]], bool]:
        locks = RunLocks(directory)
        lock = locks.take()
        locks.mark(JOB, os.getpid())
        os.close(lock)
        (directory / "current").chmod(0o400)
        return locks.job_ids(), locks.end(JOB, 0.0), locks.release(JOB)

    with writable_by_all() as directory:
        # As where the process is out of descriptors.
        assert in_a_child(looked_at, directory / "running", ordinary=True) == ([JOB], (False, []), True)
        assert [path.name for path in (directory / "running").iterdir()] == [JOB]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a process that an ordinary user may not kill")
@pytest.mark.parametrize(("seconds", "in_session"), [(0.3, True), (5.0, False)], ids=["seen", "not seen"])
def test_a_run_that_may_not_be_killed_is_not_proved_dead(start: Start, seconds: float, in_session: bool) -> None:
    with writable_by_all() as directory:
        locks = RunLocks(directory / "running")
        fd = locks.take()
        holder = start(pass_fds=(fd,), start_new_session=True)
        if in_session:
            locks.mark(JOB, holder.pid)
        os.close(fd)
        for path in (directory / "running", directory / "running" / "current"):
            os.chown(path, NOBODY, NOBODY)
        proved, took = in_a_child(end_and_measure, directory / "running", seconds, ordinary=True)
        assert proved is False
        assert took < seconds + 1 and (not in_session or took >= seconds)
        assert holder.poll() is None
        assert os.listdir(directory / "running") == [JOB]
        # Root may kill it: the next look proves it.
        assert locks.end(JOB, PATIENCE) == (True, [holder.pid])


def end_and_measure(directory: Path, seconds: float) -> tuple[bool, float]:
    started = time.monotonic()
    proved, _ = RunLocks(directory).end(JOB, seconds)
    return proved, time.monotonic() - started
