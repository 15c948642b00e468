"""A plugin of the configuration, bound to the code that was found for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from blake3 import blake3

from ductile.check import Path as Place
from ductile.check import nearest
from ductile.config.schema import PluginConfig
from ductile.disk import printable
from ductile.plugin.discovery import Plugin, Registry, summary
from ductile.plugin.manifest import missing_keys
from ductile.protocol import INIT
from ductile.strictjson import canonical
from ductile.text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredPlugin:
    """One entry of the configuration's `plugins`: `plugin` is its code, or `reason` says why it is not loaded.

    `faults` are all that is wrong, a line each; where the configuration is wrong and not the plugin, `place` is where
    that is. `fingerprint` names this version with this configuration, for `init`; None where it is not loaded.
    """

    settings: PluginConfig
    plugin: Plugin | None
    reason: str | None = None
    faults: tuple[str, ...] = ()
    place: Place | None = None
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
    place = ("plugins", settings.name)
    if found is None:
        return _not_loaded(settings, (_not_found(settings.uses, registry),),
                           place if settings.uses == settings.name else (*place, "uses"))
    if found.plugin is None:
        return _not_loaded(settings, found.faults)
    version = found.plugin.manifest.version
    missing = missing_keys(found.plugin.manifest, settings.config)
    if missing:
        lacks = f"plugins.{settings.name}.config lacks {', '.join(map(one_line, missing))}, which the plugin requires"
        return replace(_not_loaded(settings, (lacks,), (*place, "config")), version=version)
    fingerprint = blake3(canonical({"version": version, "config": settings.config}).encode()).hexdigest()
    return ConfiguredPlugin(settings=settings, plugin=found.plugin, version=version, fingerprint=fingerprint)


def _not_loaded(settings: PluginConfig, faults: tuple[str, ...], place: Place | None = None) -> ConfiguredPlugin:
    return ConfiguredPlugin(settings=settings, plugin=None, reason=summary(faults), faults=faults, place=place)


def _not_found(name: str, registry: Registry) -> str:
    """Return where a plugin was looked for, and what may have been meant."""
    searched = ", ".join(printable(directory) for directory in registry.searched)
    text = f"no plugin named {name!r} was found in {searched or 'plugins_dir'}"
    namesake = next((found for found in registry.found if found.directory.name == name), None)
    if namesake is not None:
        return f"{text}; the manifest in {printable(namesake.directory)} has the name {namesake.name!r}"
    return f"{text}{nearest(name, [found.name for found in registry.found])}"
