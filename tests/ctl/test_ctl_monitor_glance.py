"""The rows that `monitor` reads: in the order in which things happen, and at the same cost whatever there is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ctl.desk import job_id
from ductile import db
from ductile.ctl import chain, queries
from ductile.queue import attempt_table, job_table
from ductile.queue.job import LogEntry, Status
from ductile.units import utc_text
from support.clock import START
from support.ledger import opened, put_ended, put_job, steps


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened(tmp_path) as conn:
        yield conn


def ids(rows: list[dict]) -> list[str]:
    return [row["job_id"] for row in rows]


def wait_for_retry(conn: sqlite3.Connection, number: int, seconds: int) -> None:
    conn.execute("UPDATE job_queue SET next_retry_at = ? WHERE id = ?",
                 (utc_text(START + timedelta(seconds=seconds)), job_id(number)))


def end(conn: sqlite3.Connection, number: int, status: Status, seconds: float, **entry: object) -> None:
    job = put_job(conn, job_id(number), Status.RUNNING)
    with db.transaction(conn):
        job_table.move(conn, job, status, START + timedelta(seconds=seconds))
        attempt_table.append(conn, job, LogEntry(id=f"log-{number}", status="failed", completed_at=START, **entry),
                             None)


def test_what_runs_comes_first_then_the_others_in_the_order_of_the_queue(conn: sqlite3.Connection) -> None:
    for number, plugin in enumerate(("z", "a", "m", "a", "z")):
        put_job(conn, job_id(number), plugin=plugin)
    put_job(conn, job_id(5), Status.RUNNING)
    put_job(conn, job_id(6), Status.DEAD)
    wait_for_retry(conn, 0, 60)
    wait_for_retry(conn, 3, 30)
    assert ids(queries.open_jobs(conn, 10)) == [job_id(number) for number in (5, 0, 1, 2, 3, 4)]
    assert ids(queries.open_jobs(conn, 3)) == [job_id(number) for number in (5, 0, 1)]


def test_what_ended_last_comes_first(conn: sqlite3.Connection) -> None:
    for number, seconds in ((1, 5), (2, 9), (3, 9), (4, 7)):
        end(conn, number, Status.DEAD if number == 4 else Status.SUCCEEDED, seconds)
    put_job(conn, job_id(5))
    found = queries.ended_jobs(conn, 3)
    assert ids(found) == [job_id(3), job_id(2), job_id(4)]
    assert (found[2]["status"], found[2]["completed_at"]) == ("dead", "2026-02-08T10:00:07.000Z")


def test_the_plugins_in_the_log_are_those_with_an_attempt(conn: sqlite3.Connection) -> None:
    assert queries.logged_plugins(conn) == set()
    put_job(conn, job_id(1), plugin="waits")
    for number, plugin in ((2, "z"), (3, "a"), (4, "z")):
        job = put_job(conn, job_id(number), Status.RUNNING, plugin=plugin)
        with db.transaction(conn):
            attempt_table.append(conn, job, LogEntry(id=f"log-{number}", status="failed", completed_at=START), None)
    assert queries.logged_plugins(conn) == {"a", "z"}


def test_a_long_error_is_cut_where_it_is_read(conn: sqlite3.Connection) -> None:
    put_job(conn, job_id(1))
    conn.execute("UPDATE job_queue SET last_error = ?", ("x" * 9000,))
    assert queries.open_jobs(conn, 1)[0]["last_error"] == "x" * 500


def test_a_chain_has_what_the_job_said_last_and_its_files(conn: sqlite3.Connection) -> None:
    end(conn, 1, Status.DEAD, 5, stderr="first")
    put_job(conn, job_id(2), parent_job_id=job_id(1), root_job_id=job_id(1))
    put_job(conn, job_id(3))
    with db.transaction(conn):
        attempt_table.append(conn, job_table.get(conn, job_id(1)), LogEntry(
            id="log", status="timed_out", completed_at=START, exit_code=3, stderr="s" * 9000, printed="{"), None)
        conn.executemany("INSERT INTO artifacts (job_id, path, size, mtime_ns, digest) VALUES (?, ?, ?, 0, '')",
                         [(job_id(1), f"f{number:03}", number) for number in range(201)])
    found = chain.glance(conn, job_id(1))
    assert ids(found["jobs"]) == [job_id(1), job_id(2)]
    assert (found["job_id"], found["total"], found["files_total"]) == (job_id(1), 2, 201)
    assert found["files"][:2] == [{"path": "f000", "size": 0}, {"path": "f001", "size": 1}]
    assert len(found["files"]) == 200
    assert found["attempt"] == {"attempt": 1, "status": "timed_out", "exit_code": 3, "stderr": "s" * 8000,
                                "printed": "{"}
    assert (chain.glance(conn, job_id(2))["attempt"], chain.glance(conn, job_id(2))["files"]) == (None, [])
    assert chain.glance(conn, job_id(9)) is None


def test_of_a_chain_without_end_the_chosen_job_is_there_in_any_case(conn: sqlite3.Connection) -> None:
    for number in range(400):
        put_job(conn, job_id(number), root_job_id=job_id(0))
    found = chain.glance(conn, job_id(399))
    assert (len(found["jobs"]), found["total"], found["jobs"][-1]["job_id"]) == (301, 400, job_id(399))


@pytest.mark.parametrize("look", [
    lambda conn: queries.open_jobs(conn, 20), lambda conn: queries.ended_jobs(conn, 20),
    lambda conn: chain.glance(conn, job_id(1)), queries.logged_plugins,
])
def test_a_look_costs_the_same_however_much_there_is(conn: sqlite3.Connection, look: Callable) -> None:
    def fill(first: int, last: int) -> None:
        put_ended(conn, range(first, last), at="2026-02-08T09:00:00.000Z")
        for number in range(0xa0000000 + first, 0xa0000000 + last):
            put_job(conn, job_id(number), plugin="ab"[number % 2])
            if number % 3 == 0:
                wait_for_retry(conn, number, number % 1000)

    fill(1, 200)
    end(conn, 1000, Status.DEAD, 1)
    with steps(conn) as few:
        look(conn)
    fill(2000, 3000)
    with steps(conn) as many:
        look(conn)
    assert many[0] <= few[0] + 10
