"""The runtime configuration that is on disk, as commands need it."""

from __future__ import annotations

from ductile import runtime_config
from ductile.ctl.lookup import quoted
from ductile.ctl.session import Session
from ductile.errors import EXIT_CONFIG, EXIT_NOT_FOUND, DuctileError
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.runtime_config import LoadResult, RuntimeConfig
from ductile.validation import nearest


def load(session: Session, *, keep_unset: bool = True) -> LoadResult:
    """Read configuration, plugins and pipelines. Raises DuctileError (78) with every problem.

    `keep_unset` leaves unset variables as `${NAME}`; otherwise they are problems.
    """
    loaded = runtime_config.read(session.config_path, session.environ, keep_unset=keep_unset)
    if loaded.problems:
        raise DuctileError(*loaded.problems, exit_code=EXIT_CONFIG)
    return loaded


def runtime(session: Session) -> RuntimeConfig:
    """Return the runtime configuration that is on disk. Raises as `load` does."""
    return load(session).runtime


def configured(known: RuntimeConfig, name: str) -> ConfiguredPlugin:
    """Return a plugin of the configuration. Raises DuctileError (66), naming the nearest."""
    plugin = known.plugins.get(name)
    if plugin is None:
        hint = nearest(name, known.plugins)
        raise DuctileError(f"no plugin {quoted(name)} is configured{hint}", exit_code=EXIT_NOT_FOUND)
    return plugin


def enabled(known: RuntimeConfig, name: str) -> ConfiguredPlugin:
    """Return a plugin that may have queued jobs. Raises DuctileError (66) for any other."""
    plugin = configured(known, name)
    if not plugin.settings.enabled:
        raise DuctileError(f"plugin {name} is disabled; set plugins.{name}.enabled to true", exit_code=EXIT_NOT_FOUND)
    return plugin
