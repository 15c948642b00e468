from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from random import Random

import pytest

from ductile import submit as intake
from ductile.config.model import Route
from ductile.ctl.replay import add_replay
from ductile.daemon import Daemon
from ductile.db import Damaged, FateUnknown, NotWritten, database_errors, transaction
from ductile.dispatch import transactions
from ductile.dispatch.outcome import Failed, Interrupted, Outcome, Refused, Succeeded, TimedOut, Unrunnable
from ductile.dispatch.recovery import Recovery
from ductile.dispatch.run_lock import RunLocks
from ductile.dispatch.transactions import rules_for
from ductile.pipeline.graph import Node, build
from ductile.plugin import plugin_table
from ductile.plugin.plugin_table import PluginLoad
from ductile.protocol import decode_response
from ductile.queue import job_table
from ductile.queue.job import Status, Submitter
from ductile.routing import context_table
from ductile.routing.baggage import NewContext
from ductile.routing.router import Router
from ductile.runtime_config import ConfigSource, RuntimeConfig
from ductile.scheduler import retention, schedule_table
from ductile.scheduler import tick as ticker
from ductile.scheduler.breaker import Breaker
from ductile.sdnotify import Notifier
from ductile.state import state_table
from ductile.workspace import artifact_table
from ductile.workspace.artifact import Artifact
from ductile.workspace.manager import Workspaces
from scheduler.schedules import schedule
from support import failing, worlds
from support.clock import START, FakeClock
from support.failing import FailingConnection
from support.ledger import dump, ids, new_job, opened, put_ended, put_job
from workspace.trees import made

DAY = 86400
NEW_ID = ids()
RNG = Random(0)
BREAKERS = {
    "probed": Breaker(state="open", failure_count=3, opened_at=START),
    "echo": Breaker(state="closed", failure_count=2, opened_at=None),
}
ANSWER = decode_response(b'{"status": "ok", "state_updates": {"token": "new"}, "logs": [{"message": "said"}]}')
TARGETS = ("probed", "begins", "echo")
# The first has been handled by one of its three targets before.
EVENTS = decode_response(b"""{"status": "ok", "state_updates": {"last": 3}, "events": [
    {"type": "weighed", "payload": {"kg": 1}, "dedupe_key": "e1"},
    {"type": "weighed", "payload": {"origin_user": "eve"}},
    {"type": "weighed", "payload": 3}]}""")


PIPELINES = {name: build(name=name, on=on, entry=("first",), nodes=[
    Node(id="first", plugin="echo", command="handle", deep_copy=False, next=("second", "third")),
    *(Node(id=each, plugin=each, command="handle", deep_copy=False, next=()) for each in ("second", "third"))])
    for name, on in (("wisdom", "asked"), ("deaths", "ductile.job.dead"), ("breakers", "ductile.breaker.opened"))}
FILES = tuple(Artifact(path=path, size=1, mtime_ns=2, digest="d" * 64) for path in ("a", "sub/b"))


class Ledger:
    """A database with something of everything in it, a connection that can be made to fail, one that looks on."""

    def __init__(self, directory: Path, conn: FailingConnection, onlooker: sqlite3.Connection) -> None:
        self.directory = directory
        self.conn = conn
        self._onlooker = onlooker
        self.runtime = runtime(directory)

    def dump(self) -> list[str]:
        return dump(self._onlooker)


def runtime(directory: Path) -> RuntimeConfig:
    routes = tuple(Route(source="echo", event_type="weighed", target=target) for target in TARGETS)
    return replace(worlds.runtime(
        worlds.plugin("echo", schedule("5m"), replace(schedule("1h", command="handle"), id="second")),
        worlds.plugin("probed", schedule("5m")),
        worlds.plugin("begins", commands=("poll", "init")),
        worlds.plugin("off", enabled=False),
        directory=directory, routes=routes,
    ), router=Router(routes, PIPELINES))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that each test has a copy of."""
    directory = tmp_path_factory.mktemp("template")
    with opened(directory) as conn:
        fill(conn)
    return directory / "state.db"


@pytest.fixture
def ledger(tmp_path: Path, template: Path) -> Iterator[Ledger]:
    shutil.copy(template, tmp_path)
    with opened(tmp_path) as conn, closing(failing.connect(tmp_path / "state.db")) as breaks:
        workspaces = Workspaces(tmp_path / "ws")
        workspaces.make_root()
        artifact_table.add(conn, "made", made(workspaces, {"a": "one"}, "made").values())
        yield Ledger(tmp_path, breaks, conn)


def fill(conn: sqlite3.Connection) -> None:
    put_ended(conn, range(3), at="2025-01-01T00:00:00.000Z")
    put_chain(conn, "old", Status.SUCCEEDED, now=START - timedelta(days=60))
    put_chain(conn, "routed", Status.RUNNING, now=START)
    put_job(conn, "made", Status.SUCCEEDED)
    follows = {"parent_job_id": "made", "root_job_id": "made", "pipeline_name": "wisdom", "step_id": "first",
               "pipeline_hash": PIPELINES["wisdom"].hash, "payload": '{"payload": {"url": "u"}}'}
    put_job(conn, "step", Status.RUNNING, **follows)
    put_job(conn, "ended", Status.DEAD, **follows)
    put_job(conn, "handled", Status.SUCCEEDED, plugin="begins", command="handle", dedupe_key="e1")
    put_job(conn, "done", Status.SUCCEEDED, dedupe_key="k")
    put_job(conn, "running", Status.RUNNING, submitted_by=Submitter.SCHEDULER)
    put_job(conn, "initialising", Status.QUEUED, plugin="elsewhere", command="init", submitted_by=Submitter.INIT)
    put_job(conn, "duplicate", dedupe_key="k")
    put_job(conn, "next")
    put_job(conn, "gone", plugin="removed")
    put_job(conn, "disabled", plugin="off")
    with transaction(conn):
        state_table.put(conn, "echo", {"token": "old"}, START)
        plugin_table.replace_loads(
            conn, [PluginLoad(plugin="old", version=None, enabled=True, needs_init=None, reason="x")], START)
        for name, breaker in BREAKERS.items():
            schedule_table.put_breaker(conn, name, "poll", breaker, START)


def put_chain(conn: sqlite3.Connection, name: str, last: Status, *, now: datetime) -> None:
    """Store a job that has succeeded, and two that follow from it, each with its context."""
    parent = None
    with transaction(conn):
        for hop in (1, 2):
            context = NewContext(id=f"{name}-{hop}", parent_id=parent, hop=hop, accumulated={"origin_user": "ann"})
            context_table.add(conn, context, now)
            parent = context.id
    put_job(conn, f"{name}-root", Status.SUCCEEDED, now=now)
    chain = {"root_job_id": f"{name}-root", "payload": '{"payload": {}}', "now": now}
    put_job(conn, f"{name}-between", Status.SUCCEEDED, event_context_id=f"{name}-1", **chain)
    put_job(conn, name, last, event_context_id=parent, **chain)


def submit(ledger: Ledger) -> None:
    with transaction(ledger.conn):
        intake.submit(ledger.conn, new_job(NEW_ID(), dedupe_key="new"), dedupe_ttl=DAY, now=START)


def claim(ledger: Ledger) -> None:
    # It ends one job as a duplicate and starts the one after it.
    claimed = transactions.claim(ledger.conn, plugins=["echo"], blocked=[], dedupe_ttl=DAY, now=START)
    assert (claimed.job.id, len(claimed.duplicates)) == ("next", 1)


def finish(outcome: Outcome) -> Callable[[Ledger], None]:
    def finish_with_it(ledger: Ledger) -> None:
        job = job_table.get(ledger.conn, "running")
        transactions.finish(ledger.conn, job, outcome, rules_for(ledger.runtime, "echo"), now=START, rng=RNG,
                            new_id=NEW_ID)
    return finish_with_it


def finish_with_events(ledger: Ledger) -> None:
    job = job_table.get(ledger.conn, "routed")
    conclusion = transactions.finish(ledger.conn, job, Succeeded(response=EVENTS), rules_for(ledger.runtime, "echo"),
                                  now=START, rng=RNG, new_id=NEW_ID)
    assert [(way.event, way.plugin) for way in conclusion.deliveries] == list(itertools.product(range(3), TARGETS))
    assert [way.job_id for way in conclusion.deliveries if not way.is_new] == ["handled"]


def finish_a_step(ledger: Ledger) -> None:
    job = job_table.get(ledger.conn, "step")
    conclusion = transactions.finish(ledger.conn, job, Succeeded(response=ANSWER, artifacts=FILES),
                                  rules_for(ledger.runtime, "echo"), now=START, rng=RNG, new_id=NEW_ID)
    assert [(way.event, way.step_id, way.is_new) for way in conclusion.deliveries] == [
        (None, "second", True), (None, "third", True)]


def finish_with_a_death_that_is_told(ledger: Ledger) -> None:
    job = job_table.get(ledger.conn, "running")
    conclusion = transactions.finish(ledger.conn, job, Refused(error="gone", response=ANSWER),
                                  rules_for(ledger.runtime, "echo"), now=START, rng=RNG, new_id=NEW_ID)
    assert [each.job.pipeline_name for each in conclusion.jobs] == ["deaths", "breakers"]


def replay_a_job(ledger: Ledger) -> None:
    add_replay(ledger.conn, "ended", ledger.runtime, now=START, new_id=NEW_ID)


def recover(ledger: Ledger) -> None:
    recovery = Recovery(conn=ledger.conn, locks=RunLocks(ledger.directory / "running"), rng=RNG, new_id=NEW_ID,
                        workspaces=Workspaces(ledger.directory / "ws"))
    recovery.recover(ledger.runtime, START, patience=1)


def tick(ledger: Ledger) -> None:
    later = START + timedelta(days=1)
    ticked = ticker.tick(ledger.conn, ledger.runtime, now=later, rng=RNG, new_id=NEW_ID)
    assert ticked.log_lines


def submit_inits(ledger: Ledger) -> None:
    assert intake.submit_inits(ledger.conn, ledger.runtime.plugins, new_id=NEW_ID, now=START) == ["begins"]


def prune(ledger: Ledger) -> None:
    assert prune_rows(ledger) >= 4


def prune_rows(ledger: Ledger) -> int:
    return retention.prune(ledger.conn, 30 * DAY, START, monotonic=FakeClock().monotonic)


def bury(ledger: Ledger) -> None:
    assert len(retention.fail_unrunnable_jobs(ledger.conn, ledger.runtime, START)) == 3


def replace_loads(ledger: Ledger) -> None:
    with transaction(ledger.conn):
        plugin_table.replace_loads(ledger.conn, [
            PluginLoad(plugin="new", version="1", enabled=True, needs_init=None, reason=None)], START)


OUTCOMES: list[Outcome] = [
    Succeeded(response=ANSWER),
    Failed(error="down", response=ANSWER),
    Refused(error="gone", response=ANSWER),
    TimedOut(error="slow", response=ANSWER),
    Unrunnable(error="could not be started"),
    Interrupted(by="stop", error="stopped", response=ANSWER),
    Interrupted(by="crash", error="orphaned"),
]
ACTIONS: dict[str, Callable[[Ledger], None]] = {
    "submit": submit, "claim": claim, "recover": recover, "tick": tick, "submit_inits": submit_inits, "prune": prune,
    "bury": bury, "replace_loads": replace_loads, "finish with events": finish_with_events,
    "finish a step": finish_a_step, "finish with a death that is told": finish_with_a_death_that_is_told,
    "replay": replay_a_job,
    **{f"finish {type(each).__name__} {getattr(each, 'by', '')}".strip(): finish(each) for each in OUTCOMES},
}
each_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)


def act(ledger: Ledger, action: Callable[[Ledger], None]) -> Exception | None:
    """Do it as the loop does, and return the error that it met."""
    try:
        with database_errors(ledger.conn):
            action(ledger)
    except (NotWritten, FateUnknown, Damaged) as error:
        return error
    finally:
        ledger.conn.mend()
    return None


@each_action
def test_a_write_that_fails_at_any_statement_leaves_the_database_as_it_was(
    ledger: Ledger, action: Callable[[Ledger], None],
) -> None:
    before = ledger.dump()
    for number in itertools.count(1):
        ledger.conn.fail_from(number, sqlite3.SQLITE_FULL)
        error = act(ledger, action)
        assert not ledger.conn.in_transaction
        if ledger.conn.committed:
            # Pages are given back after the commit: that it fails undoes nothing.
            assert error is None or (action is prune and prune_rows(ledger) == 0)
            break
        assert ledger.conn.failed, "nothing failed and nothing was committed"
        assert isinstance(error, NotWritten) or action is recover
        assert ledger.dump() == before
    assert number > 4
    assert ledger.dump() != before


@each_action
@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CONSTRAINT])
def test_a_commit_that_did_not_happen_can_be_tried_again(
    ledger: Ledger, action: Callable[[Ledger], None], code: int,
) -> None:
    before = ledger.dump()
    ledger.conn.fail_at("COMMIT", code)
    error = act(ledger, action)
    assert isinstance(error, NotWritten) or action is recover
    assert (ledger.conn.failed, ledger.conn.in_transaction, ledger.dump()) == (True, False, before)
    assert act(ledger, action) is None
    assert ledger.dump() != before


@each_action
@pytest.mark.parametrize(("code", "kind"), [
    (sqlite3.SQLITE_IOERR, FateUnknown),
    (sqlite3.SQLITE_IOERR_FSYNC, FateUnknown),
    (sqlite3.SQLITE_CORRUPT, Damaged),
    (sqlite3.SQLITE_NOTADB, Damaged),
])
def test_an_io_error_leaves_the_fate_of_a_commit_open_and_damage_is_named(
    ledger: Ledger, action: Callable[[Ledger], None], code: int, kind: type,
) -> None:
    ledger.conn.fail_at("COMMIT", code)
    error = act(ledger, action)
    assert type(error) is kind
    assert not ledger.conn.in_transaction


@pytest.mark.parametrize(("code", "kind"), [(sqlite3.SQLITE_IOERR, FateUnknown), (sqlite3.SQLITE_CORRUPT, Damaged)])
def test_a_disk_that_breaks_at_any_statement_of_a_start_ends_it_with_a_clear_word(
    ledger: Ledger, code: int, kind: type,
) -> None:
    for number in itertools.count(1):
        daemon = Daemon(
            ledger.runtime, ledger.conn, clock=FakeClock(), rng=RNG, new_id=NEW_ID, notifier=Notifier({}),
            inbox=SimpleQueue(), locks=RunLocks(ledger.directory / "running"),
            workspaces=Workspaces(ledger.directory / "ws"),
            source=ConfigSource(path=ledger.directory / "config.yaml", environ={}))
        ledger.conn.fail_from(number, code)
        try:
            daemon.prepare()
        except (FateUnknown, Damaged) as error:
            assert type(error) is kind
        finally:
            ledger.conn.mend()
            daemon.close()
        if not ledger.conn.failed:
            break
    assert number > 20


def test_a_fan_out_that_was_interrupted_everywhere_is_whole_in_the_end_and_there_once(ledger: Ledger) -> None:
    for number in itertools.count(1):
        ledger.conn.fail_from(number, sqlite3.SQLITE_FULL)
        act(ledger, finish_with_events)
        if ledger.conn.committed:
            break
    # Two events have three new jobs each, the first has two; each has its context.
    assert number > 2 * 8
    assert ledger.conn.execute(
        "SELECT plugin, count(*), count(DISTINCT event_context_id), count(DISTINCT source_event_id) FROM job_queue"
        " WHERE parent_job_id = 'routed' AND root_job_id = 'routed-root' GROUP BY plugin ORDER BY plugin"
    ).fetchall() == [("begins", 2, 2, 2), ("echo", 3, 3, 3), ("probed", 3, 3, 3)]
    assert ledger.conn.execute(
        "SELECT hop, accumulated_json, count(*) FROM event_context WHERE parent_id = 'routed-2' GROUP BY 2 ORDER BY 2"
    ).fetchall() == [
        (3, '{"origin_user":"ann","last":3,"kg":1}', 2), (3, '{"origin_user":"ann","last":3}', 6)]
    assert ledger.conn.execute("SELECT count(*) FROM job_log WHERE job_id = 'routed'").fetchall() == [(1,)]


def test_a_real_full_database_takes_nothing_and_loses_nothing(ledger: Ledger) -> None:
    pages = ledger.conn.execute("PRAGMA page_count").fetchone()[0]
    ledger.conn.execute(f"PRAGMA max_page_count = {pages}")
    before = ledger.dump()
    large = decode_response(b'{"status": "ok", "state_updates": {"x": "%s"}}' % (b"y" * 500_000))
    assert isinstance(act(ledger, finish(Succeeded(response=large))), NotWritten)
    assert (ledger.conn.in_transaction, ledger.dump()) == (False, before)
    ledger.conn.execute(f"PRAGMA max_page_count = {pages * 1000}")
    assert act(ledger, finish(Succeeded(response=large))) is None
    assert job_table.get(ledger.conn, "running").status is Status.SUCCEEDED


def each_failure(ledger: Ledger, action: Callable[[Ledger], None]) -> int:
    """Do it again and again, failing at each statement in turn, until it is done. Return how many there are."""
    for number in itertools.count(1):
        ledger.conn.fail_from(number, sqlite3.SQLITE_FULL)
        act(ledger, action)
        if ledger.conn.committed:
            return number
    return None


def test_a_step_that_was_interrupted_everywhere_has_its_files_and_its_next_steps_once(ledger: Ledger) -> None:
    # Two next steps with a context each, two files.
    assert each_failure(ledger, finish_a_step) > 6
    assert ledger.conn.execute("SELECT step_id, payload ->> '$.payload.url' FROM job_queue WHERE parent_job_id = 'step'"
                               ).fetchall() == [("second", "u"), ("third", "u")]
    assert ledger.conn.execute("SELECT path FROM artifacts WHERE job_id = 'step'").fetchall() == [("a",), ("sub/b",)]
    assert ledger.conn.execute("SELECT result ->> '$.ways[1].step_id' FROM job_log WHERE job_id = 'step'"
                               ).fetchall() == [("third",)]


def test_a_death_that_was_interrupted_everywhere_is_told_once(ledger: Ledger) -> None:
    assert each_failure(ledger, finish_with_a_death_that_is_told) > 6
    assert ledger.conn.execute("SELECT pipeline_name, core_event, count(*) FROM job_queue"
                               " WHERE parent_job_id = 'running' GROUP BY 1 ORDER BY 1").fetchall() == [
        ("breakers", "ductile.breaker.opened", 1), ("deaths", "ductile.job.dead", 1)]
    assert ledger.conn.execute("SELECT state FROM circuit_breakers WHERE plugin = 'echo'").fetchall() == [("open",)]


def test_a_replay_that_was_interrupted_everywhere_is_queued_once(ledger: Ledger) -> None:
    assert each_failure(ledger, replay_a_job) > 3
    assert ledger.conn.execute("SELECT status FROM job_queue WHERE replay_of = 'ended'").fetchall() == [("queued",)]
