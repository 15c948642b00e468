"""Where the daemon's world comes from, at its start and at each reload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ductile import log, world
from ductile.config.schema import Config
from ductile.errors import EXIT_CONFIG, DuctileError


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
        """`read` for a daemon that runs: what is open already cannot move."""
        reading = self.read()
        before, after = in_force.config, reading.world.config
        moved = [f"{name} cannot change while ductiled runs: stop it, move {old} to {new}, start it again"
                 for name, old, new in (("state.path", before.state_path, after.state_path),
                                        ("workspace.path", before.workspace_path, after.workspace_path)) if old != new]
        if moved:
            raise DuctileError(*moved, exit_code=EXIT_CONFIG)
        return reading

    def open_log(self, config: Config) -> log.Opened:
        """Open the log that the configuration names; it is not in force yet. Raises DuctileError (71)."""
        service = config.service
        destination = self.stdout if service.log == "stdout" else service.log
        return log.opened(destination, service.log_level, service.name)
