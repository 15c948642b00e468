"""Plugins that cannot be loaded, are taken out or change under the running daemon: what becomes of their jobs."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.chains import await_rest, ctl, job_of, pipeline, seen, step
from support.daemon import RealDaemon
from support.gate import Gate

_QUEUED = ("queued", 1, None)


def hide(daemon: RealDaemon, plugin: str) -> Path:
    """Take a plugin's code away, where nothing looks for it."""
    return daemon.directory(plugin).rename(daemon.home / f"hidden-{plugin}")


@pytest.fixture
def queued(daemon: RealDaemon) -> str:
    """A job that waits in the queue of a stopped daemon, its plugin configured."""
    daemon.install("ok", called="mine", schedule={"every": "1w"}, retry={"max_attempts": 2})
    daemon.install("ok", called="other")
    place = hide(daemon, "ok")
    daemon.start()
    job = daemon.submit("mine")
    daemon.stop()
    place.rename(daemon.directory("ok"))
    return job


def test_jobs_of_a_plugin_that_is_not_loaded_wait_and_others_pass(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.install("counts", schedule={"every": "1w"})
    place = hide(daemon, "counts")
    daemon.start()
    waiting = daemon.submit("counts")
    for _ in range(2):
        daemon.await_job(daemon.submit("ok"), "succeeded")
    daemon.stop()
    # A start looks for jobs that nobody can ever run; this is none of them.
    daemon.start()
    daemon.stop()
    assert (daemon.job(waiting), daemon.attempts(waiting)) == (_QUEUED, [])
    why = f"no plugin named 'counts' was found in {daemon.home}/plugins"
    assert daemon.rows("SELECT reason FROM plugin_loads WHERE plugin = 'counts'") == [(why,)]
    told = [line["message"] for line in daemon.lines() if line["level"] == "error"]
    assert [line.partition(": ")[2] for line in told] == [f"plugin counts is not loaded: {why}"] * 2
    assert daemon.rows("SELECT held_reason, last_run_at FROM schedule_entries") == [(f"not loaded: {why}", None)]
    place.rename(daemon.directory("counts"))
    daemon.start()
    daemon.await_job(waiting, "succeeded")
    # The run that fell due meanwhile runs too, once.
    daemon.until("SELECT count(*) FROM job_queue WHERE plugin = 'counts' AND status = 'succeeded'", [(2,)])


def test_jobs_of_a_plugin_that_was_taken_out_of_the_configuration_are_dead(daemon: RealDaemon, queued: str) -> None:
    del daemon.config["plugins"]["mine"]
    daemon.configure()
    daemon.start()
    assert daemon.job(queued) == ("dead", 1, "plugin mine was removed from the configuration")
    assert daemon.attempts(queued) == []
    assert len(daemon.log("queued job failed: its plugin is no longer enabled", job_id=queued, level="warn")) == 1


def test_jobs_of_a_plugin_that_was_disabled_are_dead(daemon: RealDaemon, queued: str) -> None:
    daemon.install("ok", called="mine", enabled=False)
    daemon.start()
    assert daemon.job(queued) == ("dead", 1, "plugin mine was disabled")
    assert daemon.rows("SELECT completed_at IS NULL FROM job_queue WHERE id = ?", queued) == [(0,)]


def test_jobs_of_a_plugin_that_is_back_run(daemon: RealDaemon, queued: str) -> None:
    daemon.start()
    daemon.await_job(queued, "succeeded")


def vanish(program: Path) -> None:
    program.unlink()


def become_a_directory(program: Path) -> None:
    program.unlink()
    program.mkdir()


def lose_its_interpreter(program: Path) -> None:
    program.write_text("#!/no/such/interpreter\n")


def lose_its_first_line(program: Path) -> None:
    program.write_text("echo '{\"status\": \"ok\"}'\n")


def lose_its_mode(program: Path) -> None:
    program.chmod(0o644)


_CHANGED = "{{program}} changed after it was loaded: {}; load it with `ductilectl reload`"


@pytest.mark.parametrize(("harm", "why"), [
    (vanish, f"{os.strerror(errno.ENOENT)}: {{program}}"),
    (become_a_directory, _CHANGED.format("another file took its place")),
    (lose_its_interpreter, "its first line names the interpreter '/no/such/interpreter', which does not exist; install"
     " it or mend the line: {program}"),
    (lose_its_first_line, f"{os.strerror(errno.ENOEXEC)}: {{program}}"),
    (lose_its_mode, _CHANGED.format("its mode is 0644 and was 0755")),
])
def test_a_program_that_can_no_longer_be_started_fails_its_job_and_no_other(
        daemon: RealDaemon, harm: Callable[[Path], None], why: str) -> None:
    daemon.install("ok", retry={"max_attempts": 2, "backoff_base": "0s"})
    daemon.install("counts")
    daemon.start()
    program = daemon.directory("ok") / "run"
    harm(program)
    failing, other = daemon.submit("ok"), daemon.submit("counts")
    daemon.await_job(failing, "dead")
    daemon.await_job(other, "succeeded")
    daemon.stop()
    assert daemon.job(failing) == ("dead", 2, f"could not be started: {why.format(program=program)}")
    assert daemon.attempts(failing) == [(1, "failed"), (2, "failed")]
    assert not [job for job in (failing, other) if (daemon.data / "ws" / job).exists()]


def test_a_program_that_comes_back_in_time_runs_in_its_next_attempt(daemon: RealDaemon) -> None:
    daemon.install("ok", retry={"max_attempts": 2, "backoff_base": "1s", "backoff_max": "1s"})
    daemon.start()
    place = hide(daemon, "ok")
    job = daemon.submit("ok")
    daemon.await_log("job ended", job_id=job, outcome="failed")
    place.rename(daemon.directory("ok"))
    daemon.await_job(job, "succeeded")
    assert daemon.attempts(job) == [(1, "failed"), (2, "succeeded")]


def busy_files_can_be_started(path: Path) -> bool:
    """Say whether this kernel starts programs that are open for writing."""
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    with open(path, "a"):
        try:
            return subprocess.run([path], check=False, timeout=10).returncode == 0
        except OSError as error:
            assert error.errno == errno.ETXTBSY
            return False


def test_a_program_that_is_being_written_is_waited_for_without_using_an_attempt(
        daemon: RealDaemon, tmp_path: Path) -> None:
    if busy_files_can_be_started(tmp_path / "probe"):
        pytest.skip("this kernel starts programs that are open for writing")
    daemon.install("ok", retry={"max_attempts": 1})
    daemon.start()
    program = daemon.directory("ok") / "run"
    with open(program, "ab"):
        job = daemon.submit("ok")
        line = daemon.await_log("job not started yet", job_id=job)
        assert line["error"] == f"could not be started: {os.strerror(errno.ETXTBSY)}: {program}"
    daemon.await_job(job, "succeeded")
    assert daemon.attempts(job) == [(1, "succeeded")]


def test_a_plugin_that_was_renamed_in_the_configuration_keeps_its_code_and_starts_with_no_state(
        daemon: RealDaemon) -> None:
    daemon.install("counts", called="first")
    daemon.start()
    daemon.await_job(daemon.submit("first"), "succeeded")
    daemon.stop()
    daemon.install("counts", called="second")
    daemon.start()
    daemon.await_job(daemon.submit("second"), "succeeded")
    assert daemon.rows("SELECT plugin_name, state FROM plugin_state ORDER BY plugin_name") == [
        ("first", '{"count":1}'), ("second", '{"count":1}')]


def reload(daemon: RealDaemon) -> None:
    done = len(daemon.log("configuration reloaded"))
    daemon.send(signal.SIGHUP)
    daemon.await_log("configuration reloaded", done + 1)


def test_a_retry_of_a_plugin_that_was_disabled_while_it_ran_is_dead(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("ok")
    daemon.plugin("fails", '#!/bin/sh\necho $$ >"$ARRIVED"\nread -r _ <"$GO"\nexit 1\n', env=["ARRIVED", "GO"])
    daemon.environ |= {"ARRIVED": gate.config["arrived"], "GO": gate.config["go"]}
    daemon.start()
    job = daemon.submit("fails")
    gate.arrived()
    daemon.configure(plugins={"fails": {"enabled": False}})
    reload(daemon)
    gate.let_through()
    daemon.await_job(job, "dead")
    assert daemon.job(job) == ("dead", 2, "plugin fails was disabled")
    assert daemon.attempts(job) == [(1, "failed")]


INITS = "SELECT status FROM job_queue WHERE command = 'init' ORDER BY seq"
INIT = """#!/bin/sh
[ "$(sed 's/.*"command":"\\([a-z]*\\)".*/\\1/')" = init ] && echo $$ >"$ARRIVED" && read -r word <"$GO"
[ "$word" != fail ] && echo '{"status": "ok"}'
"""


@pytest.fixture
def initialised(daemon: RealDaemon, gate: Gate) -> None:
    """A running daemon with a plugin `slow` whose `init` waits at the gate."""
    daemon.plugin("slow", INIT, commands=("poll", "init"), env=["ARRIVED", "GO"], config={"a": 1})
    daemon.environ |= {"ARRIVED": gate.config["arrived"], "GO": gate.config["go"]}
    daemon.start()
    gate.arrived()


def test_a_plugin_that_is_changed_while_its_init_runs_gets_another(daemon: RealDaemon, gate: Gate,
                                                                   initialised: None) -> None:
    daemon.configure(plugins={"slow": {"env": ["ARRIVED", "GO"], "config": {"a": 2}}})
    reload(daemon)
    gate.let_through()
    gate.arrived()
    gate.let_through()
    daemon.until(INITS, [("succeeded",), ("succeeded",)])
    assert daemon.rows("SELECT count(*) FROM plugin_inits i JOIN plugin_loads l ON l.needs_init = i.fingerprint"
                       " WHERE i.ok") == [(1,)]
    daemon.stop()
    assert daemon.rows(INITS) == [("succeeded",), ("succeeded",)]


def test_a_reload_that_changes_nothing_about_it_is_no_reason_for_another_init(
    daemon: RealDaemon, gate: Gate, initialised: None,
) -> None:
    reload(daemon)
    gate.let_through()
    daemon.await_job(daemon.submit("slow"), "succeeded")
    assert daemon.rows(INITS) == [("succeeded",)]


def test_an_init_that_fails_does_not_undo_one_that_has_succeeded(daemon: RealDaemon, gate: Gate,
                                                                 initialised: None) -> None:
    gate.let_through()
    daemon.until("SELECT ok FROM plugin_inits", [(1,)])
    again = daemon.submit("slow", "init")
    gate.arrived()
    gate.turn_away()
    daemon.await_job(again, "dead")
    assert daemon.rows("SELECT ok FROM plugin_inits") == [(1,)]


def test_a_plugin_that_cannot_be_loaded_is_told_of_on_a_change_alone(daemon: RealDaemon) -> None:
    step(daemon, "tells")
    daemon.install("counts")
    daemon.pipelines(*(pipeline(f"p{number}", {"uses": "tells"}, on=f"ductile.plugin.{kind}")
                       for number, kind in enumerate(("unavailable", "available"))))
    place = hide(daemon, "counts")
    for _ in range(2):
        daemon.start()
        await_rest(daemon)
        daemon.stop()
    daemon.start()
    place.rename(daemon.directory("counts"))
    for count in (1, 2):
        daemon.send(signal.SIGHUP)
        daemon.await_log("configuration reloaded", count=count)
    await_rest(daemon)
    daemon.stop()
    told = [(each["event"]["type"], each["event"]["payload"]) for each in seen(daemon, "tells")]
    assert [(kind, payload["plugin"], payload["reason"], payload["origin_plugin"]) for kind, payload in told] == [
        ("ductile.plugin.unavailable", "counts", f"no plugin named 'counts' was found in {daemon.home}/plugins",
         "ductile"),
        ("ductile.plugin.available", "counts", None, "ductile")]


def test_silence_and_its_end_are_told_by_the_running_daemon(daemon: RealDaemon) -> None:
    step(daemon, "tells")
    step(daemon, "polls", fails=1, settings={
        "schedule": {"every": "1w", "alert_after": "1s"}, "retry": {"max_attempts": 1}})
    daemon.pipelines(*(pipeline(f"p{number}", {"uses": "tells"}, on=f"ductile.schedule.{kind}")
                       for number, kind in enumerate(("overdue", "recovered"))))
    daemon.start()
    daemon.until("SELECT count(*) FROM job_queue WHERE plugin = 'tells' AND status = 'succeeded'", [(1,)])
    assert ctl(daemon, "retry", job_of(daemon, "polls")).code == 0
    daemon.until("SELECT count(*) > 1 FROM job_queue WHERE plugin = 'tells' AND status = 'succeeded'", [(1,)])
    daemon.stop()
    told = [(each["event"]["type"], each["event"]["payload"]["reason"]) for each in seen(daemon, "tells")]
    assert told[:2] == [("ductile.schedule.overdue", "its last run failed: not yet"),
                        ("ductile.schedule.recovered", None)]
