from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import sqlite3
from contextlib import ExitStack
from datetime import timedelta

import pytest

from ductile import db
from ductile.config.model import Retry
from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.plugin import plugin_table
from ductile.queue import job_table
from ductile.queue.job import Status
from ductile.units import utc_text
from scheduler.schedules import schedule
from support import worlds
from support.clock import START
from support.ledger import new_job, open_jobs, put_ended, put_job
from support.logs import lines
from support.loop import FAILS, OK, WAITS, Loop, locked, loop, program
from support.ticking import written

STORM = (signal.SIGUSR1,) * 500


@pytest.fixture
def make(tmp_path):
    """A function that makes a loop of one plugin; it is ended with the test."""
    with ExitStack() as stack:
        def made(*schedules, text=OK, environ=None, service=None, **settings) -> Loop:
            echo = worlds.plugin("echo", *schedules, entrypoint=program(tmp_path, text), **settings)
            runtime = worlds.runtime(echo, directory=tmp_path, **service or {})
            return stack.enter_context(loop(tmp_path, runtime, environ=environ))
        yield made


@pytest.fixture
def gate(tmp_path):
    """What a plugin that waits reads from: a function lets it go on."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield lambda: os.write(fd, b"go\n")
    os.close(fd)


@pytest.fixture
def waiting(make, gate, tmp_path):
    """A loop whose first job runs until the gate is opened, and a second one that is queued behind it."""
    made = make(text=WAITS % (tmp_path / "gate"), service={"shutdown_grace": 30})
    put_job(made.conn, "a")
    put_job(made.conn, "b")
    made.turn()
    assert made.statuses() == [("a", "running", 1), ("b", "queued", 1)]
    return made


# How long it sleeps


def test_an_idle_daemon_wakes_for_its_heartbeat_alone_and_writes_nothing(make, tmp_path):
    made = make()
    made.turn()
    before = written(made.conn, tmp_path / "state.db")
    waits = made.run_for(3600)
    assert waits[0] == 60.002
    assert len(waits) == 60
    assert written(made.conn, tmp_path / "state.db") == before
    assert made.said() == ["info stopping"]


@pytest.mark.parametrize("tick_interval, turns", [(1, 600), (60, 10), (3600, 1)])
def test_the_heartbeat_is_as_often_as_set(make, tick_interval, turns):
    made = make(service={"tick_interval": tick_interval})
    made.turn()
    assert len(made.run_for(600)) == turns


def test_a_run_that_falls_due_between_heartbeats_is_not_late(make):
    made = make(schedule("90s"))
    made.run_for(400)
    runs = made.conn.execute("SELECT created_at, status FROM job_queue ORDER BY seq").fetchall()
    assert [created[11:19] for created, _ in runs] == ["10:00:00", "10:01:30", "10:03:00", "10:04:30", "10:06:00"]
    assert {status for _, status in runs} == {"succeeded"}


def test_a_retry_starts_when_it_falls_due(make):
    made = make(text=FAILS, retry=Retry(backoff_base=7))
    put_job(made.conn, "a", max_attempts=3)
    made.turn()
    made.finish()
    due = job_table.get(made.conn, "a").next_retry_at
    assert timedelta(seconds=7) <= due - START <= timedelta(seconds=14)
    made.run_for(120)
    assert made.statuses() == [("a", "dead", 3)]
    second = made.conn.execute("SELECT started_at FROM job_log WHERE attempt = 2").fetchone()[0]
    assert abs((job_table.parse_utc(second) - due).total_seconds()) < 0.01


@pytest.mark.parametrize("days", [-1, 365])
def test_a_clock_that_is_set_while_the_loop_sleeps_stalls_no_schedule(make, days):
    made = make(schedule("5m"))
    made.turn()
    made.finish()
    made.clock.set(START + timedelta(days=days))
    made.run_for(3600)
    assert len(made.statuses()) in (12, 13, 14)


def test_a_retry_that_waits_behind_a_plugin_that_is_not_loaded_wakes_nobody_more_than_once(tmp_path):
    runtime = worlds.runtime(worlds.plugin("echo", not_loaded="gone"), directory=tmp_path)
    with loop(tmp_path, runtime) as made:
        job = put_job(made.conn, "a", Status.RUNNING)
        job_table.move(made.conn, job, Status.QUEUED, START, attempt=2, retry_at=START + timedelta(seconds=5))
        made.turn()
        assert len(made.run_for(600)) <= 12


def test_the_watchdog_gets_a_sign_of_life_twice_in_its_period(make, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        made = make(environ={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000000"})
        made.turn()
        assert set(made.run_for(55)) <= {10.002, 9.998, 9.996, 9.994, 9.992, 9.99, 0.002}
        signs = 0
        while True:
            try:
                signs += manager.recv(4096) == b"WATCHDOG=1"
            except BlockingIOError:
                break
        assert signs == 6


# Jobs


def test_jobs_run_one_after_the_other_in_their_order(make):
    made = make()
    for name in ("a", "b", "c"):
        put_job(made.conn, name)
    made.turn()
    for _ in range(3):
        assert len(job_table.running(made.conn)) == 1
        made.finish()
    assert made.statuses() == [("a", "succeeded", 1), ("b", "succeeded", 1), ("c", "succeeded", 1)]
    ended = [line["job_id"] for line in lines(made.log) if line["message"] == "job ended"]
    assert ended == ["a", "b", "c"]


def test_a_job_that_was_enqueued_by_another_process_starts_at_the_signal(make):
    made = make()
    made.turn()
    put_job(made.conn, "a")
    made.turn(signal.SIGUSR1)
    assert made.statuses() == [("a", "running", 1)]


def test_a_job_that_cannot_be_started_does_not_hold_up_the_next(make, tmp_path):
    made = make()
    for name in ("a", "b"):
        put_job(made.conn, name, max_attempts=1)
    (tmp_path / "run.sh").unlink()
    made.run_for(30)
    assert made.statuses() == [("a", "dead", 1), ("b", "dead", 1)]
    assert made.inbox.waits[:3] == [0.002, 0.0, 0.0]


def test_when_a_job_ends_a_run_that_is_held_back_is_looked_at(make):
    made = make(schedule("5m"), service={"max_queue_depth": 1})
    put_job(made.conn, "a")
    made.turn()
    assert made.conn.execute("SELECT count(*) FROM job_queue").fetchone() == (1,)
    made.finish()
    assert made.conn.execute("SELECT submitted_by, status FROM job_queue WHERE id != 'a'").fetchall() == [
        ("scheduler", "running")]


def test_old_jobs_are_pruned_one_batch_a_turn_and_at_once_while_any_are_left(make):
    made = make(service={"job_log_retention": 86400})
    put_ended(made.conn, range(250), at=utc_text(START - timedelta(days=2)))
    left = []
    for _ in range(6):
        made.turn()
        left.append(made.conn.execute("SELECT count(*) FROM job_queue").fetchone()[0])
    assert left == [150, 50, 0, 0, 0, 0]
    assert max(made.run_for(59)) > 50
    assert "info old jobs pruned" in made.said()


def test_a_job_starts_between_two_batches(make):
    made = make(service={"job_log_retention": 86400})
    put_ended(made.conn, range(250), at=utc_text(START - timedelta(days=2)))
    made.turn()
    put_job(made.conn, "a")
    made.turn()
    assert made.statuses()[-1] == ("a", "running", 1)
    assert len(made.statuses()) == 250 - 2 * 100 + 1


def test_a_prune_that_cannot_be_written_and_a_stop_let_the_loop_sleep(waiting, tmp_path):
    put_ended(waiting.conn, range(250), at=utc_text(START - timedelta(days=60)))
    waiting.clock.move(60)
    other = locked(waiting, tmp_path)
    waiting.turn()
    assert waiting.said()[-1] == CANNOT
    assert waiting.daemon._seconds_to_wait() == pytest.approx(5, abs=0.1)
    other.execute("ROLLBACK")
    waiting.clock.move(5.1)
    waiting.turn()
    assert waiting.daemon._seconds_to_wait() == pytest.approx(0, abs=0.01)
    waiting.turn(signal.SIGTERM)
    assert waiting.daemon._seconds_to_wait() == pytest.approx(30, abs=0.1)
    other.close()


# The directory of the workspaces

CREATED_AGAIN = "error workspace directory created again"
NO_ROOT = "error no job can start; trying again"
ROOT_AGAIN = "info jobs can have workspaces again"


def break_root(tmp_path):
    """Put what nobody can enter in the place of the workspaces."""
    shutil.rmtree(tmp_path / "ws")
    (tmp_path / "ws").symlink_to("ws")


def mend_root(tmp_path):
    (tmp_path / "ws").unlink()
    (tmp_path / "ws").mkdir()


def test_a_workspace_directory_that_was_removed_is_created_again_and_costs_no_attempt(make, tmp_path):
    made = make()
    made.turn()
    for name in ("a", "b"):
        put_job(made.conn, name, max_attempts=1)
    shutil.rmtree(tmp_path / "ws")
    made.turn(signal.SIGUSR1)
    made.finish()
    made.finish()
    assert made.statuses() == [("a", "succeeded", 1), ("b", "succeeded", 1)]
    assert [line for line in made.said() if line.startswith("error")] == [CREATED_AGAIN]


def test_between_two_jobs_that_wait_it_is_created_again_too(waiting, gate, tmp_path):
    shutil.rmtree(tmp_path / "ws")
    gate()
    waiting.finish()
    gate()
    waiting.finish()
    assert waiting.statuses() == [("a", "succeeded", 1), ("b", "succeeded", 1)]
    assert CREATED_AGAIN in waiting.said()


def test_where_it_cannot_be_entered_jobs_wait_without_an_attempt_and_it_is_said_once(make, tmp_path):
    made = make()
    made.turn()
    put_job(made.conn, "a", max_attempts=1)
    break_root(tmp_path)
    made.turn(signal.SIGUSR1)
    assert max(made.run_for(300)) == 5.002
    assert made.statuses() == [("a", "queued", 1)]
    assert [line for line in made.said() if line.startswith("error")] == [NO_ROOT]
    reason = os.strerror(errno.ELOOP)
    assert lines(made.log)[0]["error"] == f"cannot enter the workspace directory {tmp_path}/ws: {reason}"
    assert list(made.daemon._reasons(made.clock.monotonic())) == [lines(made.log)[0]["error"], "ductiled is stopping"]


def test_a_job_runs_as_soon_as_it_can_be_entered_again(make, tmp_path):
    made = make()
    put_job(made.conn, "a", max_attempts=1)
    break_root(tmp_path)
    made.turn()
    mend_root(tmp_path)
    made.clock.move(5)
    made.turn()
    made.finish()
    assert made.statuses() == [("a", "succeeded", 1)]
    assert made.said()[:2] == [NO_ROOT, ROOT_AGAIN]


def test_a_job_that_was_claimed_before_waits_however_long_it_takes(make, tmp_path):
    made = make()
    put_job(made.conn, "parent", Status.SUCCEEDED)
    put_job(made.conn, "a", max_attempts=1, parent_job_id="parent", root_job_id="parent")
    # A program that somebody writes cannot be started.
    with open(tmp_path / "run.sh", "a"):
        made.turn()
    assert made.statuses()[1] == ("a", "running", 1)
    break_root(tmp_path)
    for _ in range(60):
        made.clock.move(5)
        made.turn()
    assert (made.statuses()[1], made.said().count(NO_ROOT)) == (("a", "running", 1), 1)
    mend_root(tmp_path)
    made.clock.move(5)
    made.turn()
    made.finish()
    assert made.statuses()[1] == ("a", "succeeded", 1)


# Storms


def test_a_storm_of_signals_writes_nothing_where_there_is_nothing_to_do(make, tmp_path):
    made = make(schedule("5m", jitter=300))
    made.turn()
    before = written(made.conn, tmp_path / "state.db"), made.log.read_text()
    made.turn(*STORM)
    assert (written(made.conn, tmp_path / "state.db"), made.log.read_text()) == before


def test_a_storm_of_signals_starts_no_second_job(waiting, gate):
    waiting.turn(*STORM)
    assert waiting.statuses() == [("a", "running", 1), ("b", "queued", 1)]
    gate()
    waiting.finish()
    assert waiting.statuses() == [("a", "succeeded", 1), ("b", "running", 1)]


def test_a_note_that_is_an_exception_ends_the_loop_with_it(make):
    made = make()
    made.inbox.put(LookupError("nobody foresaw this"))
    with pytest.raises(LookupError, match="^nobody foresaw this$"):
        made.daemon.run()


# Writes that do not happen


CANNOT = "error the database cannot be written; trying again"
CAN_AGAIN = "info the database can be written again"


def test_a_write_that_fails_is_put_off_for_five_seconds_and_nothing_is_lost(make, tmp_path):
    made = make(schedule("5m"))
    other = locked(made, tmp_path)
    made.turn()
    made.clock.move(4.9)
    made.turn()
    assert made.said() == [CANNOT]
    made.clock.move(0.2)
    made.turn()
    assert made.said() == [CANNOT, CANNOT]
    other.execute("ROLLBACK")
    made.clock.move(5.1)
    made.turn()
    assert made.said() == [CANNOT, CANNOT, "info scheduled run enqueued", "info job started", CAN_AGAIN]
    made.finish()
    assert [status for _, status, _ in made.statuses()] == ["succeeded"]
    other.close()


def test_while_a_write_is_put_off_the_loop_sleeps_until_its_time(make, tmp_path):
    made = make(schedule("5m"))
    other = locked(made, tmp_path)
    made.turn()
    assert made.run_for(21) == [5.002, 5.002, 5.002, 5.002, 5.002]
    other.close()


def test_a_job_that_ends_while_nothing_can_be_written_is_not_forgotten(waiting, gate, tmp_path):
    other = locked(waiting, tmp_path)
    gate()
    waiting.finish()
    assert waiting.statuses() == [("a", "running", 1), ("b", "queued", 1)]
    for _ in range(3):
        waiting.clock.move(5)
        waiting.turn()
    assert waiting.said().count("error job result not saved, retrying") == 4
    other.execute("ROLLBACK")
    waiting.clock.move(5)
    waiting.turn()
    assert waiting.statuses() == [("a", "succeeded", 1), ("b", "running", 1)]
    attempts = waiting.conn.execute("SELECT job_id, status, completed_at FROM job_log").fetchall()
    assert attempts == [("a", "succeeded", "2026-02-08T10:00:00.000Z")]
    other.close()


def test_damage_ends_the_loop(make, tmp_path):
    made = make()
    made.turn()
    put_job(made.conn, "a")
    made.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    made.conn.execute("PRAGMA cache_size = 0")
    made.conn.execute("PRAGMA shrink_memory")
    with open(tmp_path / "state.db", "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (os.path.getsize(tmp_path / "state.db") - 4096))
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("PRAGMA user_version = 1")    # so that the first connection reads its pages anew
    with pytest.raises(db.Damaged):
        made.turn(signal.SIGUSR1)
    other.close()


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_stops_at_once(make, number):
    made = make()
    made.turn()
    made.turn(number)
    assert (made.daemon.done, made.said()) == (True, ["info stopping"])


def test_systemd_is_told_of_the_stop(make, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        made = make(environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        made.turn()
        made.turn(signal.SIGTERM)
        assert [manager.recv(4096) for _ in range(2)] == [b"STATUS=idle", b"STOPPING=1\nSTATUS=stopping"]


def test_a_stop_waits_for_the_running_plugin_and_starts_no_other(waiting, gate):
    waiting.turn(signal.SIGTERM)
    waiting.clock.move(29)
    waiting.turn()
    assert waiting.daemon.done is False
    gate()
    waiting.finish()
    assert waiting.daemon.done is True
    assert waiting.statuses() == [("a", "succeeded", 1), ("b", "queued", 1)]


def interrupted(made: Loop) -> None:
    made.finish()
    assert made.daemon.done is True
    assert made.statuses() == [("a", "queued", 1), ("b", "queued", 1)]
    assert made.conn.execute("SELECT job_id, attempt, status FROM job_log").fetchall() == [("a", 1, "interrupted")]


def test_when_the_grace_is_over_the_plugin_is_ended_and_its_attempt_does_not_count(waiting):
    waiting.turn(signal.SIGTERM)
    waiting.clock.move(30)
    waiting.turn()
    interrupted(waiting)


def test_a_second_signal_ends_the_plugin_at_once(waiting):
    waiting.turn(signal.SIGTERM, signal.SIGINT)
    interrupted(waiting)
    assert "info second stop signal; ending the running plugin" in waiting.said()


def test_a_stop_with_the_end_of_a_job_unwritten_says_so_when_the_grace_is_over(waiting, gate, tmp_path):
    other = locked(waiting, tmp_path)
    gate()
    waiting.finish()
    waiting.turn(signal.SIGTERM)
    assert waiting.daemon.done is False
    waiting.clock.move(30)
    with pytest.raises(DuctileError) as caught:
        waiting.turn()
    assert (caught.value.exit_code, str(caught.value)) == (
        EXIT_SYSTEM, "stopped before a job's result could be saved; the next start runs the job again")
    other.close()


def test_a_stop_in_time_still_writes_the_end_of_a_job(waiting, gate, tmp_path):
    other = locked(waiting, tmp_path)
    gate()
    waiting.finish()
    waiting.turn(signal.SIGTERM)
    other.execute("ROLLBACK")
    waiting.clock.move(6)
    waiting.turn()
    assert waiting.daemon.done is True
    assert waiting.statuses() == [("a", "succeeded", 1), ("b", "queued", 1)]
    other.close()


# The start


def test_the_start_records_what_was_read(make):
    made = make(commands=("poll", "init"))
    made.daemon.prepare()
    assert made.conn.execute("SELECT hash, ok, errors FROM config_loads").fetchall() == [("0" * 64, 1, None)]
    (load,) = plugin_table.loads(made.conn)
    assert (load.plugin, load.version, load.enabled) == ("echo", "0.1.0", True)
    assert [(job.plugin, job.command) for job in open_jobs(made.conn, 9)] == [("echo", "init")]
    assert made.said() == ["info init enqueued"]


def test_the_first_look_at_the_schedules_comes_when_the_inits_of_the_start_have_ended(make):
    made = make(schedule("5m"), commands=("poll", "init"))
    made.daemon.prepare()
    made.run_for(1)
    assert made.conn.execute("SELECT command, status FROM job_queue ORDER BY seq").fetchall() == [
        ("init", "succeeded"), ("poll", "succeeded")]
    assert made.said() == [
        "info init enqueued", "info job started", "info job ended", "info scheduled run enqueued", "info job started",
        "info job ended", "info stopping"]


def test_an_init_that_does_not_end_holds_the_schedules_up_until_the_next_heartbeat(make, gate, tmp_path):
    made = make(schedule("5m"), commands=("poll", "init"), text=WAITS % (tmp_path / "gate"))
    made.daemon.prepare()
    made.turn(signal.SIGUSR1)
    made.clock.move(59)
    made.turn()
    assert made.said() == ["info init enqueued", "info job started"]
    made.clock.move(1)
    made.turn()
    assert made.said()[2:] == ["info scheduled run blocked"]
    gate()
    made.finish()
    gate()
    made.finish()
    assert made.said()[3:] == ["info job ended", "info scheduled run enqueued",
                               "info scheduled run no longer blocked", "info job started", "info job ended"]


def test_the_start_recovers_orphans_and_ends_jobs_that_nobody_can_run(make):
    made = make()
    with db.transaction(made.conn):
        job_table.add(made.conn, [new_job("gone", plugin="gone")], START)
    put_job(made.conn, "orphan", Status.RUNNING)
    put_job(made.conn, "last", Status.RUNNING, max_attempts=1)
    made.daemon.prepare()
    assert made.statuses() == [("gone", "dead", 1), ("orphan", "queued", 2), ("last", "dead", 1)]
    assert made.said() == [*["warn orphaned job recovered"] * 2,
                           "warn queued job failed: its plugin is no longer enabled"]


def test_a_start_that_cannot_write_is_refused(make, tmp_path):
    made = make()
    other = locked(made, tmp_path)
    with pytest.raises(DuctileError) as caught:
        made.daemon.prepare()
    assert (caught.value.exit_code, str(caught.value)) == (
        EXIT_SYSTEM, f"cannot write the database {tmp_path}/state.db: database is locked (SQLITE_BUSY)")
    other.close()
