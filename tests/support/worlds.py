"""Worlds made in memory: a configuration and plugins that need no file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ductile.config.model import Config, PluginConfig, Route, Schedule, Service
from ductile.dispatch.followups import RoutingContext
from ductile.plugin.discovery import ConfiguredPlugin, Plugin, Registry
from ductile.plugin.entrypoint import Entrypoint
from ductile.plugin.manifest import Command, Manifest
from ductile.routing.router import Router
from ductile.runtime_config import RuntimeConfig

NOWHERE = Path("/nowhere")
COMMANDS = ("poll", "handle")

# The routing of a plugin without routes.
NO_ROUTING = RoutingContext(router=Router(()), max_hops=20, max_attempts={}, private_state=frozenset(),
                            passes_state=True,
              dedupe_ttl=86400)


def manifest(name: str, commands: Sequence[str] = COMMANDS, version: str = "0.1.0") -> Manifest:
    return Manifest(
        name=name, version=version, protocol=2, entrypoint="run.sh", description="", required_keys=(),
        private_state=frozenset(),
        commands={each: Command(name=each, type=None, description="") for each in commands},
    )


def plugin(name: str = "echo", *schedules: Schedule, commands: Sequence[str] = COMMANDS,
           entrypoint: Path = Path("/dev/null"), not_loaded: str | None = None, **settings: Any) -> ConfiguredPlugin:
    """A configured plugin; `not_loaded` is the reason for one that is not."""
    code = Plugin(manifest=manifest(name, commands), directory=entrypoint.parent, program=_program(entrypoint))
    configured = PluginConfig(name=name, uses=name, schedules=schedules, **settings)
    if not_loaded is not None:
        return ConfiguredPlugin(settings=configured, plugin=None, reason=not_loaded)
    return ConfiguredPlugin(settings=configured, plugin=code, version="0.1.0", fingerprint=f"fingerprint of {name}")


def _program(path: Path) -> Entrypoint:
    """What a look at the disk finds at a path, also where that is nothing."""
    if not path.exists():
        return Entrypoint(path=path, device=0, inode=0, mode=0)
    found = path.stat()
    return Entrypoint(path=path, device=found.st_dev, inode=found.st_ino, mode=found.st_mode)


def runtime(*plugins: ConfiguredPlugin, directory: Path = NOWHERE, routes: tuple[Route, ...] = (),
            **service: Any) -> RuntimeConfig:
    """A world of these plugins, its data in `directory`."""
    by_name = {each.settings.name: each for each in plugins}
    config = Config(
        service=Service(**service), state_path=directory / "state.db", workspace_path=directory / "ws",
        workspace_ttl=86400, plugins_dirs=(), pipelines_dir=directory / "pipelines",
        plugins={name: each.settings for name, each in by_name.items()}, webhooks=None, routes=routes,
    )
    return RuntimeConfig(config=config, written={}, environ={"PATH": "/usr/bin:/bin"}, plugins=by_name,
                 registry=Registry(found=(), missing=()), digest="0" * 64, router=Router(routes),
                 max_attempts={name: each.settings.retry.max_attempts for name, each in by_name.items()})
