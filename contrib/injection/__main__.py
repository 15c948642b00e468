"""`contrib/faults`: break the real programs at their system calls, and print one table of what was lost or doubled."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from injection.control import FAULTS, MissingTool, build
from injection.operations import OPERATIONS
from injection.site import has_command
from injection.soak import soak
from injection.sweep import Sweep
from injection.table import Row, is_good, table

_EXIT_FOUND = 1
_EXIT_USAGE = 64
_EXIT_MISSING = 69
_SOAK = "soak"
_NAMES = (*OPERATIONS, _SOAK)
_NEEDED = ("flock", "sync")


def main() -> int:
    """Run what was asked for and return the exit code."""
    options = _parser().parse_args()
    # A stop from outside must end what was started, too, and show what was found until then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    rows: list[Row] = []
    scratch = Path(tempfile.mkdtemp(prefix="ductile-faults-", dir=os.environ.get("TMPDIR", "/var/tmp"))).resolve()
    try:
        _check_tools()
        library = build(scratch)
        _run(options, scratch, library, rows)
    except MissingTool as error:
        print(f"faults: {error}", file=sys.stderr)
        shutil.rmtree(scratch)
        return _EXIT_MISSING
    except KeyboardInterrupt:
        print("faults: interrupted; this was run until then:", file=sys.stderr)
        print(table(rows))
        return 128 + signal.SIGINT
    print(table(rows))
    if is_good(rows):
        shutil.rmtree(scratch)
        return 0
    print(f"\nThe directories of these runs are in {scratch}.")
    return _EXIT_FOUND


def _run(options: argparse.Namespace, scratch: Path, library: Path, rows: list[Row]) -> None:
    sweep = Sweep(scratch, library, points=options.points)
    for name in options.name or _NAMES:
        if name == _SOAK:
            print(f"faults: soak, {options.minutes:g} min", file=sys.stderr)
            rows.append(soak(scratch / _SOAK, minutes=options.minutes))
        elif name == "restore" and not has_command(name):
            rows.append(Row(what=name, fault="-", tried=f"not run: this ductilectl has no {name}", was_run=False))
        else:
            for fault in options.fault or FAULTS:
                print(f"faults: {name}, {fault}", file=sys.stderr)
                rows.append(sweep.cell(name, fault, options.at))


def _check_tools() -> None:
    for name in _NEEDED:
        if shutil.which(name) is None:
            raise MissingTool(f"no {name}: install it (Debian: apt install util-linux coreutils)")


def _parser() -> argparse.ArgumentParser:
    operations = "\n".join(f"  {name:9} {operation.__doc__}" for name, operation in OPERATIONS.items())
    faults = "\n".join(f"  {name:9} {fault.meaning}" for name, fault in FAULTS.items())
    parser = _Parser(
        prog="contrib/faults", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Break ductiled and ductilectl at their system calls, compare what senders were told,\n"
                    "what plugins wrote down and what the database says, and print one table. Exits with\n"
                    "1 if anything was lost, doubled or stuck, or if a program ended with a bug.",
        epilog=f"operations:\n{operations}\n  {_SOAK:9} Schedules and webhooks for a while, with kill -9 and reloads,"
               f" some of them broken.\n\nfaults:\n{faults}\n\n"
               "A kill takes the process and not the machine: what is in the page cache stays. No power cut is tried.")
    parser.add_argument("--minutes", type=_minutes, default=30.0, metavar="N",
                        help="how long the soak takes (default: 30)")
    parser.add_argument("--points", type=_points, default=12, metavar="N",
                        help="strike at most so many calls of each operation with each fault, evenly spread; 0: each"
                             " (default: 12)")
    parser.add_argument("--fault", action="append", choices=tuple(FAULTS), help="this fault alone; can be repeated")
    parser.add_argument("--at", type=_call, metavar="N", help="strike this call alone: to see a finding again")
    # argparse holds an empty list against the choices: they are checked one by one.
    parser.add_argument("name", nargs="*", metavar="NAME", type=_name, help=f"{', '.join(_NAMES)} (default: all)")
    return parser


class _Parser(argparse.ArgumentParser):
    """Ends with the exit code for a wrong usage, as the programs do."""

    def error(self, message: str) -> None:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(_EXIT_USAGE)


def _name(text: str) -> str:
    if text not in _NAMES:
        raise argparse.ArgumentTypeError(f"no operation {text!r}: there are {', '.join(_NAMES)}")
    return text


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100_000:
        raise argparse.ArgumentTypeError(f"expected minutes, more than 0, got {text!r}")
    return value


def _points(text: str) -> int:
    return _whole(text, 0)


def _call(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"expected a whole number, {least} or more, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
