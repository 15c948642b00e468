"""Pipelines in the running daemon: what follows what, with which files and what baggage, however an event comes in."""

from __future__ import annotations

import json

from support import hooks
from support.chains import (
    await_rest,
    contents,
    emit,
    ends,
    event,
    job_of,
    pipeline,
    run,
    seen,
    step,
    uses,
    workspace,
)
from support.daemon import RealDaemon
from support.wire import PATH, ask, signed

_NAMES = ("one", "two", "three", "four", "left", "right", "last")
_JOBS = ("SELECT step_id, id, parent_job_id, root_job_id, status, submitted_by, pipeline_name, command"
         " FROM job_queue ORDER BY seq")


def a_pipeline_of_every_kind(daemon: RealDaemon) -> None:
    """Have five steps in a row, one of them called, one nested, and two branches after them, one of two steps."""
    step(daemon, "one", event(said_by="one", link="https://example.org"), write={"one.txt": "1"})
    for number, name in enumerate(_NAMES[1:], 2):
        step(daemon, name, event(said_by=name), write={f"deep/{name}.txt": str(number)})
    daemon.pipelines(
        pipeline("middle", {"id": "two", "uses": "two"}, {"uses": "three"}, on=None),
        pipeline("whole", {"id": "first", "uses": "one"}, {"id": "std", "call": "middle"},
                 {"steps": [{"uses": "four"}]},
                 {"split": [{"id": "left", "uses": "left"}, {"id": "branch", "steps": uses("right", "last")}]}))


def takes_events(daemon: RealDaemon, kind: str) -> hooks.Address:
    """Have webhooks taken as events of a type."""
    address = hooks.listen(daemon, event=kind, dedupe_header="X-Id")
    del daemon.config["webhooks"]["endpoints"][0]["plugin"]
    daemon.configure()
    return address


def test_five_steps_with_a_call_a_nest_and_a_split_run_in_order_and_know_their_parents(daemon: RealDaemon) -> None:
    a_pipeline_of_every_kind(daemon)
    [root] = run(daemon, asked="why")
    rows = daemon.rows(_JOBS)
    assert [row[0] for row in rows] == [
        "first", "std/two", "std/three.2", "four.3.1", "left", "right", "last"]
    ids = [row[1] for row in rows]
    parents = [None, *ids[:4], ids[3], ids[5]]
    assert [row[2] for row in rows] == parents
    assert {row[3:] for row in rows} == {
        (root, "succeeded", submitter, "whole", "handle") for submitter in ("cli", "pipeline")}
    # They ran in the order of the queue, each once.
    assert daemon.rows("SELECT job_id, attempt, status FROM job_log ORDER BY seq") == [
        (each, 1, "succeeded") for each in ids]
    [(digest,)] = daemon.rows("SELECT DISTINCT pipeline_hash FROM job_queue")
    assert ("whole",) in daemon.rows("SELECT name FROM pipeline_versions WHERE hash = ?", digest)


def test_what_the_first_step_said_arrives_five_steps_later(daemon: RealDaemon) -> None:
    a_pipeline_of_every_kind(daemon)
    [root] = run(daemon, asked="why")
    [last] = seen(daemon, "last")
    known = {"origin_plugin": "cli", "origin_event_type": "go", "origin_job_id": root, "asked": "why",
             "link": "https://example.org", "said_by": "right"}
    assert (last["context"], last["event"]["payload"]) == (known, known)
    assert (last["event"]["type"], last["event"]["source"]) == ("done", "right")
    rows = daemon.rows("SELECT c.id, c.parent_id, c.hop, c.step_id, c.pipeline_name FROM job_queue j"
                       " JOIN event_context c ON c.id = j.event_context_id ORDER BY j.seq")
    ids = [row[0] for row in rows]
    assert [row[1] for row in rows] == [None, *ids[:4], ids[3], ids[5]]
    assert [row[2] for row in rows] == [1, 2, 3, 4, 5, 5, 6]
    assert [row[3:] for row in rows] == [(each, "whole") for (each, *_) in daemon.rows(_JOBS)]


def test_the_files_of_earlier_steps_are_there_as_hard_links_that_nobody_may_write(daemon: RealDaemon) -> None:
    a_pipeline_of_every_kind(daemon)
    run(daemon)
    before: dict = {}
    made = {name: f"deep/{name}.txt" if number else "one.txt" for number, name in enumerate(_NAMES)}
    for name, parent in zip(_NAMES, (None, "one", "two", "three", "four", "four", "right"), strict=False):
        [attempt] = seen(daemon, name)
        before[name] = {} if parent is None else before[parent] | {made[parent]: str(_NAMES.index(parent) + 1)}
        assert contents(attempt) == before[name], name
        # Sealed: what a plugin writes with 0644 comes back as 0444.
        assert {mode & 0o222 for _, mode, _ in attempt["files"].values()} <= {0}, name
        here = workspace(daemon, job_of(daemon, name))
        for path, (inode, _, _) in attempt["files"].items():
            there = workspace(daemon, job_of(daemon, parent))
            assert (there / path).stat().st_ino == (here / path).stat().st_ino == inode
    assert (workspace(daemon, job_of(daemon, "last")).stat().st_mode & 0o777) == 0o700


def test_an_ordinary_users_step_can_read_replace_and_remove_what_it_was_handed_and_not_write_it(
        users_daemon: RealDaemon) -> None:
    step(users_daemon, "one", write={"kept": "1", "replaced": "1", "gone": "1"})
    step(users_daemon, "two", write={"replaced": "2"}, remove=["gone"])
    step(users_daemon, "three", scribble="kept", settings={"retry": {"max_attempts": 1}})
    users_daemon.pipelines(pipeline("p", *uses("one", "two", "three")))
    run(users_daemon)
    assert ends(users_daemon) == [("one", "succeeded", None), ("two", "succeeded", None),
                                  ("three", "dead", "Permission denied: kept")]
    assert contents(seen(users_daemon, "three")[0]) == {"kept": "1", "replaced": "2"}
    here = workspace(users_daemon, job_of(users_daemon, "one"))
    assert {path.name: path.read_text() for path in here.iterdir()} == {"kept": "1", "replaced": "1", "gone": "1"}


def test_each_event_of_a_step_goes_to_each_next_step(daemon: RealDaemon) -> None:
    step(daemon, "one", event(number=1), event("odd", number=2), event(number=3), write={"a": "a"})
    for name in ("left", "right"):
        step(daemon, name)
    daemon.pipelines(pipeline("p", *uses("one"), {"split": uses("left", "right")}))
    [root] = run(daemon)
    rows = daemon.rows("SELECT step_id, json_extract(payload, '$.payload.number'), json_extract(payload, '$.type'),"
                       " parent_job_id FROM job_queue WHERE id != ? ORDER BY seq", root)
    assert rows == [(name, number, kind, root) for number, kind in ((1, "done"), (2, "odd"), (3, "done"))
                    for name in ("left", "right")]
    for name in ("left", "right"):
        assert [(attempt["context"]["number"], contents(attempt)) for attempt in seen(daemon, name)] == [
            (number, {"a": "a"}) for number in (1, 2, 3)]
    [(stored,)] = daemon.rows("SELECT result FROM job_log WHERE job_id = ?", root)
    assert [[way["step_id"] for way in each["ways"]] for each in json.loads(stored)["events"]] == [
        ["left", "right"]] * 3


def test_a_step_without_events_passes_on_what_it_was_given_and_adds_nothing(daemon: RealDaemon) -> None:
    step(daemon, "one", event(link="x"), write={"a": "a"})
    step(daemon, "quiet", answer={"state_updates": {"told": 1}})
    step(daemon, "last")
    daemon.pipelines(pipeline("p", *uses("one", "quiet", "last")))
    [root] = run(daemon, asked="why")
    [quiet], [last] = seen(daemon, "quiet"), seen(daemon, "last")
    assert (last["event"]["type"], last["event"]["source"]) == ("ductile.step.succeeded", "quiet")
    assert daemon.rows("SELECT json_extract(payload, '$.payload') FROM job_queue WHERE plugin != 'one'") == [
        ('{"link":"x"}',)] * 2
    known = {"origin_plugin": "cli", "origin_event_type": "go", "origin_job_id": root, "asked": "why", "link": "x"}
    assert quiet["context"] == last["context"] == last["event"]["payload"] == known
    assert contents(last) == {"a": "a"}
    # It leads on within the pipeline alone: the last step has nobody to pass anything on to.
    assert len(ends(daemon)) == 3


def test_a_notifier_says_the_result_of_the_step_before_it_and_no_older_one(daemon: RealDaemon) -> None:
    said = event(title="Soup", message="of step one", tags=["a"])
    step(daemon, "one", answer={"events": [said], "result": "one is done"})
    step(daemon, "two", answer={"result": "two is done"})
    step(daemon, "quiet")
    given = {"message": "{title}: {result?}", "tags": "{tags}", "asked": "<{asked}>"}
    for name in ("tells", "sees"):
        step(daemon, name)
    daemon.pipelines(pipeline("p", *uses("one", "two"), {"uses": "tells", "with": given}, *uses("quiet"),
                              {"uses": "sees", "with": given}))
    [root] = run(daemon, asked="why")
    assert [row[1:] for row in ends(daemon)] == [("succeeded", None)] * 5
    [tells], [sees] = seen(daemon, "tells"), seen(daemon, "sees")
    known = {"origin_plugin": "cli", "origin_event_type": "go", "origin_job_id": root, "asked": "why",
             "title": "Soup", "message": "of step one", "tags": ["a"]}
    assert (tells["context"], sees["context"]) == (known, known)
    overlay = {"tags": ["a"], "asked": "<why>"}
    assert tells["event"]["payload"] == known | overlay | {"message": "Soup: two is done", "result": "two is done"}
    # The step before it has no result.
    assert sees["event"]["payload"] == known | overlay | {"message": "Soup: "}
    # Rendered for the request and never stored.
    stored = daemon.rows("SELECT json_extract(payload, '$.payload') FROM job_queue WHERE plugin = 'tells'")
    assert [json.loads(payload) for (payload,) in stored] == [
        {"title": "Soup", "message": "of step one", "tags": ["a"], "result": "two is done"}]


def test_a_missing_name_fails_the_job_at_once_and_a_path_is_that_of_the_jobs_own_file(daemon: RealDaemon) -> None:
    step(daemon, "one", event(note="{here}/note.md"), write={"note.md": "x"})
    for name in ("left", "right"):
        step(daemon, name)
    daemon.pipelines(pipeline("p", *uses("one"), {"split": [
        {"uses": "left", "with": {"message": "{titel}"}}, {"uses": "right", "with": {"file": "see {note}"}}]}))
    run(daemon)
    assert ends(daemon) == [
        ("one", "succeeded", None),
        ("left", "dead", "with.message: no 'titel' in the payload or the context"), ("right", "succeeded", None)]
    assert (seen(daemon, "left"), daemon.attempts(job_of(daemon, "left"))) == ([], [(1, "failed")])
    [right] = seen(daemon, "right")
    assert right["event"]["payload"]["file"] == f"see {right['here']}/note.md"


def test_an_event_starts_every_pipeline_that_takes_it_and_every_route_after_the_next_steps(daemon: RealDaemon) -> None:
    step(daemon, "one", event("found", link="x"))
    for name in ("next", "p", "q", "routed"):
        step(daemon, name)
    daemon.pipelines(pipeline("z", *uses("one", "next")), pipeline("b", {"split": uses("p", "q")}, on="found"),
                     pipeline("a", *uses("p"), on="found"))
    daemon.config["routes"] = [{"from": "one", "event_type": "found", "to": "routed"}]
    daemon.configure()
    [root] = run(daemon)
    rows = daemon.rows("SELECT plugin, pipeline_name, step_id, submitted_by, parent_job_id, status FROM job_queue"
                       " WHERE id != ? ORDER BY seq", root)
    assert rows == [(*row, root, "succeeded") for row in (
        ("next", "z", "next", "pipeline"), ("p", "b", "p", "pipeline"), ("q", "b", "q", "pipeline"),
        ("p", "a", "p", "pipeline"), ("routed", None, None, "route"))]
    assert len({row[0] for row in daemon.rows("SELECT source_event_id FROM job_queue WHERE id != ?", root)}) == 1


def test_a_scheduled_plugins_event_starts_a_pipeline_with_its_files(daemon: RealDaemon) -> None:
    step(daemon, "polls", event("found", link="x"), write={"a": "a"})
    for name in ("one", "two"):
        step(daemon, name)
    daemon.pipelines(pipeline("p", *uses("one", "two"), on="found"))
    daemon.start()
    root = daemon.submit("polls")
    await_rest(daemon)
    daemon.stop()
    [two] = seen(daemon, "two")
    assert (contents(two), two["context"]["origin_plugin"], two["context"]["origin_job_id"]) == (
        {"a": "a"}, "polls", root)


def test_a_signed_event_is_a_job_for_each_first_step_and_its_repetition_is_none(daemon: RealDaemon) -> None:
    for name in ("left", "right", "after", "alone"):
        step(daemon, name)
    daemon.pipelines(pipeline("p", {"split": [*uses("left"), {"steps": uses("right", "after")}]}, on="github.push"),
                     pipeline("q", *uses("alone"), on="github.push"))
    address = takes_events(daemon, "github.push")
    daemon.start()
    body = b'{"ref": "main"}'
    answer = ask(address, signed(body, "X-Id: 7"))
    ids = [job for (job,) in daemon.rows("SELECT id FROM job_queue WHERE parent_job_id IS NULL ORDER BY seq")]
    assert (answer.status, answer.json) == (202, {"job_id": ids[0], "job_ids": ids})
    await_rest(daemon)
    again = ask(address, signed(body, "X-Id: 7"))
    assert (again.status, again.json) == (200, {"job_id": ids[0], "job_ids": ids, "deduped": True})
    assert ask(address, signed(body, "X-Id: 8", secret="another-secret-of-a-stranger")).status == 403
    daemon.stop()
    assert daemon.rows("SELECT plugin, submitted_by, step_id, root_job_id, status FROM job_queue ORDER BY seq") == [
        ("left", "webhook", "left", ids[0], "succeeded"), ("right", "webhook", "right", ids[1], "succeeded"),
        ("alone", "webhook", "alone", ids[2], "succeeded"), ("after", "pipeline", "after", ids[1], "succeeded")]
    [after] = seen(daemon, "after")
    assert after["context"] == {"origin_plugin": f"webhook:{PATH}", "origin_event_type": "github.push",
                                "origin_job_id": ids[1], "ref": "main"}


def test_an_event_whose_one_branch_died_is_queued_again_for_that_branch_alone(daemon: RealDaemon) -> None:
    step(daemon, "left")
    daemon.install("fails", called="right", retry={"max_attempts": 1})
    manifest = daemon.directory("fails") / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("[poll]", "[poll, handle]"))
    daemon.pipelines(pipeline("p", {"split": uses("left", "right")}))
    address = takes_events(daemon, "go")
    daemon.start()
    first = ask(address, signed(b"{}", "X-Id: 7")).json["job_ids"]
    await_rest(daemon)
    again = ask(address, signed(b"{}", "X-Id: 7"))
    await_rest(daemon)
    daemon.stop()
    assert (again.status, again.json["job_ids"][0] == first[0], again.json["job_ids"][1] in first) == (202, True, False)
    assert [row[:2] for row in ends(daemon)] == [("left", "succeeded"), ("right", "dead"), ("right", "dead")]


def test_two_events_of_a_source_that_repeats_itself_start_a_pipeline_once(daemon: RealDaemon) -> None:
    step(daemon, "polls", {"type": "found", "payload": {}, "dedupe_key": "k"})
    for name in ("one", "two"):
        step(daemon, name)
    daemon.pipelines(pipeline("p", *uses("one", "two"), on="found"))
    daemon.start()
    for _ in range(2):
        daemon.submit("polls")
        await_rest(daemon)
    assert [row[:2] for row in ends(daemon)] == [
        ("polls", "succeeded"), ("one", "succeeded"), ("two", "succeeded"), ("polls", "succeeded")]
    # One that comes without a key is none of them.
    emit(daemon, "found")
    await_rest(daemon)
    assert len(seen(daemon, "two")) == 2
