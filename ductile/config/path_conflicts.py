"""Finds settings that would make files of Ductile overwrite or delete each other, by their real paths."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ductile.config import model
from ductile.config.model import Config
from ductile.config.variables import at
from ductile.pidfile import pid_file
from ductile.validation import Path as KeyPath
from ductile.validation import Problem

_STATE: KeyPath = ("state", "path")
_WORKSPACE: KeyPath = ("workspace", "path")
_LOG: KeyPath = ("service", "log")
_DEFAULTS = {_STATE: model.STATE_PATH, _WORKSPACE: model.WORKSPACE_PATH}


@dataclass(frozen=True, slots=True)
class _Item:
    """A file or directory of Ductile: its name for the operator, and its real path."""

    name: str
    real: Path

    def is_in(self, other: _Item) -> bool:
        """Return whether it is the other, or inside of it."""
        return self.real.is_relative_to(other.real)


def path_conflicts(config: Config, files: Sequence[Path], value: Any, doubtful: Collection[KeyPath]) -> list[Problem]:
    """Return at most one problem for each of `state.path`, `service.log` and `workspace.path`.

    `files` are the configuration file and those that it includes; `value` is the document with the variables replaced.
    Settings at `doubtful` key paths are wrong in another way and are not compared.
    """
    def is_known(key_path: KeyPath) -> bool:
        return not any(key_path[:length] in doubtful for length in range(1, len(key_path) + 1))

    def wrong(key_path: KeyPath, text: str) -> Iterator[Problem]:
        written = at(value, key_path)
        got = f"the default of {_DEFAULTS[key_path]}" if written is None else repr(written)
        yield Problem(key_path, f"{text}, got {got}")

    database = _database_files(config.state_path) if is_known(_STATE) else []
    operator = [_item("the configuration file", files[0]), *(_item("an included file", file) for file in files[1:])]
    if config.service.env_file is not None and is_known(("service", "env_file")):
        operator.append(_item("service.env_file", config.service.env_file))
    problems: list[Problem] = []
    if database:
        conflict = _database_conflict(database, operator, config.state_path)
        if conflict is not None:
            problems += wrong(_STATE, conflict)
            # Nothing else is compared with a path that has to change.
            database = []
    named = [*operator]
    named += (_item("plugins_dir", directory)
              for key_path, directory in zip(config.plugins_places, config.plugins_dirs, strict=False)
              if is_known(key_path))
    if is_known(("pipelines_dir",)):
        named.append(_item("pipelines_dir", config.pipelines_dir))
    if isinstance(config.service.log, Path):
        log = _item("service.log", config.service.log)
        named.append(log)
        shared = next((item.name for item in (*database, *operator) if log.is_in(item)), None)
        if shared is not None and is_known(_LOG):
            problems += wrong(_LOG, f"expected a file for the log alone, and not {shared}")
    if is_known(_WORKSPACE):
        root = _item("workspace.path", config.workspace_path)
        met = [item.name for item in database if item.is_in(root) or root.is_in(item)][:1]
        met += (item.name for item in named if item.is_in(root))
        if met:
            problems += wrong(_WORKSPACE, f"expected a directory for workspaces alone, apart from {_listed(met)}:"
                                          " whatever belongs to no job is removed there")
    return problems


def _database_files(database: Path) -> list[_Item]:
    """Return the database and the files beside it."""
    # SQLite follows links first, and creates these beside the real file.
    real = _real(database)
    return [
        _item("the database", database),
        _item("the database's -wal", Path(f"{real}-wal")),
        _item("the database's -shm", Path(f"{real}-shm")),
        _item("the PID file beside the database", pid_file(database)),
        _item("the directory of run locks beside the database", model.run_locks(database)),
    ]


def _database_conflict(database: list[_Item], operator: list[_Item], path: Path) -> str | None:
    """Return what is wrong with the path of the database, or None."""
    # `service.log` may name the log of a detached daemon, but the database may not.
    beside = [*database[1:], _item("the log of ductiled -d beside the database", model.detached_log(path))]
    pairs = [(database[0], item) for item in beside]
    pairs += ((file, item) for file in operator for item in (database[0], *beside))
    return next((f"expected another path, as {item.name} would be {file.name}"
                 for file, item in pairs if file.is_in(item)), None)


def _item(name: str, path: Path) -> _Item:
    return _Item(name, Path(_real(path)))


def _real(path: Path) -> str:
    """Return the real path, or the absolute one where a link on the way cannot be read (as in /proc/1/root)."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)


def _listed(names: list[str]) -> str:
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} and {last}" if first else last
