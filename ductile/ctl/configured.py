"""The configuration as the operator's commands need it, and the plugins in it by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ductile import world
from ductile.check import nearest
from ductile.errors import EXIT_CONFIG, EXIT_NOT_FOUND, DuctileError
from ductile.plugin.configured import ConfiguredPlugin
from ductile.text import one_line
from ductile.world import Reading, World


def read(path: Path, environ: Mapping[str, str], *, keep_unset: bool = True) -> Reading:
    """Read configuration and plugins. Raises DuctileError (78) with every problem."""
    reading = world.read(path, environ, keep_unset=keep_unset)
    if reading.problems:
        raise DuctileError(*reading.problems, exit_code=EXIT_CONFIG)
    return reading


def configured(known: World, name: str) -> ConfiguredPlugin:
    """Return a plugin of the configuration. Raises DuctileError (66), naming the nearest."""
    plugin = known.plugins.get(name)
    if plugin is None:
        hint = nearest(name, known.plugins)
        raise DuctileError(f"no plugin {shown(name)} is configured{hint}", exit_code=EXIT_NOT_FOUND)
    return plugin


def enabled(known: World, name: str) -> ConfiguredPlugin:
    """Return a plugin whose jobs may wait. Raises DuctileError (66) for any other."""
    plugin = configured(known, name)
    if not plugin.settings.enabled:
        raise DuctileError(f"plugin {name} is disabled; set plugins.{name}.enabled to true", exit_code=EXIT_NOT_FOUND)
    return plugin


def shown(text: str) -> str:
    """Return what the operator has typed, for a message."""
    return f"'{one_line(text, 80)}'"
