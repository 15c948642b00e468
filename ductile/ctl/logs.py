"""`ductilectl logs`: finished attempts with what their plugins said."""

from __future__ import annotations

import json
import select
import sqlite3
from collections.abc import Callable
from io import TextIOBase

from ductile import history
from ductile.ctl import attempts
from ductile.ctl.document import document
from ductile.errors import EXIT_OK
from ductile.history import Attempt


def logs(conn: sqlite3.Connection, *, plugin: str | None, limit: int, as_json: bool, out: TextIOBase) -> int:
    """Show the last `limit` attempts of one plugin or of all, oldest first."""
    rows = [attempts.row(attempt) for attempt in history.latest(conn, plugin, limit)]
    if as_json:
        out.write(document(rows))
    else:
        out.write("".join(attempts.text(row, with_job=True) for row in rows) or "no attempt has ended yet\n")
    return EXIT_OK


def follow(conn: sqlite3.Connection, *, plugin: str | None, limit: int, as_json: bool, out: TextIOBase,
           goes_on: Callable[[], bool]) -> int:
    """Show the last `limit` attempts and then each one that ends, until `goes_on`, asked between two looks, says no.

    As JSON, one document a line. Nothing is held in the database between two looks.
    """
    shown = history.last_seq(conn)
    latest = history.latest(conn, plugin, limit)
    _write(latest, as_json, out)
    shown = max([shown, *(attempt.seq for attempt in latest)])
    while goes_on():
        newest = history.last_seq(conn)
        if newest < shown:
            # All there was has been pruned, and the numbers begin anew.
            shown = 0
        if newest > shown:
            fresh = history.after(conn, shown, plugin)
            _write(fresh, as_json, out)
            shown = max([newest, *(attempt.seq for attempt in fresh)])
    return EXIT_OK


def _write(found: list[Attempt], as_json: bool, out: TextIOBase) -> None:
    for attempt in found:
        row = attempts.row(attempt)
        out.write(json.dumps(row) + "\n" if as_json else attempts.text(row, with_job=True))
    out.flush()


def has_reader(fd: int, seconds: float) -> bool:
    """Wait so long, or until nobody can read what is written to `fd` any more. Return whether somebody can."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(int(seconds * 1000))
