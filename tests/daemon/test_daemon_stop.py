"""A stop lets the running plugin finish within its grace, takes nothing up, and gives back what it cuts short."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from support import hooks
from support.daemon import RealDaemon
from support.gate import Gate

_SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", _SIGNALS)
def test_an_idle_daemon_stops_at_once(daemon: RealDaemon, number: int) -> None:
    daemon.start()
    before = time.monotonic()
    daemon.stop(number)
    # Not the grace of 30 seconds, and no heartbeat waited for.
    assert time.monotonic() - before < 5
    daemon.await_note("STOPPING=1")
    assert [line["message"] for line in daemon.lines()][-2:] == ["stopping", "stopped"]


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_stop_lets_the_running_plugin_finish_and_starts_no_other(
        daemon: RealDaemon, gate: Gate, number: int) -> None:
    daemon.install("waits", config=gate.config)
    daemon.start()
    first, second = daemon.submit("waits"), daemon.submit("waits")
    gate.arrived()
    daemon.send(number)
    daemon.await_note("STOPPING=1")
    daemon.await_log("stopping", running_job_id=first)
    gate.let_through()
    daemon.ends(0)
    assert (daemon.job(first), daemon.attempts(first)) == (("succeeded", 1, None), [(1, "succeeded")])
    assert (daemon.job(second), daemon.attempts(second)) == (("queued", 1, None), [])
    assert gate.is_empty()


def test_what_is_queued_while_the_daemon_stops_waits_for_the_next_start(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    daemon.start()
    daemon.submit("waits")
    gate.arrived()
    daemon.send(signal.SIGTERM)
    daemon.await_note("STOPPING=1")
    late = daemon.submit("waits")
    gate.let_through()
    daemon.ends(0)
    assert daemon.job(late)[0] == "queued"
    daemon.start()
    gate.arrived()
    gate.let_through()
    daemon.await_job(late, "succeeded")


def test_past_its_grace_a_stop_ends_the_plugin_and_does_not_count_its_attempt(daemon: RealDaemon, gate: Gate) -> None:
    daemon.configure(service={"shutdown_grace": "1s"})
    daemon.install("waits", config=gate.config)
    daemon.start()
    job = daemon.submit("waits")
    [plugin] = gate.arrived()
    before = time.monotonic()
    daemon.stop()
    assert time.monotonic() - before >= 1
    assert not os.path.exists(f"/proc/{plugin}")
    assert daemon.job(job) == ("queued", 1, "interrupted by a stop of the daemon")
    assert daemon.attempts(job) == [(1, "interrupted")]
    assert not (daemon.data / "ws" / job).exists()
    daemon.start()
    gate.arrived()
    gate.let_through()
    daemon.await_job(job, "succeeded")
    assert daemon.job(job)[:2] == ("succeeded", 1)
    assert daemon.attempts(job) == [(1, "interrupted"), (1, "succeeded")]


def test_an_attempt_that_a_stop_has_cut_short_is_not_missing_from_those_that_are_left(
        daemon: RealDaemon, gate: Gate) -> None:
    daemon.configure(service={"shutdown_grace": "0s"})
    daemon.install("waits", config=gate.config, retry={"max_attempts": 1})
    for _ in range(3):
        daemon.start()
        if not daemon.rows("SELECT id FROM job_queue"):
            job = daemon.submit("waits")
        gate.arrived()
        daemon.stop()
    assert daemon.job(job)[:2] == ("queued", 1)
    assert daemon.attempts(job) == [(1, "interrupted")] * 3


def test_a_second_signal_skips_the_wait(daemon: RealDaemon, gate: Gate) -> None:
    daemon.configure(service={"shutdown_grace": "1d"})
    daemon.install("waits", config=gate.config)
    daemon.start()
    job = daemon.submit("waits")
    gate.arrived()
    daemon.send(signal.SIGTERM)
    daemon.await_log("stopping")
    assert daemon.job(job)[0] == "running"
    daemon.stop(signal.SIGINT)
    assert daemon.attempts(job) == [(1, "interrupted")]


def test_a_plugin_that_answers_sigterm_with_success_is_still_cut_short(daemon: RealDaemon, gate: Gate) -> None:
    # It is not known whether it has done all of its work: the job runs again.
    daemon.configure(service={"shutdown_grace": "0s"})
    daemon.plugin("hurries", """#!/bin/sh
trap 'echo "{\\"status\\": \\"ok\\"}"; exit 0' TERM
exec 3<>"$(sed -n 's/.*"go":"\\([^"]*\\)".*/\\1/p')"
echo $$ >"$(dirname "$(readlink /proc/$$/fd/3)")/arrived"
read -r _ <&3
""", config=gate.config)
    daemon.start()
    job = daemon.submit("hurries")
    gate.arrived()
    daemon.stop()
    assert daemon.job(job)[:2] == ("queued", 1)
    assert daemon.attempts(job) == [(1, "interrupted")]


def test_a_job_that_waits_to_be_started_again_is_given_back(daemon: RealDaemon) -> None:
    daemon.configure(service={"shutdown_grace": "0s"})
    daemon.install("ok")
    daemon.start()
    with open(daemon.directory("ok") / "run", "ab"):
        job = daemon.submit("ok")
        daemon.await_log("job not started yet", job_id=job)
        daemon.stop()
    assert daemon.job(job)[:2] == ("queued", 1)
    assert daemon.attempts(job) == [(1, "interrupted")]


def test_a_storm_of_signals_is_survived(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    daemon.start()
    job = daemon.submit("waits")
    gate.arrived()
    for _ in range(20_000):
        daemon.send(signal.SIGUSR1)
    gate.let_through()
    daemon.await_job(job, "succeeded")
    job = daemon.submit("waits")
    gate.arrived()
    # To the last: also while Python itself ends.
    while not daemon.ended_within(0.0002):
        daemon.send(signal.SIGTERM)
        daemon.send(signal.SIGUSR1)
    daemon.ends(0)
    assert daemon.attempts(job) == [(1, "interrupted")]
    assert daemon.pid_file.read_text() == ""


def test_a_stop_during_the_start_is_a_clean_stop(daemon: RealDaemon) -> None:
    daemon.spawn()
    # The handlers stand before the PID is written.
    daemon.await_file(daemon.pid_file, r"\d+\n")
    daemon.stop(signal.SIGTERM)
    assert daemon.pid_file.read_text() == ""


def test_the_last_signal_of_each_kind_in_a_storm_beside_webhooks_is_obeyed(daemon: RealDaemon) -> None:
    rng = random.Random(0)
    hooks.install_waiting_hook(daemon)
    address = hooks.listen(daemon)
    daemon.plugin("other", "#!/bin/sh\necho '{\"status\": \"ok\"}'\n")
    # Nothing but a signal wakes the loop in time.
    daemon.configure(service={"tick_interval": "1h", "max_hops": 6})
    daemon.start()
    with hooks.Senders(address, range(100_000), threads=2).sending() as senders:
        for _ in range(5000):
            daemon.send(signal.SIGUSR1 if rng.random() < 0.9 else signal.SIGHUP)
        daemon.await_job(daemon.submit("other"), "succeeded")
        daemon.configure(service={"tick_interval": "1h", "max_hops": 7})
        daemon.send(signal.SIGHUP)
        daemon.await_log("configuration reloaded", changes=["setting service.max_hops 6 -> 7"])
        assert senders.answers
        senders.stop()
        daemon.send(signal.SIGTERM)
        daemon.ends(0)
