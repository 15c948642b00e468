"""Where things are that the configuration says nothing of."""

from __future__ import annotations

from pathlib import Path

# From the configuration's own directory.
STATE_PATH = "./data/state.db"
WORKSPACE_PATH = "./data/ws"


def detached_log(database: Path) -> Path:
    """Return the log of a detached daemon on a machine without a syslog."""
    return database.with_name("ductiled.log")


def run_locks(database: Path) -> Path:
    """Return the directory of run locks for a database."""
    return database.with_name("running")
