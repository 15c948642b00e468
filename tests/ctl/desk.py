"""The operator's desk: a configuration, its database, and `ductilectl` called in this process or started as one."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ductile import db
from ductile.ctl import main
from ductile.ctl.session import Session
from ductile.plugin import plugin_table
from ductile.plugin.plugin_table import PluginLoad
from support import ordinary, warm
from support.clock import START, FakeClock
from support.ledger import place_fresh
from support.warm import Started

DUCTILECTL = Path(sys.executable).with_name("ductilectl")
PATIENCE_SECONDS = 60.0
# With others than these, a program is executed and not forked.
_WARM_SETTINGS = {"stdin", "stdout", "stderr", "env", "cwd", "controls", "umask", "user", "closed"}
_MANIFEST = """\
name: {name}
version: 0.1.0
protocol: 2
entrypoint: run
commands: {commands}
"""
SAYS_OK = "#!/bin/sh\nprintf '{\"status\":\"ok\",\"result\":\"fine\"}'\n"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a call of `ductilectl` gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class OpenSession(Session):
    """A session on a connection that is open already."""

    conn: sqlite3.Connection

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        yield self.conn


class Desk:
    """A configuration in `home` with plugins of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.database = home / "data" / "state.db"
        self.config: dict[str, Any] = {"plugins_dir": "./plugins", "plugins": {}}
        (home / "plugins").mkdir(mode=0o755)
        self.configure()

    def configure(self, **sections: Any) -> None:
        """Write the configuration with these sections laid over what there is. JSON is YAML."""
        self.config.update(sections)
        (self.home / "config.yaml").write_text(json.dumps(self.config, indent=1))

    def plugin(self, name: str = "echo", *, commands: Sequence[str] = ("poll", "handle", "health"),
               program: str = SAYS_OK, **settings: Any) -> Path:
        """Make a plugin and configure it; return its directory."""
        directory = self.home / "plugins" / name
        directory.mkdir(mode=0o755)
        for file, text, mode in (("manifest.yaml", _MANIFEST.format(name=name, commands=json.dumps(commands)), 0o644),
                                 ("run", program, 0o755)):
            (directory / file).write_text(text)
            (directory / file).chmod(mode)
        self.configure(plugins={**self.config["plugins"], name: settings})
        return directory

    @contextmanager
    def ledger(self) -> Iterator[sqlite3.Connection]:
        """The database as the daemon makes it."""
        db.make_directory(self.database)
        place_fresh(self.database)
        conn = db.open_for_daemon(self.database)
        try:
            yield conn
        finally:
            conn.close()

    def loaded(self, conn: sqlite3.Connection, *loads: PluginLoad) -> None:
        """Store what the daemon would have read; without any, each plugin that is configured."""
        found = loads or tuple(load(name) for name in self.config["plugins"])
        with db.transaction(conn):
            plugin_table.replace_loads(conn, found, START)

    def dump(self) -> list[str]:
        """The whole content of the database as SQL."""
        with self.ledger() as conn:
            return list(conn.iterdump())

    def call(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Said:
        """Call `ductilectl` in this process."""
        return call("-c", self.home, *arguments, environ=environ or {"PATH": os.defpath})

    def session(self, **fields: Any) -> Session:
        """What a command works with, on a clock that stands still; its output is kept."""
        kind = OpenSession if "conn" in fields else Session
        return kind(**{"environ": {"PATH": os.defpath}, "stdin": io.BytesIO(), "out": io.StringIO(),
                       "err": io.StringIO(), "config_option": str(self.home), "clock": FakeClock(), **fields})

    def process(self, *arguments: str, become: Sequence[str] = (), **settings: Any) -> Said:
        """Start `ductilectl` with an empty environment and wait for its end."""
        return run(*arguments, home=self.home, become=become, **settings)


def call(*arguments: str | Path, environ: Mapping[str, str]) -> Said:
    """Call `ductilectl` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = main.main([str(argument) for argument in arguments], environ, out=out, err=err)
    return Said(code=code, out=out.getvalue(), err=err.getvalue())


def run(*arguments: str | Path, home: Path | None = None, **settings: Any) -> Said:
    """Start `ductilectl` as `start` does and wait for its end."""
    process = start(*arguments, home=home, **settings)
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Said(code=process.returncode, out=out, err=err)


def start(*arguments: str | Path, home: Path | None, become: Sequence[str] = (),
          **settings: Any) -> subprocess.Popen[str] | Started:
    """Start `ductilectl` on a configuration, if there is one, with an empty environment.

    `user` and `closed` are those of `Warm.start`.
    """
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {"TZ": "UTC"},
             "cwd": "/", **settings}
    words = (*(() if home is None else ("-c", home)), *arguments)
    if warm.ductilectl is not None and not become and set(given) <= _WARM_SETTINGS \
            and warm.ductilectl.can_start(given["env"]):
        return warm.ductilectl.popen(words, given.pop("env"), **given)
    return subprocess.Popen([*become, ordinary.program("ductilectl", become), *words], **{"text": True, **given})


def load(plugin: str, **fields: Any) -> PluginLoad:
    """A plugin that the daemon has loaded, unless `fields` say otherwise."""
    return PluginLoad(**{"plugin": plugin, "version": "0.1.0", "enabled": True, "needs_init": None, "reason": None,
                         **fields})


def job_id(number: int) -> str:
    """An id of which eight characters tell it apart."""
    return f"{number:08x}-0000-4000-8000-000000000000"
