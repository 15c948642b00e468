"""When a schedule without a success is told of, and when its recovery is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ductile.config.model import Retry
from ductile.pipeline.graph import Node, build
from ductile.queue import job_table
from ductile.queue.job import Status
from ductile.routing.router import Router
from ductile.scheduler import tick
from ductile.scheduler.silence import Silence, alert_at, silence_after
from scheduler.schedules import schedule
from support import worlds
from support.clock import START
from support.ledger import opened
from support.ticking import FAILED, SUCCEEDED, Ticking

HOUR = timedelta(hours=1)
ONCE = Retry(max_attempts=1)
TWO_HOURS = 7200
NEW = Silence(since=START)


@pytest.mark.parametrize(("before", "hours", "after"), [
    (Silence(), 0, NEW), (NEW, 1.9, NEW), (NEW, 2, replace(NEW, overdue_at=START + 2 * HOUR)),
    # Counted from the later of the two.
    (replace(NEW, last_success_at=START + HOUR), 2.9, replace(NEW, last_success_at=START + HOUR)),
    (replace(NEW, last_success_at=START + HOUR), 3,
     replace(NEW, last_success_at=START + HOUR, overdue_at=START + 3 * HOUR)),
    (Silence(last_success_at=START - 90 * HOUR), 0, Silence(last_success_at=START - 90 * HOUR, since=START)),
    # Told once, until a success.
    (replace(NEW, overdue_at=START + 2 * HOUR), 9, replace(NEW, overdue_at=START + 2 * HOUR)),
    (replace(NEW, overdue_at=START + 2 * HOUR, last_success_at=START + HOUR), 9,
     replace(NEW, overdue_at=START + 2 * HOUR, last_success_at=START + HOUR)),
    (replace(NEW, overdue_at=START + 2 * HOUR, last_success_at=START + 4 * HOUR), 5,
     replace(NEW, last_success_at=START + 4 * HOUR)),
    # The clock was set back.
    (replace(NEW, since=START + 900 * HOUR, last_success_at=START + 900 * HOUR), 0,
     replace(NEW, last_success_at=START + 900 * HOUR)),
    (replace(NEW, overdue_at=START + 900 * HOUR), 5, replace(NEW, overdue_at=START + 5 * HOUR)),
])
def test_a_schedule_is_overdue_once_and_recovers_with_a_success(before: Silence, hours: float, after: Silence) -> None:
    assert silence_after(before, TWO_HOURS, START + hours * HOUR) == after


def test_without_a_rule_nothing_is_watched() -> None:
    overdue = replace(NEW, overdue_at=START, last_success_at=START)
    assert silence_after(overdue, None, START) == Silence(last_success_at=START)
    assert silence_after(Silence(), None, START) == Silence()


def test_a_success_in_the_future_delays_nothing() -> None:
    assert alert_at(replace(NEW, last_success_at=START + 900 * HOUR), TWO_HOURS, START) == START + 2 * HOUR


# In the scheduler


def listening(*plugins, **service):
    """A runtime in which pipelines take what the core tells of schedules."""
    runtime = worlds.runtime(*plugins, worlds.plugin("notify"), **service)
    notify = Node(id="a", plugin="notify", command="handle", deep_copy=False, next=())
    pipelines = {name: build(name=name, on=f"ductile.schedule.{name}", entry=("a",), nodes=[notify])
                 for name in ("overdue", "recovered")}
    return replace(runtime, router=Router((), pipelines))


@pytest.fixture
def ticking(tmp_path: Path):
    with opened(tmp_path) as conn:
        yield Ticking(conn, listening(worlds.plugin("echo", schedule("1h", alert_after=TWO_HOURS), retry=ONCE)))


def told(ticking: Ticking) -> list[tuple]:
    """The core's own events, each with its payload, and the end of their jobs."""
    rows = ticking.conn.execute("SELECT id, payload, submitted_by, core_event, parent_job_id FROM job_queue"
                                " WHERE plugin = 'notify' AND status = 'queued' ORDER BY seq").fetchall()
    events = [json.loads(payload) for _, payload, *_ in rows]
    for (job_id, *_), event in zip(rows, events, strict=True):
        job_table.move(ticking.conn, job_table.get(ticking.conn, job_id), Status.DEDUPED, START)
        assert event["source"] == "ductile"
    assert {row[2:] for row in rows} <= {("pipeline", event["type"], None) for event in events}
    return [(event["type"].removeprefix("ductile.schedule."), event["payload"]) for event in events]


def test_silence_is_told_once_with_its_reason_and_so_is_the_recovery(ticking: Ticking) -> None:
    ticking.tick()
    ticking.end(SUCCEEDED)
    ticking.after(3600)
    ticking.end(FAILED)
    assert told(ticking) == []
    assert "warn schedule overdue its last run failed: it failed" in ticking.after(3600)
    payload = {"plugin": "echo", "schedule_id": "main", "last_success_at": "2026-02-08T10:00:00.000Z",
               "alert_after": "2h", "reason": "its last run failed: it failed"}
    assert told(ticking) == [("overdue", payload)]
    ticking.after(60)
    assert told(ticking) == []
    ticking.end(SUCCEEDED)
    assert "info schedule recovered" in ticking.after(60)
    assert told(ticking) == [("recovered", payload | {"last_success_at": "2026-02-08T12:01:00.000Z", "reason": None})]
    ticking.after(60)
    assert told(ticking) == []


def test_the_scheduler_wakes_when_a_schedule_becomes_overdue(ticking: Ticking) -> None:
    ticking.runtime = listening(worlds.plugin("echo", schedule("6h", alert_after=TWO_HOURS)))
    assert ticking.tick().next_at == START + 2 * HOUR


def test_a_plugin_that_is_not_loaded_is_the_reason(ticking: Ticking) -> None:
    ticking.runtime = listening(worlds.plugin("echo", schedule("1h", alert_after=TWO_HOURS), not_loaded="no manifest"))
    ticking.tick()
    ticking.after(TWO_HOURS)
    ((_, payload),) = told(ticking)
    assert (payload["reason"], payload["last_success_at"]) == ("not loaded: no manifest", None)


def after_a_start(ticking: Ticking, awaited: tick.Awaited | None) -> tuple[list[str], tick.Awaited]:
    """Look at the schedules; return what is told, and the runs that are awaited."""
    found = tick.tick(ticking.conn, ticking.runtime, now=ticking.clock.now(), rng=ticking.rng, new_id=ticking.new_id,
                      awaited=awaited)
    return [kind for kind, _ in told(ticking)], found.awaited



def test_after_a_start_a_run_that_was_missed_may_end_first(ticking: Ticking) -> None:
    ticking.tick()
    ticking.end(SUCCEEDED)
    ticking.clock.move(24 * 3600)
    # The run is enqueued by this look, and has not ended at the next.
    told_of, main = after_a_start(ticking, None)
    assert (told_of, main) == ([], {("echo", "main"): ticking.entry().last_job_id}) == after_a_start(ticking, main)
    ticking.end(SUCCEEDED)
    assert after_a_start(ticking, main) == ([], {})
    # Later runs are not awaited.
    ticking.clock.move(24 * 3600)
    assert after_a_start(ticking, {}) == (["overdue"], {})


def test_after_a_start_only_the_run_that_was_missed_is_awaited(ticking: Ticking) -> None:
    ticking.tick()
    ticking.end(SUCCEEDED)
    ticking.clock.move(24 * 3600)
    _, main = after_a_start(ticking, None)
    ticking.end(FAILED)
    # Looked at when the next run is due: one is always under way.
    ticking.clock.move(3600)
    assert after_a_start(ticking, main) == (["overdue"], {})


def test_after_a_start_a_run_that_is_blocked_is_awaited_until_it_has_ended(ticking: Ticking) -> None:
    ticking.tick()
    ticking.end(SUCCEEDED)
    loaded = ticking.runtime
    ticking.runtime = listening(worlds.plugin("echo", schedule("1h", alert_after=TWO_HOURS), not_loaded="no disk"))
    ticking.clock.move(24 * 3600)
    told_of, blocked = after_a_start(ticking, None)
    assert (told_of, list(blocked)) == ([], [("echo", "main")]) == (after_a_start(ticking, blocked)[0], list(blocked))
    ticking.runtime = loaded
    told_of, main = after_a_start(ticking, blocked)
    assert (told_of, main) == ([], {("echo", "main"): ticking.entry().last_job_id})
    ticking.end(FAILED)
    assert after_a_start(ticking, main) == (["overdue"], {})


def test_after_a_start_a_run_that_fails_is_told_of(ticking: Ticking) -> None:
    ticking.tick()
    ticking.end(SUCCEEDED)
    ticking.clock.move(24 * 3600)
    _, main = after_a_start(ticking, None)
    ticking.end(FAILED)
    assert after_a_start(ticking, main) == (["overdue"], {})


def test_a_disabled_plugin_is_not_watched_and_counts_anew_when_it_is_enabled(ticking: Ticking) -> None:
    ticking.tick()
    enabled = ticking.runtime
    ticking.runtime = listening(worlds.plugin("echo", schedule("1h", alert_after=TWO_HOURS), enabled=False))
    ticking.after(24 * 3600)
    assert ticking.entry().silence.since is None
    ticking.runtime = enabled
    ticking.after(3600)
    assert (told(ticking), ticking.entry().silence.since) == ([], ticking.clock.now())
