from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ductile.db import transaction
from ductile.dispatch import attempt, transactions
from ductile.dispatch.attempt import AttemptEnd, Inputs, NotNow, plugin_environment
from ductile.dispatch.outcome import Refused, Succeeded, Unrunnable
from ductile.dispatch.run_lock import RunLocks
from ductile.dispatch.runner import Run, become_subreaper
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.queue.job import Status
from ductile.state import state_table
from ductile.workspace.manager import Workspaces
from support import worlds
from support.clock import START
from support.launch import PATH, descriptors, in_a_child, writable_by_all
from support.ledger import opened, put_job

JOB = "0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b11"
NO_INPUTS = Inputs(state={}, context=None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def program(home: Path, text: str = "#!/bin/sh\ncat >request; echo '{\"status\": \"ok\"}'\n") -> Path:
    path = home / "run.sh"
    path.write_text(text)
    path.chmod(0o755)
    return path


def start(home: Path, plugin: ConfiguredPlugin, *, command: str = "poll", event: str | None = None) -> Run | Unrunnable:
    with opened(home) as conn:
        return start_with(conn, home, plugin, command=command, event=event)


def start_with(conn: sqlite3.Connection, home: Path, plugin: ConfiguredPlugin, *, command: str = "poll",
               event: str | None = None) -> Run | Unrunnable:
    job = put_job(conn, JOB, Status.RUNNING, command=command, payload=event)
    return attempt.start(job, plugin, transactions.read_inputs(conn, job, {}), environ={"PATH": PATH}, now=START,
                         locks=RunLocks(home / "running"), workspaces=workspaces_in(home / "ws"), cloned=None)


def workspaces_in(directory: Path) -> Workspaces:
    workspaces = Workspaces(directory)
    workspaces.make_root()
    return workspaces


@contextmanager
def no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


CANNOT_START: list[tuple[str, Callable[[Path], object], str]] = [
    ("a directory", a_directory, "Permission denied"),
    ("not executable", lambda path: path.chmod(0o644), "Permission denied"),
    ("gone", lambda path: path.unlink(), "No such file or directory"),
    ("without its interpreter", lambda path: path.write_text("#!/no/such/interpreter\n"),
     "its first line names the interpreter '/no/such/interpreter', which does not exist; install it or mend the line"),
    ("in no format that is known", lambda path: path.write_text("\n\n"), "Exec format error"),
    ("empty", lambda path: path.write_text(""), "Exec format error"),
]


@pytest.mark.parametrize(("spoil", "why"), [case[1:] for case in CANNOT_START], ids=[case[0] for case in CANNOT_START])
def test_what_cannot_be_started_is_an_outcome_and_leaves_nothing(
    home: Path, spoil: Callable[[Path], object], why: str,
) -> None:
    path = program(home)
    spoil(path)
    with no_descriptor_is_left():
        outcome = start(home, worlds.plugin(entrypoint=path))
    assert outcome == Unrunnable(error=f"could not be started: {why}: {path}")
    assert RunLocks(home / "running").release(JOB)


def another_file(path: Path) -> str:
    path.rename(path.with_name("old"))
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return "another file took its place"


def a_link(path: Path) -> str:
    path.rename(path.with_name("old"))
    path.symlink_to("old")
    return "it is a link now"


def another_mode(path: Path) -> str:
    path.chmod(0o777)
    return "its mode is 0777 and was 0755"


@pytest.mark.parametrize("swap", [another_file, a_link, another_mode])
def test_a_program_that_is_not_the_one_that_was_loaded_is_not_started(
    home: Path, swap: Callable[[Path], str],
) -> None:
    path = program(home)
    path.chmod(0o755)
    plugin = worlds.plugin(entrypoint=path)
    what = swap(path)
    with no_descriptor_is_left():
        outcome = start(home, plugin)
    assert outcome == Unrunnable(error=f"could not be started: {path} changed after it was loaded: {what}; load it with"
                                       " `ductilectl reload`")


def test_a_command_that_the_plugin_no_longer_has_is_an_outcome(home: Path) -> None:
    outcome = start(home, worlds.plugin(entrypoint=program(home)), command="dance")
    assert outcome == Refused(error="plugin echo 0.1.0 has no command 'dance'")


def test_an_environment_larger_than_the_system_takes_is_an_outcome(home: Path) -> None:
    plugin = worlds.plugin(entrypoint=program(home), env=("HUGE",))
    with opened(home) as conn, no_descriptor_is_left():
        outcome = attempt.start(
            put_job(conn, JOB, Status.RUNNING), plugin, NO_INPUTS, environ={"HUGE": "x" * 200_000}, now=START,
            workspaces=workspaces_in(home / "ws"), locks=RunLocks(home / "running"), cloned=None)
    assert outcome == Unrunnable(error=f"could not be started: Argument list too long: {plugin.plugin.entrypoint}")


def test_where_no_job_can_have_a_workspace_none_uses_its_attempt(home: Path) -> None:
    plugin = worlds.plugin(entrypoint=program(home))
    (home / "ws").write_text("a file in its place")
    with opened(home) as conn, no_descriptor_is_left(), pytest.raises(NotNow) as caught:
        attempt.start(put_job(conn, JOB, Status.RUNNING), plugin, NO_INPUTS, environ={}, now=START,
                      workspaces=Workspaces(home / "ws"), locks=RunLocks(home / "running"), cloned=None)
    assert str(caught.value) == "could not be started: Not a directory: workspace://"


@pytest.mark.parametrize("text", ["#!/bin/sh\n", None], ids=["a script", "a binary"])
def test_a_program_that_is_just_being_written_is_tried_again_soon(home: Path, text: str | None) -> None:
    path = program(home) if text is None else program(home, text)
    if text is None:
        shutil.copy(shutil.which("true"), path)
    with open(path, "ab"), no_descriptor_is_left(), pytest.raises(NotNow) as caught:
        start(home, worlds.plugin(entrypoint=path))
    assert str(caught.value) == f"could not be started: Text file busy: {path}"
    assert RunLocks(home / "running").release(JOB)


def test_a_run_that_still_lives_is_not_joined_by_another(home: Path) -> None:
    locks = RunLocks(home / "running")
    lock = locks.take()
    try:
        with no_descriptor_is_left(), pytest.raises(NotNow):
            start(home, worlds.plugin(entrypoint=program(home)))
    finally:
        os.close(lock)


def test_a_user_with_too_many_processes_is_waited_for() -> None:
    with writable_by_all() as home:
        path = program(home)
        found = in_a_child(without_processes, home, path, ordinary=True)
    assert found == (f"could not be started: Resource temporarily unavailable: {path}", errno.EAGAIN)


def without_processes(home: Path, path: Path) -> tuple[str, int]:
    """Return how a start fails for a user who may have one process, which is this one."""
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    with no_descriptor_is_left(), pytest.raises(NotNow) as caught:
        start(home, worlds.plugin(entrypoint=path))
    return str(caught.value), caught.value.__cause__.errno


def test_a_process_with_too_many_descriptors_is_waited_for_and_loses_none(home: Path) -> None:
    failures = in_a_child(start_with_ever_more_descriptors, home, program(home))
    assert len(failures) > 5
    assert {number for _, number in failures} == {errno.EMFILE}
    assert all(text.startswith("could not be started: Too many open files: ") for text, _ in failures)


def start_with_ever_more_descriptors(home: Path, path: Path) -> list[tuple[str, int]]:
    """Start with no descriptor to spare, with one, with two, until it is enough. Return how each start failed."""
    become_subreaper()
    failures: list[tuple[str, int]] = []
    with opened(home) as conn:
        job = put_job(conn, JOB, Status.RUNNING)
        workspaces = workspaces_in(home / "ws")
        while True:
            with no_descriptor_is_left(), few_descriptors(spare=len(failures)):
                try:
                    run = attempt.start(
                        job, worlds.plugin(entrypoint=path), NO_INPUTS, environ={"PATH": PATH}, now=START,
                        workspaces=workspaces, locks=RunLocks(home / "running"), cloned=None)
                    run.wait()
                    return failures
                except NotNow as error:
                    failures.append((str(error), error.__cause__.errno))


@contextmanager
def few_descriptors(*, spare: int) -> Iterator[None]:
    """Let this process open `spare` descriptors and no more."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, usual[1]))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for fd in taken[len(taken) - spare:]:
            os.close(fd)
        del taken[len(taken) - spare:]
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


def test_a_full_disk_is_waited_for(home: Path) -> None:
    path = program(home)
    full = home / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "none", full]
    if subprocess.run(mount, capture_output=True, timeout=30).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        with opened(home) as conn, no_descriptor_is_left(), pytest.raises(NotNow) as caught:
            attempt.start(put_job(conn, JOB, Status.RUNNING), worlds.plugin(entrypoint=path), NO_INPUTS,
                          environ={"PATH": PATH}, now=START, workspaces=workspaces_in(full),
                          locks=RunLocks(home / "running"), cloned=None)
    finally:
        subprocess.run(["umount", full], check=True, timeout=30)
    assert str(caught.value) == "could not be started: No space left on device: workspace://"


def test_a_plugin_is_given_its_request_and_keeps_what_it_has_made(home: Path) -> None:
    event = {"type": "manual", "payload": {"n": 1}, "source": "cli", "timestamp": "…", "event_id": "…"}
    ended = in_a_child(start_and_wait, home, program(home), json.dumps(event))
    workspace = home / "ws" / JOB
    assert json.loads((workspace / "request").read_bytes()) == {
        "protocol": 2, "job_id": JOB, "command": "handle", "config": {"key": "value"}, "state": {"token": "old"},
        "event": event, "deadline_at": "2026-02-08T10:02:00.000Z", "context": {}, "workspace_dir": str(workspace),
    }
    assert (type(ended.outcome), ended.proved_dead, ended.workspace_fault) == (Succeeded, True, None)
    assert RunLocks(home / "running").job_ids() == []


def test_a_failed_attempt_loses_its_workspace_and_the_next_finds_nothing_of_it(home: Path) -> None:
    fails = program(home, "#!/bin/sh\n[ -e left ] && exit 7\nmkdir -p left/deep; exit 3\n")
    first, second = in_a_child(start_and_wait_twice, home, fails)
    assert (first.outcome.exit_code, second.outcome.exit_code) == (3, 3)
    assert list((home / "ws").iterdir()) == []


def start_and_wait_twice(home: Path, path: Path) -> tuple[AttemptEnd, AttemptEnd]:
    return start_and_wait(home / "1", path, ws=home / "ws"), start_and_wait(home / "2", path, ws=home / "ws")


def start_and_wait(home: Path, path: Path, event: str | None = None, *, ws: Path | None = None) -> AttemptEnd:
    become_subreaper()
    home.mkdir(exist_ok=True)
    workspaces, locks = workspaces_in(ws or home / "ws"), RunLocks(home / "running")
    plugin = worlds.plugin(entrypoint=path, config={"key": "value"})
    with opened(home) as conn:
        with transaction(conn):
            state_table.put(conn, "echo", {"token": "old"}, START)
        job = put_job(conn, JOB, Status.RUNNING, command="handle" if event else "poll", payload=event)
        run = attempt.start(job, plugin, transactions.read_inputs(conn, job, {}), environ={"PATH": PATH},
                            workspaces=workspaces, locks=locks, now=START, cloned=None)
        assert isinstance(run, Run)
        return attempt.ended(run.wait(), job, 30, parent=None, workspaces=workspaces, locks=locks,
                             aborted=lambda: False)


def test_of_the_environment_a_plugin_gets_what_it_needs_and_no_secret() -> None:
    passed = dict.fromkeys(("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_TIME", "TZ", "TMPDIR",
                            "TOKEN"), "x")
    environ = {**passed, "SECRET": "s", "NOTIFY_SOCKET": "s", "DUCTILE_CONFIG": "s", "LCX": "s", "DUCTILE_JOB_ID": "s"}
    plugin = worlds.plugin("withings", env=("TOKEN", "NOT_SET"))
    found = plugin_environment(environ, plugin, job_id=JOB, attempt=2, workspace=Path("/ws/job"))
    assert found == passed | {"DUCTILE_JOB_ID": JOB, "DUCTILE_ATTEMPT": "2", "DUCTILE_PLUGIN": "withings",
                              "DUCTILE_WORKSPACE": "/ws/job"}
