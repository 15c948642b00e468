from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ductile.dispatch.outcome import Failed, Interrupted, Succeeded, TimedOut, classify
from support.launch import Attempt, attending

# What becomes of each, and, where the specification gives a least, how long it takes. Those that end by themselves have
# time for it on a machine that is busy; the timeout of the others is one second.
ENDS = {
    "hangs": (TimedOut, 1),
    "is_deaf": (TimedOut, 6),
    "stops_itself": (TimedOut, 6),
    "trickles": (TimedOut, 6),
    "complains_for_ever": (TimedOut, 6),
    "closes_its_pipes": (TimedOut, 1),
    "ends_but_its_child_is_deaf": (TimedOut, 1),
    "leaves_a_child": (Succeeded, 0),
    "forks_twice": (Succeeded, 0),
    "daemonises": (Succeeded, 0),
    "unlocks": (Succeeded, 0),
    "floods_stdout": (Failed, 0),
    "floods_both": (Failed, 0),
}
TIMEOUT = 1
PATIENT_TIMEOUT = 20
GRACE = 5
LONGEST = 6      # after the timeout


def timeout_of(name: str) -> int:
    return TIMEOUT if ENDS[name][0] is TimedOut else PATIENT_TIMEOUT


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Attempt]]:
    """All of them at once: most of the time they are only waited for."""
    directory = tmp_path_factory.mktemp("attempts")
    with ExitStack() as waits:
        running = {}
        for name in ENDS:
            running[name] = attending(name, directory / name, timeout=timeout_of(name))
            waits.callback(running[name].stop)
        ended = {name: child.result() for name, child in running.items()}
        yield ended
    for attempt in ended.values():
        for pid in attempt.survivors():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", ENDS)
def test_whatever_a_plugin_does_its_attempt_ends_in_time(attempts: dict[str, Attempt], name: str) -> None:
    least = ENDS[name][1]
    assert least <= attempts[name].seconds <= timeout_of(name) + LONGEST


@pytest.mark.parametrize("name", ENDS)
def test_the_outcome_is_the_one_that_the_specification_gives(attempts: dict[str, Attempt], name: str) -> None:
    assert type(classify(attempts[name].facts, timeout=timeout_of(name))) is ENDS[name][0]


@pytest.mark.parametrize("name", ENDS)
def test_nothing_of_an_attempt_is_left(attempts: dict[str, Attempt], name: str) -> None:
    attempt = attempts[name]
    assert (attempt.survivors(), attempt.children, attempt.leaked) == ([], [], [])
    assert attempt.lock_is_free


@pytest.mark.parametrize(("name", "number"), [
    ("hangs", signal.SIGTERM),
    ("closes_its_pipes", signal.SIGTERM),
    ("is_deaf", signal.SIGKILL),
    ("stops_itself", signal.SIGKILL),
    ("trickles", signal.SIGKILL),
    ("floods_stdout", signal.SIGKILL),
])
def test_a_group_is_asked_first_and_killed_later(attempts: dict[str, Attempt], name: str, number: int) -> None:
    assert (attempts[name].facts.signal, attempts[name].facts.exit_code) == (number, None)


@pytest.mark.parametrize("name", ["hangs", "closes_its_pipes", "ends_but_its_child_is_deaf"])
def test_one_that_heeds_sigterm_does_not_have_the_grace_waited_out(attempts: dict[str, Attempt], name: str) -> None:
    assert attempts[name].seconds < TIMEOUT + GRACE


@pytest.mark.parametrize("name", ["hangs", "is_deaf"])
def test_what_was_answered_before_the_deadline_is_kept(attempts: dict[str, Attempt], name: str) -> None:
    outcome = classify(attempts[name].facts, timeout=TIMEOUT)
    assert outcome.error == "timed out after 1s"
    assert outcome.response.state_updates == {"token": "new"}


def test_a_plugin_is_ended_on_request_as_at_its_deadline(tmp_path) -> None:
    attempt = attending("hangs", tmp_path / "job", timeout=60, end=True).result()
    outcome = classify(attempt.facts, timeout=60)
    assert (type(outcome), outcome.error) == (Interrupted, "interrupted by a stop of the daemon")
    assert attempt.facts.signal == signal.SIGTERM
    assert attempt.seconds < GRACE
    assert (attempt.survivors(), attempt.children, attempt.leaked) == ([], [], [])


def test_a_timeout_of_years_is_one_like_any_other(tmp_path):
    years = 36500 * 24 * 3600
    attempt = attending("hangs", tmp_path / "job", timeout=years, end=True).result()
    assert type(classify(attempt.facts, timeout=years)) is Interrupted



@pytest.mark.parametrize("name", ["leaves_a_child", "forks_twice"])
def test_a_pipe_held_by_a_child_is_drained_for_a_second_and_not_for_the_whole_timeout(tmp_path, name: str) -> None:
    attempt = attending(name, tmp_path / "job", timeout=60).result()
    assert type(classify(attempt.facts, timeout=60)) is Succeeded
    assert 1 <= attempt.seconds < 10
    assert (attempt.survivors(), attempt.children, attempt.leaked) == ([], [], [])
