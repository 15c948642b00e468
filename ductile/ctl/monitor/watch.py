"""`ductilectl monitor`: a live view of the whole daemon on a terminal, and keys for what the operator does most."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from ductile import db
from ductile.config.model import PluginConfig
from ductile.ctl import chain, queries, status, text_width
from ductile.ctl.monitor import render, state
from ductile.ctl.monitor.state import Message, Paper, Snapshot, State
from ductile.ctl.monitor.terminal import Terminal, opened
from ductile.errors import EXIT_FAILED, EXIT_IO, EXIT_OK, DuctileError
from ductile.pidfile import pid_file, running_pid

_LOOK_SECONDS = 0.5
# The end of a breaker and the counts of the last 24 hours change with time alone: an older snapshot is read again.
_STALE = timedelta(minutes=1)
_ROWS = 200    # of the queue and of what ended: ten screens

# Runs one of our own command lines, writes its output to the stream and returns its exit code.
Command = Callable[[Sequence[str], TextIO], int]


def monitor(conn: sqlite3.Connection, *, state_path: Path, plugins: Callable[[], Mapping[str, PluginConfig]],
            command: Command, environ: Mapping[str, str], now: Callable[[], datetime],
            zone: tzinfo | None = None) -> int:
    """Show everything until the operator quits, and run what is asked for by keys.

    `plugins` reads the configuration; times are shown in `zone`, None is the system's. Return 0 after `q`, 128 plus its
    number after a signal or if the terminal is gone. Raises DuctileError (64 without a terminal, 74 if the database
    file was replaced, 65 if it is damaged) and KeyboardInterrupt.
    """
    watch = Watch(conn, state_path=state_path, plugins=plugins, now=now, zone=zone)
    with opened(environ) as terminal:
        return _follow(watch, terminal, command)


def _follow(watch: Watch, terminal: Terminal, command: Command) -> int:
    seen, sight = State(), watch.look(State())
    shown: tuple[int, int] | None = None    # which reading the open text is from, and for how many columns
    while terminal.ended is None:
        try:
            sight = watch.look(seen)
            seen = state.settled(seen, sight)
        except db.NotWritten as error:
            seen = replace(seen, message=Message(text=f"the database cannot be read now: {error}", good=False))
        columns, rows = terminal.size
        if seen.paper is not None and (shown != (id(sight.status), columns) or not seen.paper.lines
                                       or _is_running(sight, seen.paper)):
            page = render.page(sight, seen, columns=columns, rows=rows)
            seen = replace(seen, paper=filled(command, seen.paper, columns, page))
        shown = id(sight.status), columns
        terminal.paint(render.lines(sight, seen, columns=columns, rows=rows, knows_all=terminal.knows_all))
        terminal.wait(_LOOK_SECONDS)
        page = render.page(sight, seen, columns=columns, rows=rows)
        for key in terminal.pressed():
            seen, arguments = state.press(seen, key, sight, page=page)
            if arguments is not None:
                seen = replace(seen, message=_answer(command, arguments))
            if seen.ended:
                return EXIT_OK
            if seen.question is not None or arguments is not None:
                # Keys typed before the question was shown do not answer it.
                terminal.forget_keys()
                break
    return 128 + terminal.ended


def _is_running(sight: Snapshot, paper: Paper) -> bool:
    return any(row["job_id"] == paper.job and row["status"] == "running" for row in sight.open)


def filled(command: Command, paper: Paper, columns: int, page: int) -> Paper:
    """Return a text as its commands print it now; one that is shown to its end stays at the end as it grows."""
    lines: list[str] = []
    for arguments in paper.commands:
        said = StringIO()
        # After SystemExit, the line that says why is in the text.
        with redirect_stderr(said), suppress(SystemExit):
            command(arguments, said)
        lines += [piece for line in said.getvalue().splitlines() for piece in text_width.wrap(line, columns)]
        lines.append("")
    del lines[-1]
    last = max(0, len(lines) - page)
    was_at_end = bool(paper.lines) and paper.line > 0 and paper.line >= len(paper.lines) - page
    return replace(paper, lines=tuple(lines), line=last if was_at_end else min(paper.line, last))


def _answer(command: Command, arguments: Sequence[str]) -> Message:
    """Run a command line, and return its output."""
    said = StringIO()
    with redirect_stderr(said):
        try:
            code = command(arguments, said)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else EXIT_FAILED
    is_good = code == EXIT_OK
    return Message(text=f"{arguments[0]}: {'; '.join(said.getvalue().splitlines())}", good=is_good,
                   job=arguments[1] if is_good and arguments[0] == "cancel" else None)


class Watch:
    """Follows the database and the daemon's lock. Nothing is held between two looks."""

    def __init__(self, conn: sqlite3.Connection, *, state_path: Path,
                 plugins: Callable[[], Mapping[str, PluginConfig]], now: Callable[[], datetime],
                 zone: tzinfo | None = None) -> None:
        """Watch the database that `conn` has open; `plugins` reads the configuration."""
        self._conn, self._state_path, self._plugins, self._now = conn, state_path, plugins, now
        self._zone = zone
        self._file = self._identity()
        self._settings: Mapping[str, PluginConfig] = {}
        self._load: object = self     # nothing that a configuration load equals
        self._mark: object = None
        self._job: str | None = None
        self._sight: Snapshot | None = None
        self._activity: Mapping[str, Sequence[tuple[int, int]]] = {}
        self._counted: datetime | None = None

    def look(self, seen: State) -> Snapshot:
        """Return a snapshot. The tables are read only after another process wrote to them, after another job was
        chosen, or once a minute.

        Raises DuctileError: 74 if the database file was replaced, 65 if it is damaged; NotWritten if it cannot be read
        at this moment.
        """
        with db.database_errors(self._conn):
            return self._look(seen, self._now())

    def _look(self, seen: State, now: datetime) -> Snapshot:
        if self._identity() != self._file:
            raise DuctileError(f"the database {self._state_path} is another file now: start ductilectl monitor again",
                               exit_code=EXIT_IO)
        # Taken before the tables are read: a change in between is then read twice, and never missed.
        mark = (self._conn.execute("PRAGMA data_version").fetchone()[0], running_pid(pid_file(self._state_path)))
        sight = self._sight
        if sight is not None and mark == self._mark and state.chosen_job(seen, sight) == self._job \
                and timedelta(0) <= now - sight.now < _STALE:
            return replace(sight, now=now)
        with _one_moment(self._conn):
            sight = self._read(now)
            job = state.chosen_job(seen, sight)
            sight = replace(sight, chain=None if job is None else chain.glance(self._conn, job))
        self._sight, self._mark, self._job = sight, mark, job
        return sight

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._state_path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _read(self, now: datetime) -> Snapshot:
        found = self._status(now)
        if found["config_load"] != self._load:
            self._load, self._settings = found["config_load"], self._configured()
            found = self._status(now)
        if self._counted is None or not timedelta(0) <= now - self._counted < _STALE:
            self._activity, self._counted = queries.activity(self._conn, now), now
        waiting = queries.open_jobs(self._conn, _ROWS)
        return Snapshot(now=now, zone=self._zone, activity=self._activity, status=found,
                        open=waiting, ended=queries.ended_jobs(self._conn, _ROWS),
                        timeouts={job["job_id"]: self._settings[job["plugin"]].timeout(job["command"])
                                  for job in waiting if job["status"] == "running" and job["plugin"] in self._settings})

    def _status(self, now: datetime) -> dict[str, Any]:
        return status.read(self._conn, state_path=self._state_path, plugins=self._settings, now=now)

    def _configured(self) -> Mapping[str, PluginConfig]:
        """Return the plugins' settings, none if the configuration cannot be read."""
        try:
            return self._plugins()
        except DuctileError:
            return {}


@contextmanager
def _one_moment(conn: sqlite3.Connection) -> Iterator[None]:
    """Run the block in one read transaction."""
    conn.execute("BEGIN")
    try:
        yield
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
