"""Fixtures for all tests: the real daemon, gates for plugins that wait, and a watch over what tests leave behind."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import newcomer, ordinary, processes, wheels
from support import warm as warm_programs
from support.counts import pytest_sessionfinish  # noqa: F401 (a hook)
from support.daemon import RealDaemon
from support.gate import Gate
from support.warm import Warm
from support.wheels import Built

# What was told to end may take this long; what nobody has told to end lasts longer.
_PATIENCE_SECONDS = 2.0


# Python itself ignores these.
_LEFT_ALONE = (signal.SIGPIPE, signal.SIGXFSZ)


def pytest_configure() -> None:
    """Give ignored signals their meaning back, and collect garbage less often."""
    # A shell ignores SIGINT for what it starts in the background.
    for number in signal.valid_signals() - set(_LEFT_ALONE):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    # Collecting tests and parsing sources make hundreds of thousands of objects that stay.
    gc.set_threshold(50_000)


def pytest_collection_finish() -> None:
    """Keep what was collected out of the garbage collector's way, and out of that of forked processes."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what an ordinary user has not tried."""
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if "root" in report.longreprtext]
    if os.geteuid() != 0 and skipped:
        terminalreporter.write_line(f"{len(skipped)} of the skipped tests need root: they become other users, mount"
                                    " file systems or install for the whole machine")


@pytest.fixture(scope="session", autouse=True)
def _orphans_come_to_us() -> None:
    processes.adopt_orphans()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(_orphans_come_to_us: None) -> Iterator[None]:
    """Fail a test that leaves a process or a thread behind."""
    children, threads = processes.children(), set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(_PATIENCE_SECONDS)
    left = processes.leftovers(children, seconds=_PATIENCE_SECONDS)
    names = [f"process {pid}: {processes.command(pid)}" for pid in sorted(left)]
    names += [f"thread {thread.name}" for thread in set(threading.enumerate()) - threads]
    if left:
        processes.end_all(left)
    if names:
        pytest.fail("left behind: " + "; ".join(names), pytrace=False)


@pytest.fixture(scope="session")
def warm(_orphans_come_to_us: None) -> Iterator[Warm]:
    """A process that has imported ductiled, from which daemons are forked."""
    made = Warm("ductiled")
    yield made
    made.close()


@pytest.fixture(scope="session")
def forks_ductilectl(_orphans_come_to_us: None) -> Iterator[None]:
    """Have a process that has imported ductilectl, from which `ctl.desk.start` forks."""
    warm_programs.ductilectl = Warm("ductilectl")
    yield
    warm_programs.ductilectl.close()
    warm_programs.ductilectl = None


@pytest.fixture(scope="session")
def python_that_copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that makes virtual environments at once."""
    return newcomer.python_that_copies(tmp_path_factory.mktemp("python").resolve())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Ductile's wheel, and where it is installed."""
    return wheels.build(tmp_path_factory.mktemp("built").resolve())


@pytest.fixture
def daemon(tmp_path: Path, warm: Warm) -> Iterator[RealDaemon]:
    """A daemon that is configured and not started; it and all its plugins are killed in the end."""
    real = RealDaemon(tmp_path, warm=warm)
    yield real
    real.close()


@pytest.fixture
def users_daemon(warm: Warm) -> Iterator[RealDaemon]:
    """A daemon of an ordinary user, whom the modes of files hold back."""
    user = ordinary.NUMBER if os.geteuid() == 0 else None
    # The directories that pytest makes are closed to others.
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    real = RealDaemon(home, warm=warm, user=user)
    if user is not None:
        shutil.chown(home, user, user)
    yield real
    real.close()
    shutil.rmtree(home)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """What the `waits` plugin needs as its config."""
    made = Gate(tmp_path)
    yield made
    made.close()
