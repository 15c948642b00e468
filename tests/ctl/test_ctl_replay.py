"""`replay`: a job once more, from the event, the context and the files that it began with."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ctl.desk import PATIENCE_SECONDS, Desk, Said, job_id, start
from ductile import db, runtime_config
from ductile.ctl.replay import add_replay
from ductile.errors import DuctileError
from ductile.queue import job_table
from ductile.queue.job import Job, Status, Submitter
from ductile.routing import context_table
from ductile.routing.baggage import NewContext
from ductile.workspace import artifact_table
from ductile.workspace.manager import Workspaces
from support.clock import START
from support.daemon import RealDaemon
from support.ledger import ids, put_job
from workspace.trees import NOT_UTF8, made, tree

DOWN = "ductiled is not running; the job waits until it does\n"
PARENT, JOB, OTHER = job_id(1), job_id(2), job_id(3)
EVENT = '{"type":"asked","payload":{"url":"u"},"source":"echo","event_id":"e1"}'
STEP = {"pipeline_name": "wisdom", "pipeline_hash": "f" * 64, "step_id": "sum"}


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.plugin("echo", commands=("poll", "init", "handle"))
    with desk.ledger() as conn:
        yield conn


@pytest.fixture
def workspaces(desk: Desk) -> Workspaces:
    found = Workspaces(desk.home / "data" / "ws")
    found.make_root()
    return found


def put_chain(conn: sqlite3.Connection, status: Status = Status.SUCCEEDED, **fields: object) -> Job:
    """A job that has ended, and one of a step that follows from it with everything that a job can have."""
    put_job(conn, PARENT, Status.SUCCEEDED)
    with db.transaction(conn):
        context_table.add(conn, NewContext(id="c1", hop=1, accumulated={"url": "u"}), START)
    return put_job(conn, JOB, status, **{
        "command": "handle", "payload": EVENT, "dedupe_key": "k", "parent_job_id": PARENT, "root_job_id": PARENT,
        "source_event_id": "e1", "event_context_id": "c1", "submitted_by": Submitter.PIPELINE, **STEP} | fields)


def give_input(conn: sqlite3.Connection, workspaces: Workspaces, files: dict[str, str]) -> None:
    """Give the parent these files, as its success does."""
    artifact_table.add(conn, PARENT, made(workspaces, files, PARENT).values())


def newest(conn: sqlite3.Connection) -> Job:
    ((found,),) = conn.execute("SELECT id FROM job_queue ORDER BY seq DESC LIMIT 1")
    return job_table.get(conn, found)


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.DEAD, Status.DEDUPED])
def test_a_replay_has_all_that_its_job_began_with(conn: sqlite3.Connection, desk: Desk, status: Status) -> None:
    before = put_chain(conn, status)
    conn.execute("UPDATE job_queue SET attempt = 4, last_error = 'why' WHERE id = ?", (JOB,))
    said = desk.call("replay", JOB)
    again = newest(conn)
    assert said == Said(code=0, out=f"{again.id}\n", err=DOWN)
    assert again == replace(
        before, seq=again.seq, id=again.id, status=Status.QUEUED, submitted_by=Submitter.REPLAY, replay_of=JOB,
        created_at=again.created_at, started_at=None, completed_at=None)
    assert job_table.get(conn, JOB).last_error == "why"


def test_the_document_names_both(conn: sqlite3.Connection, desk: Desk) -> None:
    put_chain(conn)
    said = desk.call("replay", "00000002", "--json")
    assert said.json == {"job_id": newest(conn).id, "replay_of": JOB}
    assert said.err == DOWN


def test_a_replay_of_a_root_stays_in_its_chain(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, PARENT, Status.SUCCEEDED)
    desk.call("replay", PARENT)
    again = newest(conn)
    assert (again.parent_job_id, again.root_job_id, again.replay_of) == (None, PARENT, PARENT)


def test_a_replay_can_be_replayed_and_names_the_one_before(conn: sqlite3.Connection, desk: Desk) -> None:
    put_chain(conn)
    desk.call("replay", JOB)
    first = newest(conn)
    job_table.move(conn, first, Status.DEAD, START)
    desk.call("replay", first.id)
    assert newest(conn).replay_of == first.id


def test_a_replay_of_what_tells_of_a_death_tells_of_it_too(conn: sqlite3.Connection, desk: Desk) -> None:
    put_chain(conn, core_event="ductile.job.dead")
    desk.call("replay", JOB)
    assert newest(conn).core_event == "ductile.job.dead"


def test_the_attempts_are_those_that_are_configured_now(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.configure(plugins={"echo": {"retry": {"max_attempts": 9}}})
    put_chain(conn, max_attempts=2)
    put_job(conn, OTHER, Status.DEAD, command="init", max_attempts=5)
    desk.call("replay", JOB)
    assert newest(conn).max_attempts == 9
    desk.call("replay", OTHER)
    assert newest(conn).max_attempts == 1


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
def test_a_job_that_has_not_ended_is_refused(conn: sqlite3.Connection, desk: Desk, status: Status) -> None:
    put_chain(conn, status)
    before = desk.dump()
    assert desk.call("replay", JOB) == Said(
        code=1, out="", err=f"job {JOB} is {status}: only a job that has ended can be replayed\n")
    assert desk.dump() == before


@pytest.mark.parametrize(("plugins", "expected"), [
    ({}, "no plugin 'echo' is configured\n"),
    ({"echo": {"enabled": False}}, "plugin echo is disabled; set plugins.echo.enabled to true\n"),
])
def test_a_job_that_would_be_ended_at_once_is_refused(conn: sqlite3.Connection, desk: Desk, plugins: dict,
                                                      expected: str) -> None:
    put_chain(conn)
    desk.configure(plugins=plugins)
    before = desk.dump()
    assert desk.call("replay", JOB) == Said(code=66, out="", err=expected)
    assert desk.dump() == before


@pytest.mark.parametrize(("text", "code", "expected"), [
    ("abc", 64, "'abc' is too short for a job: give 4 characters of its id\n"),
    ("0000", 64, f"'0000' could be any of {PARENT}, {JOB}\n"),
    ("ffff", 66, "no job 'ffff'\n"),
])
def test_what_names_no_single_job_is_refused(conn: sqlite3.Connection, desk: Desk, text: str, code: int,
                                             expected: str) -> None:
    put_chain(conn)
    assert desk.call("replay", text) == Said(code=code, out="", err=expected)


def test_without_a_database_there_is_nothing_to_replay(desk: Desk) -> None:
    assert desk.call("replay", JOB) == Said(
        code=69, out="", err=f"ductiled has not run yet: there is no database at {desk.database}\n")


# The files that it started from


def test_input_that_is_still_there_is_left_as_it_is(conn: sqlite3.Connection, desk: Desk,
                                                    workspaces: Workspaces) -> None:
    put_chain(conn)
    give_input(conn, workspaces, {"a": "one", "sub/b": "two", NOT_UTF8: "odd"})
    before = tree(workspaces.root)
    assert desk.call("replay", JOB).code == 0
    assert tree(workspaces.root) == before


def test_a_file_that_was_only_touched_is_still_the_same(conn: sqlite3.Connection, desk: Desk,
                                                        workspaces: Workspaces) -> None:
    put_chain(conn)
    give_input(conn, workspaces, {"a": "one"})
    os.utime(workspaces.root / PARENT / "a")
    assert desk.call("replay", JOB).code == 0


def rewrite(parent: Path) -> None:
    (parent / "a").chmod(0o644)
    (parent / "a").write_text("eno")


@pytest.mark.parametrize(("spoil", "named"), [
    (lambda parent: (parent / "a").unlink(), "a"),
    (rewrite, "a"),
    (lambda parent: ((parent / "a").unlink(), (parent / "a").symlink_to("d")), "a"),
    (lambda parent: [(parent / name).unlink() for name in ("a", "c\nx")], "a, c\\nx"),
    (shutil.rmtree, "a, c\\nx, d and 2 more"),
])
def test_input_that_is_gone_or_changed_is_named(conn: sqlite3.Connection, desk: Desk, workspaces: Workspaces,
                                                spoil: Callable[[Path], object], named: str) -> None:
    put_chain(conn)
    give_input(conn, workspaces, {"a": "one", "c\nx": "two", "d": "", "e": "", "f": ""})
    spoil(workspaces.root / PARENT)
    before = desk.dump()
    assert desk.call("replay", JOB) == Said(code=1, out="", err=(
        f"job {JOB} cannot be replayed: files that it started from, of job {PARENT}, are gone or changed: {named}; "
        "replay that job instead\n"))
    assert desk.dump() == before


def test_of_a_root_no_input_is_asked_for(conn: sqlite3.Connection, desk: Desk, workspaces: Workspaces) -> None:
    put_chain(conn)
    give_input(conn, workspaces, {"a": "one"})
    workspaces.cleanup(PARENT)
    assert desk.call("replay", PARENT).code == 0


class Interposing(sqlite3.Connection):
    """A connection before whose next transaction somebody else does something."""

    before: Callable[[], object] | None = None

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE" and self.before is not None:
            self.before()
        return super().execute(sql, *parameters)


def test_input_that_the_janitor_takes_at_the_last_moment_is_missed(conn: sqlite3.Connection, desk: Desk,
                                                                   workspaces: Workspaces) -> None:
    put_chain(conn)
    give_input(conn, workspaces, {"a": "one"})
    found = runtime_config.read(desk.home / "config.yaml", {}).runtime
    with closing(sqlite3.connect(desk.database, isolation_level=None, factory=Interposing)) as mine:
        mine.before = lambda: workspaces.retire(PARENT)
        with pytest.raises(DuctileError, match=f"^job {JOB} cannot be replayed: .* gone or changed: a; ") as caught:
            add_replay(mine, JOB, found, now=START, new_id=ids())
    assert caught.value.exit_code == 1
    assert newest(conn).id == JOB


# With the daemon

WRITES = """\
#!/bin/sh
cat >/dev/null
echo %s >%s
echo '{"status": "ok", "events": [{"type": "%s", "payload": {"a": 1}, "dedupe_key": "once"}]}'
"""
READS = """\
#!/bin/sh
cat >/dev/null
printf '{"status": "ok", "result": "%s"}' "$(cat first second | tr '\\n' ' ' | sed 's/ $//')"
"""


def test_a_replayed_step_runs_with_its_input_and_the_rest_follows(daemon: RealDaemon) -> None:
    daemon.plugin("maker", WRITES % ("1", "first", "made"))
    daemon.plugin("middle", WRITES % ("2", "second", "turned"), commands=("handle",))
    daemon.plugin("reader", READS, commands=("handle",))
    daemon.pipelines({"name": "p", "on": "made", "steps": [{"uses": "middle"}, {"uses": "reader"}]})
    daemon.start()
    daemon.submit("maker")
    once = [("maker", "succeeded", None), ("middle", "succeeded", None), ("reader", "succeeded", None)]
    jobs = "SELECT plugin, status, replay_of FROM job_queue ORDER BY seq"
    daemon.until(jobs, once)
    ((middle,),) = daemon.rows("SELECT id FROM job_queue WHERE plugin = 'middle'")
    out, err = start("replay", middle, "--json", home=daemon.home).communicate(timeout=PATIENCE_SECONDS)
    daemon.until(jobs, [*once, ("middle", "succeeded", middle), ("reader", "succeeded", middle)])
    assert daemon.rows("SELECT r.parent_job_id, l.result ->> '$.result' FROM job_queue r"
                       " JOIN job_log l ON l.job_id = r.id WHERE r.plugin = 'reader' ORDER BY r.seq") == [
        (middle, "1 2"), (json.loads(out)["job_id"], "1 2")]
    assert err == ""
    daemon.stop()
