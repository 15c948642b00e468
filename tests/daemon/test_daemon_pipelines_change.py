"""Pipelines that are edited or removed, and plugins that go, while a chain is on its way: it ends as it began."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from support.chains import await_a_beat, await_rest, contents, ctl, emit, ends, pipeline, seen, step, uses
from support.daemon import RealDaemon
from support.gate import Gate


def by_reload(daemon: RealDaemon, gate: Gate) -> None:
    """Have the files read again while the plugin at the gate goes on."""
    done = len(daemon.log("configuration reloaded"))
    daemon.send(signal.SIGHUP)
    daemon.await_log("configuration reloaded", done + 1)


def by_restart(daemon: RealDaemon, gate: Gate) -> None:
    """Have the daemon end as in a crash, and a new one read the files; the plugin comes to the gate again."""
    daemon.kill()
    daemon.start()
    gate.arrived()


Change = Callable[[RealDaemon, Gate], None]
both_ways = pytest.mark.parametrize("change", [by_reload, by_restart])


@pytest.fixture
def chain(daemon: RealDaemon, gate: Gate) -> str:
    """A chain of three steps, the first of which waits at the gate; the id of its job."""
    step(daemon, "one", write={"a": "a"}, **gate.config)
    for name in ("two", "three"):
        step(daemon, name, write={name: name})
    step(daemon, "other")
    daemon.pipelines(pipeline("p", *uses("one", "two", "three")))
    daemon.start()
    [job] = emit(daemon, "go")
    gate.arrived()
    return job


@both_ways
def test_a_chain_ends_on_the_version_that_it_started_with_and_later_ones_take_the_new(
        daemon: RealDaemon, gate: Gate, chain: str, change: Change) -> None:
    daemon.pipelines(pipeline("p", *uses("one", "other")))
    change(daemon, gate)
    gate.let_through()
    await_rest(daemon)
    assert [row[:2] for row in ends(daemon)] == [(name, "succeeded") for name in ("one", "two", "three")]
    assert contents(seen(daemon, "three")[0]) == {"a": "a", "two": "two"}
    [later] = emit(daemon, "go")
    gate.arrived()
    gate.let_through()
    await_rest(daemon)
    rows = daemon.rows("SELECT root_job_id, plugin, pipeline_hash FROM job_queue ORDER BY seq")
    assert [row[:2] for row in rows] == [
        (chain, "one"), (chain, "two"), (chain, "three"), (later, "one"), (later, "other")]
    old, new = {row[2] for row in rows[:3]}, {row[2] for row in rows[3:]}
    assert (len(old), len(new), old & new) == (1, 1, set())
    # Both are kept, for chains that are on their way.
    assert {row[0] for row in daemon.rows("SELECT hash FROM pipeline_versions WHERE name = 'p'")} == old | new


@both_ways
def test_a_chain_whose_pipeline_is_removed_runs_to_its_end(
        daemon: RealDaemon, gate: Gate, chain: str, change: Change) -> None:
    daemon.pipelines()
    change(daemon, gate)
    gate.let_through()
    await_rest(daemon)
    assert [row[:2] for row in ends(daemon)] == [(name, "succeeded") for name in ("one", "two", "three")]
    assert contents(seen(daemon, "three")[0]) == {"a": "a", "two": "two"}


@both_ways
def test_a_step_whose_plugin_was_removed_is_dead_for_that_reason(
        daemon: RealDaemon, gate: Gate, chain: str, change: Change) -> None:
    daemon.pipelines()
    del daemon.config["plugins"]["two"]
    daemon.configure()
    change(daemon, gate)
    gate.let_through()
    await_rest(daemon)
    assert ends(daemon) == [
        ("one", "succeeded", None), ("two", "dead", "plugin two was removed from the configuration")]


@both_ways
def test_a_step_whose_plugin_was_disabled_is_dead_for_that_reason(
        daemon: RealDaemon, gate: Gate, chain: str, change: Change) -> None:
    daemon.pipelines()
    daemon.config["plugins"]["two"]["enabled"] = False
    daemon.configure()
    change(daemon, gate)
    gate.let_through()
    await_rest(daemon)
    assert ends(daemon) == [("one", "succeeded", None), ("two", "dead", "plugin two was disabled")]


def test_a_chain_waits_for_a_plugin_that_cannot_be_loaded_and_goes_on_when_it_is_back(
        daemon: RealDaemon, gate: Gate, chain: str) -> None:
    hidden = daemon.directory("step").rename(daemon.home / "hidden")
    by_reload(daemon, gate)
    gate.let_through()
    daemon.until("SELECT plugin, status FROM job_queue ORDER BY seq", [("one", "succeeded"), ("two", "queued")])
    hidden.rename(daemon.directory("step"))
    by_reload(daemon, gate)
    await_rest(daemon)
    assert [row[:2] for row in ends(daemon)] == [(name, "succeeded") for name in ("one", "two", "three")]


def test_a_job_that_was_queued_for_a_plugin_before_the_daemon_has_read_of_it_waits_for_the_reload(
        daemon: RealDaemon, gate: Gate) -> None:
    # `ductilectl run` says so.
    daemon.configure(service={"tick_interval": "1s"})
    daemon.install("waits", config=gate.config)
    daemon.start()
    step(daemon, "fresh")
    said = ctl(daemon, "run", "fresh")
    assert said.err == "ductiled has not loaded a configuration with plugin fresh yet; the job waits until it does\n"
    await_a_beat(daemon)
    assert ends(daemon) == [("fresh", "queued", None)]
    by_reload(daemon, gate)
    daemon.await_job(said.out.strip(), "succeeded")


def test_a_pipeline_that_is_wrong_refuses_the_reload_and_the_chain_goes_on(
        daemon: RealDaemon, gate: Gate, chain: str) -> None:
    daemon.pipelines(pipeline("p", *uses("one", "twwo")))
    daemon.send(signal.SIGHUP)
    daemon.await_log("reload rejected; keeping the current configuration")
    daemon.until("SELECT count(*) FROM config_loads WHERE NOT ok", [(1,)])
    [(errors,)] = daemon.rows("SELECT errors FROM config_loads WHERE NOT ok")
    file = daemon.home / "pipelines" / "all.yaml"
    assert errors.startswith(f"{file}:13:") and "'twwo'" in errors and "(did you mean 'two'?)" in errors, errors
    gate.let_through()
    await_rest(daemon)
    assert [row[:2] for row in ends(daemon)] == [(name, "succeeded") for name in ("one", "two", "three")]


def test_a_version_that_is_gone_from_the_ledger_ends_its_chain_and_says_so(
        daemon: RealDaemon, gate: Gate, chain: str) -> None:
    daemon.pipelines()
    by_reload(daemon, gate)
    [(digest,)] = daemon.rows("SELECT pipeline_hash FROM job_queue")
    daemon.write("DELETE FROM pipeline_versions")
    gate.let_through()
    await_rest(daemon)
    # What runs already still knows its version.
    error = f"version {digest[:12]} of pipeline p, which it began with, is gone from the database or damaged"
    assert ends(daemon) == [("one", "succeeded", None), ("two", "dead", error)]
