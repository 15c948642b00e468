"""A summary by a command of the operator's choice: the text on its standard input, the summary on its output."""

from __future__ import annotations

import os
import time

from ductile_plugin import MIB, Permanent, Retry, collect, start

COMPLAINT_LINES = 3
COMPLAINT_CHARACTERS = 300


def run(argv: list[str], text: str, seconds: float) -> str:
    """Return what the command printed. Raises Failed where it does not end well within `seconds`."""
    with start(argv, text.encode("utf-8", "replace"), "command: ") as child:
        try:
            printed, is_more, complaint = collect(child, MIB, end=time.monotonic() + seconds)
        except TimeoutError:
            raise Retry(f"{argv[0]} was not done within {seconds:.3g} s") from None
        finally:
            child.kill()
    if is_more:
        raise Permanent(f"{argv[0]} printed more than 1 MiB, that is no summary")
    code = child.returncode
    if code:
        ended = f"{argv[0]} exited {code}" if code > 0 else f"{argv[0]} was ended by signal {-code}"
        raise Retry(ended + _first_lines(complaint))
    return printed.decode("utf-8", "replace")


def is_found(argv: list[str]) -> bool:
    """Say whether the command is there, by its path or in PATH."""
    places = [""] if "/" in argv[0] else os.get_exec_path()
    paths = [os.path.join(place, argv[0]) for place in places]
    return any(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths)


def _first_lines(complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").splitlines()
    clean = ("".join(char for char in line if char.isprintable()).strip() for line in lines)
    text = "; ".join([line for line in clean if line][:COMPLAINT_LINES])
    return f": {text[:COMPLAINT_CHARACTERS]}" if text else ""
