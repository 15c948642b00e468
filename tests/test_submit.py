from __future__ import annotations

import json
from datetime import timedelta

import pytest

from ductile import db
from ductile import submit as intake
from ductile.config.model import Retry, Route
from ductile.errors import EXIT_DATA, DuctileError
from ductile.plugin import plugin_table
from ductile.queue import job_table
from ductile.queue.job import NewJob, Status, Submitter
from ductile.routing import context_table
from ductile.routing.baggage import LIMIT_BYTES, NewContext
from support import worlds
from support.clock import START
from support.ledger import ids, new_job, open_jobs, opened, put_job

TTL = 3600
WITH_INIT = worlds.plugin("echo", commands=("poll", "init"), retry=Retry(max_attempts=9))
FINGERPRINT = WITH_INIT.needs_init


@pytest.fixture
def conn(tmp_path):
    with opened(tmp_path) as conn:
        yield conn


def submit(conn, job, seconds=0):
    with db.transaction(conn):
        return intake.submit(conn, job, dedupe_ttl=TTL, now=START + timedelta(seconds=seconds))


# One job


def test_a_job_is_queued(conn):
    assert submit(conn, new_job("a")) == intake.Submitted(job_id="a", is_new=True)
    assert job_table.get(conn, "a").status is Status.QUEUED


@pytest.mark.parametrize("seconds, is_new", [(0, False), (TTL, False), (TTL + 0.001, True)])
def test_a_job_whose_key_has_succeeded_is_the_earlier_one_for_as_long_as_set(conn, seconds, is_new):
    put_job(conn, "a", Status.SUCCEEDED, dedupe_key="k")
    submitted = submit(conn, new_job("b", dedupe_key="k"), seconds)
    assert submitted == intake.Submitted(job_id="b" if is_new else "a", is_new=is_new)
    assert (job_table.get(conn, "b") is not None) is is_new


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.DEAD, Status.DEDUPED])
def test_a_key_that_has_not_succeeded_stops_nothing(conn, status):
    put_job(conn, "a", status, dedupe_key="k")
    assert submit(conn, new_job("b", dedupe_key="k")).is_new


def test_jobs_without_a_key_are_never_duplicates(conn):
    put_job(conn, "a", Status.SUCCEEDED)
    assert submit(conn, new_job("b")).is_new


def test_a_replay_is_never_a_duplicate(conn):
    put_job(conn, "a", Status.SUCCEEDED, dedupe_key="k")
    assert submit(conn, new_job("b", dedupe_key="k", replay_of="a")).is_new


def test_a_submission_is_undone_with_the_rest_of_its_transaction(conn):
    with pytest.raises(LookupError), db.transaction(conn):
        intake.submit(conn, new_job("a"), dedupe_ttl=TTL, now=START)
        raise LookupError
    assert job_table.get(conn, "a") is None


# What a job is made of


def test_a_command_has_the_attempts_of_its_plugin():
    job = intake.command_job(WITH_INIT, "poll", Submitter.CLI, new_id=ids())
    assert (job.plugin, job.command, job.max_attempts, job.submitted_by) == ("echo", "poll", 9, Submitter.CLI)
    assert (job.payload, job.source_event_id, job.dedupe_key) == (None, None, None)


def test_init_has_one_attempt():
    assert intake.command_job(WITH_INIT, "init", Submitter.INIT, new_id=ids()).max_attempts == 1


def test_an_event_goes_with_its_job_key_and_all():
    new_id = ids()
    event = intake.new_event("thing.found", {"n": 1, "text": "caf\u00e9"}, "cli", new_id=new_id, now=START)
    assert event == {"type": "thing.found", "payload": {"n": 1, "text": "caf\u00e9"}, "source": "cli",
                     "timestamp": "2026-02-08T10:00:00.000Z", "event_id": "00000000-0000-4000-8000-000000000001"}
    event["dedupe_key"] = "k"
    job = intake.command_job(WITH_INIT, "handle", Submitter.CLI, new_id=new_id, event=event)
    assert json.loads(job.payload) == event
    assert (job.source_event_id, job.dedupe_key) == (event["event_id"], "k")


# Events from outside


WEIGHED = {"type": "weighed", "payload": {"kg": 81}, "source": "webhook:/scale", "timestamp": "then", "event_id": "e"}
ROUTED = worlds.runtime(
    worlds.plugin("scale"), worlds.plugin("mail"), worlds.plugin("analyse", retry=Retry(max_attempts=9)), max_hops=1,
    routes=tuple(Route(source="scale", event_type="weighed", target=target) for target in ("mail", "analyse")))


def arrive(event, source="scale"):
    return intake.jobs_for_event(ROUTED, event, source, Submitter.WEBHOOK, new_id=ids())


def test_an_event_becomes_a_job_of_its_own_chain_for_each_that_takes_it():
    first, second = arrive(WEIGHED)
    one, two, three, four = (f"00000000-0000-4000-8000-{number:012x}" for number in (1, 2, 3, 4))
    assert first.job == NewJob(
        id=one, plugin="mail", command="handle", max_attempts=4, submitted_by=Submitter.WEBHOOK,
        payload=json.dumps(WEIGHED, separators=(",", ":")), root_job_id=one, source_event_id="e", event_context_id=two)
    assert first.context == NewContext(id=two, hop=1, accumulated={
        "origin_plugin": "scale", "origin_event_type": "weighed", "origin_job_id": one, "kg": 81})
    assert (second.job.id, second.job.plugin, second.job.max_attempts, second.context.id) == (three, "analyse", 9, four)
    assert (first.warnings, second.context.accumulated["origin_job_id"]) == ((), three)


def test_a_dedupe_key_goes_with_every_job():
    assert [each.job.dedupe_key for each in arrive({**WEIGHED, "dedupe_key": "k"})] == ["k", "k"]


@pytest.mark.parametrize("event, source", [(WEIGHED, None), (WEIGHED, "mail"), ({**WEIGHED, "type": "w"}, "scale")])
def test_what_nothing_takes_becomes_nothing(event, source):
    assert arrive(event, source) == []


def test_what_the_core_keeps_for_itself_is_taken_out_and_told():
    first, _ = arrive({**WEIGHED, "payload": {"origin_job_id": "x", "origin_user": "ann"}})
    assert json.loads(first.job.payload)["payload"] == {"origin_user": "ann"}
    assert first.context.accumulated["origin_user"] == "ann"
    assert first.warnings == ("the key 'origin_job_id' is refused: it is the core's own, rename it",)


def test_an_event_that_says_too_much_is_refused():
    with pytest.raises(DuctileError) as caught:
        arrive({**WEIGHED, "payload": {"x": "x" * LIMIT_BYTES}})
    assert caught.value.exit_code == EXIT_DATA
    assert caught.value.lines[0].startswith("the event cannot be accepted: the baggage of its event would be 1,048,")


def test_an_arrival_is_stored_with_its_context(conn):
    for each in arrive(WEIGHED):
        with db.transaction(conn):
            intake.submit(conn, each.job, context=each.context, dedupe_ttl=TTL, now=START)
        job = job_table.get(conn, each.job.id)
        assert context_table.get(conn, job.event_context_id).accumulated == each.context.accumulated


# init


def submit_inits(conn, *plugins, new_id=ids()) -> list[str]:
    by_name = {plugin.settings.name: plugin for plugin in plugins}
    return intake.submit_inits(conn, by_name, new_id=new_id, now=START)


def test_init_is_queued_for_a_plugin_that_was_never_initialised(conn):
    assert submit_inits(conn, WITH_INIT) == ["echo"]
    (job,) = open_jobs(conn, 10)
    assert (job.plugin, job.command, job.submitted_by, job.max_attempts) == ("echo", "init", Submitter.INIT, 1)


def test_an_init_that_waits_is_not_queued_twice(conn):
    submit_inits(conn, WITH_INIT)
    assert submit_inits(conn, WITH_INIT) == []
    assert len(open_jobs(conn, 10)) == 1


@pytest.mark.parametrize("fingerprint, ok, expected", [
    (FINGERPRINT, True, []), (FINGERPRINT, False, ["echo"]), ("another version", True, ["echo"]),
])
def test_init_is_queued_again_unless_it_has_succeeded_for_this_version(conn, fingerprint, ok, expected):
    plugin_table.put_init(conn, "echo", fingerprint=fingerprint, ok=ok, job_id="a", now=START)
    assert submit_inits(conn, WITH_INIT) == expected


@pytest.mark.parametrize("plugin", [
    worlds.plugin("echo"), worlds.plugin("echo", commands=("poll", "init"), enabled=False),
    worlds.plugin("echo", not_loaded="gone"),
], ids=["without init", "disabled", "not loaded"])
def test_a_plugin_that_needs_no_init_gets_none(conn, plugin):
    before = conn.total_changes
    assert submit_inits(conn, plugin) == []
    assert conn.total_changes == before


def test_all_inits_are_queued_or_none(conn):
    other = worlds.plugin("other", commands=("init",))
    with pytest.raises(db.NotWritten):
        submit_inits(conn, WITH_INIT, other, new_id=lambda: "the same for both")
    assert open_jobs(conn, 10) == []
    assert submit_inits(conn, WITH_INIT, other) == ["echo", "other"]
