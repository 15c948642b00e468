from __future__ import annotations

from datetime import timedelta

import pytest

from ductile import db
from ductile.queue import job_table
from ductile.queue.job import Status
from ductile.routing import context_table
from ductile.routing.baggage import NewContext
from ductile.scheduler import retention
from ductile.units import utc_text
from ductile.workspace import artifact_table
from ductile.workspace.artifact import Artifact
from support import worlds
from support.clock import START, FakeClock
from support.ledger import dump, ids, new_job, opened, put_ended, put_job

RETENTION = 86400
DAY = timedelta(seconds=RETENTION)
LATER = START + DAY + timedelta(milliseconds=1)
OLD = utc_text(START)


@pytest.fixture
def conn(tmp_path):
    with opened(tmp_path) as conn:
        yield conn


def counts(conn) -> tuple[int, int]:
    """Jobs and attempts in the ledger."""
    return tuple(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("job_queue", "job_log"))


def prune_all(conn, now=LATER) -> list[int]:
    """Prune until nothing is left to do. Return how many jobs each batch took, but for those that took none."""
    batches = []
    before = counts(conn)[0]
    while retention.prune(conn, RETENTION, now, monotonic=FakeClock().monotonic):
        batches.append(before - counts(conn)[0])
        before -= batches[-1]
    return [batch for batch in batches if batch]


# Pruning


def test_chains_past_their_retention_go_with_their_attempts_and_others_stay(conn):
    put_ended(conn, range(3), at=OLD)
    put_ended(conn, range(10, 14), at=utc_text(START + DAY))
    put_job(conn, "open", now=START)
    assert prune_all(conn) == [3]
    assert counts(conn) == (5, 4)


@pytest.mark.parametrize("milliseconds, pruned", [(0, 0), (1, 1)])
def test_a_chain_stays_for_exactly_as_long_as_it_is_kept(conn, milliseconds, pruned):
    put_ended(conn, [1], at=OLD)
    assert sum(prune_all(conn, START + DAY + timedelta(milliseconds=milliseconds))) == pruned


@pytest.mark.parametrize("last", [Status.QUEUED, Status.RUNNING])
def test_a_chain_with_an_open_job_stays_as_a_whole(conn, last):
    put_job(conn, "root", Status.SUCCEEDED)
    put_job(conn, "child", last, parent_job_id="root", root_job_id="root")
    assert prune_all(conn) == []
    assert counts(conn) == (2, 0)


def test_a_chain_goes_as_a_whole(conn):
    put_job(conn, "root", Status.SUCCEEDED)
    for number in range(3):
        put_job(conn, f"child-{number}", Status.DEAD, parent_job_id="root", root_job_id="root")
    assert (prune_all(conn), counts(conn)) == ([4], (0, 0))


def put_routed(conn, chain, last=Status.SUCCEEDED, now=START):
    """A chain of a root and three jobs that carry contexts, the third and the second row from the first."""
    put_job(conn, chain, Status.SUCCEEDED, now=now)
    for number, parent in ((1, None), (2, 1), (3, 1)):
        with db.transaction(conn):
            context_table.add(conn, NewContext(
                id=f"{chain}-{number}", parent_id=parent and f"{chain}-{parent}", hop=1 if parent is None else 2,
                accumulated={"x": number}), now)
        put_job(conn, f"{chain}-{number}", last if number == 3 else Status.SUCCEEDED, now=now, root_job_id=chain,
                parent_job_id=chain, event_context_id=f"{chain}-{number}")


def contexts(conn) -> list[str]:
    return [row[0] for row in conn.execute("SELECT id FROM event_context ORDER BY id")]


def test_contexts_go_with_their_chain(conn):
    put_routed(conn, "old")
    put_routed(conn, "young", now=START + DAY)
    put_routed(conn, "open", Status.QUEUED)
    assert prune_all(conn) == [4]
    assert contexts(conn) == [f"{chain}-{number}" for chain in ("open", "young") for number in (1, 2, 3)]
    assert counts(conn) == (8, 0)
    assert db.full_check(conn) == []


def test_contexts_of_many_chains_go_in_batches_with_them(conn):
    for number in range(110):
        put_routed(conn, f"{number:03d}")
    while retention.prune(conn, RETENTION, LATER, monotonic=FakeClock().monotonic):
        assert db.full_check(conn) == []
        # One for each job but the roots: none is left behind, and none goes before its job.
        routed = conn.execute("SELECT count(*) FROM job_queue WHERE event_context_id IS NOT NULL").fetchone()[0]
        assert len(contexts(conn)) == routed
    assert counts(conn) == (0, 0)


def test_a_chain_longer_than_a_batch_goes_in_slices_the_newest_jobs_first(conn):
    put_job(conn, "root", Status.SUCCEEDED)
    for number in range(1, 250):
        put_job(conn, f"{number:03d}", Status.DEAD, parent_job_id=f"{number - 1:03d}" if number > 1 else "root",
                root_job_id="root")
    retention.prune(conn, RETENTION, LATER, monotonic=FakeClock().monotonic)
    left = [row[0] for row in conn.execute("SELECT id FROM job_queue ORDER BY seq")]
    assert left == ["root", *(f"{number:03d}" for number in range(1, 150))]
    assert (prune_all(conn), db.full_check(conn)) == ([100, 50], [])


def test_a_context_that_a_replay_shares_with_its_original_stays_until_both_are_gone(conn):
    put_routed(conn, "old")
    for number in range(100):
        put_job(conn, f"again-{number:03d}", Status.SUCCEEDED, root_job_id="old", parent_job_id="old",
                event_context_id="old-2", replay_of="old-2")
    retention.prune(conn, RETENTION, LATER, monotonic=FakeClock().monotonic)
    assert (counts(conn)[0], contexts(conn)) == (4, ["old-1", "old-2", "old-3"])
    assert (prune_all(conn), contexts(conn)) == ([4], [])


def test_very_many_files_of_one_job_go_in_slices_before_it(conn):
    put_job(conn, "root", Status.SUCCEEDED)
    with db.transaction(conn):
        artifact_table.add(conn, "root", [Artifact(path=f"{number:05d}", size=1, mtime_ns=1, digest="d")
                                         for number in range(2500)])
    left = []
    while retention.prune(conn, RETENTION, LATER, monotonic=FakeClock().monotonic):
        left.append((conn.execute("SELECT count(*) FROM artifacts").fetchone()[0], counts(conn)[0]))
    assert left[:3] == [(1500, 1), (500, 1), (0, 0)]


def test_a_dead_job_that_the_operator_put_back_keeps_its_chain(conn):
    job = put_job(conn, "root", Status.DEAD)
    job_table.move(conn, job, Status.QUEUED, LATER, max_attempts=8)
    assert prune_all(conn) == []


def test_batches_are_small(conn):
    put_ended(conn, range(250), at=OLD)
    assert prune_all(conn) == [100, 100, 50]
    assert counts(conn) == (0, 0)


def test_with_nothing_to_prune_nothing_is_written(conn):
    put_ended(conn, range(5), at=OLD)
    before = conn.total_changes
    assert retention.prune(conn, RETENTION, START, monotonic=FakeClock().monotonic) == 0
    assert conn.total_changes == before


def test_a_prune_that_cannot_be_written_has_removed_nothing(conn):
    put_ended(conn, range(5), at=OLD)
    before = dump(conn)
    conn.execute("PRAGMA query_only = ON")
    with pytest.raises(db.NotWritten):
        retention.prune(conn, RETENTION, LATER, monotonic=FakeClock().monotonic)
    assert dump(conn) == before


@pytest.mark.parametrize("result_bytes", [1_000, 200_000])
def test_what_is_pruned_goes_back_to_the_file_system(conn, tmp_path, result_bytes):
    put_ended(conn, range(150), at=OLD, result="x" * result_bytes)
    prune_all(conn)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert conn.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert (tmp_path / "state.db").stat().st_size < 200_000


def test_a_pruned_database_has_nothing_wrong_with_it(conn):
    put_ended(conn, range(50), at=OLD)
    put_ended(conn, range(100, 150), at=utc_text(LATER))
    prune_all(conn)
    assert db.full_check(conn) == []


# Burying


WORLD = worlds.runtime(worlds.plugin("echo"), worlds.plugin("off", enabled=False),
                     worlds.plugin("broken", not_loaded="why"))


def ends(conn) -> dict[str, tuple[str, str | None]]:
    return {row[0]: row[1:] for row in conn.execute("SELECT id, status, last_error FROM job_queue")}


def test_queued_jobs_of_plugins_that_are_gone_or_off_end_with_the_reason(conn):
    jobs = [put_job(conn, name, plugin=name) for name in ("echo", "off", "gone", "broken")]
    assert {job.id: job for job in retention.fail_unrunnable_jobs(conn, WORLD, LATER)} == {"off": jobs[1],
                                                                                           "gone": jobs[2]}
    assert ends(conn) == {
        "echo": ("queued", None), "broken": ("queued", None), "off": ("dead", "plugin off was disabled"),
        "gone": ("dead", "plugin gone was removed from the configuration"),
    }
    assert job_table.get(conn, "gone").completed_at == LATER


def test_a_job_that_waits_for_a_retry_is_buried_too(conn):
    job = put_job(conn, "gone", Status.RUNNING, plugin="gone")
    job_table.move(conn, job, Status.QUEUED, START, attempt=2, retry_at=LATER)
    assert [job.id for job in retention.fail_unrunnable_jobs(conn, WORLD, START)] == ["gone"]
    assert job_table.get(conn, "gone").next_retry_at is None


def test_without_any_enabled_plugin_queued_jobs_wait(conn):
    put_job(conn, "gone", plugin="gone")
    assert retention.fail_unrunnable_jobs(conn, worlds.runtime(worlds.plugin("echo", enabled=False)), START) == []
    assert conn.execute("SELECT status FROM job_queue").fetchall() == [("queued",)]


@pytest.mark.parametrize("status", [Status.RUNNING, Status.SUCCEEDED, Status.DEAD])
def test_only_queued_jobs_are_buried(conn, status):
    put_job(conn, "gone", status, plugin="gone")
    assert retention.fail_unrunnable_jobs(conn, WORLD, START) == []
    assert job_table.get(conn, "gone").status is status


def test_many_are_buried_in_batches(conn):
    new_id = ids()
    with db.transaction(conn):
        job_table.add(conn, [new_job(new_id(), plugin=f"gone-{number % 3}") for number in range(1100)], START)
    batches = []
    while batch := retention.fail_unrunnable_jobs(conn, WORLD, START):
        batches.append(len(batch))
    assert batches == [500, 500, 100]


def test_with_nobody_to_bury_nothing_is_written(conn):
    put_job(conn, "a")
    before = conn.total_changes
    assert retention.fail_unrunnable_jobs(conn, WORLD, START) == []
    assert conn.total_changes == before
