"""`ductilectl replay` and the running daemon: a step once more, from what it started with, and all that follows."""

from __future__ import annotations

import shutil

import pytest

from support.chains import (
    await_rest,
    contents,
    ctl,
    emit,
    ends,
    event,
    files,
    job_of,
    pipeline,
    seen,
    step,
    uses,
    workspace,
)
from support.daemon import RealDaemon
from support.gate import Gate

_SAME = ("SELECT plugin, command, payload, parent_job_id, root_job_id, source_event_id, event_context_id, dedupe_key,"
         " pipeline_name, pipeline_hash, step_id FROM job_queue WHERE id = ?")


def keyed(name: str) -> dict:
    return {**event(said_by=name), "dedupe_key": f"of {name}"}


@pytest.fixture
def chain(daemon: RealDaemon) -> RealDaemon:
    """A running daemon after a chain of four steps whose events all have keys; each step has made a file."""
    names = ("one", "two", "three", "four")
    for name in names:
        step(daemon, name, keyed(name), write={name: name})
    daemon.pipelines(pipeline("p", *uses(*names)))
    daemon.start()
    emit(daemon, "go", asked="why")
    await_rest(daemon)
    return daemon


def replay(daemon: RealDaemon, job: str) -> str:
    """Replay a job to the end of all that follows, and return the new job's id."""
    said = ctl(daemon, "--json", "replay", job)
    assert (said.code, said.err) == (0, "")
    assert said.json["replay_of"] == job
    await_rest(daemon)
    return said.json["job_id"]


def test_a_middle_step_runs_again_from_what_it_started_with_and_the_rest_follows(chain: RealDaemon) -> None:
    before = chain.rows("SELECT id FROM job_queue ORDER BY seq")
    job = job_of(chain, "two")
    again = replay(chain, job)
    assert chain.rows(_SAME, again) == chain.rows(_SAME, job)
    rows = chain.rows("SELECT plugin, id, parent_job_id, root_job_id, replay_of, submitted_by, status, attempt"
                      " FROM job_queue ORDER BY seq")
    root = before[0][0]
    assert [row[0] for row in rows] == ["one", "two", "three", "four", "two", "three", "four"]
    # Though each of their keys has succeeded before.
    assert [row[2:] for row in rows[4:]] == [
        (root, root, job, "replay", "succeeded", 1), (again, root, job, "pipeline", "succeeded", 1),
        (rows[5][1], root, job, "pipeline", "succeeded", 1)]
    assert [row[4] for row in rows[:4]] == [None] * 4
    for name, had in (("two", {"one"}), ("three", {"one", "two"}), ("four", {"one", "two", "three"})):
        first, second = seen(chain, name)
        assert (first["context"], first["event"]["payload"]) == (second["context"], second["event"]["payload"])
        assert set(contents(first)) == set(contents(second)) == had
        assert first["here"] != second["here"]
        # The file of the step before the replayed one is the same one, by another name.
        assert first["files"]["one"][0] == second["files"]["one"][0]
    assert files(workspace(chain, again)) == {"one": "one", "two": "two"}
    assert files(workspace(chain, job)) == {"one": "one", "two": "two"}
    # What the replay made is its own.
    assert (workspace(chain, again) / "two").stat().st_ino != (workspace(chain, job) / "two").stat().st_ino
    assert [row[:2] for row in chain.rows("SELECT job_id, status FROM job_log ORDER BY seq")] == [
        (row[1], "succeeded") for row in rows]


def test_inspect_shows_the_replay_beside_what_it_repeats(chain: RealDaemon) -> None:
    job = job_of(chain, "two")
    again = replay(chain, job)
    links = ctl(chain, "--json", "inspect", again).json["chain"]
    assert [(link["plugin"], link["depth"], link["replay_of"]) for link in links] == [
        ("one", 0, None), ("two", 1, None), ("three", 2, None), ("four", 3, None),
        ("two", 1, job), ("three", 2, job), ("four", 3, job)]
    text = ctl(chain, "inspect", job).out
    assert f"- {again[:8]} two handle, step p/two, replay of {job[:8]}: succeeded, attempt 1 of 100\n" in text


def test_a_root_can_be_replayed_too(chain: RealDaemon) -> None:
    [(root,)] = chain.rows("SELECT id FROM job_queue WHERE parent_job_id IS NULL")
    again = replay(chain, root)
    assert [row[:2] for row in ends(chain)] == [(name, "succeeded") for name in ("one", "two", "three", "four")] * 2
    assert chain.rows("SELECT root_job_id, replay_of, parent_job_id FROM job_queue WHERE id = ?", again) == [
        (root, root, None)]
    assert seen(chain, "one")[0]["context"] == seen(chain, "one")[1]["context"]


def test_a_replay_of_a_replay_names_the_one_that_it_repeats(chain: RealDaemon) -> None:
    first = replay(chain, job_of(chain, "four"))
    second = replay(chain, first)
    assert chain.rows("SELECT replay_of FROM job_queue WHERE id = ?", second) == [(first,)]
    assert [set(contents(attempt)) for attempt in seen(chain, "four")] == [{"one", "two", "three"}] * 3


def test_a_step_that_died_is_replayed_once_its_plugin_is_mended(daemon: RealDaemon) -> None:
    step(daemon, "one", keyed("one"), write={"one": "one"})
    step(daemon, "two", fails=9, write={"half": "half"}, settings={"retry": {"max_attempts": 1}})
    step(daemon, "three")
    daemon.pipelines(pipeline("p", *uses("one", "two", "three")))
    daemon.start()
    emit(daemon, "go")
    await_rest(daemon)
    dead = job_of(daemon, "two")
    # Edited since: what follows a replay follows the version that its chain began with.
    daemon.pipelines(pipeline("p", *uses("one", "two")))
    step(daemon, "two", write={"two": "two"})
    assert ctl(daemon, "reload").code == 0
    again = replay(daemon, dead)
    assert [row[:2] for row in ends(daemon)] == [
        ("one", "succeeded"), ("two", "dead"), ("two", "succeeded"), ("three", "succeeded")]
    assert daemon.rows("SELECT replay_of, parent_job_id FROM job_queue WHERE plugin = 'three'") == [(dead, again)]
    assert contents(seen(daemon, "two")[1]) == {"one": "one"}
    assert contents(seen(daemon, "three")[0]) == {"one": "one", "two": "two"}


def gone(job: str, parent: str, *paths: str) -> str:
    return (f"job {job} cannot be replayed: files that it started from, of job {parent}, are gone or changed: "
            f"{', '.join(paths)}; replay that job instead")


def test_a_replay_whose_input_files_are_gone_is_refused_by_their_names(chain: RealDaemon) -> None:
    job, parent = job_of(chain, "three"), job_of(chain, "two")
    shutil.rmtree(workspace(chain, parent))
    said = ctl(chain, "replay", job)
    assert (said.code, said.out, said.err) == (1, "", f"{gone(job, parent, 'one', 'two')}\n")
    assert chain.rows("SELECT count(*) FROM job_queue") == [(4,)]
    # Its own parent's are there: that one makes them anew, and what follows has them.
    replay(chain, parent)
    assert [row[:2] for row in ends(chain)][4:] == [(name, "succeeded") for name in ("two", "three", "four")]


def test_a_replay_whose_input_file_was_changed_is_refused_by_its_name(chain: RealDaemon) -> None:
    job, parent = job_of(chain, "three"), job_of(chain, "two")
    (workspace(chain, parent) / "two").unlink()
    (workspace(chain, parent) / "two").write_text("owt")
    said = ctl(chain, "replay", job)
    assert (said.code, said.err) == (1, f"{gone(job, parent, 'two')}\n")


def test_files_that_go_between_the_order_and_the_run_end_the_replay_by_their_names(
        daemon: RealDaemon, gate: Gate, chain: RealDaemon) -> None:
    daemon.install("waits", config=gate.config)
    assert ctl(daemon, "reload").code == 0
    daemon.submit("waits")
    gate.arrived()
    job, parent = job_of(chain, "three"), job_of(chain, "two")
    again = ctl(daemon, "replay", job).out.strip()
    (workspace(daemon, parent) / "two").unlink()
    gate.let_through()
    await_rest(daemon)
    assert daemon.job(again) == ("dead", 1, f"files of job {parent}'s workspace have changed: two (gone); "
                                            f"replay job {parent} to create them again")


def test_a_job_that_has_not_ended_is_not_replayed(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    daemon.start()
    job = daemon.submit("waits")
    gate.arrived()
    said = ctl(daemon, "replay", job)
    assert (said.code, said.err) == (
        1, f"job {job} is running: only a job that has ended can be replayed\n")


def test_a_replay_that_was_ordered_while_the_daemon_is_down_runs_when_it_is_up(chain: RealDaemon) -> None:
    chain.stop()
    said = ctl(chain, "replay", job_of(chain, "four"))
    assert (said.code, said.err) == (0, "ductiled is not running; the job waits until it does\n")
    chain.start()
    await_rest(chain)
    assert chain.job(said.out.strip()) == ("succeeded", 1, None)


def test_a_replay_that_is_killed_runs_again_as_one(daemon: RealDaemon, gate: Gate, chain: RealDaemon) -> None:
    step(daemon, "three", keyed("three"), write={"three": "three"}, **gate.config)
    assert ctl(daemon, "reload").code == 0
    job = job_of(chain, "two")
    assert ctl(daemon, "replay", job).code == 0
    gate.arrived()
    daemon.kill()
    daemon.start()
    gate.arrived()
    gate.let_through()
    await_rest(daemon)
    assert daemon.rows("SELECT plugin, status, replay_of FROM job_queue ORDER BY seq")[4:] == [
        (name, "succeeded", job) for name in ("two", "three", "four")]
