"""`ductilectl logs`: finished attempts with the output of their plugins, and what the running job has written."""

from __future__ import annotations

import json
import re
import select
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ductile import safe_files
from ductile.ctl import attempts, queries, table
from ductile.ctl.lookup import SHORTEST_PREFIX, find, is_known, moment, require_plugin
from ductile.ctl.queries import AttemptFilter, JobFilter, Row
from ductile.ctl.session import Session
from ductile.errors import EXIT_OK, EXIT_USAGE, DuctileError
from ductile.queue import attempt_table, job_table

DEFAULT_LIMIT = 20
_LOOK_SECONDS = 0.5
_STDERR_BYTES = 128 * 1024
_INDENT = "    "
_JOB_ID = re.compile(r"[0-9a-f][0-9a-f-]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the operator has asked to see; `target` is a plugin or a job, None for all.

    `limit` is None for the last 20, or for all since a given time.
    """

    target: str | None = None
    since: str | None = None
    until: str | None = None
    failed: bool = False
    grep: str | None = None
    limit: int | None = None


def logs(session: Session, *, asked: Asked) -> int:
    """Show the last attempts that match, oldest first, and standard error of the running job.

    Raises DuctileError: 64 for a time or pattern that is none, 66 for a plugin or job that nobody knows.
    """
    with session.reading() as conn:
        wanted = _filter(session, conn, asked)
        last = _last(asked)
        if session.as_json:
            session.show([attempts.whole(row) for row in queries.attempts(conn, wanted, last=last, whole=True)])
            return EXIT_OK
        shown = _write(session, queries.attempts(conn, wanted, last=last))
        live = _Live(session, conn, asked, wanted)
        live.look()
    if not shown and not live.shown and last != 0:
        session.out.write("no attempt matches\n" if asked != Asked(target=asked.target) else
                          "no attempt has ended yet\n" if asked.target is None else
                          f"no attempt of {_name(wanted)} has ended yet\n")
    return EXIT_OK


def follow(session: Session, *, asked: Asked, has_reader: Callable[[], bool] | None = None) -> int:
    """Show the same, and then each attempt when it ends, until nobody reads them any more, or the job has ended.

    As JSON, one document a line. The database is not held between two looks; `has_reader` waits until the next one.
    Raises DuctileError as `logs` does.
    """
    has_reader = has_reader or (lambda: _has_reader(session.out.fileno(), _LOOK_SECONDS))
    with session.reading() as conn:
        wanted = _filter(session, conn, asked)
        seen = attempt_table.last_seq(conn)
        live = _Live(session, conn, asked, wanted)
        _write(session, queries.attempts(conn, replace(wanted, last_seq=seen), last=_last(asked),
                                         whole=session.as_json))
        while not _is_over(conn, wanted):
            live.look()
            if not has_reader():
                break
            newest = attempt_table.last_seq(conn)
            if newest < seen:
                # Every attempt was pruned, and the numbers begin again.
                seen = 0
            if newest > seen:
                live.look()
                _write(session, queries.attempts(conn, replace(wanted, after_seq=seen, last_seq=newest),
                                                 whole=session.as_json), live)
                seen = newest
    return EXIT_OK


def _filter(session: Session, conn: sqlite3.Connection, asked: Asked) -> AttemptFilter:
    wanted = AttemptFilter(since=moment(session, "--since", asked.since), until=moment(session, "--until", asked.until),
                           failed=asked.failed, grep=None if asked.grep is None else _pattern(asked.grep))
    if asked.target is None:
        return wanted
    looks_like_job = len(asked.target) >= SHORTEST_PREFIX and _JOB_ID.fullmatch(asked.target)
    if looks_like_job and not is_known(session, conn, asked.target):
        return replace(wanted, job_id=find(conn, asked.target).id)
    require_plugin(session, conn, asked.target)
    return replace(wanted, plugin=asked.target)


def _pattern(text: str) -> re.Pattern[str]:
    """Return a regular expression; one in lower case ignores case, as in journalctl."""
    try:
        return re.compile(text, re.IGNORECASE if text == text.lower() else 0)
    except re.error as error:
        raise DuctileError(f"--grep: no regular expression: {table.cell(text)}: write \\ before a character that"
                           " stands for itself", exit_code=EXIT_USAGE) from error


def _last(asked: Asked) -> int | None:
    return DEFAULT_LIMIT if asked.limit is None and asked.since is None else asked.limit


def _name(wanted: AttemptFilter) -> str:
    return f"job {wanted.job_id}" if wanted.job_id is not None else f"plugin {wanted.plugin}"


def _is_over(conn: sqlite3.Connection, wanted: AttemptFilter) -> bool:
    """Return whether one job was asked for, and it has ended."""
    job = None if wanted.job_id is None else job_table.get(conn, wanted.job_id)
    return wanted.job_id is not None and (job is None or job.status.is_last)


def _write(session: Session, found: Iterator[Row], live: _Live | None = None) -> bool:
    """Write attempts as they are read. Return whether there was any."""
    any_shown = False
    for row in found:
        any_shown = True
        if session.as_json:
            session.out.write(f"{json.dumps(attempts.whole(row))}\n")
            continue
        if live is not None and live.has_shown(row):
            row["stderr"] = None
        session.out.write(attempts.text(attempts.parts(row), page=session.page, with_job=True, events=False))
    session.out.flush()
    return any_shown


class _Live:
    """Standard error of the running job, written as it comes."""

    def __init__(self, session: Session, conn: sqlite3.Connection, asked: Asked, wanted: AttemptFilter) -> None:
        self._session, self._conn, self._wanted = session, conn, wanted
        # What a job writes now is neither old, nor failed, nor searched.
        self._off = session.as_json or asked.until is not None or asked.failed or asked.grep is not None
        self._attempt: tuple[str, int] | None = None
        self._written = 0
        self.shown = False

    def look(self) -> None:
        """Write what the running job has written since the last look."""
        if self._off:
            return
        for job in queries.jobs(self._conn, JobFilter(status="running", plugin=self._wanted.plugin), 1):
            if self._wanted.job_id in (None, job["job_id"]):
                self._show(job)

    def _show(self, job: Row) -> None:
        content = self._content(job["job_id"])
        attempt = (job["job_id"], job["attempt"])
        out, page = self._session.out, self._session.page
        if attempt != self._attempt:
            if not content and self._wanted.job_id is None:
                return
            self._attempt, self._written, self.shown = attempt, 0, True
            since = "" if job["started_at"] is None else f"{page.clock(job['started_at'], seconds=True)} "
            out.write(f"{since}{table.short(job['job_id'])} {job['plugin']} {job['command']} attempt {job['attempt']}"
                      " running\n")
        fresh = content[self._written:]
        # A line that is not complete yet is written with the next look.
        fresh = fresh[:fresh.rfind(b"\n") + 1]
        self._written += len(fresh)
        out.write(table.block(fresh.decode("utf-8", "replace"), _INDENT))
        out.flush()

    def _content(self, job_id: str) -> bytes:
        try:
            return safe_files.read(self._session.state_path.parent / "running" / f"{job_id}.stderr", _STDERR_BYTES)
        except OSError:
            # There is none until the plugin writes, and none once it has ended.
            return b""

    def has_shown(self, attempt: Row) -> bool:
        """Return whether the standard error of an attempt was written completely."""
        stderr = (attempt["stderr"] or "").encode("utf-8", "surrogatepass")
        return self._attempt == (attempt["job_id"], attempt["attempt"]) and 0 < len(stderr) == self._written


def _has_reader(fd: int, seconds: float) -> bool:
    """Wait for `seconds`, or until nobody can read what is written to `fd`. Return whether somebody can."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(int(seconds * 1000))
