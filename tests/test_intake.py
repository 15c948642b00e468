from __future__ import annotations

import json
from datetime import timedelta

import pytest
from support import worlds
from support.clock import START
from support.ledger import ids, new_job, opened, put_job

from ductile import db, intake
from ductile.config.schema import Retry
from ductile.plugin import rows as plugin_rows
from ductile.queue import rows as queue_rows
from ductile.queue.job import Status, Submitter

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
    assert queue_rows.get(conn, "a").status is Status.QUEUED


@pytest.mark.parametrize("seconds, is_new", [(0, False), (TTL, False), (TTL + 0.001, True)])
def test_a_job_whose_key_has_succeeded_is_the_earlier_one_for_as_long_as_set(conn, seconds, is_new):
    put_job(conn, "a", Status.SUCCEEDED, dedupe_key="k")
    submitted = submit(conn, new_job("b", dedupe_key="k"), seconds)
    assert submitted == intake.Submitted(job_id="b" if is_new else "a", is_new=is_new)
    assert (queue_rows.get(conn, "b") is not None) is is_new


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
    with pytest.raises(LookupError):
        with db.transaction(conn):
            intake.submit(conn, new_job("a"), dedupe_ttl=TTL, now=START)
            raise LookupError
    assert queue_rows.get(conn, "a") is None


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


# init


def submit_inits(conn, *plugins, new_id=ids()) -> list[str]:
    by_name = {plugin.settings.name: plugin for plugin in plugins}
    return intake.submit_inits(conn, by_name, new_id=new_id, now=START)


def test_init_is_queued_for_a_plugin_that_was_never_initialised(conn):
    assert submit_inits(conn, WITH_INIT) == ["echo"]
    (job,) = queue_rows.open_jobs(conn, 10)
    assert (job.plugin, job.command, job.submitted_by, job.max_attempts) == ("echo", "init", Submitter.INIT, 1)


def test_an_init_that_waits_is_not_queued_twice(conn):
    submit_inits(conn, WITH_INIT)
    assert submit_inits(conn, WITH_INIT) == []
    assert len(queue_rows.open_jobs(conn, 10)) == 1


@pytest.mark.parametrize("fingerprint, ok, expected", [
    (FINGERPRINT, True, []), (FINGERPRINT, False, ["echo"]), ("another version", True, ["echo"]),
])
def test_init_is_queued_again_unless_it_has_succeeded_for_this_version(conn, fingerprint, ok, expected):
    plugin_rows.put_init(conn, "echo", fingerprint=fingerprint, ok=ok, job_id="a", now=START)
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
    assert queue_rows.open_jobs(conn, 10) == []
    assert submit_inits(conn, WITH_INIT, other) == ["echo", "other"]
