"""What a plugin's process gets from a daemon that was itself started with odd things: descriptors, signals, secrets."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import RealDaemon
from support.processes import parse_status

# Becomes the daemon, as a careless shell script would start it.
_CARELESS = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2})
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    """A running daemon that was started carelessly."""
    daemon = RealDaemon(tmp_path_factory.mktemp("careless"))
    daemon.become = (sys.executable, "-c", _CARELESS)
    daemon.environ |= {
        "LC_TIME": "C", "USER": "somebody", "EXTRA": "for this plugin", "AWS_SECRET_ACCESS_KEY": "hush",
        "PASSWORD": "hush", "DUCTILE_ATTEMPT": "forged", "PYTHONDONTWRITEBYTECODE": "1", "LD_LIBRARY_PATH": "",
        "TMPDIR": str(daemon.home),
    }
    daemon.install("describes", env=["EXTRA", "ABSENT"], config={"token": "${PASSWORD}"})
    with open(daemon.home / "precious", "w") as precious:
        fds = [os.dup(precious.fileno()) for _ in range(5)]
        try:
            daemon.start(pass_fds=fds)
        finally:
            for fd in fds:
                os.close(fd)
    yield daemon
    daemon.close()


@pytest.fixture(scope="module")
def described(careless: RealDaemon) -> Path:
    """The directory in which a plugin has described itself."""
    job = careless.submit("describes")
    careless.await_job(job, "succeeded")
    return careless.data / "ws" / job


def test_a_plugin_has_default_signal_dispositions_and_an_empty_mask(described: Path) -> None:
    status = parse_status((described / "status").read_text())
    assert {name: int(status[name], 16) for name in ("SigIgn", "SigBlk", "ShdPnd")} == {
        "SigIgn": 0, "SigBlk": 0, "ShdPnd": 0}


def test_a_plugin_has_its_three_descriptors_and_one_lock(described: Path, careless: RealDaemon) -> None:
    lines = [line.split(" -> ") for line in (described / "descriptors").read_text().splitlines() if " -> " in line]
    # The shell has its script open, with close-on-exec set.
    program = str(careless.directory("describes") / "run")
    found = {int(left.split()[-1]): target for left, target in lines if target != program}
    assert sorted(found)[:3] == [0, 1, 2]
    assert [os.path.dirname(found[number]) for number in sorted(found)[3:]] == [f"{careless.data}/running"]


def test_a_plugin_gets_the_promised_environment_and_nothing_else(described: Path, careless: RealDaemon) -> None:
    found = dict(line.split("=", 1) for line in (described / "environ").read_text().splitlines())
    assert found == {
        "PATH": careless.environ["PATH"], "HOME": str(careless.home), "TZ": "UTC", "LANG": "C.UTF-8", "LC_TIME": "C",
        "USER": "somebody", "TMPDIR": str(careless.home), "EXTRA": "for this plugin",
        "DUCTILE_JOB_ID": described.name, "DUCTILE_ATTEMPT": "1", "DUCTILE_PLUGIN": "describes",
        "DUCTILE_WORKSPACE": str(described),
    }


def test_a_secret_reaches_a_plugin_through_its_configuration(described: Path) -> None:
    assert '"config":{"token":"hush"}' in (described / "request").read_text()


def test_a_plugin_runs_in_its_workspace_and_in_a_session_of_its_own(described: Path, careless: RealDaemon) -> None:
    assert (described / "cwd").read_text() == f"{described}\n"
    pid, rest = (described / "stat").read_text().split(" ", 1)
    parent, group, session, terminal = rest[rest.rindex(")") + 2:].split()[1:5]
    assert (int(parent), group, session, terminal) == (careless.pid, pid, pid, "0")


def test_a_daemon_that_was_started_with_its_signals_ignored_and_blocked_obeys_them(
        described: Path, careless: RealDaemon) -> None:
    # USR1 has brought the job of `described`; this is the last test of that daemon.
    careless.stop(signal.SIGINT)


def test_what_a_plugin_leaves_in_another_session_is_ended_with_it(daemon: RealDaemon) -> None:
    daemon.install("forks_away")
    daemon.start()
    job = daemon.submit("forks_away")
    daemon.await_job(job, "succeeded")
    assert daemon.started() == []
    daemon.stop()
    assert daemon.attempts(job) == [(1, "succeeded")]


def test_a_plugin_that_hangs_is_ended_at_its_deadline_and_the_next_job_runs(daemon: RealDaemon, gate) -> None:
    daemon.install("waits", config=gate.config, timeouts={"poll": "1s"}, retry={"max_attempts": 1})
    daemon.install("ok")
    daemon.start()
    hanging, next_one = daemon.submit("waits"), daemon.submit("ok")
    daemon.await_job(next_one, "succeeded")
    assert daemon.job(hanging) == ("dead", 1, "timed out after 1s")
    assert daemon.attempts(hanging) == [(1, "timed_out")]


def test_a_failing_plugin_is_tried_as_often_as_it_may_be(daemon: RealDaemon) -> None:
    daemon.install("fails", retry={"max_attempts": 3, "backoff_base": "0s"})
    daemon.start()
    job = daemon.submit("fails")
    daemon.await_job(job, "dead")
    assert daemon.job(job) == ("dead", 3, "out of luck")
    assert daemon.attempts(job) == [(1, "failed"), (2, "failed"), (3, "failed")]


def test_a_retry_waits_for_its_time_and_lets_others_pass(daemon: RealDaemon) -> None:
    daemon.install("fails", retry={"max_attempts": 2, "backoff_base": "1s", "backoff_max": "1s"})
    daemon.install("ok")
    daemon.start()
    failing, other = daemon.submit("fails"), daemon.submit("ok")
    daemon.await_job(other, "succeeded")
    assert daemon.attempts(failing) == [(1, "failed")]
    daemon.await_job(failing, "dead")
    assert daemon.rows("SELECT started_at >= (SELECT completed_at FROM job_log WHERE job_id = ?1 AND attempt = 1)"
                       " FROM job_log WHERE job_id = ?1 AND attempt = 2", failing) == [(1,)]


def test_a_helper_that_was_started_before_the_daemon_in_the_same_process_is_left_alone(daemon: RealDaemon) -> None:
    # As the entrypoint of a container has it.
    daemon.become = ("/bin/sh", "-c", 'sleep 600 & exec "$@"', "sh")
    daemon.install("describes")
    daemon.start()
    [helper] = daemon.started()
    daemon.await_job(daemon.submit("describes"), "succeeded")
    assert daemon.started() == [helper]
    daemon.send(signal.SIGTERM)
    daemon.ends(0)
    assert daemon.survivors() == {helper}
