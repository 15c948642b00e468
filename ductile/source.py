"""Where the daemon's world comes from, at its start and at each reload."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ductile import log, world
from ductile.check import Path as Place
from ductile.check import dotted
from ductile.config.schema import Config
from ductile.config.variables import at, holds_variable
from ductile.disk import printable
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, DuctileError

_log = log.Component("daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A configuration file and the environment that it is read in. `stdout` is where a log to standard output goes."""

    path: Path
    environ: Mapping[str, str]
    stdout: str | Path = "stdout"

    def read(self) -> world.Reading:
        """Read everything from disk. Raises DuctileError (78) with every problem."""
        return world.build(self.path, self.environ)

    def read_again(self, in_force: world.World) -> world.Reading:
        """`read` for a daemon that runs: what is open already cannot move, and what waits must not end with a slip.

        Raises DuctileError alone: a bug in reading is logged with its traceback, and keeps the daemon as it is.
        """
        try:
            reading = self.read()
        except DuctileError:
            raise
        except Exception as error:
            for line in "".join(traceback.format_exception(error)).splitlines():
                _log.error(line)
            raise DuctileError(f"a bug: reading {printable(self.path)} failed with {type(error).__name__}; please"
                               " report it with the lines before this one", exit_code=EXIT_FAILED) from error
        if not reading.world.enabled:
            raise DuctileError(f"{printable(self.path)}: no plugin is enabled, and so all that waits would end; a"
                               " reload takes a configuration with at least one", exit_code=EXIT_CONFIG)
        before, after = in_force.config, reading.world.config
        moved = [f"{dotted(place)} cannot change while ductiled runs: stop it, move {_shown(in_force, place, old)} to"
                 f" {_shown(reading.world, place, new)}, start it again"
                 for place, old, new in ((("state", "path"), before.state_path, after.state_path),
                                         (("workspace", "path"), before.workspace_path, after.workspace_path))
                 if old != new]
        if moved:
            raise DuctileError(*moved, exit_code=EXIT_CONFIG)
        return reading

    def open_log(self, config: Config) -> log.Opened:
        """Open the log that the configuration names; it is not in force yet. Raises DuctileError (71)."""
        service = config.service
        destination = self.stdout if service.log == "stdout" else service.log
        return log.opened(destination, service.log_level, service.name)


def _shown(read: world.World, place: Place, path: Path) -> str:
    """Return a path as a message may show it: as it is written where a variable gives it."""
    written = at(read.written, place)
    return written if holds_variable(written) else printable(path)
