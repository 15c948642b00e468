"""A workspace that takes long to clone, or has no room: the queue waits, a stop does not, nothing half made counts."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from support.chains import (
    await_rest,
    await_that,
    contents,
    emit,
    files,
    is_sound,
    job_of,
    pipeline,
    seen,
    step,
    uses,
    workspace,
)
from support.daemon import RealDaemon
from support.gate import Gate

# So many files are not copied in an instant.
_MANY = 20_000
_FEW = 500
_BYTES = 1024 * 1024


def a_long_clone(daemon: RealDaemon, count: int) -> str:
    """Have a job's workspace copied, which has so many files; return the job's id when there is something of it."""
    step(daemon, "one", write={"a": "a"}, links=count)
    step(daemon, "two", write={"b": "b"})
    daemon.pipelines(pipeline("p", *uses("one"), {"id": "two", "uses": "two", "workspace": "copy"}))
    daemon.configure(service={"shutdown_grace": "1d"})
    daemon.start()
    emit(daemon, "go")
    await_that(daemon, lambda: daemon.rows("SELECT count(*) FROM job_queue") == [(2,)])
    job = job_of(daemon, "two")
    here = workspace(daemon, job)
    await_that(daemon, lambda: here.exists() and any(here.iterdir()))
    return job


def test_a_second_stop_ends_a_long_clone_and_its_job_goes_back_with_its_attempt_not_counted(
        daemon: RealDaemon) -> None:
    job = a_long_clone(daemon, _MANY)
    daemon.send(signal.SIGTERM)
    daemon.await_log("stopping", running_job_id=job)
    daemon.stop(signal.SIGINT)
    assert daemon.job(job) == ("queued", 1, "interrupted by a stop of the daemon")
    assert (daemon.attempts(job), seen(daemon, "two")) == ([(1, "interrupted")], [])
    assert not workspace(daemon, job).exists()
    assert daemon.rows("SELECT count(*) FROM artifacts WHERE job_id = ?", job) == [(0,)]
    assert is_sound(daemon)
    # The next start goes on with it.
    daemon.start()
    daemon.await_log("job started", 2, job_id=job)
    await_that(daemon, lambda: workspace(daemon, job).exists())


def test_within_its_grace_a_stop_lets_a_clone_and_its_plugin_finish(daemon: RealDaemon) -> None:
    job = a_long_clone(daemon, _FEW)
    daemon.send(signal.SIGTERM)
    daemon.await_log("stopping", running_job_id=job)
    daemon.ends(0)
    assert daemon.attempts(job) == [(1, "succeeded")]
    assert len(os.listdir(workspace(daemon, job))) == _FEW + 2


def test_what_comes_while_a_workspace_is_cloned_is_taken_at_once(daemon: RealDaemon) -> None:
    job = a_long_clone(daemon, _MANY)
    # The loop goes on: it answers a reload before the clone is done.
    daemon.send(signal.SIGHUP)
    daemon.await_log("configuration reloaded")
    assert (daemon.job(job)[0], seen(daemon, "two")) == ("running", [])


@pytest.fixture
def disk(daemon: RealDaemon) -> Iterator[None]:
    """The workspaces, as a file system of four megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system to fill")
    place = daemon.data / "ws"
    place.mkdir(mode=0o700, parents=True)
    place.parent.chmod(0o700)
    options = ["-t", "tmpfs", "-o", "size=4m,mode=0700", "ductile-test"]
    if subprocess.run(["mount", *options, place], capture_output=True, check=False, timeout=20).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield
    daemon.close()
    subprocess.run(["umount", place], check=True, timeout=20)


def test_a_copy_that_finds_no_room_waits_for_it_and_says_so(daemon: RealDaemon, disk: None, gate: Gate) -> None:
    step(daemon, "one", write={"large": "x" * _BYTES})
    step(daemon, "waits", **gate.config)
    step(daemon, "two", write={"b": "b"})
    daemon.pipelines(pipeline("p", *uses("one"), {"split": [
        *uses("waits"), {"id": "two", "uses": "two", "workspace": "copy"}]}))
    daemon.start()
    emit(daemon, "go")
    gate.arrived()
    ballast = daemon.data / "ws" / "ballast"
    ballast.write_bytes(bytes(5 * _BYTES // 2))
    gate.let_through()
    job = job_of(daemon, "two")
    line = daemon.await_log("job not started yet", job_id=job)
    assert (line["level"], line["plugin"], line["error"]) == (
        "warn", "two", "could not be started: No space left on device: workspace://large")
    assert (daemon.job(job)[0], daemon.attempts(job), seen(daemon, "two")) == ("running", [], [])
    ballast.unlink()
    await_rest(daemon)
    daemon.stop()
    # The lack has used no attempt, and left nothing of what it had cut short.
    assert daemon.attempts(job) == [(1, "succeeded")]
    assert files(workspace(daemon, job)) == {"large": "x" * _BYTES, "b": "b"}
    assert set(contents(seen(daemon, "two")[0])) == {"large"}
    assert is_sound(daemon)


def test_a_stop_does_not_wait_for_room(daemon: RealDaemon, disk: None) -> None:
    step(daemon, "one", write={"large": "x" * _BYTES})
    step(daemon, "two")
    daemon.pipelines(pipeline("p", *uses("one"), {"id": "two", "uses": "two", "workspace": "copy"}))
    daemon.configure(service={"shutdown_grace": "0s"})
    (daemon.data / "ws" / "ballast").write_bytes(bytes(5 * _BYTES // 2))
    daemon.start()
    emit(daemon, "go")
    daemon.await_log("job not started yet", plugin="two")
    daemon.stop()
    job = job_of(daemon, "two")
    assert (daemon.job(job)[:2], daemon.attempts(job)) == (("queued", 1), [(1, "interrupted")])
    assert not workspace(daemon, job).exists()
