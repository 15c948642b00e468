"""Events find their way from plugin to plugin, with all that their chain was told and nothing that must stay home."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from support.daemon import RealDaemon

_COMMANDS = ("poll", "handle")
# Keeps its request and gives the answer that is beside it.
_SAYS = """\
#!/bin/sh
{{ cat; echo; }} >>'{requests}'
cat "${{0%/*}}/answer.json"
"""
# Counts its runs in its state and answers what `{answer}` makes.
_COUNTS = """\
#!/usr/bin/env -S python3 -IS
import json, sys
runs = json.load(sys.stdin)["state"].get("runs", 0) + 1
print(json.dumps({{"status": "ok", "state_updates": {{"runs": runs}}, **{answer}}}))
"""
_ONLY_FIRST = "is refused: only the first event of a chain may set keys that start 'origin_'"


def route(daemon: RealDaemon, *routes: tuple[str, str, str]) -> None:
    """Configure routes: from, event type, to."""
    daemon.config["routes"] = [{"from": source, "event_type": kind, "to": target} for source, kind, target in routes]
    daemon.configure()


def chain(daemon: RealDaemon, *names: str) -> None:
    """Route `next` from each plugin to the one after it."""
    route(daemon, *((source, "next", target) for source, target in itertools.pairwise(names)))


@pytest.fixture
def says(daemon: RealDaemon) -> Callable[..., None]:
    """Configure a plugin that emits these events, with the rest of its answer and more lines of its manifest."""
    def add(name: str, *events: dict[str, Any], manifest: str = "", protocol: int = 2, **answer: Any) -> None:
        daemon.plugin(name, _SAYS.format(requests=daemon.home / f"requests-{name}"), commands=_COMMANDS)
        (daemon.directory(name) / "answer.json").write_text(json.dumps({"status": "ok", "events": events, **answer}))
        file = daemon.directory(name) / "manifest.yaml"
        file.write_text(file.read_text().replace("protocol: 2", f"protocol: {protocol}") + manifest)
    return add


def event(payload: Any, **more: Any) -> dict[str, Any]:
    return {"type": "next", "payload": payload, **more}


def requests(daemon: RealDaemon, name: str) -> list[dict[str, Any]]:
    """Return what a plugin was asked, in the order of time."""
    return [json.loads(line) for line in (daemon.home / f"requests-{name}").read_text().splitlines() if line]


def run(daemon: RealDaemon, plugin: str) -> str:
    """Run a chain to its end in a daemon of its own, and return the id of its first job."""
    daemon.start()
    job = daemon.submit(plugin)
    # A job's children are committed with its end.
    daemon.until("SELECT count(*) FROM job_queue WHERE completed_at IS NULL", [(0,)])
    daemon.stop()
    return job


def result(daemon: RealDaemon, job: str) -> dict[str, Any]:
    """Return what the ledger has of the answer of a job's last attempt."""
    return json.loads(daemon.rows("SELECT result FROM job_log WHERE job_id = ? ORDER BY seq DESC LIMIT 1", job)[0][0])


def ends(daemon: RealDaemon) -> list[tuple]:
    """Return plugin, status, attempt and error of every job, in the order of the queue."""
    return daemon.rows("SELECT plugin, status, attempt, last_error FROM job_queue ORDER BY seq")


def job_of(daemon: RealDaemon, plugin: str) -> str:
    """Return the id of the one job of a plugin."""
    [(job,)] = daemon.rows("SELECT id FROM job_queue WHERE plugin = ?", plugin)
    return job


# Ways


def test_events_fan_out_in_order_and_their_jobs_know_where_they_come_from(
    daemon: RealDaemon, says: Callable[..., None],
) -> None:
    says("scale", event({"kg": 1}, dedupe_key="k1"), {"type": "odd"}, event({"kg": 2}))
    for name in ("zebra", "analyser", "mail"):
        says(name)
    route(daemon, ("scale", "next", "zebra"), ("scale", "odd", "mail"), ("scale", "next", "analyser"))
    root = run(daemon, "scale")
    rows = daemon.rows(
        "SELECT plugin, command, submitted_by, dedupe_key, parent_job_id, root_job_id, status, id, source_event_id,"
        " payload, event_context_id FROM job_queue WHERE id != ? ORDER BY seq", root)
    assert [row[:7] for row in rows] == [
        (plugin, "handle", "route", key, root, root, "succeeded") for plugin, key in (
            ("zebra", "k1"), ("analyser", "k1"), ("mail", None), ("zebra", None), ("analyser", None))]
    assert [(each["payload"], each["source"], each["event_id"]) for each in (json.loads(row[9]) for row in rows)] == [
        (payload, "scale", row[8])
        for row, payload in zip(rows, [{"kg": 1}, {"kg": 1}, {}, {"kg": 2}, {"kg": 2}], strict=True)]
    assert [row[8] for row in rows] == [rows[number][8] for number in (0, 0, 2, 3, 3)]
    assert len({row[8] for row in rows}) == 3
    assert [[(way["plugin"], way["job_id"]) for way in each["ways"]] for each in result(daemon, root)["events"]] == [
        [(row[0], row[7]) for row in rows[:2]], [(rows[2][0], rows[2][7])], [(row[0], row[7]) for row in rows[3:]]]
    # They ran in the order of the queue.
    assert daemon.rows("SELECT job_id FROM job_log ORDER BY seq") == [(root,), *((row[7],) for row in rows)]
    assert daemon.rows("SELECT source_event_id, parent_job_id FROM job_log WHERE job_id = ?", rows[0][7]) == [
        (rows[0][8], root)]
    assert daemon.rows("SELECT id, parent_id, hop FROM event_context ORDER BY id") == sorted(
        (row[10], None, 1) for row in rows)


def test_of_three_targets_the_one_that_has_done_it_already_is_passed_over(
    daemon: RealDaemon, says: Callable[..., None],
) -> None:
    says("early", event({}, dedupe_key="k"))
    says("late", event({}, dedupe_key="k"))
    for name in ("a", "b", "c"):
        says(name)
    route(daemon, ("early", "next", "b"), *(("late", "next", target) for target in "abc"))
    run(daemon, "early")
    done = job_of(daemon, "b")
    parent = run(daemon, "late")
    [told] = result(daemon, parent)["events"]
    assert told["ways"] == [{"plugin": "a", "job_id": job_of(daemon, "a")}, {"plugin": "b", "duplicate_of": done},
                            {"plugin": "c", "job_id": job_of(daemon, "c")}]
    assert [len(requests(daemon, name)) for name in ("a", "b", "c")] == [1, 1, 1]
    lines = daemon.log("event deduped", level="info", job_id=parent)
    assert [(line["target"], line["dedupe_key"], line["earlier_job_id"]) for line in lines] == [("b", "k", done)]
    assert daemon.rows("SELECT count(*) FROM event_context") == [(3,)]


def test_an_event_that_nobody_takes_goes_nowhere(daemon: RealDaemon, says: Callable[..., None]) -> None:
    says("scale", {"type": "other", "payload": {"origin_plugin": "x"}}, event({}))
    says("mail")
    route(daemon, ("mail", "next", "scale"), ("scale", "Next", "mail"))
    daemon.configure(service={"log_level": "debug"})
    job = run(daemon, "scale")
    assert [each["ways"] for each in result(daemon, job)["events"]] == [[], []]
    assert ends(daemon) == [("scale", "succeeded", 1, None)]
    assert daemon.rows("SELECT count(*) FROM event_context") == [(0,)]
    assert [line["event_type"] for line in daemon.log("event matched nothing", level="debug", job_id=job)] == [
        "other", "next"]
    assert daemon.log("reserved baggage key") == []


def test_events_of_a_failure_do_not_count(daemon: RealDaemon, says: Callable[..., None]) -> None:
    says("scale", event({"kg": 1}), status="error", error="flat", retry=False, state_updates={"last": 1})
    says("mail")
    chain(daemon, "scale", "mail")
    job = run(daemon, "scale")
    assert ends(daemon) == [("scale", "dead", 1, "flat")]
    assert result(daemon, job)["events"] == [event({"kg": 1})]
    assert daemon.rows("SELECT plugin_name, state FROM plugin_state") == [("scale", '{"last":1}')]


def test_the_job_of_a_target_that_is_not_loaded_waits_for_it(daemon: RealDaemon, says: Callable[..., None]) -> None:
    says("scale", event({"kg": 1}))
    for name in ("broken", "mail"):
        says(name)
    route(daemon, ("scale", "next", "broken"), ("scale", "next", "mail"))
    program = daemon.directory("broken") / "run"
    program.chmod(0o644)
    daemon.start()
    daemon.submit("scale")
    daemon.until("SELECT plugin, status FROM job_queue ORDER BY seq", [
        ("scale", "succeeded"), ("broken", "queued"), ("mail", "succeeded")])
    daemon.stop()
    program.chmod(0o755)
    daemon.start()
    daemon.await_job(job_of(daemon, "broken"), "succeeded")
    daemon.stop()
    [asked] = requests(daemon, "broken")
    assert asked["event"]["payload"]["kg"] == 1


# Baggage


def test_what_the_first_job_knew_reaches_the_fifth_past_those_that_do_not_know_it(
    daemon: RealDaemon, says: Callable[..., None],
) -> None:
    names = ("one", "two", "three", "four", "five")
    for name in names:
        says(name, event({"said_by": name, **({"link": "https://example.org"} if name == "one" else {})}))
    chain(daemon, *names)
    root = run(daemon, "one")
    [asked] = requests(daemon, "five")
    known = {"origin_plugin": "one", "origin_event_type": "next", "origin_job_id": root,
             "link": "https://example.org", "said_by": "four"}
    assert (asked["context"], asked["event"]["payload"]) == (known, known)
    # In the queue stands what the event itself said.
    assert daemon.rows("SELECT json_extract(payload, '$.payload') FROM job_queue WHERE plugin = 'five'") == [
        ('{"said_by":"four"}',)]
    rows = daemon.rows("SELECT c.id, c.parent_id, c.hop FROM job_queue j JOIN event_context c"
                       " ON c.id = j.event_context_id ORDER BY j.seq")
    assert [(row[1], row[2]) for row in rows] == [(None, 1), *((row[0], row[2] + 1) for row in rows[:-1])]
    assert daemon.rows("SELECT DISTINCT root_job_id FROM job_queue") == [(root,)]


def test_a_rewritten_origin_is_refused_with_a_warning_and_the_rest_goes_on(
    daemon: RealDaemon, says: Callable[..., None],
) -> None:
    says("honest", event({"origin_user": "ann"}))
    says("again", event({"origin_user": "ann", "origin_plugin": "honest"}))
    says("forger", event({"origin_user": "eve", "origin_new": 1, "origin_job_id": "x", "kg": 3}))
    says("last")
    chain(daemon, "honest", "again", "forger", "last")
    root = run(daemon, "honest")
    warnings = [f"the key 'origin_user' {_ONLY_FIRST}", f"the key 'origin_new' {_ONLY_FIRST}",
                "the key 'origin_job_id' is refused: it is the core's own, rename it"]
    forger = job_of(daemon, "forger")
    lines = daemon.log("reserved baggage key")
    assert [(line["level"], line["job_id"], line["reason"]) for line in lines] == [
        ("warn", forger, warning) for warning in warnings]
    assert result(daemon, forger)["notes"] == warnings
    assert [name for name in ("honest", "again") if "notes" in result(daemon, job_of(daemon, name))] == []
    [asked] = requests(daemon, "last")
    core = {"origin_plugin": "honest", "origin_event_type": "next", "origin_job_id": root}
    assert asked["context"] == asked["event"]["payload"] == {**core, "origin_user": "ann", "kg": 3}
    assert daemon.rows("SELECT json_extract(payload, '$.payload') FROM job_queue WHERE plugin = 'last'") == [
        ('{"kg":3}',)]
    assert {status for _, status, _, _ in ends(daemon)} == {"succeeded"}


def test_credentials_and_private_keys_of_a_state_are_told_to_nobody(
    daemon: RealDaemon, says: Callable[..., None],
) -> None:
    secret = "s3cret-of-scale"
    says("scale", event({"kg": 1}), manifest="private_state: [session]\n", state_updates={
        "refresh_token": secret, "session": secret, "deep": [{"clientSecret": secret, "at": 5}], "last": 7})
    says("between", event({"cm": 2}))
    says("last")
    chain(daemon, "scale", "between", "last")
    run(daemon, "scale")
    [(state,)] = daemon.rows("SELECT state FROM plugin_state")
    assert state.count(secret) == 3
    elsewhere = [
        *daemon.rows("SELECT * FROM event_context"), *daemon.rows("SELECT * FROM job_queue"),
        *daemon.rows("SELECT * FROM job_log WHERE plugin != 'scale'"), *daemon.lines(),
        *requests(daemon, "between"), *requests(daemon, "last"),
    ]
    assert [each for each in elsewhere if secret in repr(each)] == []
    [asked] = requests(daemon, "last")
    assert {key: value for key, value in asked["context"].items() if not key.startswith("origin_")} == {
        "kg": 1, "cm": 2, "last": 7, "deep": [{"at": 5}]}


@pytest.mark.parametrize("payload", [0, False, "text", [1, {"kg": 2}]])
def test_a_payload_that_is_no_object_is_handed_on_as_it_is(
    daemon: RealDaemon, says: Callable[..., None], payload: Any,
) -> None:
    says("scale", event({"kg": 1}))
    says("odd", event(payload))
    says("last")
    chain(daemon, "scale", "odd", "last")
    run(daemon, "scale")
    [asked] = requests(daemon, "last")
    assert json.dumps(asked["event"]["payload"]) == json.dumps(payload)
    assert asked["context"] == requests(daemon, "odd")[0]["context"]


def test_a_plugin_of_protocol_1_gets_no_context_and_passes_on_no_state(
    daemon: RealDaemon, says: Callable[..., None],
) -> None:
    says("scale", event({"kg": 1}), state_updates={"told": 1})
    says("old", event({"cm": 2}), protocol=1, state_updates={"untold": 2})
    says("last")
    chain(daemon, "scale", "old", "last")
    root = run(daemon, "scale")
    [old], [last] = requests(daemon, "old"), requests(daemon, "last")
    assert set(old) == {"protocol", "job_id", "command", "config", "state", "event", "deadline_at"}
    core = {"origin_plugin": "scale", "origin_event_type": "next", "origin_job_id": root}
    assert old["event"]["payload"] == {**core, "told": 1, "kg": 1}
    assert last["context"] == {**core, "told": 1, "kg": 1, "cm": 2}
    assert daemon.rows("SELECT state FROM plugin_state WHERE plugin_name = 'old'") == [('{"untold":2}',)]


# Limits


@pytest.mark.parametrize(("answer", "error"), [
    ('{"events": [{"type": "other"}] * 1001}', "emitted 1,001 events, at most 1,000 are allowed"),
    ('{"events": [{"type": "next", "payload": {"a": 1}}, {"type": "next", "payload": {"a": "x" * 2**20}}]}',
     # The large text, the three keys of the origin and the state.
     "the baggage of its event would be 1,048,699 bytes, at most 1,048,576 are allowed: "
     "keep what is large in a file of the workspace"),
], ids=["events", "context"])
def test_past_a_limit_the_attempt_fails_permanently_and_its_cursor_does_not_move(
    daemon: RealDaemon, says: Callable[..., None], answer: str, error: str,
) -> None:
    daemon.plugin("scale", _COUNTS.format(answer=answer))
    says("mail")
    chain(daemon, "scale", "mail")
    job = run(daemon, "scale")
    assert ends(daemon) == [("scale", "dead", 1, error)]
    assert daemon.rows("SELECT status, last_error FROM job_log") == [("failed", error)]
    assert daemon.rows("SELECT state FROM plugin_state") == []
    assert daemon.rows("SELECT count(*) FROM event_context") == [(0,)]
    assert [each for each in result(daemon, job)["events"] if "ways" in each] == []


def test_a_loop_without_end_is_stopped_by_the_most_hops(daemon: RealDaemon) -> None:
    daemon.plugin("loops", _COUNTS.format(answer='{"events": [{"type": "next"}]}'), commands=_COMMANDS)
    chain(daemon, "loops", "loops")
    daemon.configure(service={"max_hops": 3})
    run(daemon, "loops")
    assert ends(daemon) == [("loops", "succeeded", 1, None)] * 3 + [
        ("loops", "dead", 1, "its event would make a chain of 4 hops, at most 3 are allowed: "
                             "look for a loop of routes or pipelines, or raise service.max_hops")]
    assert daemon.rows("SELECT hop FROM event_context ORDER BY hop") == [(1,), (2,), (3,)]
    assert daemon.rows("SELECT state FROM plugin_state") == [('{"runs":3}',)]


def test_a_result_over_256_kib_keeps_what_explains_it(daemon: RealDaemon, says: Callable[..., None]) -> None:
    daemon.plugin("scale", _COUNTS.format(
        answer='{"events": [{"type": "next", "payload": {"a": "x" * 2**18}}, {"type": "odd"}],'
               ' "result": "done", "logs": [{"level": "warn", "message": "large"}]}'))
    says("mail")
    chain(daemon, "scale", "mail")
    job = run(daemon, "scale")
    assert result(daemon, job) == {
        "status": "ok", "error": None, "logs": [{"level": "warn", "message": "large"}], "truncated": True,
        "events": [{"type": "next", "ways": [{"plugin": "mail", "job_id": job_of(daemon, "mail")}]},
                   {"type": "odd", "ways": []}],
    }
    # What is cut is the ledger's copy alone.
    assert len(requests(daemon, "mail")[0]["event"]["payload"]["a"]) == 2**18


# A crash


_EMITS = """\
#!/bin/sh
echo '{{"status": "ok", "events": [{events}]}}'
exec >&-
echo ends "$DUCTILE_JOB_ID" >>'{marks}'
"""


def is_whole_or_absent(daemon: RealDaemon, job: str) -> None:
    """Hold a parent's end against its children, contexts and row in the ledger: all are there, or none."""
    [(status, logged)] = daemon.rows(
        "SELECT status, (SELECT json_group_array(json(result)) FROM job_log"
        " WHERE job_id = j.id AND status = 'succeeded') FROM job_queue j WHERE id = ?", job)
    children = daemon.rows("SELECT j.id, c.id FROM job_queue j LEFT JOIN event_context c ON c.id = j.event_context_id"
                           " WHERE parent_job_id = ? ORDER BY j.seq", job)
    told = [way["job_id"] for each in json.loads(logged) for event in each["events"] for way in event["ways"]]
    assert told == [child for child, _ in children]
    assert len(children) == (6 if status == "succeeded" else 0), status
    assert len({context for _, context in children if context is not None}) == len(children)


def test_a_parent_killed_while_it_finishes_has_all_its_children_or_none(
    daemon: RealDaemon, says: Callable[..., None],
) -> None:
    chance = random.Random(3)
    marks = daemon.home / "marks"
    events = ", ".join(json.dumps(event({"kg": number})) for number in range(3))
    daemon.plugin("scale", _EMITS.format(events=events, marks=marks), retry={"max_attempts": 100})
    # They cannot be loaded: what is routed to them waits, and can be counted.
    for name in ("left", "right"):
        says(name)
        (daemon.directory(name) / "run").chmod(0o644)
    route(daemon, ("scale", "next", "left"), ("scale", "next", "right"))
    daemon.start()
    jobs = []
    for _ in range(8):
        jobs.append(daemon.submit("scale"))
        daemon.await_file(marks, f"ends {jobs[-1]}")
        # The plugin has said its last word; its end, and its children, are being written.
        daemon.ended_within(chance.uniform(0, 0.02))
        daemon.kill()
        for job in jobs:
            is_whole_or_absent(daemon, job)
        daemon.start()
        daemon.await_job(jobs[-1], "succeeded")
    daemon.stop()
    for job in jobs:
        is_whole_or_absent(daemon, job)
    assert daemon.rows("SELECT count(*) FROM job_queue WHERE parent_job_id IS NOT NULL") == [(48,)]
    assert daemon.rows("SELECT count(*) FROM event_context") == [(48,)]
