"""Deaths and breakers as events: told of in the commit that makes them, once, and never of their own telling."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable

import pytest

from support.chains import (
    AGAIN,
    await_rest,
    contents,
    ctl,
    emit,
    ends,
    event,
    is_sound,
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

_ONCE = {"retry": {"max_attempts": 1}}
_DEAD = "ductile.job.dead"
_CORE = "SELECT plugin, status, core_event FROM job_queue WHERE core_event IS NOT NULL ORDER BY seq"


def tells(daemon: RealDaemon, *pipelines: dict, on: str = _DEAD) -> None:
    """Have a pipeline that tells of deaths, beside others."""
    step(daemon, "alarm")
    daemon.pipelines(*pipelines, pipeline("on-death", *uses("alarm"), on=on))


def told(daemon: RealDaemon) -> list[dict]:
    """Return the payloads of the events that the plugin `alarm` was given, without the baggage."""
    return [json.loads(text) for (text,) in daemon.rows(
        "SELECT json_extract(payload, '$.payload') FROM job_queue WHERE plugin = 'alarm' ORDER BY seq")]


def test_a_death_is_an_event_with_what_is_to_be_known_of_it(daemon: RealDaemon) -> None:
    step(daemon, "one", event(link="x"), write={"a": "a"})
    step(daemon, "two", fails=9, settings={"retry": {**AGAIN, "max_attempts": 2}}, answer={"error": "out of luck"})
    tells(daemon, pipeline("p", {"id": "first", "uses": "one"}, {"id": "second", "uses": "two"}))
    [root] = run(daemon)
    dead = job_of(daemon, "two")
    said = {"job_id": dead, "plugin": "two", "command": "handle", "step_id": "second", "pipeline": "p",
            "error": "out of luck", "attempts": 2, "failures_in_row": 1}
    assert told(daemon) == [said]
    [attempt] = seen(daemon, "alarm")
    assert (attempt["event"]["type"], attempt["event"]["source"]) == (_DEAD, "ductile")
    known = {"origin_plugin": "cli", "origin_event_type": "go", "origin_job_id": root, "link": "x"}
    assert attempt["context"] == attempt["event"]["payload"] == known | said
    assert daemon.rows("SELECT parent_job_id, root_job_id, submitted_by, pipeline_name, step_id, core_event, status"
                       " FROM job_queue WHERE plugin = 'alarm'") == [
        (dead, root, "pipeline", "on-death", "alarm", _DEAD, "succeeded")]
    # A death leaves no files.
    assert contents(attempt) == {}
    # In one commit: nobody has ever seen the one without the other.
    [(died, born)] = daemon.rows("SELECT d.completed_at, a.created_at FROM job_queue d JOIN job_queue a"
                                 " ON a.parent_job_id = d.id WHERE d.id = ?", dead)
    assert died == born


def outside_a_pipeline(daemon: RealDaemon, gate: Gate) -> str:
    daemon.install("fails", called="dies", **_ONCE)
    daemon.start()
    daemon.submit("dies")
    return "out of luck"


def for_its_configuration(daemon: RealDaemon, gate: Gate) -> str:
    step(daemon, "dies", exits=78)
    daemon.start()
    daemon.submit("dies")
    return "exited 78 (configuration error)"


def by_its_deadline(daemon: RealDaemon, gate: Gate) -> str:
    step(daemon, "dies", hangs=1, settings={"timeouts": {"poll": "1s"}, **_ONCE})
    daemon.start()
    daemon.submit("dies")
    return "timed out after 1s"


def with_the_daemon(daemon: RealDaemon, gate: Gate) -> str:
    step(daemon, "dies", **gate.config, settings=_ONCE)
    daemon.start()
    daemon.submit("dies")
    gate.arrived()
    daemon.kill()
    daemon.start()
    return "orphaned: ductiled ended while it ran"


def unable_to_start(daemon: RealDaemon, gate: Gate) -> str:
    daemon.install("ok", called="dies", **_ONCE)
    daemon.start()
    (daemon.directory("ok") / "run").write_text("#!/no/such/interpreter\n")
    daemon.submit("dies")
    return ("could not be started: its first line names the interpreter '/no/such/interpreter', which does not exist;"
            f" install it or mend the line: {daemon.directory('ok') / 'run'}")


@pytest.mark.parametrize("way", [
    outside_a_pipeline, for_its_configuration, by_its_deadline, with_the_daemon, unable_to_start])
def test_every_kind_of_death_is_told_of(
        daemon: RealDaemon, gate: Gate, way: Callable[[RealDaemon, Gate], str]) -> None:
    tells(daemon)
    error = way(daemon, gate)
    await_rest(daemon)
    daemon.stop()
    [(job, command)] = daemon.rows("SELECT id, command FROM job_queue WHERE plugin = 'dies'")
    assert told(daemon) == [{"job_id": job, "plugin": "dies", "command": command, "step_id": None, "pipeline": None,
                             "error": error, "attempts": 1, "failures_in_row": 1}]
    assert seen(daemon, "alarm")[0]["context"]["origin_job_id"] == job


def test_the_death_of_a_step_whose_input_is_gone_is_told_of(daemon: RealDaemon, gate: Gate) -> None:
    step(daemon, "one", write={"a": "a"})
    step(daemon, "waits", **gate.config)
    step(daemon, "reader")
    tells(daemon, pipeline("p", *uses("one"), {"split": uses("waits", "reader")}))
    daemon.start()
    [root] = emit(daemon, "go")
    gate.arrived()
    (workspace(daemon, root) / "a").unlink()
    gate.let_through()
    await_rest(daemon)
    daemon.stop()
    assert [(each["plugin"], each["error"]) for each in told(daemon)] == [
        ("reader", f"files of job {root}'s workspace have changed: a (gone); replay job {root} to create "
                   "them again")]


def test_one_end_in_many_is_told_of_and_a_retry_that_dies_again_is_told_of_again(daemon: RealDaemon) -> None:
    daemon.install("fails", called="dies", **_ONCE)
    tells(daemon)
    daemon.start()
    job = daemon.submit("dies")
    await_rest(daemon)
    assert ctl(daemon, "retry", job).code == 0
    await_rest(daemon)
    daemon.stop()
    assert [each["attempts"] for each in told(daemon)] == [1, 2]


# Loops


def test_a_failing_pipeline_for_deaths_raises_no_death(daemon: RealDaemon) -> None:
    daemon.install("fails", called="dies", **_ONCE)
    # Its first step works, and its second one dies; that would be a death to tell of, and so on for ever.
    step(daemon, "first", event("go"))
    step(daemon, "second", fails=9, settings=_ONCE)
    step(daemon, "third", fails=9, settings=_ONCE)
    daemon.pipelines(pipeline("on-death", *uses("first", "second"), on=_DEAD), pipeline("p", *uses("third")))
    daemon.start()
    daemon.submit("dies")
    await_rest(daemon)
    daemon.stop()
    # What follows from the telling, in other pipelines too, tells of nothing more.
    assert ends(daemon) == [("dies", "dead", "out of luck"), ("first", "succeeded", None),
                            ("second", "dead", "not yet"), ("third", "dead", "not yet")]
    assert daemon.rows(_CORE) == [("first", "succeeded", _DEAD), ("second", "dead", _DEAD), ("third", "dead", _DEAD)]


def test_a_chain_that_is_too_long_is_told_of(daemon: RealDaemon) -> None:
    step(daemon, "loops", event("go", link="x"))
    daemon.configure(service={"max_hops": 3})
    tells(daemon, pipeline("p", *uses("loops")))
    run(daemon)
    error = ("its event would make a chain of 4 hops, at most 3 are allowed: look for a loop of routes or pipelines, "
             "or raise service.max_hops")
    assert ends(daemon) == [("loops", "succeeded", None)] * 2 + [("loops", "dead", error), ("alarm", "succeeded", None)]
    assert [each["error"] for each in told(daemon)] == [error]
    assert seen(daemon, "alarm")[0]["context"]["link"] == "x"
    assert daemon.rows("SELECT hop FROM event_context ORDER BY hop") == [(1,), (1,), (2,), (3,)]


def test_what_the_operator_ends_is_not_told_of(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    step(daemon, "removed")
    step(daemon, "disabled")
    tells(daemon)
    daemon.start()
    daemon.submit("waits")
    gate.arrived()
    cancelled, *_ = [daemon.submit(name) for name in ("waits", "removed", "disabled")]
    assert ctl(daemon, "cancel", cancelled).code == 0
    del daemon.config["plugins"]["removed"]
    daemon.config["plugins"]["disabled"]["enabled"] = False
    daemon.configure()
    daemon.send(signal.SIGHUP)
    daemon.await_log("configuration reloaded")
    gate.let_through()
    await_rest(daemon)
    daemon.stop()
    assert ends(daemon) == [
        ("waits", "succeeded", None), ("waits", "dead", "cancelled by operator"),
        ("removed", "dead", "plugin removed was removed from the configuration"),
        ("disabled", "dead", "plugin disabled was disabled")]


# Atomicity


def test_killed_at_random_moments_there_is_an_event_for_each_death_and_none_without(daemon: RealDaemon) -> None:
    chance = random.Random(8)
    daemon.install("fails", called="dies", **_ONCE)
    tells(daemon)
    daemon.config["plugins"]["alarm"]["retry"] = AGAIN
    daemon.configure()
    daemon.start()
    for _ in range(6):
        for _ in range(5):
            daemon.submit("dies")
        daemon.ended_within(chance.uniform(0, 0.1))
        daemon.kill()
        # At every moment: a death and its event are there, or neither.
        assert daemon.rows("SELECT d.status, count(a.id) FROM job_queue d"
                           " LEFT JOIN job_queue a ON a.parent_job_id = d.id WHERE d.plugin = 'dies'"
                           " GROUP BY d.id HAVING (d.status = 'dead') != count(a.id)") == []
        daemon.start()
    await_rest(daemon)
    daemon.stop()
    assert daemon.rows("SELECT plugin, status, count(*) FROM job_queue GROUP BY plugin, status") == [
        ("alarm", "succeeded", 30), ("dies", "dead", 30)]
    assert is_sound(daemon)


# Breakers


def test_a_breaker_that_opens_and_closes_is_told_of_each_time_once(daemon: RealDaemon) -> None:
    mended = daemon.home / "mended"
    daemon.configure(service={"tick_interval": "1s"})
    daemon.plugin("feed", f"#!/bin/sh\ncat >/dev/null\nif [ -e {mended} ]; then echo '{{\"status\": \"ok\"}}'; else"
                          " echo '{\"status\": \"error\", \"error\": \"no feed\"}'; fi\n",
                  schedule={"every": "1s"}, circuit_breaker={"threshold": 2, "reset_after": "1s"}, **_ONCE)
    for name in ("opened", "closed"):
        step(daemon, name)
    daemon.pipelines(pipeline("o", *uses("opened"), on="ductile.breaker.opened"),
                     pipeline("c", *uses("closed"), on="ductile.breaker.closed"))
    daemon.start()
    daemon.until("SELECT count(*) > 0 FROM job_queue WHERE plugin = 'opened' AND completed_at IS NOT NULL", [(1,)])
    mended.touch()
    daemon.until("SELECT count(*) > 0 FROM job_queue WHERE plugin = 'closed' AND completed_at IS NOT NULL", [(1,)])
    daemon.stop()
    first, second = [job for (job,) in daemon.rows(
        "SELECT id FROM job_queue WHERE plugin = 'feed' AND status = 'dead' ORDER BY seq LIMIT 2")]
    said = [attempt["event"]["payload"] for attempt in seen(daemon, "opened")]
    assert {key: said[0][key] for key in ("plugin", "command", "failures", "error", "job_id")} == {
        "plugin": "feed", "command": "poll", "failures": 2, "error": "no feed", "job_id": second}
    [closed] = seen(daemon, "closed")
    assert (closed["event"]["payload"]["plugin"], closed["event"]["payload"]["failures"]) == ("feed", 0)
    # The pipelines for breakers take no death.
    assert {row[0] for row in daemon.rows("SELECT core_event FROM job_queue WHERE plugin != 'feed'")} == {
        "ductile.breaker.opened", "ductile.breaker.closed"}
    assert daemon.rows("SELECT count(*) FROM job_queue WHERE parent_job_id = ?", first) == [(0,)]
