"""A plugin of the configuration, bound to the code that was found for it."""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3

from ductile.config.schema import PluginConfig
from ductile.plugin.discovery import Plugin, Registry
from ductile.plugin.manifest import missing_keys
from ductile.protocol import INIT
from ductile.strictjson import canonical
from ductile.text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredPlugin:
    """One entry of the configuration's `plugins`: `plugin` is its code, or `reason` says why it is not loaded.

    `fingerprint` names this version with this configuration, for `init`; None where it is not loaded.
    """

    settings: PluginConfig
    plugin: Plugin | None
    reason: str | None = None
    version: str | None = None
    fingerprint: str | None = None

    @property
    def runnable(self) -> bool:
        """Say whether its jobs may run."""
        return self.settings.enabled and self.plugin is not None

    @property
    def commands(self) -> tuple[str, ...] | None:
        """Return the commands of its manifest, None where it is not loaded."""
        return None if self.plugin is None else tuple(self.plugin.manifest.commands)

    @property
    def needs_init(self) -> str | None:
        """Return the fingerprint that `init` must have succeeded for; None for a plugin without that command."""
        if self.plugin is None or INIT not in self.plugin.manifest.commands:
            return None
        return self.fingerprint


def bind(settings: PluginConfig, registry: Registry) -> ConfiguredPlugin:
    """Return the plugin that an entry of the configuration stands for."""
    found = registry.get(settings.uses)
    if found is None:
        reason = f"no plugin named {settings.uses!r} was found in plugins_dir"
        return ConfiguredPlugin(settings=settings, plugin=None, reason=reason)
    if found.plugin is None:
        return ConfiguredPlugin(settings=settings, plugin=None, reason=found.reason)
    version = found.plugin.manifest.version
    missing = missing_keys(found.plugin.manifest, settings.config)
    if missing:
        reason = f"plugins.{settings.name}.config lacks {', '.join(map(one_line, missing))}, which the plugin requires"
        return ConfiguredPlugin(settings=settings, plugin=None, reason=reason, version=version)
    fingerprint = blake3(canonical({"version": version, "config": settings.config}).encode()).hexdigest()
    return ConfiguredPlugin(settings=settings, plugin=found.plugin, version=version, fingerprint=fingerprint)
