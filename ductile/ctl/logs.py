"""`ductilectl logs`: finished attempts with the output of their plugins."""

from __future__ import annotations

import json
import select
from collections.abc import Callable, Iterable

from ductile.ctl import attempts
from ductile.ctl.lookup import require_plugin
from ductile.ctl.session import Session
from ductile.errors import EXIT_OK
from ductile.queue import attempt_table
from ductile.queue.attempt_table import Attempt

_LOOK_SECONDS = 0.5


def logs(session: Session, *, plugin: str | None, limit: int) -> int:
    """Show the last `limit` attempts of one plugin or of all, oldest first.

    Raises DuctileError (66) for a plugin that is not configured and has no attempts.
    """
    with session.reading() as conn:
        if plugin is not None:
            require_plugin(session, conn, plugin)
        rows = [attempts.row(attempt) for attempt in attempt_table.latest(conn, plugin, limit)]
    of_plugin = "" if plugin is None else f" of plugin {plugin}"
    nothing = f"no attempt{of_plugin} has ended yet\n" if limit > 0 else ""
    session.emit(rows, "".join(attempts.text(row, page=session.page, with_job=True) for row in rows) or nothing)
    return EXIT_OK


def follow(session: Session, *, plugin: str | None, limit: int, has_reader: Callable[[], bool] | None = None) -> int:
    """Show the last `limit` attempts, and then each one when it ends, until nobody reads them any more.

    As JSON, one document a line. The database is not held between two looks; `has_reader` waits until the next one.
    Raises DuctileError as `logs` does.
    """
    has_reader = has_reader or (lambda: _has_reader(session.out.fileno(), _LOOK_SECONDS))
    with session.reading() as conn:
        if plugin is not None:
            require_plugin(session, conn, plugin)
        seen = attempt_table.last_seq(conn)
        latest = attempt_table.latest(conn, plugin, limit)
        _write(session, latest)
        seen = max([seen, *(attempt.seq for attempt in latest)])
        while has_reader():
            newest = attempt_table.last_seq(conn)
            if newest < seen:
                # Every attempt was pruned, and the numbers begin again.
                seen = 0
            if newest > seen:
                fresh = attempt_table.after(conn, seen, plugin)
                _write(session, fresh)
                seen = max([newest, *(attempt.seq for attempt in fresh)])
    return EXIT_OK


def _write(session: Session, found: Iterable[Attempt]) -> None:
    for attempt in found:
        row = attempts.row(attempt)
        session.out.write(f"{json.dumps(row)}\n" if session.as_json
                          else attempts.text(row, page=session.page, with_job=True))
    session.out.flush()


def _has_reader(fd: int, seconds: float) -> bool:
    """Wait for `seconds`, or until nobody can read what is written to `fd`. Return whether somebody can."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(int(seconds * 1000))
