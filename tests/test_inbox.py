"""The wait for notes and signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from queue import Empty

import pytest

from ductile.inbox import Inbox

LIMIT_SECONDS = 20.0


@pytest.fixture
def inbox() -> Iterator[Inbox[str]]:
    """An inbox that SIGUSR1 puts a note into."""
    made: Inbox[str] = Inbox()
    handler = signal.signal(signal.SIGUSR1, lambda *_: made.put("signal"))
    made.wake_on_signals()
    yield made
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGUSR1, handler)


def test_notes_are_returned_in_their_order(inbox: Inbox[str]) -> None:
    for note in ("a", "b", "c"):
        inbox.put(note)
    assert [inbox.get(timeout=LIMIT_SECONDS) for _ in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize("timeout", [0.0, -1.0, 0.0001])
def test_without_a_note_the_wait_ends_with_its_timeout(inbox: Inbox[str], timeout: float) -> None:
    with pytest.raises(Empty):
        inbox.get(timeout=timeout)


def test_a_note_of_another_thread_ends_the_wait(inbox: Inbox[str]) -> None:
    thread = threading.Thread(target=inbox.put, args=("a",))
    thread.start()
    assert inbox.get(timeout=LIMIT_SECONDS) == "a"
    thread.join()


def test_a_signal_that_the_kernel_gives_to_another_thread_ends_the_wait(inbox: Inbox[str]) -> None:
    waits = threading.Event()

    def send() -> None:
        # The main thread blocks it, so this thread, the only other one, is the one that gets it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        waits.wait()
        os.kill(os.getpid(), signal.SIGUSR1)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    thread = threading.Thread(target=send)
    try:
        thread.start()
        waits.set()
        assert inbox.get(timeout=LIMIT_SECONDS) == "signal"
    finally:
        thread.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])


def test_a_signal_before_the_wait_ends_it(inbox: Inbox[str]) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    assert inbox.get(timeout=LIMIT_SECONDS) == "signal"


def test_more_signals_than_the_pipe_holds_are_all_seen(inbox: Inbox[str]) -> None:
    for _ in range(100_000):
        signal.raise_signal(signal.SIGUSR1)
    assert [inbox.get(timeout=LIMIT_SECONDS) for _ in range(100_000)] == ["signal"] * 100_000
    with pytest.raises(Empty):
        inbox.get(timeout=0.0)


def test_nothing_is_inherited(inbox: Inbox[str]) -> None:
    descriptors = (inbox._announced, inbox._signalled, inbox._wakeup)
    assert [os.get_inheritable(descriptor) for descriptor in descriptors] == [False] * 3
