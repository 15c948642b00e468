"""Fixtures for the operator's program."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctl.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A configuration without plugins and without a database."""
    return Desk(tmp_path)
