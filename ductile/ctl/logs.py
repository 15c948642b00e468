"""`ductilectl logs`: finished attempts with what their plugins said."""

from __future__ import annotations

import json
import select
import sqlite3
from collections.abc import Callable, Mapping
from io import TextIOBase

from ductile.ctl import attempts, queries
from ductile.ctl.lookup import shown
from ductile.ctl.output import document
from ductile.errors import EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.queue import attempt_table
from ductile.queue.attempt_table import Attempt
from ductile.validation import nearest


def logs(conn: sqlite3.Connection, *, plugin: str | None, known: Mapping[str, object], limit: int, as_json: bool,
         out: TextIOBase) -> int:
    """Show the last `limit` attempts of one plugin or of all, oldest first.

    `known` are the plugins that are configured. Raises DuctileError (66) for one that is not, and has no attempts.
    """
    _require(conn, plugin, known)
    rows = [attempts.row(attempt) for attempt in attempt_table.latest(conn, plugin, limit)]
    if as_json:
        out.write(document(rows))
    elif limit > 0:
        of_whom = "" if plugin is None else f" of plugin {plugin}"
        none = f"no attempt{of_whom} has ended yet\n"
        out.write("".join(attempts.text(row, with_job=True) for row in rows) or none)
    return EXIT_OK


def follow(conn: sqlite3.Connection, *, plugin: str | None, known: Mapping[str, object], limit: int, as_json: bool,
           out: TextIOBase, goes_on: Callable[[], bool]) -> int:
    """Show the last `limit` attempts and then each one that ends, until `goes_on`, asked between two looks, says no.

    As JSON, one document a line. Nothing is held in the database between two looks. Raises DuctileError as `logs` does.
    """
    _require(conn, plugin, known)
    seen = attempt_table.last_seq(conn)
    latest = attempt_table.latest(conn, plugin, limit)
    _write(latest, as_json, out)
    seen = max([seen, *(attempt.seq for attempt in latest)])
    while goes_on():
        newest = attempt_table.last_seq(conn)
        if newest < seen:
            # All there was has been pruned, and the numbers begin anew.
            seen = 0
        if newest > seen:
            fresh = attempt_table.after(conn, seen, plugin)
            _write(fresh, as_json, out)
            seen = max([newest, *(attempt.seq for attempt in fresh)])
    return EXIT_OK


def _require(conn: sqlite3.Connection, plugin: str | None, known: Mapping[str, object]) -> None:
    if plugin is None or plugin in known:
        return
    logged = queries.logged_plugins(conn)
    if plugin not in logged:
        hint = nearest(plugin, {*known, *logged})
        raise DuctileError(f"no plugin {shown(plugin)} is configured or in the log{hint}", exit_code=EXIT_NOT_FOUND)


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
