"""What every command of `ductilectl` works with: its streams, the configuration, the database, time and ids."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TextIO

from ductile import db, stdio
from ductile.clock import Clock, SystemClock
from ductile.config import find
from ductile.config.load import Loaded, load
from ductile.config.model import Config, PluginConfig
from ductile.ctl import output
from ductile.ctl.table import Page
from ductile.errors import EXIT_CONFIG, EXIT_IO, EXIT_PERMISSION, EXIT_UNAVAILABLE, DuctileError
from ductile.injected import NewId


class NoDatabase(Exception):
    """There is no database yet, and so nothing to show."""


def _uuid() -> str:
    return str(uuid.uuid4())


# Without slots: what is read from disk once is kept in it.
@dataclass(frozen=True, kw_only=True)
class Session:
    """One call of `ductilectl`. `config_option` is the value of `-c`, None if it was not given."""

    environ: Mapping[str, str]
    stdin: BinaryIO
    out: TextIO
    err: TextIO
    as_json: bool = False
    utc: bool = False
    config_option: str | None = None
    clock: Clock = field(default_factory=SystemClock)
    new_id: NewId = _uuid

    @property
    def page(self) -> Page:
        """Return what tables are written on."""
        if self.out.isatty():
            return output.terminal(self.out, self.environ, self.now(), self.zone)
        return Page(self.zone)

    @property
    def zone(self) -> tzinfo | None:
        """The zone in which people are shown times; None is the system's."""
        return UTC if self.utc else None

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        return self.clock.now()

    def emit(self, document: object, text: str) -> None:
        """Write the document with `--json`, else the text."""
        if self.as_json:
            self.show(document)
        else:
            self.out.write(text)

    def show(self, document: object) -> None:
        """Write one JSON document."""
        self.out.write(output.document(document))

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to answer a question."""
        return self.stdin.isatty() and self.err.isatty()

    def ask(self, question: str) -> bool:
        """Ask on standard error. The end of input is no answer, and no answer means no."""
        self.err.write(f"{question} [y/N] ")
        self.err.flush()
        return self.stdin.readline().strip().lower() in (b"y", b"yes")

    @cached_property
    def config_path(self) -> Path:
        """The configuration file. Raises DuctileError: 78 if there is none, 77 if it cannot be looked at."""
        return find.find(self.config_option, self.environ, denied=EXIT_PERMISSION)

    @property
    def config(self) -> Config:
        """The configuration, without plugins and pipelines; unset variables stay as `${NAME}`.

        Raises DuctileError (78) if the file is not valid YAML.
        """
        return self._loaded.config

    @cached_property
    def _loaded(self) -> Loaded:
        return load(self.config_path, self.environ, keep_unset=True)

    @property
    def whole_config(self) -> Config:
        """The configuration as `config` is. Raises DuctileError (78) for anything wrong with it."""
        if self._loaded.problems:
            raise DuctileError(*map(self._loaded.locate, self._loaded.problems), exit_code=EXIT_CONFIG)
        return self.config

    @property
    def config_files(self) -> list[Path]:
        """The files that were read for the configuration. Raises as `config` does."""
        return [self.config_path.parent / name for name, _ in self._loaded.files]

    @property
    def plugins(self) -> Mapping[str, PluginConfig]:
        """The configured plugins; none if the file is not valid YAML."""
        try:
            return self.config.plugins
        except DuctileError:
            return {}

    @cached_property
    def state_path(self) -> Path:
        """The path of the database. Raises DuctileError (78) if the configuration does not say it.

        If the file is not valid YAML, a lenient look finds the path, with one warning. The path is read once, so
        that a command never changes one database and signals the daemon of another.
        """
        try:
            loaded = self._loaded
        except DuctileError as error:
            state_path = find.state_path(self.config_path)
            if state_path is None:
                raise
            self.err.write(f"warning: {stdio.as_line(error.lines[0])}; using the database {state_path}\n")
            return state_path
        problems = [loaded.locate(each) for each in loaded.problems if each.path in (("state",), ("state", "path"))]
        if problems:
            raise DuctileError(*problems, exit_code=EXIT_CONFIG)
        if loaded.problems:
            self.err.write(f"warning: {stdio.as_line(loaded.locate(loaded.problems[0]))}; see ductilectl check\n")
        return loaded.config.state_path

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection | None]:
        """Open the database for the block; None if there is none yet. Raises DuctileError as `open_for_operator`."""
        conn = db.open_for_operator(self.state_path, failed=EXIT_IO)
        if conn is None:
            yield None
            return
        with closing(conn), db.database_errors(conn):
            yield conn

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open the database for a command that shows something. Raises NoDatabase, DuctileError."""
        with self.database() as conn:
            if conn is None:
                raise NoDatabase(self._no_database())
            yield conn

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Open the database for a command that writes to it. Raises DuctileError (69) if there is none yet."""
        with self.database() as conn:
            if conn is None:
                raise DuctileError(self._no_database(), exit_code=EXIT_UNAVAILABLE)
            yield conn

    def _no_database(self) -> str:
        return f"ductiled has not run yet: there is no database at {self.state_path}"
