"""What a benchmark says: figures, each with the mark it must reach, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_HEAD = ("what", "figure", "must be", "")


class BenchmarkFailed(Exception):
    """Nothing could be measured; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement: `value` must be at most `limit`, or at least where `is_floor` says so."""

    what: str
    value: float
    limit: float
    unit: str = ""
    is_floor: bool = False
    detail: str = ""

    @property
    def is_reached(self) -> bool:
        return self.value >= self.limit if self.is_floor else self.value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured. A run that is not `judged` only shows that the benchmarks work."""

    judged: bool
    rounds: int           # of every A-B-A-B comparison
    drained: int          # jobs that are drained in a round
    few_rows: int         # waiting, and as many finished
    many_rows: int        # the same, of the large ledger
    between: int          # jobs whose cost is taken in a round with few and with many rows
    calls: int            # of an idle daemon, in a round
    posted: int           # webhooks in a round
    posted_slowly: int    # the same, where every sync takes long
    idle_seconds: float
    plugins: int          # configured in the idle daemon
    large_body: int       # bytes of a webhook
    stored: int           # jobs in the database of `status`
    starts: int           # of a command, one after the other
    cloned: int           # files of a workspace
    digested_mib: int     # of one file
    chains: int           # through a pipeline, in a round
    pipelines: int        # compiled


FULL = Scale(judged=True, rounds=5, drained=1_000, few_rows=100, many_rows=1_000_000, between=500, calls=40,
             posted=1_000, posted_slowly=320, idle_seconds=60, plugins=20, large_body=20_000_000, stored=100_000,
             starts=20, cloned=10_000, digested_mib=1024, chains=100, pipelines=1_000)
QUICK = Scale(judged=False, rounds=1, drained=5, few_rows=5, many_rows=50, between=5, calls=2,
              posted=5, posted_slowly=5, idle_seconds=0.1, plugins=2, large_body=2_000, stored=50,
              starts=1, cloned=20, digested_mib=1, chains=2, pipelines=5)


def table(figures: Sequence[Figure], *, judged: bool) -> str:
    """Return the figures as aligned lines, the last column saying which missed their mark."""
    rows = [_HEAD, *(_row(figure, judged) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(figure: Figure, judged: bool) -> tuple[str, str, str, str]:
    verdict = ("ok" if figure.is_reached else "MISSED") if judged else "-"
    value = _text(figure.value, figure.unit)
    bound = "at least" if figure.is_floor else "at most"
    detail = f" ({figure.detail})" if figure.detail else ""
    return figure.what, value + detail, f"{bound} {_text(figure.limit, figure.unit)}", verdict


def _text(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{number} {unit}".rstrip()
