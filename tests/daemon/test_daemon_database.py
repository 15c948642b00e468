"""The files of the database: taken away, emptied or put back while the daemon is down, or while it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.daemon import PATIENCE_SECONDS, RealDaemon

DUCTILECTL = Path(sys.executable).with_name("ductilectl")
JOBS = 20
RESTORE = "restore a backup with `ductilectl restore FILE`"


@pytest.fixture
def killed(daemon: RealDaemon) -> RealDaemon:
    """A daemon that was killed with acknowledged jobs in its write-ahead log."""
    daemon.install("ok")
    daemon.start()
    for _ in range(JOBS):
        daemon.submit("ok")
    daemon.kill()
    assert log(daemon).stat().st_size > 0
    return daemon


def log(daemon: RealDaemon) -> Path:
    return daemon.database.with_name("state.db-wal")


def index(daemon: RealDaemon) -> Path:
    return daemon.database.with_name("state.db-shm")


def ctl(daemon: RealDaemon, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DUCTILECTL, "-c", daemon.home, *arguments], env=daemon.environ, capture_output=True,
                          text=True, timeout=PATIENCE_SECONDS, check=False)


def refused(daemon: RealDaemon, text: str) -> None:
    """A start ends with 65 as often as it is tried, makes nothing and overwrites nothing."""
    paths = [path for path in (daemon.database, log(daemon), index(daemon)) if path.exists()]
    before = {path: path.read_bytes() for path in paths}
    for _ in range(2):
        run = daemon.run()
        assert (run.returncode, run.stderr) == (65, f"{text}\n")
    assert {path: path.read_bytes() for path in paths} == before
    said = ctl(daemon, "queue")
    assert (said.returncode, said.stderr) == (65, f"{text}\n")


def test_a_database_that_was_removed_after_a_crash_is_not_begun_anew(killed: RealDaemon) -> None:
    kept = log(killed).read_bytes()
    killed.database.unlink()
    refused(killed, f"the database {killed.database} is missing, though {log(killed)} is there; {RESTORE}, or remove"
                    f" {log(killed)} to begin with an empty database")
    assert log(killed).read_bytes() == kept


def test_all_that_was_removed_after_a_crash_is_not_begun_anew(killed: RealDaemon) -> None:
    for path in (killed.database, log(killed), index(killed)):
        path.unlink()
    refused(killed, f"the database {killed.database} is missing, though ductiled did not stop cleanly:"
                    f" {killed.pid_file} is not empty; {RESTORE}, or remove {killed.pid_file} to begin with an empty"
                    f" database")
    killed.pid_file.unlink()
    killed.start()
    assert killed.rows("SELECT count(*) FROM job_queue") == [(0,)]


def test_a_log_that_was_removed_after_a_crash_is_missed(killed: RealDaemon) -> None:
    log(killed).unlink()
    refused(killed, f"the write-ahead log {log(killed)} is missing, though {index(killed)} is there: somebody has"
                    f" removed it, and with it what was written last; {RESTORE}, or remove {index(killed)} to go on"
                    f" without that")


def test_a_database_that_was_emptied_after_a_clean_stop_is_not_begun_anew(daemon: RealDaemon) -> None:
    daemon.start()
    daemon.stop()
    daemon.database.write_bytes(b"")
    refused(daemon, f"the database {daemon.database} is an empty file; {RESTORE}, or remove {daemon.database} to begin"
                    f" with an empty database")


def test_a_crash_after_which_another_program_has_closed_the_database_is_no_loss(killed: RealDaemon) -> None:
    assert ctl(killed, "status").returncode in (0, 3)
    assert not log(killed).exists() and not index(killed).exists()
    killed.start()
    assert killed.rows("SELECT count(*) FROM job_queue") == [(JOBS,)]
    killed.until("SELECT count(*) FROM job_queue WHERE status = 'succeeded'", [(JOBS,)])


def test_a_removed_database_is_a_wish_after_a_clean_stop(daemon: RealDaemon) -> None:
    daemon.start()
    daemon.stop()
    daemon.database.unlink()
    daemon.start()
    daemon.stop()


def test_only_a_clean_stop_empties_the_pid_file(daemon: RealDaemon) -> None:
    daemon.configure(workspace={"path": "/proc/no/such/place"})
    assert daemon.run().returncode == 71
    assert daemon.pid_file.read_text() == ""
    daemon.configure(workspace={"path": "./data/ws"})
    daemon.start()
    daemon.kill()
    daemon.configure(workspace={"path": "/proc/no/such/place"})
    assert daemon.run().returncode == 71
    assert daemon.pid_file.read_text() == "unclean\n"
    daemon.configure(workspace={"path": "./data/ws"})
    daemon.start()
    assert daemon.pid_file.read_text() == f"{daemon.pid}\n"
    daemon.stop()
    assert daemon.pid_file.read_text() == ""


def test_without_its_pid_file_a_daemon_still_keeps_others_out(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    daemon.pid_file.unlink()
    run = daemon.run()
    assert (run.returncode, run.stderr) == (
        75, f"ductiled is already running: it holds {daemon.data}, and its PID file was removed; stop that process"
            f" first\n")
    told = f"ductiled runs, its PID file was removed ({daemon.pid_file}); restart it\n"
    for asked in ("status",), ("reload",), ("run", "ok"):
        said = ctl(daemon, *asked)
        assert (said.returncode, said.stderr.splitlines(keepends=True)[-1]) == (1, told), asked
    said = ctl(daemon, "reset", "ok")
    assert (said.returncode, said.stderr) == (
        0, f"{told.rstrip()}; until then it looks at the queue at its next heartbeat\n")
    daemon.stop()
