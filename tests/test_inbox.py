"""The wait for signals, notes and descriptors."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from ductile.inbox import Inbox, Ready, Signal, start_thread

LIMIT_SECONDS = 20.0
NUMBERS = (signal.SIGUSR2, signal.SIGUSR1)


@pytest.fixture
def inbox() -> Iterator[Inbox[str]]:
    """An inbox that receives two signals."""
    handlers = [signal.getsignal(number) for number in NUMBERS]
    made: Inbox[str] = Inbox()
    made.receive_signals(NUMBERS)
    yield made
    signal.set_wakeup_fd(-1)
    for number, handler in zip(NUMBERS, handlers, strict=True):
        signal.signal(number, handler)
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_notes_are_returned_in_their_order(inbox: Inbox[str]) -> None:
    for note in ("a", "b", "c"):
        inbox.put(note)
    assert [inbox.get(timeout=LIMIT_SECONDS) for _ in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize("timeout", [0.0, -1.0, 0.0001])
def test_without_a_note_the_wait_ends_with_its_timeout(inbox: Inbox[str], timeout: float) -> None:
    assert inbox.get(timeout=timeout) is None


def test_a_note_of_another_thread_ends_the_wait(inbox: Inbox[str]) -> None:
    thread = threading.Thread(target=inbox.put, args=("a",))
    thread.start()
    assert inbox.get(timeout=LIMIT_SECONDS) == "a"
    thread.join()


def test_wakes_end_one_wait_together(inbox: Inbox[str]) -> None:
    for _ in range(1000):
        inbox.wake()
    assert inbox.get(timeout=None) is None
    assert inbox.get(timeout=0) is None
    inbox.put("a")
    assert inbox.get(timeout=None) == "a"


def test_a_readable_descriptor_ends_the_wait_until_it_is_no_longer_watched(inbox: Inbox[str],
                                                                           pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    for _ in range(2):
        assert inbox.get(timeout=LIMIT_SECONDS, descriptors=[pipe[0]]) == Ready(descriptors=(pipe[0],))
    assert inbox.get(timeout=0) is None


def test_notes_and_signals_come_before_descriptors_that_are_always_ready(inbox: Inbox[str],
                                                                         pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    inbox.put("a")
    os.kill(os.getpid(), signal.SIGUSR1)
    found = [inbox.get(timeout=LIMIT_SECONDS, descriptors=[pipe[0]]) for _ in range(3)]
    assert found == [Signal(number=signal.SIGUSR1), "a", Ready(descriptors=(pipe[0],))]


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
        assert inbox.get(timeout=LIMIT_SECONDS) == Signal(number=signal.SIGUSR1)
    finally:
        thread.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])


def test_a_signal_before_the_wait_ends_it(inbox: Inbox[str]) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    assert inbox.get(timeout=LIMIT_SECONDS) == Signal(number=signal.SIGUSR1)


def test_more_signals_than_the_pipe_holds_are_each_seen_once_in_the_order_of_their_importance(
        inbox: Inbox[str]) -> None:
    for _ in range(100_000):
        signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR2)
    found = [inbox.get(timeout=LIMIT_SECONDS) for _ in range(2)]
    assert found == [Signal(number=number) for number in NUMBERS]
    assert inbox.get(timeout=0.0) is None


def test_a_signal_that_comes_while_it_is_obeyed_is_seen_again(inbox: Inbox[str]) -> None:
    for _ in range(2):
        signal.raise_signal(signal.SIGUSR1)
        assert inbox.get(timeout=LIMIT_SECONDS) == Signal(number=signal.SIGUSR1)


def test_a_thread_started_here_and_its_own_threads_block_all_signals(inbox: Inbox[str]) -> None:
    masks: list[set[signal.Signals]] = []

    def look() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        if len(masks) == 1:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    thread = threading.Thread(target=look)
    start_thread(thread)
    thread.join()
    # Nothing blocks these two (signal(7)).
    assert masks == [signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}] * 2
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_nothing_is_inherited(inbox: Inbox[str]) -> None:
    descriptors = (inbox._announced, inbox._signalled, inbox._wakeup)
    assert [os.get_inheritable(descriptor) for descriptor in descriptors] == [False] * 3
