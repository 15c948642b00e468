"""Counts the tests of one pytest for contrib/run-tests, which runs several side by side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Where the counts are wanted. The tests' own programs do not see it.
_COUNTS = os.environ.pop("DUCTILE_TESTS_COUNTS", None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write how many tests passed, failed and were skipped."""
    if _COUNTS is None:
        return
    stats = session.config.pluginmanager.get_plugin("terminalreporter").stats
    kinds = (("passed",), ("failed", "error"), ("skipped",))
    counts = [sum(len(stats.get(kind, ())) for kind in group) for group in kinds]
    Path(_COUNTS).write_text(" ".join(map(str, counts)) + "\n", encoding="utf-8")
