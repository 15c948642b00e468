"""What the daemon does again and again must cost the same however many jobs there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from ductile import db
from ductile import submit as intake
from ductile.config.model import BreakerRule, Retry
from ductile.dispatch import job_workspace, transactions
from ductile.dispatch.conclude import Rules
from ductile.dispatch.outcome import Refused, Succeeded
from ductile.pipeline import version_table
from ductile.pipeline.graph import Node, build
from ductile.protocol import decode_response
from ductile.queue import attempt_table, job_table
from ductile.queue.job import Status, Submitter
from ductile.routing import context_table
from ductile.routing.router import Router
from ductile.scheduler import retention
from ductile.scheduler import tick as ticker
from ductile.units import utc_text
from ductile.workspace.artifact import Artifact
from ductile.workspace.manager import Workspaces
from scheduler.schedules import schedule
from support import worlds
from support.clock import START, FakeClock
from support.ledger import ids, new_job, opened, put_ended, put_job, recording, steps

DAY = timedelta(days=1)
WEEK = 7 * 86400
RULES = Rules(retry=Retry(), breaker=BreakerRule(), fingerprint=None, routing=worlds.NO_ROUTING)
WORLD = worlds.runtime(worlds.plugin("echo", schedule("5m")), max_queue_depth=100)
WISDOM, DEATHS = (build(name=name, on=on, entry=("one",), nodes=[
    Node(id="one", plugin="echo", command="poll", deep_copy=False, next=("two",)),
    Node(id="two", plugin="echo", command="poll", deep_copy=False, next=()),
]) for name, on in (("wisdom", None), ("deaths", "ductile.job.dead")))
# Without the version that a job began with: that has to be read.
PIPED = replace(RULES, routing=replace(worlds.NO_ROUTING, router=Router((), {"deaths": DEATHS})))
SAID = decode_response(b'{"status": "ok"}')
FILES = (Artifact(path="a", size=1, mtime_ns=2, digest="d"),)
# One of `put_ended`.
ENDED = "00000001-0000-4000-8000-000000000000"
KEYED = new_job("new", dedupe_key="key-1", submitted_by=Submitter.WEBHOOK)


def claim(conn):
    transactions.claim(conn, plugins=["echo"], blocked=["h"], dedupe_ttl=86400, now=START)


def finish(conn):
    transactions.finish(conn, job_table.get(conn, "running"), Succeeded(), RULES, now=START, rng=Random(0),
                        new_id=ids())


def submit(conn):
    with db.transaction(conn):
        intake.submit(conn, KEYED, dedupe_ttl=86400, now=START)


def tick(conn):
    ticker.tick(conn, WORLD, now=START, rng=Random(0), new_id=ids())


def prune(conn):
    assert retention.prune(conn, WEEK, START + 14 * DAY, monotonic=FakeClock().monotonic) > 0


def prune_nothing(conn):
    assert retention.prune(conn, WEEK, START, monotonic=FakeClock().monotonic) == 0


def bury(conn):
    assert len(retention.fail_unrunnable_jobs(conn, worlds.runtime(worlds.plugin("other")), START)) > 0


def bury_nothing(conn):
    assert retention.fail_unrunnable_jobs(conn, worlds.runtime(worlds.plugin("echo"), worlds.plugin("off")),
                                          START) == []


def finish_step(conn):
    job = job_table.get(conn, "step")
    found = transactions.finish(conn, job, Succeeded(response=SAID, artifacts=FILES), PIPED, now=START, rng=Random(0),
                             new_id=ids())
    assert [way.step_id for way in found.deliveries] == ["two"]


def finish_dead(conn):
    found = transactions.finish(conn, job_table.get(conn, "running"), Refused(error="gone"), PIPED, now=START,
                                rng=Random(0),
                             new_id=ids())
    assert [each.job.pipeline_name for each in found.jobs] == ["deaths"]


def look_at_chains(conn):
    assert job_table.roots_of(conn, ["step", "nobody's"]) == {"step": ENDED}
    assert job_table.chain_end(conn, ENDED) == job_table.ChainEnd(ended_at=None)
    assert job_table.chain_end(conn, "nobody's") is None


def release(conn):
    ticker.release_stranded_retries(conn, WORLD, START - DAY)


# What the loop, a webhook and the router do.
OFTEN: list[Callable] = [
    claim, finish, submit, tick, prune, prune_nothing, bury, bury_nothing, release, finish_step, finish_dead,
    look_at_chains,
    lambda conn: job_workspace.inherited(conn, job_table.get(conn, "step"), Router(()), Workspaces(worlds.NOWHERE)),
    lambda conn: version_table.get(conn, WISDOM.hash),
    lambda conn: job_table.next_retry_at(conn),
    lambda conn: job_table.running(conn),
    lambda conn: job_table.is_full(conn, 100),
    lambda conn: job_table.count_open(conn, "echo", "poll", Submitter.SCHEDULER),
    lambda conn: job_table.has_open(conn, "echo", "init"),
    lambda conn: job_table.get(conn, "running"),
    lambda conn: attempt_table.has_attempt(conn, "running", 1),
]
# What the operator asks for: it may read an index, but not the table row by row.
ON_DEMAND: list[Callable] = [
    lambda conn: job_table.with_prefix(conn, "abcd", 2),
    lambda conn: job_table.of_chain(conn, "running"),
    lambda conn: job_table.count_waiting(conn, 100),
    lambda conn: job_table.count_queued_outside(conn, ["echo"]),
    lambda conn: attempt_table.of_job(conn, "running"),
    lambda conn: list(attempt_table.of_jobs(conn, ["running"])),
    lambda conn: list(context_table.with_parents(conn, ["context"])),
]


@pytest.fixture
def conn(tmp_path):
    """A few jobs of every status, and one attempt each of those that ended."""
    with opened(tmp_path) as conn:
        put_ended(conn, range(20), at=utc_text(START))
        put_job(conn, "running", Status.RUNNING)
        put_job(conn, "ready", dedupe_key="key-x")
        put_job(conn, "off", plugin="off")
        put_job(conn, "step", Status.RUNNING, parent_job_id=ENDED, root_job_id=ENDED, payload='{"payload": 1}',
                pipeline_name="wisdom", pipeline_hash=WISDOM.hash, step_id="one")
        version_table.add(conn, [WISDOM, DEATHS], START)
        job_table.move(conn, put_job(conn, "retry", Status.RUNNING), Status.QUEUED, START, attempt=2,
                       retry_at=START + DAY)
        with recording(tmp_path) as recorder:
            yield recorder


def plans(conn, act) -> list[tuple[str, str]]:
    """What SQLite does for each statement of an act, table by table, and the statement."""
    conn.seen.clear()
    act(conn)
    asked = [(sql, bound) for sql, bound in conn.seen if re.match(r"SELECT|UPDATE|INSERT|DELETE|WITH", sql)]
    assert asked
    return [(row[3], sql) for sql, bound in asked for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", bound)]


def scans(found: list[tuple[str, str]], allowed: str = "no index at all") -> list[tuple[str, str]]:
    tables = r"SCAN (job_queue|job_log|event_context|pipeline_versions|artifacts|[jqc])\b"
    return [(step, sql) for step, sql in found if re.match(tables, step) and allowed not in step]


@pytest.mark.parametrize("act", OFTEN)
def test_what_is_done_often_scans_neither_the_queue_nor_the_log(conn, act):
    # The index of running jobs holds one; a walk along the open jobs ends at its limit.
    found = scans(plans(conn, act), allowed="INDEX job_queue_running")
    assert [(step, sql) for step, sql in found
            if not (step.endswith("INDEX job_queue_open_seq") and re.search(r"LIMIT \?", sql))] == []


@pytest.mark.parametrize("act", ON_DEMAND)
def test_what_the_operator_asks_for_reads_no_table_row_by_row(conn, act):
    assert scans(plans(conn, act), allowed=" INDEX ") == []


def test_a_plan_that_scans_would_be_seen(conn):
    assert scans(plans(conn, lambda conn: conn.execute("SELECT * FROM job_queue WHERE last_error = ?", ("x",))))


# Work, counted in steps of SQLite's machine


@pytest.fixture(scope="module", params=["finished", "waiting"])
def sizes(request, tmp_path_factory):
    """Two databases, one with 300 and one with 20,000 jobs more than the same few."""
    conns = []
    for count in (300, 20_000):
        conn = db.open_for_daemon(tmp_path_factory.mktemp(f"{request.param}-{count}") / "state.db")
        put_ended(conn, range(200), at=utc_text(START))
        if request.param == "finished":
            put_ended(conn, range(1000, 1000 + count), at=utc_text(START + 10 * DAY))
        else:
            with db.transaction(conn):
                job_table.add(conn, [new_job(f"off-{number}", plugin="off") for number in range(count)], START)
        put_job(conn, "running", Status.RUNNING)
        put_job(conn, "ready")
        conns.append(conn)
    yield conns
    for conn in conns:
        conn.close()


def claim_and_put_back(conn):
    claim(conn)
    job_table.move(conn, job_table.get(conn, "ready"), Status.QUEUED, START)


def submit_and_take_back(conn):
    submit(conn)
    job_table.remove(conn, ["new"])


REPEATABLE: list[Callable] = [
    claim_and_put_back, submit_and_take_back, prune_nothing, release,
    lambda conn: job_table.queued_outside(conn, ["echo"], 1),
    lambda conn: job_table.next_retry_at(conn),
    lambda conn: job_table.running(conn),
    lambda conn: job_table.is_full(conn, 100),
    lambda conn: job_table.count_open(conn, "echo", "poll", Submitter.SCHEDULER),
    lambda conn: job_table.has_open(conn, "echo", "init"),
    lambda conn: job_table.chain_end(conn, "ready"),
    lambda conn: job_table.ended_chains(conn, START + DAY, 100),
]


@pytest.mark.parametrize("act", REPEATABLE)
def test_the_work_does_not_grow_with_the_number_of_jobs(sizes, act):
    done = []
    for conn in sizes:
        with steps(conn) as counted:
            act(conn)
        done.append(counted[0])
    few, many = done
    assert many <= few * 1.2 + 20


def test_pruning_a_batch_does_not_grow_with_the_number_of_jobs(sizes):
    done = []
    for conn in sizes:
        with steps(conn) as counted:
            assert retention.prune(conn, WEEK, START + 8 * DAY, monotonic=FakeClock().monotonic) >= 100
        done.append(counted[0])
    few, many = done
    assert few > 100
    assert many <= few * 1.2 + 20
