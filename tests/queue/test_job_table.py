from __future__ import annotations

from datetime import timedelta

import pytest

from ductile import db
from ductile.queue import job_table
from ductile.queue.job import Status, Submitter
from ductile.units import utc_text
from support.clock import START
from support.ledger import ids, new_job, opened, put_job

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def conn(tmp_path):
    with opened(tmp_path) as conn:
        yield conn


def waiting(conn, job_id, retry_at, **fields):
    """A job that waits for its second attempt."""
    job = put_job(conn, job_id, Status.RUNNING, **fields)
    job_table.move(conn, job, Status.QUEUED, START, attempt=2, retry_at=retry_at)


def ready(conn, plugins=("echo",), held=()):
    job = job_table.next_ready(conn, plugins, held)
    return job and job.id


def drain(conn, plugins=("echo",)) -> list[str]:
    """The jobs in the order in which they run."""
    order = []
    while (job := job_table.next_ready(conn, plugins, ())) is not None:
        job_table.move(conn, job, Status.RUNNING, START)
        order.append(job.id)
    return order


def test_a_job_is_stored_with_all_that_it_has(conn):
    put_job(conn, "parent")
    fields = {"plugin": "p", "command": "handle", "max_attempts": 7, "submitted_by": Submitter.PIPELINE,
              "payload": '{"type": "x"}', "dedupe_key": "k", "parent_job_id": "parent", "root_job_id": "parent",
              "source_event_id": "e", "pipeline_name": "n", "pipeline_hash": "h", "step_id": "s", "replay_of": "r"}
    job = put_job(conn, "a", **fields)
    assert {name: getattr(job, name) for name in fields} == fields
    assert (job.status, job.attempt, job.created_at) == (Status.QUEUED, 1, START)
    assert (job.started_at, job.completed_at, job.next_retry_at, job.last_error) == (None, None, None, None)


def test_a_job_without_a_root_is_its_own(conn):
    assert put_job(conn, "a").root_job_id == "a"


def test_an_id_that_is_not_there_is_none(conn):
    assert job_table.get(conn, "a") is None


# Which one is next


def test_jobs_run_in_the_order_in_which_they_were_enqueued_whatever_the_clock_said(conn):
    for number, shift in enumerate((0, -60, 3600, -86400, 5)):
        put_job(conn, f"job-{number}", now=START + timedelta(seconds=shift))
    assert drain(conn) == ["job-0", "job-1", "job-2", "job-3", "job-4"]


def test_jobs_of_one_call_run_in_its_order(conn):
    with db.transaction(conn):
        job_table.add(conn, [new_job(name) for name in ("c", "a", "b")], START)
    assert drain(conn) == ["c", "a", "b"]


def test_the_order_is_one_for_all_plugins(conn):
    for number in range(6):
        put_job(conn, f"job-{number}", plugin=("one", "two", "three")[number % 3])
    assert drain(conn, ("two", "three", "one")) == [f"job-{number}" for number in range(6)]


def test_plugins_that_may_not_run_are_passed_over(conn):
    put_job(conn, "a", plugin="off")
    put_job(conn, "b", plugin="echo")
    assert ready(conn) == "b"
    assert ready(conn, ("off", "echo")) == "a"
    assert ready(conn, ()) is None
    assert ready(conn, ("unknown",)) is None


def test_held_jobs_are_passed_over(conn):
    for name in ("a", "b", "c"):
        put_job(conn, name)
    assert ready(conn, held=["a", "b"]) == "c"
    assert ready(conn, held=["b"]) == "a"
    assert ready(conn, held=["a", "b", "c"]) is None


def test_a_retry_that_is_due_runs_in_its_old_place(conn):
    waiting(conn, "a", START + MINUTE)
    put_job(conn, "b")
    assert ready(conn) == "b"
    job_table.release_due_retries(conn, START + MINUTE)
    assert ready(conn) == "a"


def test_a_retry_that_is_not_due_waits(conn):
    waiting(conn, "a", START + MINUTE)
    job_table.release_due_retries(conn, START + MINUTE - timedelta(milliseconds=1))
    assert ready(conn) is None
    assert job_table.get(conn, "a").next_retry_at == START + MINUTE


@pytest.mark.parametrize("status", [Status.RUNNING, Status.SUCCEEDED, Status.DEAD, Status.DEDUPED])
def test_only_queued_jobs_are_next(conn, status):
    put_job(conn, "a", status)
    assert ready(conn) is None


# Retries


def test_the_next_retry_is_the_earliest_one(conn):
    assert job_table.next_retry_at(conn) is None
    waiting(conn, "a", START + HOUR)
    waiting(conn, "b", START + MINUTE)
    put_job(conn, "c")
    assert job_table.next_retry_at(conn) == START + MINUTE


def test_retries_further_off_than_their_plugin_allows_are_released(conn):
    waiting(conn, "echo-near", START + MINUTE)
    waiting(conn, "echo-far", START + MINUTE + timedelta(milliseconds=1))
    waiting(conn, "slow-near", START + HOUR, plugin="slow")
    waiting(conn, "slow-far", START + 2 * HOUR, plugin="slow")
    waiting(conn, "gone", START + 100 * HOUR, plugin="gone")
    latest = {"echo": START + MINUTE, "slow": START + HOUR}
    assert job_table.release_stranded_retries(conn, latest) == 2
    due = conn.execute("SELECT id FROM job_queue WHERE next_retry_at IS NULL ORDER BY id").fetchall()
    assert due == [("echo-far",), ("slow-far",)]


def test_with_no_plugins_no_retry_is_released(conn):
    waiting(conn, "a", START + HOUR)
    assert job_table.release_stranded_retries(conn, {}) == 0


def test_whether_a_retry_is_later_than_a_moment_can_be_asked(conn):
    waiting(conn, "a", START + HOUR)
    assert job_table.has_retry_after(conn, START + HOUR) is False
    assert job_table.has_retry_after(conn, START + HOUR - timedelta(milliseconds=1)) is True


# Duplicates

KEYED = {"dedupe_key": "k", "plugin": "p", "command": "handle", "pipeline_name": "n", "step_id": "s"}


def test_the_same_key_in_the_same_place_is_a_duplicate(conn):
    put_job(conn, "a", Status.SUCCEEDED, **KEYED)
    assert job_table.succeeded_with_key(conn, new_job("b", **KEYED), START - HOUR) == "a"


@pytest.mark.parametrize("other", [
    {"dedupe_key": "K"}, {"plugin": "q"}, {"command": "poll"}, {"pipeline_name": "m"}, {"step_id": "t"},
    {"pipeline_name": None}, {"step_id": None}, {"dedupe_key": None},
])
def test_in_another_place_it_is_none(conn, other):
    put_job(conn, "a", Status.SUCCEEDED, **KEYED)
    assert job_table.succeeded_with_key(conn, new_job("b", **KEYED | other), START - HOUR) is None


def test_outside_any_pipeline_the_key_counts_too(conn):
    keyed = KEYED | {"pipeline_name": None, "step_id": None}
    put_job(conn, "a", Status.SUCCEEDED, **keyed)
    assert job_table.succeeded_with_key(conn, new_job("b", **keyed), START - HOUR) == "a"


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.DEAD, Status.DEDUPED])
def test_only_a_success_makes_duplicates(conn, status):
    put_job(conn, "a", status, **KEYED)
    assert job_table.succeeded_with_key(conn, new_job("b", **KEYED), START - HOUR) is None


@pytest.mark.parametrize("shift, expected", [(0, "a"), (1, None)])
def test_a_success_counts_from_the_moment_given(conn, shift, expected):
    put_job(conn, "a", Status.SUCCEEDED, **KEYED)
    since = START + timedelta(milliseconds=shift)
    assert job_table.succeeded_with_key(conn, new_job("b", **KEYED), since) == expected


def test_of_two_successes_the_later_is_named(conn):
    put_job(conn, "a", Status.SUCCEEDED, now=START + HOUR, **KEYED)
    put_job(conn, "b", Status.SUCCEEDED, now=START, **KEYED)
    assert job_table.succeeded_with_key(conn, new_job("c", **KEYED), START - HOUR) == "a"


# Depth


@pytest.mark.parametrize("queued, running, full", [
    (0, 0, False), (2, 0, False), (3, 0, True), (4, 0, True), (2, 1, False), (3, 1, True),
])
def test_the_queue_is_full_when_as_many_wait_as_allowed(conn, queued, running, full):
    new_id = ids()
    for _ in range(queued):
        put_job(conn, new_id())
    for _ in range(running):
        put_job(conn, new_id(), Status.RUNNING)
    for status in (Status.SUCCEEDED, Status.DEAD, Status.DEDUPED):
        put_job(conn, new_id(), status)
    assert job_table.is_full(conn, 3) is full


def test_jobs_that_wait_for_a_retry_fill_the_queue_too(conn):
    waiting(conn, "a", START + HOUR)
    put_job(conn, "b")
    assert job_table.is_full(conn, 2) is True


def test_an_empty_queue_has_room_unless_there_is_none_at_all(conn):
    assert [job_table.is_full(conn, most) for most in (0, 1)] == [True, False]


@pytest.mark.parametrize("status, counted", [
    (Status.QUEUED, True), (Status.RUNNING, True), (Status.SUCCEEDED, False), (Status.DEAD, False),
])
def test_open_jobs_of_a_command_are_counted_by_submitter(conn, status, counted):
    scheduled = {"submitted_by": Submitter.SCHEDULER}
    put_job(conn, "a", status, **scheduled)
    put_job(conn, "b", status, **scheduled)
    put_job(conn, "c", status, submitted_by=Submitter.CLI)
    put_job(conn, "d", status, command="handle", **scheduled)
    put_job(conn, "e", status, plugin="other", **scheduled)
    assert job_table.count_open(conn, "echo", "poll", Submitter.SCHEDULER) == (2 if counted else 0)
    assert job_table.has_open(conn, "other", "poll") is counted
    assert job_table.has_open(conn, "other", "handle") is False


# Lists


def test_running_jobs_are_listed(conn):
    put_job(conn, "a", Status.RUNNING)
    put_job(conn, "b")
    assert [job.id for job in job_table.running(conn)] == ["a"]


@pytest.mark.parametrize("prefix, found", [
    ("abcd", ["abcd-1", "abcd-2", "abcde-3"]), ("abcd-", ["abcd-1", "abcd-2"]), ("abcde", ["abcde-3"]),
    ("abcd-1", ["abcd-1"]), ("abcd-11", []), ("b", []), ("ABCD", []), ("%", []), ("abc_", []),
])
def test_jobs_are_found_by_the_beginning_of_their_id(conn, prefix, found):
    for name in ("abcd-2", "abcd-1", "abcde-3", "zzzz"):
        put_job(conn, name)
    assert [job.id for job in job_table.with_prefix(conn, prefix, 10)] == found
    assert [job.id for job in job_table.with_prefix(conn, prefix, 1)] == found[:1]


def test_queued_jobs_of_other_plugins_are_found_up_to_a_limit(conn):
    for plugin in ("a", "b", "c", "d"):
        for number in range(3):
            put_job(conn, f"{plugin}-{number}", plugin=plugin)
        put_job(conn, f"{plugin}-running", Status.RUNNING, plugin=plugin)
        put_job(conn, f"{plugin}-dead", Status.DEAD, plugin=plugin)
    waiting(conn, "d-waiting", START + HOUR, plugin="d")

    def outside(plugins, limit):
        return sorted(job.id for job in job_table.queued_outside(conn, plugins, limit))

    assert outside(("b", "c"), 100) == ["a-0", "a-1", "a-2", "d-0", "d-1", "d-2", "d-waiting"]
    assert outside(("a", "b", "c", "d", "unknown"), 100) == []
    assert outside((), 4) == ["a-0", "a-1", "a-2", "b-0"]
    assert outside((), 1) == ["a-0"]


# Chains


def chain(conn, root, *statuses, hours=0):
    """A root and its descendants, one below the other, all stored at the same hour."""
    parent = None
    for number, status in enumerate(statuses):
        name = root if number == 0 else f"{root}-{number}"
        put_job(conn, name, status, now=START + hours * HOUR, parent_job_id=parent, root_job_id=root)
        parent = name


def test_only_chains_that_ended_as_a_whole_are_found(conn):
    chain(conn, "ended", Status.SUCCEEDED, Status.DEAD, Status.DEDUPED)
    chain(conn, "queued", Status.SUCCEEDED, Status.QUEUED)
    chain(conn, "running", Status.SUCCEEDED, Status.RUNNING)
    chain(conn, "young", Status.SUCCEEDED, hours=2)
    put_job(conn, "mixed", Status.SUCCEEDED)
    put_job(conn, "mixed-1", Status.SUCCEEDED, now=START + 2 * HOUR, parent_job_id="mixed", root_job_id="mixed")
    assert job_table.ended_chains(conn, START + HOUR, 10) == ["ended"]
    assert job_table.newest_of_chains(conn, ["ended"], 9) == ["ended-2", "ended-1", "ended"]
    assert job_table.newest_of_chains(conn, ["ended", "young"], 2) == ["young", "ended-2"]


def test_a_chain_has_ended_with_its_last_job(conn):
    chain(conn, "open", Status.SUCCEEDED, Status.QUEUED)
    put_job(conn, "ended", Status.DEAD)
    put_job(conn, "ended-1", Status.SUCCEEDED, now=START + 2 * HOUR, parent_job_id="ended", root_job_id="ended")
    assert job_table.chain_end(conn, "open") == job_table.ChainEnd(ended_at=None)
    assert job_table.chain_end(conn, "ended") == job_table.ChainEnd(ended_at=START + 2 * HOUR)


def test_a_chain_is_found_once_whatever_its_length_and_no_more_than_the_limit(conn):
    for name in ("a", "b", "c"):
        chain(conn, name, *[Status.SUCCEEDED] * 4)
    assert sorted(job_table.ended_chains(conn, START + HOUR, 10)) == ["a", "b", "c"]
    assert len(job_table.ended_chains(conn, START + HOUR, 2)) == 2


@pytest.mark.parametrize("shift, found", [(0, []), (1, ["a"])])
def test_a_chain_is_old_from_the_moment_after_its_end(conn, shift, found):
    put_job(conn, "a", Status.SUCCEEDED)
    assert job_table.ended_chains(conn, START + timedelta(milliseconds=shift), 10) == found


def test_a_chain_is_removed_in_one_statement_parents_and_children(conn):
    chain(conn, "a", *[Status.SUCCEEDED] * 3)
    put_job(conn, "b")
    with db.transaction(conn):
        job_table.remove(conn, job_table.newest_of_chains(conn, ["a"], 9))
    assert conn.execute("SELECT id FROM job_queue").fetchall() == [("b",)]


@pytest.mark.parametrize(("most", "counted"), [(9, 3), (3, 3), (2, 2)])
def test_waiting_jobs_are_counted_up_to_a_limit(conn, most, counted):
    put_job(conn, "running", Status.RUNNING)
    put_job(conn, "ended", Status.SUCCEEDED)
    for name in ("a", "b", "c"):
        put_job(conn, name)
    assert job_table.count_waiting(conn, most) == counted


def test_the_oldest_waiting_job_is_the_first_that_is_queued(conn):
    assert job_table.oldest_waiting(conn) is None
    put_job(conn, "running", Status.RUNNING)
    put_job(conn, "first", now=START + MINUTE)
    put_job(conn, "second", now=START + HOUR)
    assert job_table.oldest_waiting(conn) == utc_text(START + MINUTE)
