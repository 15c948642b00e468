"""The running daemon's log: moved away, filled up or without a reader, it loses no line and ends nothing."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections import Counter

import pytest

from support.daemon import RealDaemon


def test_a_log_that_is_rotated_under_load_loses_no_line(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.configure(service={"log": "./ductile.log"})
    log = daemon.home / "ductile.log"
    daemon.start()
    jobs = []
    for number in range(6):
        jobs += [daemon.submit("ok") for _ in range(15)]
        log.rename(daemon.home / f"ductile.log.{number}")
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


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-"])
def test_a_daemon_that_was_started_without_standard_descriptors_opens_them(daemon: RealDaemon, closed: str) -> None:
    daemon.install("ok")
    daemon.become = ("sh", "-c", f'exec "$@" {closed}', "sh")
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
    [complained] = daemon.log("standard error", job_id=job)
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
