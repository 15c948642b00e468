"""A full disk: what cannot be written waits, the daemon stays up, and nothing is lost when there is room again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ductile import db
from support import hooks
from support.daemon import RealDaemon
from support.gate import Gate
from support.wire import ask, head, signed

_FILES = 100


class Disk:
    """A small file system that a test fills and empties."""

    def __init__(self, place: Path) -> None:
        self._ballast = place / "ballast"

    def fill(self) -> None:
        """Leave no byte and no directory entry free."""
        self._ballast.mkdir()
        with open(self._ballast / "bytes", "wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        with suppress(OSError):
            for number in range(_FILES + 1):
                (self._ballast / str(number)).touch()

    def empty(self) -> None:
        """Make room again."""
        shutil.rmtree(self._ballast)


@pytest.fixture
def disk(daemon: RealDaemon) -> Iterator[Disk]:
    """The daemon's data directory, as a file system of four megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system to fill")
    place = daemon.data
    place.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", f"size=4m,nr_inodes={_FILES},mode=0700", "ductile-test"]
    if subprocess.run(["mount", *options, place], capture_output=True, check=False, timeout=20).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield Disk(place)
    daemon.close()
    subprocess.run(["umount", place], check=True, timeout=20)


def is_sound(daemon: RealDaemon) -> bool:
    """Say whether SQLite's full check finds nothing in the database."""
    with closing(db.connect_again(daemon.database)) as conn:
        return db.full_check(conn) == []


def test_the_end_of_a_running_job_is_kept_and_written_when_there_is_room(
        daemon: RealDaemon, disk: Disk, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    daemon.install("counts")
    daemon.start()
    running, waiting = daemon.submit("waits"), daemon.submit("counts")
    gate.arrived()
    disk.fill()
    gate.let_through()
    line = daemon.await_log("job result not saved, retrying", job_id=running)
    assert (line["level"], "SQLITE_FULL" in line["error"]) == ("error", True)
    assert (daemon.job(running)[:2], daemon.attempts(running)) == (("running", 1), [])
    assert (daemon.job(waiting)[:2], daemon.attempts(waiting)) == (("queued", 1), [])
    disk.empty()
    daemon.await_job(waiting, "succeeded")
    daemon.stop()
    assert [daemon.attempts(job) for job in (running, waiting)] == [[(1, "succeeded")], [(1, "succeeded")]]
    assert is_sound(daemon)


def test_nothing_is_claimed_and_nothing_acknowledged_that_cannot_be_written(
        daemon: RealDaemon, disk: Disk, gate: Gate) -> None:
    daemon.install("waits", config=gate.config, retry={"max_attempts": 2, "backoff_base": "1s", "backoff_max": "1s"})
    daemon.start()
    job = daemon.submit("waits")
    [plugin] = gate.arrived()
    # The first attempt fails; its retry falls due while the disk is full.
    os.kill(plugin, signal.SIGKILL)
    daemon.await_log("job ended", job_id=job, outcome="failed")
    disk.fill()
    line = daemon.await_log("the database cannot be written; trying again")
    assert (line["level"], "SQLITE_FULL" in line["error"]) == ("error", True)
    with pytest.raises(db.NotWritten, match="SQLITE_FULL"):
        daemon.submit("waits")
    assert daemon.job(job)[:2] == ("queued", 2)
    assert (gate.is_empty(), daemon.started()) == (True, [])
    disk.empty()
    gate.arrived()
    gate.let_through()
    daemon.await_job(job, "succeeded")
    daemon.stop()
    assert len(daemon.log("the database can be written again")) == 1
    assert daemon.attempts(job) == [(1, "failed"), (2, "succeeded")]
    assert daemon.rows("SELECT count(*) FROM job_queue") == [(1,)]
    assert is_sound(daemon)


def test_a_webhook_is_not_acknowledged_and_taken_when_there_is_room_again(daemon: RealDaemon, disk: Disk) -> None:
    hooks.install_waiting_hook(daemon)
    address = hooks.listen(daemon)
    daemon.start()
    assert ask(address, signed(b"{}")).status == 202
    disk.fill()
    # The log of the database may have a little room of its own.
    answers = [ask(address, signed(bytes(100_000))) for _ in range(3)]
    assert (answers[-1].status, answers[-1].headers["retry-after"], answers[-1].body) == (503, "30", b"")
    line = daemon.await_log("webhook refused", reason="the job could not be stored")
    assert (line["level"], "SQLITE_FULL" in line["error"]) == ("error", True)
    health = ask(address, head("GET", "/healthz"))
    assert (health.status, "the last write to the database failed" in health.json["reasons"]) == (503, True)
    disk.empty()
    answers.append(ask(address, signed(b"{}")))
    health = ask(address, head("GET", "/healthz"))
    assert (answers[-1].status, "the last write to the database failed" in health.json["reasons"]) == (202, False)
    stored = 1 + sum(answer.status == 202 for answer in answers)
    assert daemon.rows("SELECT count(*) FROM job_queue") == [(stored,)]
    daemon.stop()
    assert is_sound(daemon)


def test_a_stop_with_the_end_of_a_job_unwritten_says_so_and_the_next_start_runs_it_again(
        daemon: RealDaemon, disk: Disk, gate: Gate) -> None:
    daemon.configure(service={"shutdown_grace": "0s"})
    daemon.install("waits", config=gate.config)
    daemon.start()
    job = daemon.submit("waits")
    gate.arrived()
    disk.fill()
    gate.let_through()
    daemon.await_log("job result not saved, retrying", job_id=job)
    daemon.send(signal.SIGTERM)
    daemon.ends(71, "stopped before a job's result could be saved; the next start runs the job again\n")
    assert daemon.survivors() == set()
    daemon.errors.unlink()
    disk.empty()
    daemon.start()
    gate.arrived()
    gate.let_through()
    daemon.await_job(job, "succeeded")
    daemon.stop()
    assert daemon.attempts(job) == [(1, "orphaned"), (2, "succeeded")]


@pytest.mark.parametrize(("before", "file"), [
    ("nothing", "ductiled.pid"), ("stopped", "state.db"), ("killed", "state.db"),
])
def test_a_start_on_a_full_disk_says_what_cannot_be_written(
        daemon: RealDaemon, disk: Disk, before: str, file: str) -> None:
    daemon.configure(workspace={"path": "./ws"})
    if before == "stopped":
        daemon.start()
        daemon.stop()
    elif before == "killed":
        daemon.start()
        daemon.kill()
        # Whoever closes the database last takes its write-ahead log away, and with it room to write.
        daemon.rows("SELECT 1 FROM job_queue")
    disk.fill()
    run = daemon.run()
    assert (run.returncode, run.stderr.count("\n")) == (71, 1), run.stderr
    assert str(daemon.data / file) in run.stderr
    disk.empty()
    daemon.start()
    daemon.stop()
    assert is_sound(daemon)


def test_a_workspace_that_has_no_room_is_waited_for(daemon: RealDaemon, tmp_path: Path, disk: Disk) -> None:
    daemon.install("counts")
    daemon.configure(state={"path": "./ledger/state.db"}, workspace={"path": "./data/ws"})
    daemon.moved_to(tmp_path / "ledger")
    daemon.start()
    disk.fill()
    job = daemon.submit("counts")
    line = daemon.await_log("job not started yet", job_id=job)
    assert line["error"] == "could not be started: No space left on device: workspace://", line
    disk.empty()
    daemon.await_job(job, "succeeded")
    assert daemon.attempts(job) == [(1, "succeeded")]


def test_a_log_on_a_full_disk_loses_lines_and_ends_nothing(daemon: RealDaemon, tmp_path: Path, disk: Disk) -> None:
    daemon.install("counts")
    daemon.configure(service={"log": "./data/ductile.log"}, state={"path": "./ledger/state.db"},
                     workspace={"path": "./ws"})
    daemon.moved_to(tmp_path / "ledger")
    daemon.output = tmp_path / "data" / "ductile.log"
    daemon.start()
    disk.fill()
    for _ in range(20):
        daemon.await_job(daemon.submit("counts"), "succeeded")
    disk.empty()
    job = daemon.submit("counts")
    daemon.await_job(job, "succeeded")
    daemon.stop()
    assert len(daemon.log("job ended", job_id=job)) == 1
