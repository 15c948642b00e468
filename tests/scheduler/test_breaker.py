from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ductile.scheduler.breaker import CLOSED, Breaker, Gate, breaker_after, gate

NOW = datetime(2026, 2, 8, 10, tzinfo=UTC)
RESET_AFTER = 1800


def closed(failures: int) -> Breaker:
    return Breaker(state="closed", failure_count=failures, opened_at=None)


def opened(at: datetime | None, failures: int = 3) -> Breaker:
    return Breaker(state="open", failure_count=failures, opened_at=at)


def half_open(failures: int = 3) -> Breaker:
    return Breaker(state="half_open", failure_count=failures, opened_at=NOW - timedelta(hours=1))


@pytest.mark.parametrize("before", [CLOSED, closed(2), opened(NOW), half_open()])
def test_a_success_closes_and_clears(before):
    assert breaker_after(before, True, 3, NOW) == CLOSED


@pytest.mark.parametrize(
    "before, threshold, expected",
    [
        (CLOSED, 3, closed(1)),
        (closed(1), 3, closed(2)),
        (closed(2), 3, opened(NOW, 3)),
        (CLOSED, 1, opened(NOW, 1)),
        (closed(5), 3, opened(NOW, 6)),    # the threshold was lowered meanwhile
        (half_open(3), 3, opened(NOW, 4)),
        (half_open(3), 10, opened(NOW, 4)),
        (opened(NOW - timedelta(hours=1), 3), 3, opened(NOW, 4)),
    ],
)
def test_a_death_counts_and_opens_at_the_threshold(before, threshold, expected):
    assert breaker_after(before, False, threshold, NOW) == expected


def test_deaths_that_are_not_in_a_row_never_open_it():
    breaker = CLOSED
    for succeeded in [False, False, True] * 10:
        breaker = breaker_after(breaker, succeeded, 3, NOW)
        assert breaker.state == "closed"


@pytest.mark.parametrize(
    "breaker, outstanding, expected",
    [
        (CLOSED, 0, Gate(action="allow")),
        (CLOSED, 5, Gate(action="allow")),
        (closed(2), 0, Gate(action="allow")),
        (opened(NOW), 0, Gate(action="block", until=NOW + timedelta(seconds=1800))),
        (opened(NOW - timedelta(seconds=1799)), 0, Gate(action="block", until=NOW + timedelta(seconds=1))),
        (opened(NOW - timedelta(seconds=1800)), 0, Gate(action="probe")),
        (opened(NOW - timedelta(days=400)), 0, Gate(action="probe")),
        (opened(None), 0, Gate(action="probe")),
        (half_open(), 1, Gate(action="block")),
        (half_open(), 0, Gate(action="probe")),
    ],
)
def test_the_gate(breaker, outstanding, expected):
    assert gate(breaker, RESET_AFTER, outstanding, NOW) == expected


@pytest.mark.parametrize("set_back", [timedelta(seconds=1), timedelta(days=1), timedelta(days=4000)])
def test_a_clock_set_back_holds_no_run_longer_than_the_reset(set_back):
    assert gate(opened(NOW), RESET_AFTER, 0, NOW - set_back) == Gate(action="probe")


def test_an_open_breaker_lets_one_probe_through_and_its_death_opens_it_anew():
    breaker = opened(NOW)
    due = gate(breaker, RESET_AFTER, 0, NOW).until
    assert due is not None
    assert gate(breaker, RESET_AFTER, 0, due) == Gate(action="probe")
    probing = Breaker(state="half_open", failure_count=breaker.failure_count, opened_at=breaker.opened_at)
    assert gate(probing, RESET_AFTER, 1, due) == Gate(action="block")
    again = breaker_after(probing, False, 3, due)
    assert gate(again, RESET_AFTER, 0, due) == Gate(action="block", until=due + timedelta(seconds=RESET_AFTER))
