"""The files of the database: taken away, emptied or put back while the daemon is down, or while it runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ctl import desk
from support import hooks
from support.daemon import PATIENCE_SECONDS, RealDaemon
from support.wire import ask, signed

pytestmark = pytest.mark.usefixtures("forks_ductilectl")
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
    process = desk.start(*arguments, home=daemon.home, env=daemon.environ)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


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
    refused(killed, f"the database {killed.database} is missing, but {log(killed)} exists; {RESTORE}, or remove"
                    f" {log(killed)} to start with an empty database")
    assert log(killed).read_bytes() == kept


def test_all_that_was_removed_after_a_crash_is_not_begun_anew(killed: RealDaemon) -> None:
    for path in (killed.database, log(killed), index(killed)):
        path.unlink()
    refused(killed, f"the database {killed.database} is missing, and ductiled did not stop cleanly:"
                    f" {killed.pid_file} is not empty; {RESTORE}, or remove {killed.pid_file} to start with an empty"
                    f" database")
    killed.pid_file.unlink()
    killed.start()
    assert killed.rows("SELECT count(*) FROM job_queue") == [(0,)]


def test_a_log_that_was_removed_after_a_crash_is_missed(killed: RealDaemon) -> None:
    log(killed).unlink()
    refused(killed, f"the write-ahead log {log(killed)} is missing, but {index(killed)} exists: the log was"
                    f" removed, and with it the latest writes; {RESTORE}, or remove {index(killed)} to continue without"
                    f" them")


def test_a_database_that_was_emptied_after_a_clean_stop_is_not_begun_anew(daemon: RealDaemon) -> None:
    daemon.start()
    daemon.stop()
    daemon.database.write_bytes(b"")
    refused(daemon, f"the database {daemon.database} is an empty file; {RESTORE}, or remove {daemon.database} to start"
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
        75, f"ductiled is already running: it holds {daemon.data}, and its PID file was removed; stop it"
            f" first\n")
    told = f"ductiled runs, its PID file was removed ({daemon.pid_file}); restart it\n"
    for asked in ("status",), ("reload",), ("run", "ok"):
        said = ctl(daemon, *asked)
        assert (said.returncode, said.stderr.splitlines(keepends=True)[-1]) == (1, told), asked
    said = ctl(daemon, "reset", "ok")
    assert (said.returncode, said.stderr) == (
        0, f"{told.rstrip()}; until then it looks at the queue once per scheduler interval\n")
    daemon.stop()


# While it runs


@pytest.fixture
def running(daemon: RealDaemon) -> RealDaemon:
    """A daemon with acknowledged jobs that wait, with an older backup in `older.db`."""
    daemon.install("ok")
    daemon.start()
    assert ctl(daemon, "backup", daemon.home / "older.db").returncode == 0
    # No signal: they wait for the heartbeat.
    for _ in range(JOBS):
        daemon.write(
            "INSERT INTO job_queue (id, plugin, command, status, attempt, max_attempts, submitted_by, created_at,"
            " root_job_id, next_retry_at) VALUES (lower(hex(randomblob(16))), 'ok', 'poll', 'queued', 1, 4, 'cli',"
            " '2026-02-08T10:00:00.000Z', 'x', '2999-01-01T00:00:00.000Z')")
    return daemon


def remove(daemon: RealDaemon) -> None:
    daemon.database.unlink()


def put_older_backup_over_it(daemon: RealDaemon) -> None:
    (daemon.home / "older.db").rename(daemon.database)


def remove_all(daemon: RealDaemon) -> None:
    shutil.rmtree(daemon.data)


def remove_log(daemon: RealDaemon) -> None:
    log(daemon).unlink()


def rescued(daemon: RealDaemon) -> Path:
    (file,) = daemon.data.glob("state.db.rescued-*")
    return file


def ended(daemon: RealDaemon, what: str) -> None:
    """The daemon has ended with 65 and one ERROR, and what it held is restored with all jobs."""
    assert daemon.ended_within(PATIENCE_SECONDS)
    daemon.ends(65, f"{what} while ductiled was running; the whole content of the database was saved to"
                    f" {rescued(daemon)}: put it back with `ductilectl restore {rescued(daemon)}`\n")
    assert [line["message"] for line in daemon.lines() if line["level"] == "error"] == [
        daemon.errors.read_text().rstrip()]
    assert rescued(daemon).stat().st_mode & 0o777 == 0o600
    daemon.errors.write_text("")
    said = ctl(daemon, "restore", rescued(daemon))
    assert said.returncode == 0, said.stderr
    daemon.start()
    assert daemon.rows("SELECT count(*) FROM job_queue WHERE created_at LIKE '2026-02-08T10%'") == [(JOBS,)]
    daemon.stop()


@pytest.mark.parametrize(("harm", "what"), [
    (remove, "{database} was removed"), (put_older_backup_over_it, "{database} was replaced by another file"),
    (remove_all, "{database} was removed"), (remove_log, "{database}-wal was removed"),
])
@pytest.mark.parametrize("noticed", ["at a write", "at a stop"])
def test_what_a_daemon_holds_is_saved_when_its_files_are_taken_away(
        running: RealDaemon, harm: Callable[[RealDaemon], None], what: str, noticed: str) -> None:
    harm(running)
    running.send(signal.SIGTERM if noticed == "at a stop" else signal.SIGHUP)
    ended(running, what.format(database=running.database))


def test_requests_in_flight_are_not_acknowledged_then(daemon: RealDaemon) -> None:
    address = hooks.listen(daemon)
    # Nothing but the request writes.
    hooks.install_waiting_hook(daemon)
    daemon.start()
    taken = ask(address, signed(b"{}")).json["job_id"]
    daemon.database.unlink()
    assert ask(address, signed(b"{}")).status == 503
    assert daemon.ended_within(PATIENCE_SECONDS)
    daemon.ends(65, daemon.errors.read_text())
    assert ctl(daemon, "restore", rescued(daemon)).returncode == 0
    assert [row[0] for row in daemon.rows("SELECT id FROM job_queue")] == [taken]


def test_an_idle_daemon_notices_at_its_heartbeat(daemon: RealDaemon) -> None:
    daemon.configure(service={"tick_interval": "1s"})
    daemon.start()
    daemon.database.unlink()
    assert daemon.ended_within(PATIENCE_SECONDS)
    daemon.ends(65, daemon.errors.read_text())
    assert rescued(daemon).exists()


def test_a_log_of_the_lost_database_is_not_left_to_another(running: RealDaemon) -> None:
    put_older_backup_over_it(running)
    running.send(signal.SIGHUP)
    assert running.ended_within(PATIENCE_SECONDS)
    running.ends(65, running.errors.read_text())
    assert not log(running).exists() and not index(running).exists()
    running.errors.write_text("")
    running.start()
    assert running.rows("SELECT count(*) FROM job_queue WHERE created_at LIKE '2026-02-08T10%'") == [(0,)]
    running.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which takes root")
def test_without_room_a_lost_database_is_held_until_there_is(running: RealDaemon) -> None:
    shutil.rmtree(running.data)
    running.data.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "ductile-test", running.data],
                          capture_output=True, check=False, timeout=PATIENCE_SECONDS)
    if made.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        what = f"{running.database} was removed while ductiled was running"
        running.send(signal.SIGHUP)
        line = running.await_log(f"{what}, and its content cannot be saved; retrying until ductiled is stopped")
        assert line["error"] == "database or disk is full"
        subprocess.run(["mount", "-o", "remount,size=4m", running.data], check=True, timeout=PATIENCE_SECONDS)
        # Anything that wakes it has it try again.
        running.send(signal.SIGUSR1)
        assert running.ended_within(PATIENCE_SECONDS)
        running.ends(65, running.errors.read_text())
        assert ctl(running, "restore", rescued(running)).returncode == 0
        assert running.rows("SELECT count(*) FROM job_queue WHERE created_at LIKE '2026-02-08T10%'") == [(JOBS,)]
    finally:
        running.close()
        subprocess.run(["umount", running.data], check=True, timeout=PATIENCE_SECONDS)
