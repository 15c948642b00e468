"""Fixtures for the operator's program."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl import desk as desks
from ctl.desk import Desk
from support.warm import Warm


@pytest.fixture(scope="session", autouse=True)
def _forks_ductilectl(_orphans_come_to_us: None) -> Iterator[None]:
    """Have a process that has imported ductilectl, from which it is started."""
    desks.warm = Warm("ductilectl")
    yield
    desks.warm.close()
    desks.warm = None


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system's zone is UTC, whatever it is on this machine."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A configuration without plugins and without a database."""
    return Desk(tmp_path)
