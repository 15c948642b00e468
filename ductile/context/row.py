"""What one row of a chain's context is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A row that a job carries; `hop` counts the rows of its chain from 1."""

    id: str
    hop: int
    accumulated: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewContext:
    """A row to be added, for one job."""

    id: str
    hop: int
    accumulated: Mapping[str, Any]
    parent_id: str | None = None
    pipeline_name: str | None = None
    step_id: str | None = None
