"""Finds files of Ductile that would destroy each other: where two settings mean one place of the file system."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ductile.config import model
from ductile.config.model import Config
from ductile.config.variables import at
from ductile.pidfile import pid_file
from ductile.validation import Path as Place
from ductile.validation import Problem

_STATE, _WORKSPACE, _LOG = ("state", "path"), ("workspace", "path"), ("service", "log")
_PIPELINES, _ENV_FILE = ("pipelines_dir",), ("service", "env_file")
# As many links on the way to one path as the kernel follows.
_MOST_LINKS = 40
_DEFAULTS = {_STATE: model.STATE_PATH, _WORKSPACE: model.WORKSPACE_PATH}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """Something of Ductile's own: what the operator calls it, where it really is, and the links that lead there."""

    name: str
    real: Path
    links: frozenset[Path]

    def lies_in(self, other: _Own) -> bool:
        """Say whether it is the other, or inside of it."""
        return self.real.is_relative_to(other.real)

    def is_lost_with(self, directory: _Own) -> bool:
        """Say whether it cannot be found any more when all is removed that is in a directory."""
        return any(path.is_relative_to(directory.real) for path in (self.real, *self.links))


def path_conflicts(config: Config, file: Path, value: Any, doubtful: Collection[Place]) -> list[Problem]:
    """Return what must not be where the configuration `file` puts it.

    `value` is the document, its variables replaced. What stands at a `doubtful` place is wrong otherwise, so that
    nothing is known of it.
    """
    return list(_Look(config, file, value, doubtful).problems())


class _Look:
    def __init__(self, config: Config, file: Path, value: Any, doubtful: Collection[Place]) -> None:
        self._config = config
        self._file = file
        self._value = value
        self._doubtful = doubtful

    def problems(self) -> Iterator[Problem]:
        """Yield at most one problem for each of the three settings that can do harm."""
        if self._is_known(_STATE):
            yield from self._of_the_database()
        if self._is_known(_LOG) and isinstance(self._config.service.log, Path):
            yield from self._of_the_log()
        if self._is_known(_WORKSPACE):
            yield from self._of_the_workspaces()

    def _of_the_database(self) -> Iterator[Problem]:
        database, *beside = self._kept_by_the_daemon
        # Not kept from `service.log`, which may name the same file.
        beside.append(_own("the log of ductiled -d beside the database", model.detached_log(self._config.state_path)))
        pairs = [(database, own) for own in beside] + \
            [(named, own) for named in self._named_files for own in (database, *beside)]
        for named, own in pairs:
            if named.lies_in(own):
                yield self._wrong(_STATE, f"expected another path, as {own.name} would be {named.name}")
                return

    def _of_the_log(self) -> Iterator[Problem]:
        log = _own("the log", self._config.service.log)
        for own in (*self._kept_by_the_daemon, *self._named_files):
            if log.lies_in(own):
                yield self._wrong(_LOG, f"expected a file for the log alone, and not {own.name}")
                return

    def _of_the_workspaces(self) -> Iterator[Problem]:
        root = _own("workspace.path", self._config.workspace_path)
        kept = self._kept_by_the_daemon
        met = [own.name for own in kept if own.is_lost_with(root) or root.lies_in(own)][:1] + \
            [own.name for own in self._named() if own.is_lost_with(root)]
        if met:
            yield self._wrong(_WORKSPACE, f"expected a directory for workspaces alone, apart from {_listed(met)}: what"
                                          " belongs to no job is removed there")

    def _wrong(self, place: Place, text: str) -> Problem:
        written = at(self._value, place)
        got = f"the default of {_DEFAULTS[place]}" if written is None else repr(written)
        return Problem(place, f"{text}, got {got}")

    @cached_property
    def _kept_by_the_daemon(self) -> list[_Own]:
        """Return the database and what stands beside it; nothing where it is not known."""
        if not self._is_known(_STATE):
            return []
        database = self._config.state_path
        return [
            _own("the database", database),
            # SQLite follows links first, and puts these beside what it finds.
            _own("the database's -wal", Path(f"{_real(database)}-wal")),
            _own("the database's -shm", Path(f"{_real(database)}-shm")),
            _own("the PID file beside the database", pid_file(database)),
            _own("the directory of run locks beside the database", model.run_locks(database)),
        ]

    @cached_property
    def _named_files(self) -> list[_Own]:
        """Return the files that the operator has written."""
        files = [_own("the configuration file", self._file.absolute())]
        env_file = self._config.service.env_file
        if env_file is not None and self._is_known(_ENV_FILE):
            files.append(_own("service.env_file", env_file))
        return files

    def _named(self) -> Iterator[_Own]:
        """Yield everything that the operator has named beside the database and the workspaces."""
        yield from self._named_files
        for place, directory in zip(self._config.plugins_places, self._config.plugins_dirs):
            if self._is_known(place):
                yield _own("plugins_dir", directory)
        if self._is_known(_PIPELINES):
            yield _own("pipelines_dir", self._config.pipelines_dir)
        if isinstance(self._config.service.log, Path):
            yield _own("service.log", self._config.service.log)

    def _is_known(self, place: Place) -> bool:
        return not any(place[:length] in self._doubtful for length in range(1, len(place) + 1))


def _own(name: str, path: Path) -> _Own:
    real, links = _resolved(path)
    return _Own(name=name, real=real, links=links)


def _resolved(path: Path) -> tuple[Path, frozenset[Path]]:
    """Return where an absolute path really leads, and where each link is that is followed on the way.

    What cannot be looked at (`/proc/1/root`) counts as no link, and neither does one in a circle: path_resolution(7).
    """
    real, links = "/", []
    left = list(reversed(path.parts[1:]))
    while left:
        part = left.pop()
        if part == "..":
            real = os.path.dirname(real)
            continue
        here = os.path.join(real, part)
        try:
            target = os.readlink(here) if len(links) < _MOST_LINKS else None
        except OSError:
            target = None
        if target is None:
            real = here
            continue
        links.append(Path(here))
        real = "/" if target.startswith("/") else real
        left += (each for each in reversed(target.split("/")) if each not in ("", "."))
    return Path(real), frozenset(links)


def _real(path: Path) -> Path:
    return _resolved(path)[0]


def _listed(names: list[str]) -> str:
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} and {last}" if first else last
