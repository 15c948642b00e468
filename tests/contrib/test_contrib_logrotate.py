"""logrotate with the shipped configuration, under a daemon that writes all the while."""

from __future__ import annotations

import grp
import gzip
import json
import os
import pwd
import shutil
import stat
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from support.daemon import RealDaemon

SHIPPED = Path(__file__).resolve().parents[2] / "contrib" / "logrotate" / "ductile"
LOGROTATE = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")
PATIENCE_SECONDS = 60
ROUNDS = 4

pytestmark = pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed")


@pytest.fixture
def rotated(daemon: RealDaemon) -> RealDaemon:
    """A daemon that logs to a file, and beside it the shipped configuration for that place and this user."""
    logs = daemon.home / "log"
    logs.mkdir(mode=0o750)
    daemon.output = logs / "ductiled.log"
    daemon.configure(service={"log": os.fspath(daemon.output)})
    owner = f"{pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
    text = SHIPPED.read_text(encoding="utf-8")
    text = text.replace("/var/log/ductile", os.fspath(logs)).replace("ductile ductile", owner)
    (daemon.home / "logrotate.conf").write_text(text, encoding="utf-8")
    return daemon


def rotate(daemon: RealDaemon, *options: str) -> None:
    done = subprocess.run(
        [LOGROTATE, "--state", daemon.home / "logrotate.state", *options, daemon.home / "logrotate.conf"],
        check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def ended(daemon: RealDaemon) -> Counter[str]:
    """Return the jobs whose end stands in the log or in one of those that were rotated, with how often."""
    found: Counter[str] = Counter()
    for path in daemon.output.parent.iterdir():
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = [json.loads(line) for line in text.splitlines()]
        found.update(line["job_id"] for line in lines if line["message"] == "job ended")
    return found


def test_rotation_under_load_loses_no_line(rotated: RealDaemon) -> None:
    rotated.install("ok")
    rotated.start()
    jobs = []
    for _ in range(ROUNDS):
        jobs += [rotated.submit("ok") for _ in range(15)]
        rotate(rotated, "--force")
        # While the next lines are being written to the file that has moved, or to the new one, and one that comes.
        jobs.append(rotated.submit("ok"))
        rotated.await_file(rotated.output, "job ended")
    rotated.await_job(jobs[-1], "succeeded")
    rotated.stop()
    assert ended(rotated) == Counter(jobs)
    names = sorted(path.name.removeprefix("ductiled.log") for path in rotated.output.parent.iterdir())
    assert names == ["", ".1", *(f".{number}.gz" for number in range(2, ROUNDS + 1))]


def test_a_rotated_log_is_for_the_owner_and_a_group_of_readers(rotated: RealDaemon) -> None:
    rotated.start()
    rotate(rotated, "--force")
    assert stat.S_IMODE(rotated.output.stat().st_mode) == 0o640
    rotated.stop()


def test_what_is_not_due_or_not_there_is_left_alone(rotated: RealDaemon) -> None:
    rotate(rotated, "--force")
    rotated.start()
    rotate(rotated)
    rotated.stop()
    assert [path.name for path in rotated.output.parent.iterdir()] == ["ductiled.log"]
