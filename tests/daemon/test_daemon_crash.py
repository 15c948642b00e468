"""A daemon that is killed anywhere loses nothing, does nothing twice, and runs no job beside its own ghost."""

from __future__ import annotations

import random
import signal
from collections import Counter
from itertools import groupby

import pytest

from support.daemon import PLUGINS, RealDaemon
from support.gate import Gate

_FOR_EVER = {"max_attempts": 100}


@pytest.fixture
def marking(daemon: RealDaemon) -> RealDaemon:
    """A daemon whose plugin `marks` notes each of its incarnations."""
    daemon.install("marks", config={"file": str(daemon.home / "marks")}, retry=_FOR_EVER)
    return daemon


def marks(daemon: RealDaemon) -> list[list[str]]:
    """Return what the incarnations of `marks` have written: what, PID, job, attempt, time."""
    file = daemon.home / "marks"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def is_whole(daemon: RealDaemon, jobs: list[str]) -> None:
    """Hold the ledger against what the incarnations saw: every job succeeded, once, after its orphaned attempts."""
    assert dict(daemon.rows("SELECT id, status FROM job_queue")) == dict.fromkeys(jobs, "succeeded")
    logged = daemon.rows("SELECT job_id, attempt, status FROM job_log ORDER BY job_id, attempt, seq")
    for job, rows in groupby(logged, key=lambda row: row[0]):
        attempts = [row[1:] for row in rows]
        orphaned = [(number, "orphaned") for number in range(1, len(attempts))]
        assert attempts == [*orphaned, (len(attempts), "succeeded")], job
    assert {row[0] for row in logged} == set(jobs)
    starts = Counter((job, int(attempt)) for what, _, job, attempt, _ in marks(daemon) if what == "starts")
    assert set(starts.values()) == {1}
    assert set(starts) <= {(job, attempt) for job, attempt, _ in logged}
    assert [line for line in marks(daemon) if line[0] == "overlaps"] == []
    # The state is merged in the same commit: as many as have succeeded, whatever ran besides.
    assert daemon.rows("SELECT json_extract(state, '$.finished') FROM plugin_state") == [(len(jobs),)]


def test_a_daemon_killed_at_ten_random_moments_runs_every_job_to_its_end_once(marking: RealDaemon) -> None:
    chance = random.Random(20)
    marking.start()
    jobs = [marking.submit("marks") for _ in range(10)]
    for _ in range(10):
        waiting = marking.rows("SELECT count(*) FROM job_queue WHERE completed_at IS NULL")[0][0]
        jobs += [marking.submit("marks") for _ in range(10 - waiting)]
        # Of the time that ten jobs take, so that a kill hits the claim, the run, the finish and all between.
        marking.ended_within(chance.uniform(0, 0.25))
        marking.kill()
        marking.start()
    marking.until("SELECT count(*) FROM job_queue WHERE status = 'succeeded'", [(len(jobs),)])
    marking.stop()
    is_whole(marking, jobs)
    assert marking.rows("SELECT count(*) > 0 FROM job_log WHERE status = 'orphaned'") == [(1,)]
    # No lock file is kept for a job of which something might still live.
    assert {path.name for path in (marking.data / "running").iterdir()} <= {"current"}


def test_a_start_killed_at_random_moments_can_be_killed_again(marking: RealDaemon) -> None:
    chance = random.Random(6)
    marking.start()
    jobs = [marking.submit("marks") for _ in range(5)]
    marking.kill()
    for _ in range(6):
        marking.spawn()
        marking.ended_within(chance.uniform(0.05, 0.3))
        marking.kill()
    marking.start()
    marking.until("SELECT count(*) FROM job_queue WHERE status = 'succeeded'", [(len(jobs),)])
    marking.stop()
    is_whole(marking, jobs)


def test_a_daemon_killed_while_it_finishes_commits_the_end_or_repeats_the_attempt(marking: RealDaemon) -> None:
    marking.start()
    jobs = []
    for _ in range(3):
        jobs.append(marking.submit("marks"))
        # The plugin has said its last word; its row is being written.
        marking.await_file(marking.home / "marks", rf"ends \d+ {jobs[-1]}")
        marking.kill()
        marking.start()
        marking.await_job(jobs[-1], "succeeded")
    marking.stop()
    is_whole(marking, jobs)


def test_recovery_can_be_killed_anywhere_and_recovers_each_orphan_once(daemon: RealDaemon) -> None:
    daemon.install("ok")
    # Their plugin cannot be loaded: recovered they wait, and nothing but recovery touches them.
    (daemon.directory("ok") / "run").chmod(0o644)
    daemon.start()
    daemon.submit("ok")
    daemon.stop()
    daemon.write("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 60)"
                 " INSERT INTO job_queue (id, plugin, command, status, attempt, max_attempts, submitted_by, created_at,"
                 " started_at, root_job_id) SELECT 'orphan-' || i, plugin, command, 'running', 1, max_attempts,"
                 " submitted_by, created_at, created_at, 'orphan-' || i FROM job_queue, n")
    for already in (1, 8, 20):
        daemon.spawn()
        daemon.await_log("orphaned job recovered", already)
        daemon.kill()
        assert daemon.log("ready", pid=daemon.pid) == [], "the kill came too late to say anything"
    assert daemon.rows("SELECT count(*) > 0 FROM job_queue WHERE status = 'running'") == [(1,)]
    daemon.start()
    daemon.stop()
    assert daemon.rows("SELECT DISTINCT status, attempt, next_retry_at FROM job_queue WHERE id LIKE 'orphan%'") == [
        ("queued", 2, None)]
    assert daemon.rows("SELECT count(*), count(DISTINCT job_id), min(attempt), max(attempt), min(status), max(status)"
                       " FROM job_log") == [(60, 60, 1, 1, "orphaned", "orphaned")]


def test_a_plugin_that_outlived_its_daemon_is_ended_before_its_job_runs_again(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config, retry=_FOR_EVER)
    daemon.start()
    job = daemon.submit("waits")
    [first] = gate.arrived()
    daemon.kill()
    assert daemon.survivors() == {first}
    daemon.start()
    [second] = gate.arrived()
    assert daemon.survivors() == set()
    killed = daemon.log("killed leftover processes of an interrupted run", job_id=job, level="warn")
    assert [line["pids"] for line in killed] == [[first]]
    recovered = daemon.log("orphaned job recovered", job_id=job, level="warn")
    assert [(line["attempt"], line["next_attempt"]) for line in recovered] == [(1, 2)]
    assert second != first
    gate.let_through()
    daemon.await_job(job, "succeeded")
    assert daemon.attempts(job) == [(1, "orphaned"), (2, "succeeded")]


@pytest.mark.parametrize("mark", ["lock", "environment", "session"])
def test_a_leftover_is_found_by_each_of_its_marks_alone(daemon: RealDaemon, gate: Gate, mark: str) -> None:
    daemon.install("lingers", config={"keeps": mark, **gate.config}, retry=_FOR_EVER)
    daemon.start()
    job = daemon.submit("lingers")
    leader, child = gate.arrived()
    daemon.kill()
    daemon.kill_leftover(leader)
    assert daemon.survivors() == {child}
    daemon.start()
    gate.arrived()
    assert daemon.survivors() == set()
    assert [line["pids"] for line in daemon.log("killed leftover processes of an interrupted run",
                                                job_id=job)] == [[child]]


def test_a_leftover_of_one_job_holds_no_other_up_while_it_is_ended(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    daemon.install("ok")
    daemon.start()
    first = daemon.submit("waits")
    second = daemon.submit("ok")
    gate.arrived()
    daemon.kill()
    daemon.start()
    gate.arrived()
    assert daemon.job(second)[0] == "queued"
    gate.let_through()
    daemon.await_job(second, "succeeded")
    # A retry keeps its place in the queue.
    assert daemon.rows("SELECT job_id FROM job_log WHERE status = 'succeeded' ORDER BY seq") == [(first,), (second,)]


def test_what_a_crashed_attempt_left_in_its_workspace_is_gone_for_the_next(daemon: RealDaemon, gate: Gate) -> None:
    waits = (PLUGINS / "waits" / "run").read_text()
    daemon.plugin("litters", waits.replace("echo $$ >", "ls -A >seen; touch litter; echo $$ >"), config=gate.config)
    daemon.start()
    job = daemon.submit("litters")
    gate.arrived()
    assert (daemon.data / "ws" / job / "litter").exists()
    daemon.kill()
    daemon.start()
    gate.arrived()
    assert (daemon.data / "ws" / job / "seen").read_text() == "seen\n"


def test_an_orphan_with_no_attempts_left_is_dead(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config, retry={"max_attempts": 1})
    daemon.start()
    job = daemon.submit("waits")
    gate.arrived()
    daemon.kill()
    daemon.start()
    assert daemon.job(job) == ("dead", 1, "orphaned: ductiled ended while it ran")
    assert daemon.attempts(job) == [(1, "orphaned")]
    assert not (daemon.data / "ws" / job).exists()
    daemon.stop()
    assert gate.is_empty()


def test_an_orphaned_init_is_queued_again_three_times_at_most(daemon: RealDaemon, gate: Gate) -> None:
    daemon.plugin("initialises", (PLUGINS / "waits" / "run").read_text(), commands=("init", "poll"), config=gate.config)
    for _cuts in range(1, 5):
        daemon.start()
        gate.arrived()
        assert daemon.rows("SELECT count(*) FROM job_queue") == [(1,)]
        daemon.kill()
    daemon.start()
    gate.arrived()
    # The fifth start finds the first init used up, and tries with a new one.
    assert daemon.rows("SELECT status FROM job_queue ORDER BY seq") == [("dead",), ("running",)]
    assert daemon.rows("SELECT attempt, status FROM job_log ORDER BY seq") == [
        (1, "orphaned"), (2, "orphaned"), (3, "orphaned"), (4, "orphaned")]


def test_a_running_row_that_no_daemon_wrote_a_lock_for_is_recovered_too(daemon: RealDaemon) -> None:
    daemon.install("counts", retry=_FOR_EVER)
    daemon.start()
    job = daemon.submit("counts")
    daemon.await_job(job, "succeeded")
    daemon.stop(signal.SIGINT)
    daemon.write("UPDATE job_queue SET status = 'running', completed_at = NULL")
    daemon.write("DELETE FROM job_log")
    daemon.start()
    daemon.await_job(job, "succeeded")
    assert daemon.attempts(job) == [(1, "orphaned"), (2, "succeeded")]
