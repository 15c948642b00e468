"""`contrib/bench`: measure what was asked for and print one table."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.clone import clone
from benchmarks.digest import digest
from benchmarks.drain import drain
from benchmarks.figures import FULL, QUICK, BenchmarkFailed, Figure, Scale, table
from benchmarks.idle import idle
from benchmarks.million import million
from benchmarks.pipelines import chain, compiling
from benchmarks.status import status
from benchmarks.wake import hook_wake, pruning, signals, wake
from benchmarks.webhooks import webhooks, webhooks_slow
from ductile.arguments import Parser

BENCHMARKS: Mapping[str, Callable[[Scale, Path], Iterator[Figure]]] = {
    "drain": drain,
    "million": million,
    "pruning": pruning,
    "signals": signals,
    "wake": wake,
    "hook-wake": hook_wake,
    "webhooks": webhooks,
    "webhooks-slow": webhooks_slow,
    "idle": idle,
    "status": status,
    "clone": clone,
    "digest": digest,
    "chain": chain,
    "compiling": compiling,
}

_EXIT_MISSED = 1
_EXIT_FAILED = 70   # EX_SOFTWARE: nothing could be measured


def main() -> int:
    """Run the benchmarks and return the exit code."""
    options = _parser().parse_args()
    # A stop from outside must end what was started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    scale = QUICK if options.quick else FULL
    place = os.environ.get("TMPDIR", "/var/tmp")
    figures: list[Figure] = []
    try:
        for name in options.name or BENCHMARKS:
            print(f"bench: {name}", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="ductile-bench-", dir=place) as scratch:
                figures += BENCHMARKS[name](scale, Path(scratch))
    except BenchmarkFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return _EXIT_FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(table(figures, judged=scale.judged))
    return _EXIT_MISSED if scale.judged and not all(figure.is_reached for figure in figures) else 0


def _parser() -> Parser:
    parser = Parser(prog="contrib/bench", description="Measure Ductile against what it promises.", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="only show that the benchmarks work: no verdict")
    # argparse holds an empty list against the choices: they are checked one by one.
    parser.add_argument("name", nargs="*", metavar="NAME", type=_name, help=f"one of {', '.join(BENCHMARKS)}")
    return parser


def _name(text: str) -> str:
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"no benchmark {text!r}: there are {', '.join(BENCHMARKS)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
