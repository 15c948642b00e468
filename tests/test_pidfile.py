from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ductile.errors import EXIT_RUNNING, EXIT_SYSTEM, DuctileError
from ductile.pidfile import PidFileRemoved, PidLock, is_nonempty, pid_file, running_pid, signal_daemon

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 60
HOLDER = """
import sys
from pathlib import Path
from ductile.pidfile import PidLock
lock = PidLock(Path(sys.argv[1]))
if sys.argv[2] == "write":
    lock.write()
print("held", flush=True)
sys.stdin.read()
if sys.argv[3] == "release":
    lock.release()
"""
FIRST_START = """
import sys
from pathlib import Path
from ductile.pidfile import PidLock, running_pid

path, seen, looks = Path(sys.argv[1]), [], []

def look(event, arguments):
    if event == "fcntl.flock" and not looks:
        looks.append(event)
        seen.append(running_pid(path))
        looks.clear()

sys.addaudithook(look)
PidLock(path).release()
print(seen)
"""
PROBE = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return pid_file(tmp_path / "state.db")


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process, from when it has said `held`; it is killed in the end if it is still there."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_SECONDS)


def daemon(path: Path, *, write: bool = True):
    return child(HOLDER, path, "write" if write else "", "release")


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("", timeout=LIMIT_SECONDS)


def refusal(path: Path) -> tuple[int, str]:
    with pytest.raises(DuctileError) as caught:
        PidLock(path)
    return caught.value.exit_code, str(caught.value)


def test_the_pid_file_is_beside_the_database(tmp_path):
    assert pid_file(tmp_path / "other.db") == tmp_path / "ductiled.pid"


def test_the_pid_file_holds_the_pid_for_its_owner_alone(path):
    before = os.umask(0)
    try:
        lock = PidLock(path)
    finally:
        os.umask(before)
    lock.write()
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (f"{os.getpid()}\n", 0o600)
    lock.release()


def test_a_clean_stop_leaves_the_same_file_empty(path):
    lock = PidLock(path)
    lock.write()
    inode = path.stat().st_ino
    lock.release()
    assert (path.read_text(), path.stat().st_ino) == ("", inode)
    assert running_pid(path) is None


def test_a_second_daemon_is_told_the_pid_of_the_first_and_leaves_its_file_alone(path):
    with daemon(path) as first:
        assert refusal(path) == (EXIT_RUNNING, f"ductiled is already running as PID {first.pid} (it holds {path})")
        assert path.read_text() == f"{first.pid}\n"
        assert running_pid(path) == first.pid


def test_a_daemon_that_is_just_starting_keeps_others_out(path):
    with daemon(path, write=False):
        assert refusal(path) == (EXIT_RUNNING, f"ductiled is already running and still starting up (it holds {path})")


def test_after_a_stop_the_next_one_starts(path):
    with daemon(path) as first:
        end(first)
        lock = PidLock(path)
    lock.release()


def test_a_stale_file_after_a_kill_does_not_block_a_start(path):
    with daemon(path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait(LIMIT_SECONDS)
    assert path.read_text() == f"{first.pid}\n"
    assert running_pid(path) is None
    lock = PidLock(path)
    lock.write()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_only_a_clean_stop_leaves_the_file_empty(path):
    assert not is_nonempty(path)
    with daemon(path) as first:
        assert is_nonempty(path)
        first.send_signal(signal.SIGKILL)
        first.wait(LIMIT_SECONDS)
    lock = PidLock(path)
    assert lock.left == f"{first.pid}\n"
    assert path.read_text() == "unclean\n"
    lock.abandon()
    lock = PidLock(path)
    assert (lock.left, path.read_text()) == ("unclean\n", "unclean\n")
    lock.release()
    assert not is_nonempty(path)
    lock = PidLock(path)
    assert lock.left == ""
    lock.release()


def test_what_is_noted_stays_for_the_next_holder(path):
    lock = PidLock(path)
    lock.note("half done")
    lock.abandon()
    lock = PidLock(path)
    assert (lock.left, running_pid(path)) == ("half done\n", None)
    lock.release()


def test_the_lock_is_on_the_directory_too(path):
    with daemon(path) as first:
        path.unlink()
        assert refusal(path) == (
            EXIT_RUNNING,
            f"ductiled is already running: it holds {path.parent}, and its PID file was removed; stop it"
                          f" first")
        assert first.poll() is None
        assert not path.exists()
        with pytest.raises(PidFileRemoved) as told:
            running_pid(path)
        assert (told.value.exit_code, str(told.value)) == (
            1, f"ductiled runs, its PID file was removed ({path}); restart it")
        with pytest.raises(PidFileRemoved):
            signal_daemon(path, signal.SIGKILL)
        end(first)
    assert running_pid(path) is None


def test_a_daemon_that_starts_for_the_first_time_is_never_taken_for_one_whose_pid_file_was_removed(path):
    """Seen before each lock that it takes: it holds the file before it holds the directory."""
    done = subprocess.run([sys.executable, "-c", FIRST_START, path], cwd=ROOT, capture_output=True, text=True,
                          timeout=LIMIT_SECONDS, check=False)
    assert (done.stdout, done.stderr) == ("[None, None, None]\n", "")


def test_a_daemon_that_dies_is_never_taken_for_one_whose_pid_file_was_removed(path):
    """The kernel closes the descriptors of a dead process in ascending order."""
    lock = PidLock(path)
    directory, file = (number for number in sorted(map(int, os.listdir("/proc/self/fd")))
                       if os.path.realpath(f"/proc/self/fd/{number}") in (str(path), str(path.parent)))
    assert os.path.realpath(f"/proc/self/fd/{directory}") == str(path.parent)
    assert os.path.realpath(f"/proc/self/fd/{file}") == str(path)
    lock.release()


def test_a_longer_pid_leaves_nothing_behind(path):
    path.write_text("123456789012345\n")
    lock = PidLock(path)
    lock.write()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_the_pid_of_a_killed_daemon_is_gone_once_the_next_holds_the_lock(path):
    """Its number may mean another process by now, which must not get the signals that are for the daemon."""
    path.write_text("1\n")
    with daemon(path, write=False):
        assert running_pid(path) is None


@pytest.mark.parametrize("text", ["", "\n", "nonsense\n", "-1\n", "12 34\n"])
def test_a_file_without_a_pid_names_nobody(path, text):
    path.write_text(text)
    with daemon(path, write=False):
        path.write_text(text)
        assert running_pid(path) is None


def test_a_probe_does_not_keep_a_daemon_from_starting(path):
    """The daemon waits a while for a shared lock to go, and the one that probes lets it go."""
    path.touch()
    with child(PROBE, path) as probe:
        starting = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), "write", "release"], cwd=ROOT, text=True,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            probe.communicate("go\n", timeout=LIMIT_SECONDS)
            assert starting.stdout.readline() == "held\n"
            assert running_pid(path) == starting.pid
        finally:
            starting.kill()
            starting.communicate(timeout=LIMIT_SECONDS)


def test_a_lock_that_is_not_let_go_is_not_waited_for_without_end(path):
    path.touch()
    with child(PROBE, path):
        assert refusal(path) == (EXIT_RUNNING, f"ductiled is already running and still starting up (it holds {path})")


def test_probing_locks_nobody_out(path):
    with daemon(path) as first:
        for _ in range(100):
            assert running_pid(path) == first.pid
        end(first)
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_who_probes_is_not_taken_for_the_daemon(path):
    path.write_text(f"{os.getpid()}\n")
    with child(PROBE, path):
        assert running_pid(path) is None


def test_a_process_that_the_daemon_starts_does_not_inherit_the_lock(path):
    lock = PidLock(path)
    with child("import sys; print('held', flush=True); sys.stdin.read()"):
        lock.release()
        assert running_pid(path) is None
        PidLock(path).release()


def test_a_link_in_its_place_is_refused(path, tmp_path):
    (tmp_path / "precious").write_text("precious")
    path.symlink_to(tmp_path / "precious")
    assert refusal(path) == (
        EXIT_SYSTEM, f"cannot open the PID file {path}: Too many levels of symbolic links")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "nowhere" / "ductiled.pid"
    assert refusal(path) == (EXIT_SYSTEM, f"cannot open the directory {path.parent}: No such file or directory")


def test_a_fifo_in_its_place_is_refused(path):
    os.mkfifo(path)
    assert refusal(path) == (EXIT_SYSTEM, f"the PID file {path} is not a regular file: remove it")
    assert path.is_fifo()


def test_a_socket_in_its_place_is_refused(path):
    os.mknod(path, stat.S_IFSOCK | 0o600)
    assert refusal(path) == (EXIT_SYSTEM, f"cannot open the PID file {path}: No such device or address")


def test_a_fifo_in_its_place_is_no_daemon(path):
    os.mkfifo(path)
    assert running_pid(path) is None
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert running_pid(path) is None
    os.close(fd)


# Signals


def test_without_a_file_nobody_is_signalled(path):
    assert running_pid(path) is None
    assert signal_daemon(path, signal.SIGTERM) is None
    assert not path.exists()


def test_the_daemon_is_signalled(path):
    with daemon(path) as first:
        assert signal_daemon(path, signal.SIGTERM) == first.pid
        assert first.wait(LIMIT_SECONDS) == -signal.SIGTERM


def test_the_process_that_has_a_dead_daemons_pid_is_not_signalled(path):
    with child("import sys; print('held', flush=True); sys.stdin.read()") as innocent:
        path.write_text(f"{innocent.pid}\n")
        assert signal_daemon(path, signal.SIGKILL) is None
        assert innocent.poll() is None
        with daemon(path, write=False):
            assert signal_daemon(path, signal.SIGKILL) is None
            assert innocent.poll() is None


def test_a_pid_that_no_process_has_is_no_error(path):
    with daemon(path) as holder:
        with child("print('held', flush=True)") as gone:
            pass
        path.write_text(f"{gone.pid}\n")
        assert signal_daemon(path, signal.SIGKILL) is None
        assert holder.poll() is None
