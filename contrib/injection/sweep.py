"""The sweep: each operation, with each fault, at each call or at so many of them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from injection.case import Case, Outcome
from injection.control import FAULTS, Fault
from injection.operations import OPERATIONS
from injection.site import Site, Stuck, free_port
from injection.table import Row


class Sweep:
    """Runs operations in a scratch directory; the runs in which something was found are kept there."""

    def __init__(self, scratch: Path, library: Path, *, points: int) -> None:
        """`points` is how many calls of each operation are struck at most; 0 strikes each."""
        self._scratch = scratch
        self._library = library
        self._points = points

    def cell(self, operation: str, fault: str, at: int | None = None) -> Row:
        """Run one operation with one fault, at the calls chosen or at one alone, and return what was found."""
        # The count comes from a run in which nothing is struck, and which is judged, too.
        first = self._run(operation, FAULTS[fault], 0)
        outcomes = {0: first}
        chosen = _spread(first.calls, self._points) if at is None else [at]
        for target in chosen:
            outcomes[target] = self._run(operation, FAULTS[fault], target)
        findings = [(f"contrib/faults --fault {fault} --at {target} {operation}"
                     f" ({outcome.met or 'no fault'}): {finding.text}", finding.kind)
                    for target, outcome in outcomes.items() for finding in outcome.findings]
        struck = sum(outcome.met != "" for outcome in outcomes.values())
        return Row(what=operation, fault=fault, tried=f"{struck} of {first.calls} calls", findings=findings)

    def _run(self, operation: str, fault: Fault, target: int) -> Outcome:
        directory = self._scratch / f"{operation}-{fault.name}-{target}"
        directory.mkdir()
        site = Site(directory=directory, port=free_port())
        site.make()
        case = Case(site, self._library, fault, target)
        try:
            OPERATIONS[operation](case)
            case.settle()
            outcome = case.outcome()
        except Stuck as error:
            outcome = case.stuck(error)
        finally:
            case.close()
        if outcome.findings:
            print(f"faults: kept {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
        return outcome


def _spread(count: int, points: int) -> Sequence[int]:
    """Return numbers from 1 to `count`, at most so many, evenly spread with both ends; all for 0."""
    if points == 0 or count <= points:
        return range(1, count + 1)
    if points == 1:
        return [1]
    return sorted({1 + round(index * (count - 1) / (points - 1)) for index in range(points)})
