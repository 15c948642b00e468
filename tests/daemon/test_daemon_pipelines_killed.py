"""A daemon killed anywhere in a chain: each step counts once, nothing is lost, its files are those of one attempt."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from support.chains import (
    await_rest,
    await_that,
    contents,
    emit,
    event,
    files,
    is_sound,
    pipeline,
    seen,
    step,
    uses,
    workspace,
)
from support.daemon import RealDaemon
from support.gate import Gate

_ROW = ("one", "two", "three")
# More names of a file than can be linked in an instant.
_MANY = 10_000
# The steps that each comes after: their files it starts from.
_BEFORE = {"one": (), "two": ("one",), "three": ("one", "two"), "left": _ROW, "right": _ROW, "last": (*_ROW, "right")}


def a_chain(daemon: RealDaemon, **config: object) -> None:
    """Have three steps in a row, then two branches, one of them of two steps; each makes a file of its name."""
    for name in _BEFORE:
        step(daemon, name, event(said_by=name), write={name: name}, **config)
    daemon.pipelines(pipeline("p", *uses(*_ROW), {"split": [*uses("left"), {"steps": uses("right", "last")}]}))


def is_whole(daemon: RealDaemon, roots: list[str]) -> None:
    """Hold ledger, workspaces and what the plugins saw against each other: each step once, from what came before it."""
    assert is_sound(daemon)
    rows = daemon.rows("SELECT root_job_id, plugin, id, status, attempt FROM job_queue")
    assert Counter(row[:2] for row in rows) == {(root, name): 1 for root in roots for name in _BEFORE}
    assert {row[3] for row in rows} == {"succeeded"}
    parents = dict(daemon.rows("SELECT j.id, p.plugin FROM job_queue j JOIN job_queue p ON p.id = j.parent_job_id"))
    for _root, name, job, _, attempt in rows:
        assert parents.get(job) == (_BEFORE[name] or (None,))[-1]
        orphaned = [(number, "orphaned") for number in range(1, attempt)]
        assert daemon.attempts(job) == [*orphaned, (attempt, "succeeded")]
        assert files(workspace(daemon, job)) == {each: each for each in (*_BEFORE[name], name)}
        attempts = [each for each in seen(daemon, name) if each["job_id"] == job]
        numbers = [each["attempt"] for each in attempts]
        # One process for each attempt at most, and for the one that counts.
        assert len(set(numbers)) == len(numbers) and set(numbers) <= set(range(1, attempt + 1)) and attempt in numbers
        # Nothing that an attempt before it half made.
        assert {frozenset(contents(each)) for each in attempts} == {frozenset(_BEFORE[name])}
        assert {each["context"].get("said_by") for each in attempts} == {(_BEFORE[name] or (None,))[-1]}
    assert {path.name for path in (daemon.data / "ws").iterdir()} - {".spare"} == {row[2] for row in rows}


def test_killed_while_each_step_runs_each_runs_again_from_a_fresh_clone(daemon: RealDaemon, gate: Gate) -> None:
    a_chain(daemon, **gate.config)
    daemon.start()
    roots = emit(daemon, "go")
    for _ in _BEFORE:
        gate.arrived()
        daemon.kill()
        daemon.start()
        gate.arrived()
        gate.let_through()
    await_rest(daemon)
    daemon.stop()
    is_whole(daemon, roots)
    assert daemon.rows("SELECT DISTINCT attempt FROM job_queue") == [(2,)]
    assert gate.is_empty()


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_as_each_step_answers_each_counts_once(daemon: RealDaemon, when: str) -> None:
    # Every first attempt takes the daemon with it, so that its answer is heard by nobody or by one that dies.
    a_chain(daemon, kills=when)
    daemon.start()
    roots = emit(daemon, "go")
    for _ in _BEFORE:
        assert daemon.ended_within(20)
        daemon.kill()
        daemon.start()
    await_rest(daemon)
    daemon.stop()
    is_whole(daemon, roots)


def test_killed_between_two_steps_the_next_is_neither_lost_nor_queued_twice(daemon: RealDaemon) -> None:
    a_chain(daemon)
    daemon.start()
    roots = emit(daemon, "go")
    for done in range(1, len(_BEFORE)):
        # Once it is in the ledger that a step is over: its next one is being cloned, started, run or finished.
        await_that(daemon, lambda: count_succeeded(daemon) >= done)
        daemon.kill()
        daemon.start()
    await_rest(daemon)
    daemon.stop()
    is_whole(daemon, roots)


def count_succeeded(daemon: RealDaemon) -> int:
    return daemon.rows("SELECT count(*) FROM job_queue WHERE status = 'succeeded'")[0][0]


def test_killed_at_random_moments_every_chain_comes_to_its_end_once(daemon: RealDaemon) -> None:
    chance = random.Random(1)
    a_chain(daemon)
    daemon.start()
    roots = [job for _ in range(3) for job in emit(daemon, "go")]
    for _ in range(5):
        # Of the time that two steps take or so.
        daemon.ended_within(chance.uniform(0, 0.15))
        daemon.kill()
        daemon.start()
        roots += emit(daemon, "go")
    await_rest(daemon)
    daemon.stop()
    is_whole(daemon, roots)
    assert daemon.rows("SELECT count(*) > 0 FROM job_log WHERE status = 'orphaned'") == [(1,)]


def test_killed_in_the_middle_of_a_clone_the_next_attempt_has_all_the_files(daemon: RealDaemon) -> None:
    step(daemon, "one", write={"a": "a"}, links=_MANY)
    step(daemon, "two", write={"b": "b"})
    daemon.pipelines(pipeline("p", *uses("one", "two")))
    daemon.start()
    job = next((job for _ in range(5) if is_half_cloned(daemon, job := kill_in_a_clone(daemon))), None)
    assert job is not None, "each kill came too late"
    daemon.start()
    await_rest(daemon)
    daemon.stop()
    assert daemon.attempts(job) == [(1, "orphaned"), (2, "succeeded")]
    assert [each["attempt"] for each in seen(daemon, "two") if each["job_id"] == job] == [2]
    assert len(list(workspace(daemon, job).iterdir())) == _MANY + 2
    assert daemon.rows("SELECT count(*) FROM artifacts WHERE job_id = ?", job) == [(_MANY + 2,)]
    assert is_sound(daemon)


def kill_in_a_clone(daemon: RealDaemon) -> str:
    """Kill the daemon when there is something of a clone, and return the id of the job that it is for."""
    if daemon.ended_within(0):
        daemon.start()
    [root] = emit(daemon, "go")
    await_that(daemon, lambda: child_of(daemon, root) is not None)
    job = child_of(daemon, root)
    here = workspace(daemon, job)
    await_that(daemon, lambda: here.exists() and any(here.iterdir()))
    daemon.kill()
    return job


def child_of(daemon: RealDaemon, job: str) -> str | None:
    return next((child for (child,) in daemon.rows("SELECT id FROM job_queue WHERE parent_job_id = ?", job)), None)


def is_half_cloned(daemon: RealDaemon, job: str) -> bool:
    return 0 < len(list(workspace(daemon, job).iterdir())) <= _MANY
