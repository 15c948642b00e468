"""A daemon that may open no more files: it goes on with what it has, and works again once it may."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support import hooks
from support.daemon import RealDaemon
from support.gate import Gate
from support.wire import SECRET, Wire, ask, signed

BODY = b"{}"
# Leaves a process behind that has left its group, with its pipes and the run's lock closed.
FORKS = """#!/bin/sh
cat >/dev/null
setsid sh -c 'for fd in /proc/self/fd/*; do eval "exec ${fd##*/}>&-" 2>/dev/null; done; exec sleep 3600' &
echo $! >"$ARRIVED"
read -r _ <"$GO"
echo '{"status": "ok"}'
"""


@pytest.fixture
def limited(daemon: RealDaemon) -> Callable[[int], None]:
    """A function that lets the running daemon open so many more files."""

    def limit(more: int) -> None:
        held = {int(entry.name) for entry in Path(f"/proc/{daemon.pid}/fd").iterdir()}
        free = (number for number in range(1000) if number not in held)
        most = [next(free) for _ in range(more + 1)][-1]
        hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (most, hard))

    return limit


def test_an_attempt_that_ends_then_is_not_lost(daemon: RealDaemon, gate: Gate,
                                               limited: Callable[[int], None]) -> None:
    daemon.install("waits", config=gate.config)
    daemon.start()
    job_id = daemon.submit("waits")
    gate.arrived()
    limited(0)
    gate.let_through()
    daemon.until("SELECT count(*) FROM job_log WHERE job_id = ?", [(1,)], job_id)
    # Its files could not be looked at, so that it has to be run again.
    assert daemon.attempts(job_id) == [(1, "failed")]
    status, attempt, error = daemon.job(job_id)
    assert (status, attempt, error.partition(": workspace:")[0]) == (
        "queued", 2, "its files could not be kept: Too many open files")
    limited(500)
    daemon.stop()


def test_what_left_its_group_then_ends_no_daemon(daemon: RealDaemon, gate: Gate,
                                                 limited: Callable[[int], None]) -> None:
    daemon.plugin("forks", FORKS, env=["ARRIVED", "GO"])
    daemon.environ |= {"ARRIVED": gate.config["arrived"], "GO": gate.config["go"]}
    daemon.start()
    job_id = daemon.submit("forks")
    (stray,) = gate.arrived()
    limited(0)
    gate.let_through()
    daemon.until("SELECT count(*) FROM job_log WHERE job_id = ?", [(1,)], job_id)
    limited(500)
    daemon.install("ok")
    daemon.send(signal.SIGHUP)
    daemon.await_log("configuration reloaded")
    daemon.await_job(daemon.submit("ok"), "succeeded")
    assert not Path(f"/proc/{stray}").exists()
    daemon.stop()


def test_a_first_listener_that_cannot_be_opened_is_a_refused_reload(daemon: RealDaemon,
                                                                    limited: Callable[[int], None]) -> None:
    hooks.install_waiting_hook(daemon)
    daemon.environ["HOOK_SECRET"] = SECRET
    daemon.start()
    address = hooks.listen(daemon)
    for more in range(12):
        limited(more)
        daemon.send(signal.SIGHUP)
        daemon.until("SELECT count(*) FROM config_loads", [(more + 2,)])
        if daemon.rows("SELECT ok FROM config_loads ORDER BY id DESC LIMIT 1") == [(1,)]:
            break
    errors = [row[0] for row in daemon.rows("SELECT errors FROM config_loads WHERE NOT ok")]
    assert [error for error in errors if error.startswith(("cannot take webhooks: ", "cannot open the database "))]
    assert len(errors) == more
    limited(500)
    assert ask(address, signed(BODY)).status == 202
    daemon.stop()


def test_a_connection_that_cannot_be_taken_is_said_and_taken_later(daemon: RealDaemon,
                                                                   limited: Callable[[int], None]) -> None:
    hooks.install_waiting_hook(daemon)
    address = hooks.listen(daemon)
    daemon.start()
    limited(0)
    with Wire(address) as waiting:
        daemon.await_log("connections not accepted")
        waiting.send(signed(BODY))
        limited(500)
        assert waiting.answer().status == 202
    daemon.await_log("connections accepted again")
    assert len(daemon.log("connections not accepted")) == 1
    daemon.stop()


def test_a_sender_stays_where_nobody_else_is_there(daemon: RealDaemon, limited: Callable[[int], None]) -> None:
    hooks.install_waiting_hook(daemon)
    address = hooks.listen(daemon)
    daemon.start()
    with Wire(address) as sender:
        sender.send(signed(BODY))
        assert sender.answer().status == 202
        limited(0)
        for _ in range(100):
            sender.send(signed(BODY))
            assert sender.answer().status == 202
    assert daemon.log("connections not accepted") == []
    daemon.stop()
