from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from ductile import db
from ductile.errors import DuctileError
from ductile.webhook.group_commit import GroupCommit
from support import ledger

_SECONDS = 20.0
SENDERS = 6


class Counting(sqlite3.Connection):
    """A connection that keeps what begins and ends its transactions, and can be told to fail there."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.ends: list[str] = []
        self.fails_at: str | None = None

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == self.fails_at:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
            raise error
        if sql in ("COMMIT", "ROLLBACK"):
            self.ends.append(sql)
        return super().execute(sql, *parameters)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Counting]:
    with ledger.opened(tmp_path):
        path = tmp_path / "state.db"
    conn = sqlite3.connect(path, isolation_level=None, factory=Counting, check_same_thread=False)
    conn.execute("CREATE TABLE seen (word TEXT NOT NULL)")
    yield conn
    conn.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(SENDERS + 1) as made:
        yield made


def write(word: str) -> Callable[[sqlite3.Connection], str]:
    def work(conn: sqlite3.Connection) -> str:
        conn.execute("INSERT INTO seen VALUES (?)", (word,))
        return f"wrote {word}"

    return work


def words(conn: sqlite3.Connection) -> list[str]:
    return sorted(row[0] for row in conn.execute("SELECT word FROM seen"))


def until_waiting(group: GroupCommit, count: int) -> None:
    """Wait until so many have come for the next commit: nothing but the list of them tells."""
    deadline = time.monotonic() + _SECONDS
    never = threading.Event()
    while len(group._waiting) < count and time.monotonic() < deadline:
        never.wait(0.001)


class Crowd:
    """Threads whose work gathers while the commit of a first one goes on."""

    def __init__(self, group: GroupCommit, pool: ThreadPoolExecutor) -> None:
        self._group, self._pool = group, pool
        self._begun, self._go_on = threading.Event(), threading.Event()

    def run(self, first: str, *works: Callable[[sqlite3.Connection], Any]) -> list[Future]:
        """Return what became of each, the first among them."""
        futures = [self._pool.submit(self._group.run, self._held(first))]
        assert self._begun.wait(_SECONDS)
        futures += [self._pool.submit(self._group.run, work) for work in works]
        until_waiting(self._group, len(works))
        self._go_on.set()
        wait(futures, _SECONDS)
        return futures

    def _held(self, word: str) -> Callable[[sqlite3.Connection], str]:
        def work(conn: sqlite3.Connection) -> str:
            self._begun.set()
            assert self._go_on.wait(_SECONDS)
            return write(word)(conn)

        return work


@pytest.fixture
def group(conn: Counting) -> GroupCommit:
    return GroupCommit(lambda: conn)


@pytest.fixture
def crowd(group: GroupCommit, pool: ThreadPoolExecutor) -> Crowd:
    return Crowd(group, pool)


def test_one_alone_is_committed_at_once(conn: Counting, group: GroupCommit) -> None:
    assert group.run(write("a")) == "wrote a"
    assert (words(conn), conn.ends, conn.in_transaction) == (["a"], ["COMMIT"], False)


def test_what_gathers_during_a_commit_shares_the_next(conn: Counting, crowd: Crowd) -> None:
    futures = crowd.run("first", *(write(str(number)) for number in range(SENDERS)))
    assert [future.result() for future in futures] == ["wrote first", *(f"wrote {n}" for n in range(SENDERS))]
    assert words(conn) == [*map(str, range(SENDERS)), "first"]
    assert conn.ends == ["COMMIT"] * 2


def test_nobody_is_left_waiting_by_a_storm(conn: Counting, group: GroupCommit, pool: ThreadPoolExecutor) -> None:
    futures = [pool.submit(group.run, write(f"{number:03d}")) for number in range(300)]
    assert [future.result(_SECONDS) for future in futures] == [f"wrote {number:03d}" for number in range(300)]
    assert words(conn) == [f"{number:03d}" for number in range(300)]


def test_who_is_done_does_not_wait_for_the_next_commit(conn: Counting, group: GroupCommit, crowd: Crowd,
                                                       pool: ThreadPoolExecutor) -> None:
    # The third commit, which waits already when the second ends, ends only when those of the second have their answers.
    second_is_told = threading.Event()

    def third(inner: sqlite3.Connection) -> str:
        assert second_is_told.wait(_SECONDS)
        return write("third")(inner)

    def second(inner: sqlite3.Connection) -> str:
        futures.append(pool.submit(group.run, third))
        until_waiting(group, 1)
        return write("second")(inner)

    futures: list[Future] = []
    crowd_futures = crowd.run("first", second, write("beside"))
    for future in crowd_futures:
        future.result(_SECONDS)
    second_is_told.set()
    assert futures[0].result(_SECONDS) == "wrote third"
    assert (words(conn), conn.ends) == (["beside", "first", "second", "third"], ["COMMIT"] * 3)


def test_the_fault_of_one_is_not_that_of_the_others(conn: Counting, crowd: Crowd) -> None:
    def fail(conn: sqlite3.Connection) -> None:
        write("half")(conn)
        raise LookupError("mine alone")

    first, good, bad, last = crowd.run("first", write("good"), fail, write("last"))
    assert [first.result(), good.result(), last.result()] == ["wrote first", "wrote good", "wrote last"]
    assert (type(bad.exception()), str(bad.exception())) == (LookupError, "mine alone")
    # What was undone with it is done again, without it.
    assert (words(conn), conn.ends) == (["first", "good", "last"], ["COMMIT", "ROLLBACK", "COMMIT"])


def test_faults_of_all_are_each_ones_own(conn: Counting, crowd: Crowd) -> None:
    def fail(number: int) -> Callable[[sqlite3.Connection], None]:
        def work(conn: sqlite3.Connection) -> None:
            raise LookupError(number)

        return work

    first, *others = crowd.run("first", *map(fail, range(SENDERS)))
    assert first.result() == "wrote first"
    assert [str(other.exception()) for other in others] == [str(number) for number in range(SENDERS)]
    assert (words(conn), conn.ends) == (["first"], ["COMMIT"] + ["ROLLBACK"] * SENDERS)


def test_a_fault_of_one_alone_writes_nothing(conn: Counting, group: GroupCommit) -> None:
    def fail(conn: sqlite3.Connection) -> None:
        write("half")(conn)
        raise LookupError("mine alone")

    with pytest.raises(LookupError, match=r"^mine alone$"):
        group.run(fail)
    assert (words(conn), conn.ends, conn.in_transaction) == ([], ["ROLLBACK"], False)


def test_a_database_that_fails_when_the_others_are_done_again_is_told_to_them(conn: Counting, crowd: Crowd) -> None:
    def fail(inner: Counting) -> None:
        inner.fails_at = "COMMIT"
        raise LookupError("mine alone")

    first, good, bad, last = crowd.run("first", write("good"), fail, write("last"))
    assert (first.result(), str(bad.exception())) == ("wrote first", "mine alone")
    assert [str(each.exception()) for each in (good, last)] == ["database or disk is full (SQLITE_FULL)"] * 2
    assert words(conn) == ["first"]


def test_a_commit_that_fails_is_told_to_all_who_shared_it_and_stores_nothing(conn: Counting, crowd: Crowd) -> None:
    def fill_the_disk(inner: Counting) -> None:
        inner.fails_at = "COMMIT"

    first, *others = crowd.run("first", write("a"), fill_the_disk, write("b"))
    assert first.result() == "wrote first"
    assert [str(other.exception()) for other in others] == ["database or disk is full (SQLITE_FULL)"] * 3
    assert {type(other.exception()) for other in others} == {db.NotWritten}
    assert (words(conn), conn.ends) == (["first"], ["COMMIT", "ROLLBACK"])


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_after_a_failed_commit_the_next_one_works(conn: Counting, group: GroupCommit, statement: str) -> None:
    conn.fails_at = statement
    with pytest.raises(db.NotWritten, match="SQLITE_FULL"):
        group.run(write("lost"))
    conn.fails_at = None
    assert (group.run(write("kept")), words(conn), conn.in_transaction) == ("wrote kept", ["kept"], False)


def test_a_look_sees_what_is_committed_and_begins_nothing(conn: Counting, group: GroupCommit) -> None:
    group.run(write("a"))
    assert (group.look(words), conn.ends) == (["a"], ["COMMIT"])


def test_what_comes_after_the_end_is_not_written(group: GroupCommit) -> None:
    group.close()
    with pytest.raises(db.NotWritten) as error:
        group.run(write("late"))
    assert str(error.value) == "the daemon is stopping"


# Memory that a connection keeps


def test_after_a_large_write_another_connection_takes_over(conn: Counting, tmp_path: Path) -> None:
    another = sqlite3.connect(tmp_path / "another.db", isolation_level=None, check_same_thread=False)
    another.execute("CREATE TABLE seen (word TEXT NOT NULL)")
    connections = [another, conn]
    group = GroupCommit(connections.pop)
    assert group.run(write("large")) == "wrote large"
    group.renew()
    group.run(write("small"))
    assert group.look(words) == ["small"]
    with pytest.raises(sqlite3.ProgrammingError):
        conn.execute("SELECT 1")
    group.close()


def test_a_connection_that_cannot_be_opened_again_stays(conn: Counting) -> None:
    answers = [conn]

    def connect() -> sqlite3.Connection:
        if answers:
            return answers.pop()
        raise DuctileError("no descriptors", exit_code=71)

    group = GroupCommit(connect)
    group.renew()
    assert (group.run(write("kept")), words(conn)) == ("wrote kept", ["kept"])


def test_a_database_that_was_replaced_is_not_opened_in_its_place(conn: Counting, tmp_path: Path) -> None:
    answers = [conn]
    group = GroupCommit(answers.pop)
    with db.held(tmp_path / "state.db"):
        (tmp_path / "state.db").rename(tmp_path / "moved.db")
        group.renew()
    assert (answers, group.look(words)) == ([], [])


def test_what_was_closed_is_not_opened_again(conn: Counting, tmp_path: Path) -> None:
    answers = [conn]
    group = GroupCommit(answers.pop)
    group.close()
    group.renew()
