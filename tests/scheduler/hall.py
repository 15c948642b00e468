"""A root with workspaces in it, a database that knows of some, and a janitor in a test's hand."""

from __future__ import annotations

import os
import sqlite3
from datetime import timedelta
from pathlib import Path

from ductile.queue.job import Status
from ductile.workspace.cleanup import WorkspaceCleanup
from ductile.workspace.manager import Workspaces
from support.clock import FakeClock
from support.ledger import put_job

TTL = 86400


class Hall:
    """What the janitor goes round."""

    def __init__(self, directory: Path, conn: sqlite3.Connection, log: Path) -> None:
        self.conn = conn
        self.log = log
        self.clock = FakeClock()
        self.workspaces = Workspaces(directory / "ws")
        self.workspaces.make_root()
        self.root = self.workspaces.root
        self.cleanup = WorkspaceCleanup(conn, clock=self.clock, workspaces=self.workspaces)

    def job(self, name: str, status: Status = Status.SUCCEEDED, *, ago: float = TTL + 1, **fields: object) -> None:
        """A job with a file in its workspace, that reached its status so many seconds ago."""
        put_job(self.conn, name, status, now=self.clock.now() - timedelta(seconds=ago), **fields)
        self.directory(name, ago=0)

    def directory(self, name: str, *, ago: float = TTL + 1) -> Path:
        """A directory with a sealed file in it, last written so many seconds ago."""
        path = self.root / name
        path.mkdir(mode=0o700)
        (path / "file").write_text("made")
        (path / "file").chmod(0o444)
        self.age(path, ago)
        return path

    def age(self, path: Path, ago: float) -> None:
        moment = (self.clock.now() - timedelta(seconds=ago)).timestamp()
        os.utime(path, (moment, moment), follow_symlinks=False)

    def left(self) -> list[str]:
        return sorted(os.listdir(self.root))

    def clean(self) -> list[str]:
        self.cleanup.clean(TTL)
        return self.left()
