"""`ductilectl report`: one HTML file about a period, for people who are not at a terminal."""

from __future__ import annotations

import os
import sqlite3
import stat
from datetime import UTC, datetime
from pathlib import Path

from ductile.ctl import queries, report_facts
from ductile.ctl import status as status_command
from ductile.ctl.inputs import STDIN
from ductile.ctl.lookup import moment
from ductile.ctl.output import deferred_signals, progress
from ductile.ctl.report_page import Report, page
from ductile.ctl.session import Session
from ductile.dispatch.outcome import CANCELLED
from ductile.errors import EXIT_IO, EXIT_OK, EXIT_USAGE, DuctileError, io_exit_code
from ductile.scheduler import schedule_table
from ductile.text import counted, one_line
from ductile.units import format_size

DEFAULT_SINCE = "7d"
_MOST_ATTEMPTS = 100_000
_MOST_DEAD = 1_000_000
_STDERR_SHOWN = 50       # failures that have theirs
_STDERR_CHARACTERS = 2000
_NAME = "Ductile"


def report(session: Session, *, since: str, output: str | None, limit: int = _MOST_ATTEMPTS) -> int:
    """Write the report to a file, in one step, or to standard output for `-` or None.

    Durations and waits are those of the latest `limit` attempts. Raises DuctileError: 64 for a time that is none or not
    past, 74 or 77 if the file cannot be written.
    """
    now = session.now()
    start = moment(session, "--since", since)
    if start is None or start >= now:
        raise DuctileError(f"--since: expected a time in the past, got {since!r}", exit_code=EXIT_USAGE)
    with session.reading() as conn, progress("reading the database", session.err):
        found = _read(session, conn, start, now, limit)
    document = page(found)
    if output is None or output == STDIN:
        session.out.write(document)
        return EXIT_OK
    _write(Path(output), document.encode("ascii"), session.new_id())
    failed = found.facts.total.dead
    session.out.write(f"{one_line(output)}: {format_size(len(document))}, {counted(found.facts.total.ran, 'job')},"
                      f" {failed:,} failed\n")
    return EXIT_OK


def _read(session: Session, conn: sqlite3.Connection, since: datetime, now: datetime, limit: int) -> Report:
    plugins = session.plugins
    # One moment for everything, even if the daemon goes on.
    conn.execute("BEGIN")
    try:
        period = report_facts.divide(since, now, session.zone)
        parts = [tuple(datetime.fromtimestamp(at, UTC) for at in period.bounds(part))
                 for part in range(len(period.starts))]
        facts = report_facts.count(
            period, jobs=[queries.ended_in(conn, *part, cancelled=CANCELLED) for part in parts],
            work=[queries.work_in(conn, *part) for part in parts],
            attempts=queries.attempts_in(conn, since, now, limit=limit),
            dead=queries.dead_in(conn, since, now, cancelled=CANCELLED, limit=_MOST_DEAD))
        status = status_command.read(conn, state_path=session.state_path, plugins=plugins, now=now)
        entries = schedule_table.entries(conn)
        stderr = {failure.job_id: text for failure in facts.failures[:_STDERR_SHOWN]
                  if (text := _stderr(conn, failure.job_id))}
    finally:
        conn.execute("ROLLBACK")
    slots = {key: (entry.rule, entry.slot) for key, entry in entries.items()}
    return Report(name=_name(session), facts=facts, status=status, stderr=stderr, zone=session.zone,
                  coming=report_facts.coming(plugins, slots, now), truncated=limit if facts.attempts == limit else None)


def _name(session: Session) -> str:
    try:
        return session.config.service.name
    except DuctileError:
        # The warning was shown when the database was looked for.
        return _NAME


def _stderr(conn: sqlite3.Connection, job_id: str) -> str | None:
    """Return the end of what a job's last attempt wrote to standard error; there the reason is."""
    attempt = queries.output(conn, job_id)["attempt"]
    text = None if attempt is None else attempt["stderr"]
    return text and text[-_STDERR_CHARACTERS:]


def _write(file: Path, content: bytes, unique: str) -> None:
    """Write a file under another name beside its place, and rename it when it is whole and on disk."""
    shown = one_line(str(file))
    # What a link leads to is replaced, and not the link.
    target = Path(os.path.realpath(file))
    part = target.with_name(f".{target.name}.{unique}")
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            raise DuctileError(f"cannot write {shown}: it is not a regular file; use - for standard output",
                               exit_code=EXIT_IO)
        with deferred_signals():
            try:
                _write_new(part, content)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise DuctileError(f"cannot write {shown}: {error.strerror}", exit_code=io_exit_code(error)) from error


def _write_new(part: Path, content: bytes) -> None:
    # With the mode that the umask leaves, as a shell would give it.
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
