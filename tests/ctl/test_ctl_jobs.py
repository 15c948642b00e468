"""`queue` and `jobs`: lists of jobs by what an operator asks for, at the same cost however many there are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import timedelta

import pytest

from ctl.desk import Desk, Said, job_id
from ductile import db
from ductile.ctl import jobs, queries
from ductile.ctl.queries import STATUSES, JobFilter
from ductile.queue import job_table
from ductile.queue.job import Status
from support.clock import START, FakeClock
from support.ledger import opened, put_ended, put_job, steps


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.plugin("echo", commands=("poll", "init"))
    with desk.ledger() as conn:
        yield conn


def test_the_queue_is_shown_oldest_first_after_what_runs(conn: sqlite3.Connection, desk: Desk) -> None:
    for number, status in enumerate((Status.RUNNING, Status.QUEUED, Status.DEAD, Status.QUEUED)):
        put_job(conn, job_id(number), status, now=START + timedelta(minutes=number))
    conn.execute("UPDATE job_queue SET next_retry_at = '2026-02-08T12:00:00.000Z', attempt = 2 WHERE id = ?",
                 (job_id(1),))
    clock = FakeClock(START + timedelta(hours=2))
    session = desk.session(clock=clock)
    assert jobs.queue(session, limit=100) == 0
    assert session.out.getvalue() == """\
JOB       PLUGIN  COMMAND  STATUS                                ATTEMPT  AGE     SUBMITTED BY
00000000  echo    poll     running                               1/4      2h      cli
00000001  echo    poll     waiting until 2026-02-08 12:00 +0000  2/4      1h 59m  cli
00000003  echo    poll     queued                                1/4      1h 57m  cli
"""
    session = desk.session(clock=clock, as_json=True)
    jobs.queue(session, limit=2)
    assert json.loads(session.out.getvalue()) == [
        {"job_id": job_id(0), "plugin": "echo", "command": "poll", "status": "running", "next_retry_at": None,
         "attempt": 1, "max_attempts": 4, "created_at": "2026-02-08T10:00:00.000Z", "age_seconds": 7200,
         "submitted_by": "cli"},
        {"job_id": job_id(1), "plugin": "echo", "command": "poll", "status": "waiting",
         "next_retry_at": "2026-02-08T12:00:00.000Z", "attempt": 2, "max_attempts": 4,
         "created_at": "2026-02-08T10:01:00.000Z", "age_seconds": 7140, "submitted_by": "cli"},
    ]


def test_an_empty_queue_is_a_sentence_and_an_empty_list(conn: sqlite3.Connection, desk: Desk) -> None:
    assert desk.call("queue") == Said(code=0, out="queue is empty\n", err="")
    assert desk.call("queue", "--json").json == []


def put(conn: sqlite3.Connection, number: int, status: str, *, minutes: int = 0, **fields: object) -> None:
    """Store a job that reached a status so many minutes after the start."""
    job = put_job(conn, job_id(number), Status.RUNNING if status != "queued" else Status.QUEUED, **fields)
    if status == "waiting":
        job_table.move(conn, job, Status.QUEUED, START, attempt=2, retry_at=START + timedelta(hours=1), error="first")
    elif status in ("succeeded", "dead"):
        job_table.move(conn, job, Status(status), START + timedelta(minutes=minutes),
                       error="no such host" if status == "dead" else None)
    elif status == "deduped":
        put_job(conn, f"x{job.id[1:]}", Status.DEDUPED)


def fill(conn: sqlite3.Connection) -> None:
    put(conn, 1, "dead", minutes=1, plugin="echo")
    put(conn, 2, "succeeded", minutes=3, plugin="other")
    put(conn, 3, "waiting", plugin="echo", pipeline_name="p", step_id="one")
    put(conn, 4, "dead", minutes=2, plugin="other", pipeline_name="p", step_id="two")
    put(conn, 5, "queued", plugin="other")
    put(conn, 6, "running", plugin="echo")
    put(conn, 7, "succeeded", minutes=3, plugin="echo", pipeline_name="p", step_id="one")


def found(desk: Desk, *arguments: str) -> list[int]:
    return [int(row["job_id"][:8], 16) for row in desk.call("jobs", *arguments, "--json").json]


@pytest.mark.parametrize(("arguments", "expected"), [
    ((), [6, 5, 3, 7, 2, 4, 1]), (("-n", "3"), [6, 5, 3]), (("--limit", "0"), []),
    (("--failed",), [4, 1]), (("--status", "dead", "--plugin", "echo"), [1]), (("--status", "waiting"), [3]),
    (("--status", "queued"), [5]), (("--status", "running", "--plugin", "other"), []),
    (("--plugin", "echo"), [6, 3, 7, 1]), (("--pipeline", "p"), [3, 7, 4]),
    (("--pipeline", "p", "--plugin", "echo", "--status", "succeeded"), [7]), (("--pipeline", "nothing"), []),
    (("--since", "2026-02-08T10:02:00Z"), [6, 5, 3, 7, 2, 4]), (("--until", "2026-02-08 10:03"), [4, 1]),
    (("--since", "2026-02-08 10:02", "--until", "2026-02-08 10:03", "--failed"), [4]),
])
def test_filters_combine(conn: sqlite3.Connection, desk: Desk, arguments: tuple[str, ...], expected: list[int]) -> None:
    fill(conn)
    assert found(desk, *arguments) == expected


def test_the_table_has_the_last_error(conn: sqlite3.Connection, desk: Desk) -> None:
    fill(conn)
    assert desk.call("jobs", "--plugin", "echo").out == """\
JOB       PLUGIN  COMMAND  STATUS                                ATTEMPT  ENDED                   ERROR
00000006  echo    poll     running                               1/4      -                       -
00000003  echo    poll     waiting until 2026-02-08 11:00 +0000  2/4      -                       first
00000007  echo    poll     succeeded                             1/4      2026-02-08 10:03 +0000  -
00000001  echo    poll     dead                                  1/4      2026-02-08 10:01 +0000  no such host
"""
    assert desk.call("jobs", "--failed", "--plugin", "echo", "--json").json == [{
        "job_id": job_id(1), "plugin": "echo", "command": "poll", "status": "dead", "attempt": 1, "max_attempts": 4,
        "created_at": "2026-02-08T10:00:00.000Z", "started_at": "2026-02-08T10:00:00.000Z",
        "completed_at": "2026-02-08T10:01:00.000Z", "next_retry_at": None, "last_error": "no such host",
        "parent_job_id": None, "root_job_id": job_id(1), "pipeline_name": None, "step_id": None, "replay_of": None,
        "submitted_by": "cli", "seconds": 60.0}]


def test_nothing_is_a_sentence(conn: sqlite3.Connection, desk: Desk) -> None:
    assert desk.call("jobs", "--plugin", "echo") == Said(code=0, out="no job matches\n", err="")
    assert desk.call("jobs", "--plugin", "ecko") == Said(
        code=66, out="", err="no plugin 'ecko' is configured or in the log (did you mean 'echo'?)\n")


def test_a_time_that_is_none_is_64(conn: sqlite3.Connection, desk: Desk) -> None:
    assert desk.call("jobs", "--since", "soon") == Said(
        code=64, out="", err="--since: expected a duration such as 1d, a time such as 07:30, a date such as 2026-11-30"
                             " or both, got 'soon'\n")


FILTERS = [JobFilter(status=status, plugin=plugin, pipeline=pipeline) for status in (None, *STATUSES)
           for plugin in (None, "rare") for pipeline in (None, "rare")]


@pytest.fixture(scope="module", params=["ended", "open"])
def sizes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list]:
    """Two databases, one with many more jobs that ended, or that wait, than the other."""
    with opened(tmp_path_factory.mktemp("few")) as few, opened(tmp_path_factory.mktemp("many")) as many:
        for conn, count in ((few, 300), (many, 6000)):
            if request.param == "ended":
                put_ended(conn, range(1000, 1000 + count), at="2026-02-08T09:00:00.000Z")
            else:
                with db.transaction(conn):
                    conn.executemany(
                        "INSERT INTO job_queue (id, plugin, command, status, attempt, max_attempts, submitted_by,"
                        " created_at, root_job_id) VALUES (?, 'echo', 'poll', 'queued', 1, 4, 'cli', 'x', 'x')",
                        [(job_id(number),) for number in range(1000, 1000 + count)])
            for number, status in enumerate(STATUSES, start=1):
                put(conn, number, status, plugin="rare", pipeline_name="rare", step_id="one")
                put(conn, 20 + number, status, plugin="rare")
                put(conn, 40 + number, status, pipeline_name="rare", step_id="one")
        yield [few, many]


@pytest.mark.parametrize("wanted", FILTERS)
def test_a_list_costs_the_same_however_many_jobs_there_are(sizes: list, wanted: JobFilter) -> None:
    counts = []
    for conn in sizes:
        with steps(conn) as counted:
            queries.jobs(conn, wanted, 50)
        counts.append(counted[0])
    assert counts[1] <= counts[0] * 1.2 + 20
