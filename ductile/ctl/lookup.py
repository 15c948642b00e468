"""What an operator names or types: plugins, jobs and moments.

It imports neither plugins nor pipelines, which take twice the time of a command that only looks at the database.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from ductile.ctl import queries, times
from ductile.ctl.queries import JobFilter
from ductile.ctl.session import Session
from ductile.errors import EXIT_NOT_FOUND, EXIT_USAGE, DuctileError
from ductile.queue import job_table
from ductile.queue.job import Job
from ductile.text import one_line
from ductile.validation import nearest

SHORTEST_PREFIX = 4
_CANDIDATES_SHOWN = 10


def find(conn: sqlite3.Connection, text: str) -> Job:
    """Return the job with this id, or the only one whose id starts with it.

    Raises DuctileError: 66 if there is none, 64 if `text` is too short or there are several.
    """
    prefix = text.strip().lower()
    if len(prefix) < SHORTEST_PREFIX:
        raise DuctileError(f"{quoted(text)} is too short for a job: give {SHORTEST_PREFIX} characters of its id",
                           exit_code=EXIT_USAGE)
    found = job_table.with_prefix(conn, prefix, _CANDIDATES_SHOWN + 1)
    if not found:
        raise DuctileError(f"no job {quoted(text)}", exit_code=EXIT_NOT_FOUND)
    if len(found) > 1:
        names = ", ".join(job.id for job in found[:_CANDIDATES_SHOWN])
        more = ", …" if len(found) > _CANDIDATES_SHOWN else ""
        raise DuctileError(f"{quoted(text)} could be any of {names}{more}", exit_code=EXIT_USAGE)
    return found[0]


def require_configured(session: Session, name: str) -> None:
    """Refuse a plugin that is not configured. Needs no plugin's files. Raises DuctileError (66)."""
    if name not in session.config.plugins:
        hint = nearest(name, session.config.plugins)
        raise DuctileError(f"no plugin {quoted(name)} is configured{hint}", exit_code=EXIT_NOT_FOUND)


def require_plugin(session: Session, conn: sqlite3.Connection, name: str) -> None:
    """Refuse a plugin that is neither configured nor in the database. Raises DuctileError (66)."""
    if not is_known(session, conn, name):
        hint = nearest(name, {*session.plugins, *queries.logged_plugins(conn)})
        raise DuctileError(f"no plugin {quoted(name)} is configured or in the log{hint}", exit_code=EXIT_NOT_FOUND)


def is_known(session: Session, conn: sqlite3.Connection, name: str) -> bool:
    """Return whether a plugin is configured, has jobs or is in the log."""
    return (name in session.plugins or bool(queries.jobs(conn, JobFilter(plugin=name), 1))
            or name in queries.logged_plugins(conn))


def quoted(text: str) -> str:
    """Return what the operator has typed, for a message."""
    return f"'{one_line(text, 80)}'"


def moment(session: Session, option: str, text: str | None) -> datetime | None:
    """Return the moment that an option names, None if it was not given. Raises DuctileError (64)."""
    try:
        return None if text is None else times.parse_moment(text, session.now(), session.zone)
    except ValueError as error:
        raise DuctileError(f"{option}: {error}", exit_code=EXIT_USAGE) from error
