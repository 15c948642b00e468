"""The one table at the end: a row for each operation and fault, and below it what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from injection.oracle import KINDS

_HEAD = ("what", "fault", "struck", *KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was tried and found; a row that was not run says why."""

    what: str
    fault: str
    tried: str
    findings: list[tuple[str, str]] = field(default_factory=list)   # how to see it again and what it is; its kind
    was_run: bool = True

    def count(self, kind: str) -> int:
        return sum(found == kind for _, found in self.findings)


def table(rows: Sequence[Row]) -> str:
    """Return the rows aligned, and the findings one a line."""
    lines = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    found = [f"{kind.upper()} {text}" for row in rows for text, kind in row.findings]
    return "\n".join([*text, *([""] if found else []), *found])


def is_good(rows: Sequence[Row]) -> bool:
    """Say whether nothing was found."""
    return not any(row.findings for row in rows)


def _cells(row: Row) -> tuple[str, ...]:
    counts = [f"{row.count(kind)}" if row.was_run else "-" for kind in KINDS]
    return row.what, row.fault, row.tried, *counts
