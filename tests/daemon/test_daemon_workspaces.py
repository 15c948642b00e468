"""Workspaces of a chain in the running daemon: half-made files that nobody sees, files that were changed or went."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.chains import (
    AGAIN,
    await_a_beat,
    await_rest,
    await_that,
    contents,
    ctl,
    emit,
    ends,
    event,
    files,
    job_of,
    pipeline,
    run,
    seen,
    step,
    uses,
    workspace,
)
from support.daemon import RealDaemon
from support.gate import Gate

_SCRIBBLES = pytest.mark.parametrize("way", [
    {"scribble": "a", "unseal": ["a"]}, pytest.param({"scribble": "a"}, marks=pytest.mark.skipif(
        os.geteuid() != 0, reason="the seal holds back all but root"))], ids=["unsealed", "sealed"])


def changed(job: str, parent: str, path: str) -> str:
    return (f"job {job} changed a file in place that it shares with job {parent}'s workspace: {path}; replace it "
            f"(write a new file and rename) or give the step workspace: copy")


def lost(parent: str, *found: str) -> str:
    return (f"files of job {parent}'s workspace have changed: {', '.join(found)}; replay job {parent} to create "
            f"them again")


def a_scribbler_beside_a_reader(daemon: RealDaemon, *steps: dict, **config: object) -> None:
    step(daemon, "one", write={"a": "a", "b": "b"})
    step(daemon, "scribbler", **config)
    step(daemon, "reader", write={"c": "c"})
    daemon.pipelines(pipeline("p", *uses("one"), {"split": list(steps)}))


# Attempts


@pytest.mark.parametrize("way", ["fails", "hangs", "exits"])
def test_what_an_attempt_half_made_is_never_seen_by_the_next(daemon: RealDaemon, way: str) -> None:
    step(daemon, "one", write={"kept": "1", "replaced": "1", "gone": "1"})
    step(daemon, "two", write={"half": "2", "replaced": "2"}, remove=["gone"],
         **({"exits": 3} if way == "exits" else {way: 1}),
         settings={"timeouts": {"handle": "1s"}, "retry": {**AGAIN, "max_attempts": 2}})
    step(daemon, "three")
    daemon.pipelines(pipeline("p", *uses("one", "two", "three")))
    run(daemon)
    for attempt in seen(daemon, "two"):
        assert contents(attempt) == {"kept": "1", "replaced": "1", "gone": "1"}
    first, second = daemon.attempts(job_of(daemon, "two"))
    assert first == (1, {"fails": "failed", "hangs": "timed_out", "exits": "failed"}[way])
    here = workspace(daemon, job_of(daemon, "two"))
    if way == "exits":
        assert (second, here.exists(), seen(daemon, "three")) == ((2, "failed"), False, [])
    else:
        assert (second, files(here)) == ((2, "succeeded"), {"kept": "1", "half": "2", "replaced": "2"})
        assert contents(seen(daemon, "three")[0]) == files(here)
    assert files(workspace(daemon, job_of(daemon, "one"))) == {"kept": "1", "replaced": "1", "gone": "1"}


# The seal


def test_an_ordinary_users_plugin_cannot_write_into_what_it_was_handed(users_daemon: RealDaemon) -> None:
    a_scribbler_beside_a_reader(users_daemon, *uses("scribbler", "reader"), scribble="a")
    run(users_daemon)
    assert ends(users_daemon) == [("one", "succeeded", None), ("scribbler", "dead", "Permission denied: a"),
                                  ("reader", "succeeded", None)]
    assert contents(seen(users_daemon, "reader")[0]) == {"a": "a", "b": "b"}


@_SCRIBBLES
def test_a_file_that_was_changed_in_place_in_spite_of_the_seal_ends_the_step_and_its_siblings_by_name(
        daemon: RealDaemon, way: dict) -> None:
    a_scribbler_beside_a_reader(daemon, *uses("scribbler", "reader"), **way)
    [root] = run(daemon)
    job = job_of(daemon, "scribbler")
    assert ends(daemon) == [("one", "succeeded", None), ("scribbler", "dead", changed(job, root, "a")),
                            ("reader", "dead", lost(root, "a (changed)"))]
    # Both for good: no further attempt would find the file as it was.
    assert [daemon.attempts(each) for each in (job, job_of(daemon, "reader"))] == [[(1, "failed")]] * 2
    assert (len(seen(daemon, "scribbler")), seen(daemon, "reader")) == (1, [])
    assert not [each for each in ("scribbler", "reader") if workspace(daemon, job_of(daemon, each)).exists()]


def test_a_failing_attempt_that_changed_a_file_in_place_finds_it_refused_by_name_in_its_retry(
        daemon: RealDaemon) -> None:
    a_scribbler_beside_a_reader(daemon, *uses("scribbler"), scribble="a", unseal=["a"], fails=1)
    [root] = run(daemon)
    job = job_of(daemon, "scribbler")
    assert ends(daemon)[1:] == [("scribbler", "dead", lost(root, "a (changed)"))]
    assert (daemon.attempts(job), len(seen(daemon, "scribbler"))) == ([(1, "failed"), (2, "failed")], 1)


def test_a_file_that_a_failed_attempt_has_unsealed_is_sealed_again_for_the_next(daemon: RealDaemon) -> None:
    a_scribbler_beside_a_reader(daemon, *uses("scribbler"), unseal=["a"], fails=1)
    [root] = run(daemon)
    assert {row[1:] for row in ends(daemon)} == {("succeeded", None)}
    assert [each["files"]["a"][1] & 0o222 for each in seen(daemon, "scribbler")] == [0, 0]
    # The second attempt has unsealed it too, and its success has sealed it.
    assert (workspace(daemon, root) / "a").stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("order", [("scribbler", "reader"), ("reader", "scribbler")])
def test_a_step_with_a_copy_of_its_own_may_write_and_its_sibling_is_unharmed(
        daemon: RealDaemon, order: tuple[str, str]) -> None:
    steps = {"scribbler": {"uses": "scribbler", "workspace": "copy"}, "reader": {"uses": "reader"}}
    a_scribbler_beside_a_reader(daemon, *(steps[name] for name in order), scribble="a")
    [root] = run(daemon)
    assert {row[1:] for row in ends(daemon)} == {("succeeded", None)}
    assert contents(seen(daemon, "reader")[0]) == contents(seen(daemon, "scribbler")[0]) == {"a": "a", "b": "b"}
    assert files(workspace(daemon, root)) == {"a": "a", "b": "b"}
    own = workspace(daemon, job_of(daemon, "scribbler"))
    assert files(own) == {"a": "ascribbled", "b": "b"}
    assert (own / "b").stat().st_ino != (workspace(daemon, root) / "b").stat().st_ino
    # Its owner may write a copy while it is the step's own, and nobody once it is handed on.
    assert {mode & 0o222 for _, mode, _ in seen(daemon, "scribbler")[0]["files"].values()} == {0o200}
    assert {(own / name).stat().st_mode & 0o222 for name in "ab"} == {0}


def test_an_ordinary_users_step_with_a_copy_of_its_own_may_write_it(users_daemon: RealDaemon) -> None:
    a_scribbler_beside_a_reader(users_daemon, {"uses": "scribbler", "workspace": "copy"}, *uses("reader"), scribble="a")
    run(users_daemon)
    assert {row[1:] for row in ends(users_daemon)} == {("succeeded", None)}
    assert files(workspace(users_daemon, job_of(users_daemon, "scribbler"))) == {"a": "ascribbled", "b": "b"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave a file that its finder cannot read")
def test_a_file_that_the_daemon_cannot_read_fails_the_attempt_by_name_and_names_no_place(
        users_daemon: RealDaemon) -> None:
    with closing(Gate(users_daemon.home)) as gate:
        step(users_daemon, "one", **gate.config, settings={"retry": {"max_attempts": 1}})
        users_daemon.start()
        job = users_daemon.submit("one")
        gate.arrived()
        secret = workspace(users_daemon, job) / "secret"
        secret.touch(0o600)
        gate.let_through()
        users_daemon.await_job(job, "dead")
        users_daemon.stop()
        assert users_daemon.job(job) == ("dead", 1, "its files could not be kept: Permission denied: workspace://secret")


# What is gone


@pytest.fixture
def waiting(daemon: RealDaemon, gate: Gate) -> str:
    """The id of the first job of a chain, with a branch that waits at the gate and one that is queued behind it."""
    step(daemon, "one", write={name: name for name in "abcde"})
    step(daemon, "waits", **gate.config)
    step(daemon, "reader")
    daemon.pipelines(pipeline("p", *uses("one"), {"split": uses("waits", "reader")}))
    daemon.start()
    [job] = emit(daemon, "go")
    gate.arrived()
    return job


def remove_all(here: Path) -> None:
    shutil.rmtree(here)


def remove_one(here: Path) -> None:
    (here / "b").unlink()


def replace_one(here: Path) -> None:
    (here / "b").unlink()
    (here / "b").write_text("x")


def put_a_link_in_its_place(here: Path) -> None:
    (here / "b").rename(here / "elsewhere")
    (here / "b").symlink_to("elsewhere")


@pytest.mark.parametrize(("harm", "found"), [
    (remove_all, ("a (gone)", "b (gone)", "c (gone) and 2 more")),
    (remove_one, ("b (gone)",)),
    (replace_one, ("b (changed)",)),
    (put_a_link_in_its_place, ("b (no longer a regular file)",)),
])
def test_a_job_whose_input_is_not_there_any_more_is_dead_and_names_the_files(
        daemon: RealDaemon, gate: Gate, waiting: str, harm: Callable[[Path], None], found: tuple[str, ...]) -> None:
    harm(workspace(daemon, waiting))
    gate.let_through()
    await_rest(daemon)
    daemon.stop()
    job = job_of(daemon, "reader")
    assert daemon.job(job) == ("dead", 1, lost(waiting, *found))
    assert (daemon.attempts(job), seen(daemon, "reader")) == ([(1, "failed")], [])
    assert not workspace(daemon, job).exists()
    assert daemon.job(job_of(daemon, "waits"))[0] == "succeeded"


def test_a_file_that_somebody_put_there_later_is_left_out_with_a_warning(
        daemon: RealDaemon, gate: Gate, waiting: str) -> None:
    (workspace(daemon, waiting) / "f").write_text("f")
    os.mkfifo(workspace(daemon, waiting) / "g")
    gate.let_through()
    await_rest(daemon)
    daemon.stop()
    assert contents(seen(daemon, "reader")[0]) == {name: name for name in "abcde"}
    assert {(line["level"], line["warning"]) for line in daemon.log("workspace clone incomplete", plugin="reader")} == {
        ("warn", "files left out because they were added to the input workspace after its job ended: f"),
        ("warn", "files left out because they are sockets, devices or FIFOs: g")}


# The janitor


def test_the_workspaces_of_a_chain_that_has_ended_go_and_those_of_one_that_runs_stay(
        daemon: RealDaemon, gate: Gate) -> None:
    daemon.configure(service={"tick_interval": "1s"}, workspace={"ttl": "1s"})
    for name in ("one", "two"):
        step(daemon, name, event(), write={name: name})
    step(daemon, "waits", **gate.config)
    daemon.pipelines(pipeline("p", *uses("one", "two")), pipeline("q", *uses("one", "two", "waits"), on="long"))
    daemon.start()
    [ended] = emit(daemon, "go")
    [running] = emit(daemon, "long")
    gate.arrived()
    await_that(daemon, lambda: not present(daemon, ended))
    # Of the same age but for an instant.
    assert len(present(daemon, running)) == 3
    gate.let_through()
    await_that(daemon, lambda: not present(daemon, running))
    daemon.stop()
    assert daemon.log("old workspaces removed")
    assert {path.name for path in (daemon.data / "ws").iterdir()} <= {".spare"}
    links = ctl(daemon, "--json", "inspect", ended).json["chain"]
    assert [[(each["path"], each["size"], each["inherited"]) for each in link["files"]] for link in links] == [
        [("one", 3, False)], [("one", 3, True), ("two", 3, False)]]
    said = ctl(daemon, "inspect", ended).out
    assert f"file one  3 B  {links[0]['files'][0]['digest'][:12]}\n" in said
    assert "and 1 file of the job before it\n" in said


def present(daemon: RealDaemon, root: str) -> list[str]:
    """Return the jobs of a chain whose workspaces are there."""
    jobs = daemon.rows("SELECT id FROM job_queue WHERE root_job_id = ?", root)
    return [job for (job,) in jobs if workspace(daemon, job).exists()]


def test_a_chain_whose_retry_waits_keeps_its_workspaces(daemon: RealDaemon) -> None:
    daemon.configure(service={"tick_interval": "1s"}, workspace={"ttl": "1s"})
    step(daemon, "one", write={"a": "a"})
    step(daemon, "two", fails=1, settings={"retry": {"max_attempts": 2, "backoff_base": "1h"}})
    step(daemon, "other")
    daemon.pipelines(pipeline("p", *uses("one", "two")))
    daemon.start()
    [root] = emit(daemon, "go")
    daemon.until("SELECT count(*) FROM job_queue WHERE next_retry_at IS NOT NULL", [(1,)])
    # Nothing but the age of the last end tells the two chains apart from old ones.
    daemon.write("UPDATE job_queue SET completed_at = '2020-01-01T00:00:00.000Z' WHERE completed_at IS NOT NULL")
    await_a_beat(daemon)
    assert files(workspace(daemon, root)) == {"a": "a"}
    daemon.write("UPDATE job_queue SET next_retry_at = NULL WHERE next_retry_at IS NOT NULL")
    daemon.await_job(daemon.submit("other"), "succeeded")
    await_rest(daemon)
    assert contents(seen(daemon, "two")[1]) == {"a": "a"}
