"""A start of the daemon: what it does in which order, what it makes, and that it then works."""

from __future__ import annotations

import fcntl
import os
import stat

import pytest

from support.daemon import RealDaemon


def test_a_schedule_runs_and_the_plugin_finds_its_state_again(daemon: RealDaemon) -> None:
    daemon.install("counts", schedule={"every": "1s"})
    daemon.start()
    daemon.until("SELECT json_extract(state, '$.count') >= 2 FROM plugin_state WHERE plugin_name = 'counts'", [(1,)])
    daemon.stop()
    assert set(daemon.rows("SELECT submitted_by, status, attempt FROM job_queue WHERE completed_at IS NOT NULL")) == {
        ("scheduler", "succeeded", 1)}


def test_state_and_queue_survive_a_restart(daemon: RealDaemon) -> None:
    daemon.install("counts")
    for expected in (1, 2):
        daemon.start()
        daemon.await_job(daemon.submit("counts"), "succeeded")
        daemon.stop()
        assert daemon.rows("SELECT state FROM plugin_state") == [(f'{{"count":{expected}}}',)]


def test_a_submitted_job_starts_at_once_and_not_at_the_heartbeat(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.configure(service={"tick_interval": "1w"})
    daemon.start()
    daemon.await_job(daemon.submit("ok"), "succeeded")


def test_every_job_leaves_a_start_and_an_end_line(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    job = daemon.submit("ok")
    end = daemon.await_log("job ended", job_id=job)
    start = daemon.log("job started", job_id=job)[0]
    common = {"level": "info", "component": "dispatch", "plugin": "ok", "command": "poll", "attempt": 1}
    assert start.items() >= {**common, "submitted_by": "cli"}.items()
    assert end.items() >= {**common, "outcome": "succeeded", "status": "succeeded"}.items()


def test_the_ready_line_names_the_process_and_its_configuration(daemon: RealDaemon) -> None:
    daemon.start()
    line = daemon.await_log("ready")
    assert (line["level"], line["component"], line["pid"], line["config"]) == (
        "info", "daemon", daemon.pid, str(daemon.home / "config.yaml"))
    assert "STATUS=running" in daemon.notes


def test_running_as_root_is_told_in_one_line(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    warnings = [line["message"] for line in daemon.lines() if line["level"] == "warn"]
    told = "ductiled and its plugins are running as root; configure the init system to start it as its own user"
    assert warnings == ([told] if os.geteuid() == 0 else [])


def test_the_configuration_is_checked_before_anything_is_made(daemon: RealDaemon) -> None:
    daemon.configure(service={"log": "./ductile.log", "tick_interval": "soon"})
    assert daemon.run().returncode == 78
    assert not daemon.data.exists()
    assert not (daemon.home / "ductile.log").exists()


def test_the_lock_is_taken_before_the_database_is_looked_at(daemon: RealDaemon) -> None:
    daemon.data.mkdir()
    daemon.database.write_text("not a database at all, and large enough to be looked at " * 100)
    with open(daemon.pid_file, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = daemon.run()
    assert (run.returncode, run.stderr) == (
        75, f"ductiled is already running and still starting up (it holds {daemon.pid_file})\n")


def test_orphans_are_recovered_before_the_daemon_is_ready(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    job = daemon.submit("ok")
    daemon.await_job(job, "succeeded")
    daemon.stop()
    daemon.write("UPDATE job_queue SET status = 'running', completed_at = NULL")
    daemon.start()
    daemon.await_job(job, "succeeded")
    messages = [line["message"] for line in daemon.lines()]
    second = messages.index("stopped")
    assert messages.index("orphaned job recovered", second) < messages.index("ready", second)


def test_what_the_daemon_makes_is_for_its_owner_alone(daemon: RealDaemon) -> None:
    daemon.configure(service={"log": "./ductile.log"})
    daemon.plugin("stays", '#!/bin/sh\nstat -c %a . >mode\necho \'{"status": "ok"}\'\n')
    daemon.start(umask=0)
    job = daemon.submit("stays")
    daemon.await_job(job, "succeeded")
    paths = {
        ".": 0o700, "state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600, "ductiled.pid": 0o600,
        "running": 0o700, "ws": 0o700, f"ws/{job}": 0o700, "../ductile.log": 0o640,
    }
    found = {path: stat.S_IMODE((daemon.data / path).stat().st_mode) for path in paths}
    assert found == paths
    assert (daemon.data / "ws" / job / "mode").read_text() == "700\n"


def test_the_pid_file_is_never_replaced_and_emptied_at_a_clean_stop(daemon: RealDaemon) -> None:
    daemon.start()
    first = daemon.pid_file.stat().st_ino
    assert daemon.pid_file.read_text() == f"{daemon.pid}\n"
    daemon.stop()
    assert (daemon.pid_file.stat().st_ino, daemon.pid_file.read_text()) == (first, "")
    daemon.start()
    assert (daemon.pid_file.stat().st_ino, daemon.pid_file.read_text()) == (first, f"{daemon.pid}\n")


@pytest.mark.parametrize("stale", ["its own", "a living process's"])
def test_a_stale_pid_file_does_not_block_a_start(daemon: RealDaemon, stale: str) -> None:
    daemon.start()
    daemon.kill()
    assert daemon.pid_file.read_text() == f"{daemon.pid}\n"
    if stale != "its own":
        daemon.pid_file.write_text(f"{os.getpid()}\n")
    daemon.start()
    assert daemon.pid_file.read_text() == f"{daemon.pid}\n"


def test_a_probe_of_the_lock_does_not_make_a_start_fail(daemon: RealDaemon) -> None:
    daemon.data.mkdir()
    with open(daemon.pid_file, "w") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)
        daemon.spawn()
        daemon.await_open(daemon.pid_file)
        fcntl.flock(probe, fcntl.LOCK_UN)
        daemon.await_note("READY=1")


def test_a_moved_data_directory_goes_on_as_if_it_had_always_been_there(daemon: RealDaemon) -> None:
    daemon.install("counts", retry={"max_attempts": 1})
    daemon.start()
    daemon.await_job(daemon.submit("counts"), "succeeded")
    daemon.stop()
    daemon.data.rename(daemon.home / "elsewhere")
    daemon.configure(state={"path": "./elsewhere/state.db"}, workspace={"path": "./elsewhere/ws"})
    daemon.moved_to(daemon.home / "elsewhere")
    daemon.start()
    daemon.await_job(daemon.submit("counts"), "succeeded")
    assert daemon.rows("SELECT state FROM plugin_state") == [('{"count":2}',)]
    assert not (daemon.home / "data").exists()


def test_the_watchdog_gets_a_sign_of_life_from_an_idle_daemon(daemon: RealDaemon) -> None:
    daemon.environ["WATCHDOG_USEC"] = "100000"
    daemon.start()
    daemon.await_note("WATCHDOG=1", 4)


def test_the_watchdog_gets_a_sign_of_life_while_a_plugin_runs(daemon: RealDaemon, gate) -> None:
    daemon.environ["WATCHDOG_USEC"] = "100000"
    daemon.install("waits", config=gate.config)
    daemon.start()
    daemon.submit("waits")
    gate.arrived()
    daemon.notes.clear()
    daemon.await_note("WATCHDOG=1", 3)
