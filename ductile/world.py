"""Everything that is read from disk, as one frozen value: configuration, plugins and pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from blake3 import blake3

from ductile.check import Problem, nearest
from ductile.config.load import Loaded, load
from ductile.config.schema import Config
from ductile.errors import EXIT_CONFIG, DuctileError
from ductile.pipeline.compiler import Compiled, compile_all
from ductile.pipeline.files import Authored, read_pipelines
from ductile.plugin.configured import ConfiguredPlugin, bind
from ductile.plugin.discovery import Registry, discover
from ductile.plugin.manifest import HANDLE
from ductile.router import Router


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the daemon runs on until it reads the disk again. `environ` is the environment with `env_file` in it."""

    config: Config
    environ: Mapping[str, str]
    plugins: Mapping[str, ConfiguredPlugin]
    registry: Registry
    router: Router
    max_attempts: Mapping[str, int]    # by plugin
    digest: str       # BLAKE3 of the files read, in hexadecimal, without variables

    @property
    def runnable(self) -> tuple[str, ...]:
        """Return the plugins whose jobs may run."""
        return tuple(name for name, plugin in self.plugins.items() if plugin.runnable)

    @property
    def enabled(self) -> tuple[str, ...]:
        """Return the plugins whose jobs may wait, loaded or not."""
        return tuple(name for name, plugin in self.plugins.items() if plugin.settings.enabled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a look at the disk gave, each text a line for the operator.

    `path` is absolute. `problems` forbid the world; `faults` are configured plugins that are not loaded; `warnings`
    are advice.
    """

    path: Path
    world: World
    problems: tuple[str, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


def read(path: Path, environ: Mapping[str, str], *, keep_unset: bool = False) -> Reading:
    """Read configuration, plugins and pipelines, and find every problem at once.

    `keep_unset` leaves unset variables as `${NAME}`, for a program that needs no secrets. Raises DuctileError (78)
    where there is no YAML to speak of.
    """
    loaded = load(path, environ, keep_unset=keep_unset)
    config = loaded.config
    registry = discover(config.plugins_dirs)
    plugins = {name: bind(settings, registry) for name, settings in config.plugins.items()}
    authored = read_pipelines(config.pipelines_dir)
    compiled = _compile(authored, config, plugins)
    router = Router(config.routes, compiled.pipelines)
    problems = [*loaded.problems, *_missing_directories(config, registry), *_missing_commands(config, plugins),
                *_untaken_events(config, compiled)]
    world = World(
        config=config, environ=dict(loaded.environ), plugins=plugins, registry=registry, router=router,
        max_attempts={name: plugin.settings.retry.max_attempts for name, plugin in plugins.items()},
        digest=_digest(loaded, registry, authored),
    )
    return Reading(
        path=path.absolute(),
        world=world,
        problems=(*(loaded.locate(problem) for problem in problems),
                  *map(str, sorted([*authored.problems, *compiled.problems]))),
        faults=tuple(f"plugin {name} is not loaded: {plugin.reason}" for name, plugin in plugins.items()
                     if plugin.reason is not None and plugin.settings.enabled),
        warnings=loaded.warnings,
    )


def build(path: Path, environ: Mapping[str, str]) -> Reading:
    """Return a reading whose world can be run on. Raises DuctileError (78) with every problem where it cannot."""
    reading = read(path, environ)
    if reading.problems:
        raise DuctileError(*reading.problems, exit_code=EXIT_CONFIG)
    return reading


def _compile(authored: Authored, config: Config, plugins: Mapping[str, ConfiguredPlugin]) -> Compiled:
    commands = {name: None if plugin.plugin is None else plugin.plugin.manifest.commands
                for name, plugin in plugins.items()}
    disabled = [name for name, plugin in plugins.items() if not plugin.settings.enabled]
    return compile_all(authored.specs, commands=commands, disabled=disabled, max_hops=config.service.max_hops)


def _digest(loaded: Loaded, registry: Registry, authored: Authored) -> str:
    digest = blake3()
    of_plugins = (file for found in registry.found for file in found.files)
    for name, content in (*loaded.files, *of_plugins, *authored.files):
        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def _missing_directories(config: Config, registry: Registry) -> Iterator[Problem]:
    for directory in registry.missing:
        several = len(config.plugins_dirs) > 1
        place = ("plugins_dir", config.plugins_dirs.index(directory)) if several else ("plugins_dir",)
        yield Problem(place, f"the directory {directory} does not exist")


def _missing_commands(config: Config, plugins: Mapping[str, ConfiguredPlugin]) -> Iterator[Problem]:
    """Yield each place that asks a plugin for a command it does not have."""
    for name, plugin in plugins.items():
        several = len(plugin.settings.schedules) > 1
        for index, schedule in enumerate(plugin.settings.schedules):
            place = ("plugins", name, "schedule", *([index] if several else []), "command")
            yield from _without(plugin, schedule.command, place)
    for index, route in enumerate(config.routes):
        if route.target in plugins:
            yield from _without(plugins[route.target], HANDLE, ("routes", index, "to"))
    for index, endpoint in enumerate(config.webhooks.endpoints if config.webhooks else ()):
        if endpoint.plugin in plugins:
            yield from _without(plugins[endpoint.plugin], HANDLE, ("webhooks", "endpoints", index, "plugin"))


def _untaken_events(config: Config, compiled: Compiled) -> Iterator[Problem]:
    """Yield each endpoint whose event would become no job."""
    taken = {pipeline.on for pipeline in compiled.pipelines.values()}
    for index, endpoint in enumerate(config.webhooks.endpoints if config.webhooks else ()):
        if endpoint.event is not None and endpoint.event not in taken:
            place = ("webhooks", "endpoints", index, "event")
            yield Problem(place, f"no pipeline takes the event {endpoint.event!r}")


def _without(plugin: ConfiguredPlugin, command: str, place: tuple[str | int, ...]) -> Iterator[Problem]:
    if plugin.plugin is None or command in plugin.plugin.manifest.commands:
        return
    known = plugin.plugin.manifest.commands
    hint = nearest(command, known) or f" (it has {', '.join(known)})"
    yield Problem(place, f"plugin {plugin.settings.name} has no command {command!r}{hint}")


def compare(before: World, after: World) -> tuple[str, ...]:
    """Return what changes from one world to the next, a line each."""
    return (
        *_plugin_changes(before, after),
        *_changes("endpoint", _endpoints(before.config), _endpoints(after.config)),
        *_changes("route", *(
            {f"{route.source} {route.event_type} {route.target}": route for route in world.config.routes}
            for world in (before, after))),
        *_changes("pipeline", *({name: pipeline.hash for name, pipeline in world.router.pipelines.items()}
                                for world in (before, after))),
        *_changes("setting", _settings(before.config), _settings(after.config)),
    )


def _plugin_changes(before: World, after: World) -> Iterator[str]:
    # By what is configured and by what was found: a new version of the code is a change too.
    yield from _changes("plugin", *(
        {name: (plugin.settings, plugin.version, plugin.reason) for name, plugin in world.plugins.items()}
        for world in (before, after)))


def _changes(kind: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    for name in {**before, **after}:
        if name not in before:
            yield f"{kind} {name} added"
        elif name not in after:
            yield f"{kind} {name} removed"
        elif before[name] != after[name]:
            yield f"{kind} {name} changed"


def _endpoints(config: Config) -> dict[str, object]:
    return {} if config.webhooks is None else {each.path: each for each in config.webhooks.endpoints}


def _settings(config: Config) -> dict[str, object]:
    settings: dict[str, object] = {
        f"service.{field.name}": getattr(config.service, field.name) for field in fields(config.service)}
    listen = None if config.webhooks is None else (config.webhooks.host, config.webhooks.port)
    return settings | {"workspace.ttl": config.workspace_ttl, "webhooks.listen": listen}
