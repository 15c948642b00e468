"""The running daemon's log: moved away, filled up or without a reader, it loses no line and ends nothing."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from support import hooks
from support.daemon import RealDaemon
from support.gate import Gate
from support.wire import ask, signed

LIMIT_SECONDS = 60


def test_a_log_that_is_rotated_under_load_loses_no_line(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.configure(service={"log": "./ductile.log"})
    log = daemon.home / "ductile.log"
    daemon.start()
    jobs = []
    for number in range(6):
        jobs += [daemon.submit("ok") for _ in range(15)]
        log.rename(daemon.home / f"ductile.log.{number}")
        # Those before may all have ended by now.
        jobs.append(daemon.submit("ok"))
        # While the next lines are being written to the file that has moved, or to the new one.
        daemon.await_file(log, "job ended")
    daemon.await_job(jobs[-1], "succeeded")
    daemon.stop()
    ended: Counter[str] = Counter()
    for path in daemon.home.glob("ductile.log*"):
        daemon.output = path
        ended.update(line["job_id"] for line in daemon.log("job ended"))
    assert ended == Counter(jobs)


def test_a_log_that_was_removed_is_made_again(daemon: RealDaemon) -> None:
    daemon.configure(service={"log": "./ductile.log"})
    daemon.output = daemon.home / "ductile.log"
    daemon.start()
    daemon.output.unlink()
    daemon.stop()
    assert [line["message"] for line in daemon.lines()] == ["stopping", "stopped"]


def test_a_log_whose_directory_is_gone_ends_nothing(daemon: RealDaemon) -> None:
    (daemon.home / "logs").mkdir()
    daemon.install("ok")
    daemon.configure(service={"log": "./logs/ductile.log"})
    daemon.start()
    (daemon.home / "logs").rename(daemon.home / "gone")
    daemon.await_job(daemon.submit("ok"), "succeeded")
    (daemon.home / "gone").rename(daemon.home / "logs")
    daemon.stop()
    daemon.output = daemon.home / "logs" / "ductile.log"
    assert daemon.lines()[-1]["message"] == "stopped"


def test_a_daemon_whose_output_nobody_reads_any_more_lives_on(daemon: RealDaemon) -> None:
    daemon.install("ok")
    reader, writer = os.pipe()
    daemon.start(stdout=writer)
    os.close(writer)
    os.close(reader)
    for _ in range(5):
        daemon.await_job(daemon.submit("ok"), "succeeded")
    daemon.stop()


# A reader that does not read


def full_pipe() -> tuple[int, int]:
    """A pipe in which there is no room, and whose writer's end blocks."""
    reader, writer = os.pipe()
    own = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(own, b"\n" * select.PIPE_BUF)
    os.close(own)
    return reader, writer


@contextmanager
def full_syslog(daemon: RealDaemon) -> Iterator[None]:
    """A /dev of the daemon's own, with a log that nobody reads and in which there is no room."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can have mounts of its own")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, timeout=LIMIT_SECONDS).returncode != 0:
        pytest.skip("this machine allows no mounts of one's own")
    dev = daemon.home / "dev"
    dev.mkdir()
    for name in ("null", "urandom"):
        (dev / name).touch()
    # The test's own directory may be in /dev/shm.
    (dev / "shm").mkdir()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        listener.bind(os.fspath(dev / "log"))
        with suppress(BlockingIOError):
            while True:
                sender.sendto(b"full", socket.MSG_DONTWAIT, os.fspath(dev / "log"))
        daemon.become = ("unshare", "-m", "sh", "-ec", f"""
            mount --bind /dev/null {dev}/null; mount --bind /dev/urandom {dev}/urandom
            mount --bind /dev/shm {dev}/shm; mount --rbind {dev} /dev
            exec "$@" """, "sh")
        daemon.configure(service={"log": "syslog"})
        yield


def works_and_stops(daemon: RealDaemon, gate: Gate, **popen: Any) -> None:
    """See that jobs go on, webhooks are answered and both signals to stop are obeyed."""
    daemon.install("ok")
    daemon.install("waits", config=gate.config)
    hooks.install_hook(daemon)
    address = hooks.listen(daemon)
    for last in ("let through", "second signal"):
        daemon.start(**popen)
        for _ in range(3):
            daemon.await_job(daemon.submit("ok"), "succeeded")
            job_id = ask(address, signed(b"{}")).json["job_id"]
            daemon.await_job(job_id, "succeeded")
        assert ask(address, signed(b"{}", secret="another secret altogether")).status == 403
        job = daemon.submit("waits")
        gate.arrived()
        daemon.send(signal.SIGTERM)
        daemon.await_note("STOPPING=1")
        if last == "let through":
            gate.let_through()
            daemon.ends(0)
            assert daemon.job(job)[0] == "succeeded"
        else:
            daemon.stop()
            assert daemon.job(job)[0] == "queued"
        daemon.notes.clear()


def test_a_pipe_that_nobody_reads_keeps_the_daemon_from_nothing(daemon: RealDaemon, gate: Gate) -> None:
    reader, writer = full_pipe()
    try:
        works_and_stops(daemon, gate, stdout=writer)
        assert os.get_blocking(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_syslog_that_nobody_reads_keeps_the_daemon_from_nothing(daemon: RealDaemon, gate: Gate) -> None:
    with full_syslog(daemon):
        works_and_stops(daemon, gate)


def test_what_waits_is_written_once_the_reader_reads_again(daemon: RealDaemon) -> None:
    daemon.install("ok")
    reader, writer = full_pipe()
    try:
        daemon.start(stdout=writer)
        daemon.await_job(daemon.submit("ok"), "succeeded")
        text = b""
        # The daemon has nothing else to do meanwhile.
        while b'"job ended"' not in text:
            text += os.read(reader, 1024 * 1024)
        assert [json.loads(line)["message"] for line in text.splitlines() if b"ready" in line] == ["ready"]
        daemon.stop()
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("closed", [[0, 1, 2], [1]])
def test_a_daemon_that_was_started_without_standard_descriptors_opens_them(daemon: RealDaemon,
                                                                           closed: list[int]) -> None:
    daemon.install("ok")
    daemon.forked["closed"] = closed
    daemon.start()
    daemon.await_job(daemon.submit("ok"), "succeeded")
    assert os.readlink(f"/proc/{daemon.pid}/fd/1") == "/dev/null"
    assert os.readlink(f"/proc/{daemon.pid}/fd/0") == "/dev/null"
    daemon.stop()


def test_a_full_device_as_output_ends_nothing(daemon: RealDaemon) -> None:
    daemon.install("ok")
    with open("/dev/full", "wb") as full:
        daemon.start(stdout=full)
    daemon.await_job(daemon.submit("ok"), "succeeded")
    daemon.stop()


def test_every_line_of_the_log_is_one_json_object_with_its_four_first_keys(daemon: RealDaemon) -> None:
    daemon.plugin("speaks", """#!/bin/sh
printf 'first\\nsecond \\303\\251\\n' >&2
printf '%s' '{"status": "ok", "logs": [{"level": "warn", "message": "two\\nlines"}]}'
""")
    daemon.start()
    job = daemon.submit("speaks")
    daemon.await_job(job, "succeeded")
    daemon.stop()
    for line in daemon.lines():
        assert list(line)[:4] == ["timestamp", "level", "component", "message"]
    [said] = daemon.log("two\nlines", job_id=job)
    assert (said["level"], said["component"], said["plugin"]) == ("warn", "plugin", "speaks")
    [complained] = daemon.log("plugin stderr", job_id=job)
    assert (complained["level"], complained["stderr"]) == ("warn", "first\nsecond é\n")


def test_the_log_level_leaves_out_what_is_below_it(daemon: RealDaemon) -> None:
    daemon.install("fails", retry={"max_attempts": 1})
    daemon.configure(service={"log_level": "error"})
    daemon.start()
    daemon.await_job(daemon.submit("fails"), "dead")
    daemon.stop()
    assert daemon.lines() == []


def test_a_reader_that_is_slow_delays_lines_and_loses_none(daemon: RealDaemon) -> None:
    daemon.install("ok")
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    daemon.start(stdout=writer)
    os.close(writer)
    jobs = [daemon.submit("ok") for _ in range(20)]
    with open(daemon.output, "wb") as output:
        copier = subprocess.Popen(["cat"], stdin=reader, stdout=output)
        os.close(reader)
        daemon.await_job(jobs[-1], "succeeded")
        daemon.stop()
        assert copier.wait(20) == 0
    assert Counter(line["job_id"] for line in daemon.log("job ended")) == Counter(jobs)
