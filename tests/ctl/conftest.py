"""Fixtures for the operator's program."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctl.desk import Desk


@pytest.fixture(scope="session", autouse=True)
def _forks_ductilectl(forks_ductilectl: None) -> None:
    """Start no new interpreter for each call of ductilectl."""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A configuration without plugins and without a database."""
    return Desk(tmp_path)
