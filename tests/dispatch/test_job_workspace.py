"""What passes from one job's workspace to the next, with real directories and a real ledger."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ductile.dispatch.job_workspace import Inherited, clone, complete, inherited, stopped, with_portable_paths
from ductile.dispatch.outcome import Failed, Interrupted, Outcome, Refused, Succeeded
from ductile.pipeline import version_table
from ductile.pipeline.graph import Node, Pipeline, build
from ductile.protocol import decode_response
from ductile.queue.job import Job, Status
from ductile.routing.router import Router
from ductile.workspace import artifact_table
from ductile.workspace.artifact import Artifact
from ductile.workspace.manager import ClonedWorkspace, Workspaces
from support.clock import START
from support.launch import descriptors, in_a_child, writable_by_all
from support.ledger import opened, put_job
from workspace.trees import JOB, NOT_UTF8, OTHER, PARENT, made, mode, never, tree, write

NO_ROUTES = Router(())
ANSWER = decode_response(b'{"status": "ok", "state_updates": {"token": "new"}, "logs": [{"message": "said"}]}')
SUCCESS = Succeeded(response=ANSWER, exit_code=0, stderr="complained")
SECONDS = 30


def pipeline(**deep: bool) -> Pipeline:
    """Steps in a row, each with whether it asks for a deep copy."""
    names = list(deep)
    return build(name="wisdom", on="asked", entry=tuple(names[:1]), nodes=[
        Node(id=name, plugin="echo", command="handle", deep_copy=deep[name], next=tuple(names[number + 1:number + 2]))
        for number, name in enumerate(names)])


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened(tmp_path) as conn:
        yield conn


@pytest.fixture
def workspaces(tmp_path: Path) -> Iterator[Workspaces]:
    made = Workspaces(tmp_path / "ws")
    made.make_root()
    before = descriptors()
    yield made
    assert descriptors() == before


@pytest.fixture
def fixed() -> Iterator[Callable[[Path, str], None]]:
    """A function that makes a file immutable (`+i`), even for root."""
    held: list[Path] = []

    def change(path: Path, how: str) -> None:
        if shutil.which("chattr") is None:
            pytest.skip("there is no chattr")
        if subprocess.run(["chattr", how, path], capture_output=True, timeout=SECONDS).returncode != 0:
            pytest.skip("this user, or this file system, has no immutable files")
        held.append(path)

    yield change
    for path in held:
        subprocess.run(["chattr", "-i", path], check=True, timeout=SECONDS)


def child(conn: sqlite3.Connection, **fields: Any) -> Job:
    """A job that follows from PARENT, which has succeeded."""
    put_job(conn, PARENT, Status.SUCCEEDED)
    return put_job(conn, JOB, Status.RUNNING, parent_job_id=PARENT, root_job_id=PARENT, **fields)


def recorded(conn: sqlite3.Connection, workspaces: Workspaces, files: dict[str, str]) -> dict[str, Artifact]:
    """Make the parent's files and record them, as its success does."""
    found = made(workspaces, files)
    artifact_table.add(conn, PARENT, found.values())
    return found


def source(artifacts: dict[str, Artifact], *, deep: bool = False) -> Inherited:
    return Inherited(parent_id=PARENT, artifacts=artifacts, deep=deep)


# What a job starts from


def test_a_job_without_a_parent_starts_from_nothing(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    workspaces.create(OTHER)
    assert inherited(conn, put_job(conn, OTHER), NO_ROUTES, workspaces) is None


def test_a_parent_that_left_nothing_is_nothing_to_start_from(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    assert inherited(conn, child(conn), NO_ROUTES, workspaces) is None


def test_a_job_starts_from_what_the_ledger_says_of_its_parent(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one", "sub/b": "two", NOT_UTF8: "odd"})
    assert inherited(conn, job, NO_ROUTES, workspaces) == source(artifacts)
    assert set(artifacts) == {"a", "sub/b", NOT_UTF8}


def test_files_that_are_gone_are_still_what_a_job_starts_from(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one"})
    workspaces.cleanup(PARENT)
    assert inherited(conn, job, NO_ROUTES, workspaces) == source(artifacts)


def test_a_parent_with_links_and_directories_alone_is_started_from(conn: sqlite3.Connection,
                                                                   workspaces: Workspaces) -> None:
    job = child(conn)
    (workspaces.create(PARENT) / "link").symlink_to("nowhere")
    assert inherited(conn, job, NO_ROUTES, workspaces) == source({})


@pytest.mark.parametrize(("step_id", "deep"), [("links", False), ("copies", True), ("unknown", False)])
@pytest.mark.parametrize("in_force", [True, False], ids=["version in force", "older version"])
def test_a_step_says_whether_it_wants_a_copy(conn: sqlite3.Connection, workspaces: Workspaces, step_id: str,
                                             deep: bool, in_force: bool) -> None:
    began_with = pipeline(links=False, copies=True)
    version_table.add(conn, [began_with], START)
    router = Router((), {"wisdom": began_with if in_force else pipeline(links=True, copies=False)})
    job = child(conn, pipeline_name="wisdom", pipeline_hash=began_with.hash, step_id=step_id)
    workspaces.create(PARENT)
    assert inherited(conn, job, router, workspaces).deep is deep


# The clone


def test_a_clone_shares_its_parents_files(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one", "sub/b": "two"})
    found = clone(job, source(artifacts), workspaces, never)
    assert found == ClonedWorkspace(path=workspaces.root / JOB)
    assert tree(workspaces.root / JOB) == tree(workspaces.root / PARENT)
    assert os.path.samefile(workspaces.root / JOB / "a", workspaces.root / PARENT / "a")


def test_a_deep_clone_has_files_of_its_own_that_it_may_write(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one"})
    clone(job, source(artifacts, deep=True), workspaces, never)
    assert tree(workspaces.root / JOB) == {"a": "file 0644 one"}
    assert not os.path.samefile(workspaces.root / JOB / "a", workspaces.root / PARENT / "a")


def test_what_was_put_there_after_the_parent_ended_is_left_out(conn: sqlite3.Connection,
                                                              workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one"})
    write(workspaces.root / PARENT / "late", "x")
    found = clone(job, source(artifacts), workspaces, never)
    assert found.warnings == ("files left out because they were added to the input workspace after its job "
                              "ended: late",)
    assert list(tree(workspaces.root / JOB)) == ["a"]


LOST = f"files of job {PARENT}'s workspace have changed: %s; replay job {PARENT} to create them again"


@pytest.mark.parametrize(("spoil", "what"), [
    (lambda parent: (parent / "a").unlink(), "a (gone)"),
    (lambda parent: subprocess.run(["rm", "-r", parent], check=True, timeout=SECONDS), "a (gone), sub/b (gone)"),
    (lambda parent: ((parent / "a").chmod(0o644), (parent / "a").write_text("two")), "a (changed)"),
    (lambda parent: ((parent / "a").unlink(), (parent / "a").mkdir()), "a (no longer a regular file)"),
    (lambda parent: ((parent / "a").unlink(), (parent / "a").symlink_to("sub/b")), "a (no longer a regular file)"),
])
def test_input_that_is_lost_fails_the_job_for_good_by_name(
    conn: sqlite3.Connection, workspaces: Workspaces, spoil: Callable[[Path], object], what: str,
) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one", "sub/b": "two"})
    spoil(workspaces.root / PARENT)
    assert clone(job, source(artifacts), workspaces, never) == Refused(error=LOST % what)


def test_a_name_in_an_error_is_fit_for_one_line(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a\n\x1b[31m": "one"})
    (workspaces.root / PARENT / "a\n\x1b[31m").unlink()
    assert clone(job, source(artifacts), workspaces, never).error == LOST % "a\\n\\x1b[31m (gone)"


def test_a_clone_that_is_given_up_is_interrupted(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one"})
    assert clone(job, source(artifacts), workspaces, lambda: True) == Interrupted(
        by="stop", error="interrupted by a stop of the daemon")


def test_a_clone_that_may_work_later_raises_what_the_system_says(
    conn: sqlite3.Connection, workspaces: Workspaces, fixed: Callable[[Path, str], None],
) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one"})
    fixed(workspaces.create(JOB), "+i")
    with pytest.raises(OSError) as caught:
        clone(job, source(artifacts), workspaces, never)
    assert caught.value.errno == errno.EPERM


# Completion


def test_the_files_of_a_success_are_listed_and_sealed(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    job = put_job(conn, JOB, Status.RUNNING)
    write(workspaces.create(JOB) / "a", "one")
    outcome, warnings = complete(job, None, SUCCESS, workspaces, never)
    (artifact,) = outcome.artifacts
    assert (outcome, warnings) == (replace(SUCCESS, artifacts=(artifact,)), ())
    assert (artifact.path, artifact.size, mode(workspaces.root / JOB / "a")) == ("a", 3, 0o444)


@pytest.mark.parametrize("exists", [True, False])
def test_a_success_without_files_is_as_it_was(conn: sqlite3.Connection, workspaces: Workspaces, exists: bool) -> None:
    if exists:
        workspaces.create(JOB)
    assert complete(put_job(conn, JOB, Status.RUNNING), None, SUCCESS, workspaces, never) == (SUCCESS, ())


def test_what_is_handed_on_and_what_is_new_are_all_listed(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one", "b": "two"})
    clone(job, source(artifacts), workspaces, never)
    (workspaces.root / JOB / "b").unlink()
    write(workspaces.root / JOB / "c", "three")
    outcome, _ = complete(job, source(artifacts), SUCCESS, workspaces, never)
    assert [each.path for each in outcome.artifacts] == ["a", "c"]
    assert outcome.artifacts[0] == artifacts["a"]


def test_what_cannot_be_handed_on_is_a_warning(conn: sqlite3.Connection, workspaces: Workspaces) -> None:
    job = put_job(conn, JOB, Status.RUNNING)
    os.mkfifo(workspaces.create(JOB) / "fifo")
    outcome, warnings = complete(job, None, SUCCESS, workspaces, never)
    assert (type(outcome), warnings) == (Succeeded, (
        "files not handed on because they are sockets, devices or FIFOs: fifo",))


def kept_of(outcome: Outcome) -> tuple[Any, ...]:
    return outcome.response, outcome.exit_code, outcome.stderr


def test_a_shared_file_that_was_changed_in_place_refuses_the_job_by_name(conn: sqlite3.Connection,
                                                                         workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one"})
    clone(job, source(artifacts), workspaces, never)
    shared = workspaces.root / JOB / "a"
    shared.chmod(0o644)
    shared.write_text("two")
    outcome, warnings = complete(job, source(artifacts), SUCCESS, workspaces, never)
    assert (type(outcome), outcome.is_overruled, warnings, kept_of(outcome)) == (Refused, True, (), kept_of(SUCCESS))
    assert outcome.error == (
        f"job {JOB} changed a file in place that it shares with job {PARENT}'s workspace: a; "
        "replace it (write a new file and rename) or give the step workspace: copy")


def test_files_that_cannot_be_kept_fail_the_attempt_by_their_portable_path(
    conn: sqlite3.Connection, workspaces: Workspaces, fixed: Callable[[Path, str], None],
) -> None:
    job = put_job(conn, JOB, Status.RUNNING)
    write(workspaces.create(JOB) / "sub" / "a", "one", mode=0o644)
    (workspaces.root / JOB / "sub").chmod(0o500)
    fixed(workspaces.root / JOB / "sub", "+i")
    outcome, warnings = complete(job, None, SUCCESS, workspaces, never)
    assert (type(outcome), outcome.is_overruled, warnings, kept_of(outcome)) == (Failed, True, (), kept_of(SUCCESS))
    assert outcome.error == "its files could not be kept: Operation not permitted: workspace://sub"


def test_a_file_that_this_user_cannot_read_fails_the_attempt_by_its_portable_path() -> None:
    def as_nobody(place: Path) -> str:
        workspaces = Workspaces(place / "ws")
        with opened(place) as conn:
            job = put_job(conn, JOB, Status.RUNNING)
            return complete(job, None, SUCCESS, workspaces, never)[0].error

    if os.geteuid() != 0:
        pytest.skip("only root can leave somebody else's file")
    with writable_by_all() as place:
        write(place / "ws" / JOB / "theirs", "root's", mode=0o600)
        for each in (place / "ws", place / "ws" / JOB):
            each.chmod(0o777)
        assert in_a_child(as_nobody, place, ordinary=True) == (
            "its files could not be kept: Permission denied: workspace://theirs")


def test_a_completion_that_is_given_up_is_interrupted_and_what_was_said_is_kept(conn: sqlite3.Connection,
                                                                               workspaces: Workspaces) -> None:
    job = put_job(conn, JOB, Status.RUNNING)
    write(workspaces.create(JOB) / "a", "one")
    outcome, warnings = complete(job, None, SUCCESS, workspaces, lambda: True)
    assert (outcome, warnings) == (replace(
        stopped(), response=ANSWER, exit_code=0, stderr="complained", is_overruled=True), ())


# Texts


@pytest.mark.parametrize(("text", "expected"), [
    ("{root}/{JOB}/a", "workspace://a"), ("{root}/{PARENT}/a/b: gone", "workspace://a/b: gone"),
    ("{root}/{JOB}", "workspace://"), ("{root}/{JOB}x/a", "{root}/{JOB}x/a"), ("{root}/{OTHER}/a", "{root}/{OTHER}/a"),
])
def test_a_text_loses_the_place_of_the_job_and_of_its_parent(conn: sqlite3.Connection, workspaces: Workspaces,
                                                            text: str, expected: str) -> None:
    names = {"root": workspaces.root, "JOB": JOB, "PARENT": PARENT, "OTHER": OTHER}
    assert with_portable_paths(text.format(**names), child(conn), workspaces) == expected.format(**names)


def test_a_later_job_of_a_chain_starts_from_what_its_own_parent_had(conn: sqlite3.Connection,
                                                                    workspaces: Workspaces) -> None:
    job = child(conn)
    artifacts = recorded(conn, workspaces, {"a": "one"})
    clone(job, inherited(conn, job, NO_ROUTES, workspaces), workspaces, never)
    write(workspaces.root / JOB / "b", "two")
    outcome, _ = complete(job, source(artifacts), SUCCESS, workspaces, never)
    artifact_table.add(conn, JOB, outcome.artifacts)
    last = put_job(conn, OTHER, Status.RUNNING, parent_job_id=JOB, root_job_id=PARENT, now=START + timedelta(seconds=1))
    found = inherited(conn, last, NO_ROUTES, workspaces)
    assert (found.parent_id, sorted(found.artifacts), found.artifacts["a"]) == (JOB, ["a", "b"], artifacts["a"])
