"""Everything read from disk, as one frozen value: configuration, plugins and pipelines."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from blake3 import blake3

from ductile import log
from ductile.config.load import Loaded, load
from ductile.config.model import DEFAULT_TIMEOUTS, AskedCommand, AskedEvent, Config
from ductile.config.variables import at, holds_variable
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, DuctileError
from ductile.pipeline.compiler import Compiled, compile_all
from ductile.pipeline.files import Authored, read_pipelines
from ductile.pipeline.spec import PipelineFault, PipelineFile
from ductile.plugin.discovery import ConfiguredPlugin, Registry, bind, discover, summary
from ductile.plugin.entrypoint import writable_libraries
from ductile.routing.router import Router
from ductile.safe_files import exposed, is_writable_by_others, printable, quoted
from ductile.text import counted
from ductile.validation import Path as KeyPath
from ductile.validation import Problem, dotted, nearest

_PLUGINS_DIR, _PIPELINES_DIR = ("plugins_dir",), ("pipelines_dir",)
# Files that one warning names. The command in it can be pasted.
_MOST_NAMED = 20
# Problems, and reasons of plugins that are not loaded, that are shown at once.
_MOST_LINES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """The configuration in force until the next reload.

    `environ` is the environment including `env_file`. `written` is the configuration as in the file, with `${NAME}` for
    variables.
    """

    config: Config
    written: Any = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    plugins: Mapping[str, ConfiguredPlugin]
    registry: Registry
    router: Router
    max_attempts: Mapping[str, int]    # by plugin
    digest: str       # BLAKE3 of the files read, in hexadecimal, without variables

    @property
    def runnable(self) -> tuple[str, ...]:
        """The plugins whose jobs may run."""
        return tuple(name for name, plugin in self.plugins.items() if plugin.runnable)

    @property
    def enabled(self) -> tuple[str, ...]:
        """The plugins whose jobs stay queued, loaded or not."""
        return tuple(name for name, plugin in self.plugins.items() if plugin.settings.enabled)

    @property
    def unavailable(self) -> dict[str, str]:
        """The enabled plugins that are not loaded, with the reasons; their jobs stay queued."""
        return {name: plugin.reason for name, plugin in self.plugins.items()
                if plugin.settings.enabled and plugin.reason is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """The result of reading everything, with messages of one line each.

    `path` is absolute. With `problems` the configuration cannot be used. `faults` say why configured plugins are not
    loaded.
    """

    path: Path
    runtime: RuntimeConfig
    problems: tuple[str, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


def read(path: Path, environ: Mapping[str, str], *, keep_unset: bool = False) -> LoadResult:
    """Read configuration, plugins and pipelines, and collect every problem.

    `keep_unset` leaves unset variables as `${NAME}`, for a program that needs no secrets. Raises DuctileError (78) if
    the file cannot be read or is no YAML.
    """
    loaded = load(path, environ, keep_unset=keep_unset)
    runtime, authored, found, of_pipelines = _look(loaded)
    pipeline_lines = (loaded.hidden(str(fault), _PIPELINES_DIR) for fault in of_pipelines)
    return LoadResult(
        path=path.absolute(),
        runtime=runtime,
        problems=_first(chain(_lines(loaded, found), pipeline_lines), len(found) + len(of_pipelines)),
        faults=_first(_faults(loaded, runtime), sum(len(plugin.faults) for plugin in runtime.plugins.values()
                                                  if plugin.settings.enabled)),
        warnings=(*loaded.warnings, *_none_enabled(loaded, runtime), *_exposed(loaded, runtime.config, authored),
                  *_doubts(loaded, runtime)),
    )


def build(path: Path, environ: Mapping[str, str]) -> LoadResult:
    """Read a configuration that can be used. Raises DuctileError (78) with every problem."""
    result = read(path, environ)
    if result.problems:
        raise DuctileError(*result.problems, exit_code=EXIT_CONFIG)
    return result


def _look(loaded: Loaded) -> tuple[RuntimeConfig, Authored, list[Problem], list[PipelineFault]]:
    """Return the runtime configuration, the pipelines as read, and the problems of the configuration and of these."""
    config = loaded.config
    registry = _without_values(discover(config.plugins_dirs), loaded)
    plugins = {name: _shown(bind(settings, registry), loaded) for name, settings in config.plugins.items()}
    authored = read_pipelines(config.pipelines_dir, config=PipelineFile(
        name=printable(loaded.path), document=loaded.document),
        must_exist=at(loaded.document.value, _PIPELINES_DIR) is not None)
    compiled = _compile(authored, config, plugins)
    runtime = RuntimeConfig(
        config=config, written=loaded.document.value, environ=dict(loaded.environ), plugins=plugins, registry=registry,
        router=Router(config.routes, compiled.pipelines),
        max_attempts={name: plugin.settings.retry.max_attempts for name, plugin in plugins.items()},
        digest=_digest(loaded, registry, authored),
    )
    beyond = [*_unlisted_directories(config, registry, authored), *_missing_commands(config, plugins),
              *_events_without_subscriber(config, compiled), *_unknown_timeouts(plugins)]
    found = [*loaded.problems, *(each for each in beyond if each.path not in loaded.unknown)]
    return runtime, authored, found, sorted([*authored.problems, *compiled.problems])


def _without_values(registry: Registry, loaded: Loaded) -> Registry:
    """Return the registry with reasons that show no value of a variable, which a directory's name may contain."""
    found = (replace(each, faults=tuple(loaded.hidden(fault, _PLUGINS_DIR) for fault in each.faults))
             for each in registry.found)
    return replace(registry, found=tuple(found))


def _shown(plugin: ConfiguredPlugin, loaded: Loaded) -> ConfiguredPlugin:
    places = (_PLUGINS_DIR, ("plugins", plugin.settings.name, "uses"))
    faults = tuple(loaded.hidden(fault, *places) for fault in plugin.faults)
    return replace(plugin, faults=faults, reason=summary(faults)) if faults != plugin.faults else plugin


def _faults(loaded: Loaded, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield a line for each reason why an enabled plugin is not loaded."""
    for name, plugin in runtime.plugins.items():
        if not plugin.settings.enabled:
            continue
        for fault in plugin.faults:
            text = f"plugin {name} is not loaded: {fault}"
            yield text if plugin.place is None else loaded.located(plugin.place, text)


def _none_enabled(loaded: Loaded, runtime: RuntimeConfig) -> Iterator[str]:
    if not runtime.enabled:
        yield f"{printable(loaded.path)}: no plugin is enabled: nothing runs, and queued jobs wait"


def _exposed(loaded: Loaded, config: Config, authored: Authored) -> Iterator[str]:
    """Yield a line for each file or directory with which other users can change what the daemon runs."""
    found = [each for name, _ in loaded.files for each in exposed(loaded.path.parent / name)]
    found += (each for directory in (*config.plugins_dirs, config.pipelines_dir) for each in exposed(directory))
    found += (config.pipelines_dir / name for name, _ in authored.files
              if is_writable_by_others(config.pipelines_dir / name))
    for path in dict.fromkeys(found):
        line = f"{printable(path)}: writable by others, which the next release refuses: chmod o-w {quoted(path)}"
        yield loaded.hidden(line, _PLUGINS_DIR, _PIPELINES_DIR)


def _doubts(loaded: Loaded, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield warnings about loaded plugins."""
    for name, plugin in runtime.plugins.items():
        if plugin.plugin is None or not plugin.settings.enabled:
            continue
        yield from (f"plugin {name}: {loaded.hidden(line, _PLUGINS_DIR)}" for line in plugin.plugin.doubts)
        libraries = list(writable_libraries(plugin.plugin.directory, plugin.plugin.entrypoint))
        if libraries:
            more = f" and {len(libraries) - 1} more" if len(libraries) > 1 else ""
            text = (f"plugin {name}: {printable(libraries[0])}{more}: writable by others, which the next release"
                    f" refuses: chmod o-w {' '.join(map(quoted, libraries[:_MOST_NAMED]))}")
            yield loaded.hidden(text, _PLUGINS_DIR)


def _lines(loaded: Loaded, problems: Sequence[Problem]) -> Iterator[str]:
    """Yield all problems of a configuration, in the order of the file."""
    return map(loaded.locate, sorted(problems, key=loaded.document.order))


def _first(lines: Iterator[str], count: int) -> tuple[str, ...]:
    """Return the first lines, and a line that counts the others."""
    shown = tuple(islice(lines, _MOST_LINES))
    return shown if count <= _MOST_LINES else (*shown, f"and {counted(count - _MOST_LINES, 'more problem')}")


def _compile(authored: Authored, config: Config, plugins: Mapping[str, ConfiguredPlugin]) -> Compiled:
    commands = {name: plugin.commands for name, plugin in plugins.items()}
    disabled = [name for name, plugin in plugins.items() if not plugin.settings.enabled]
    return compile_all(authored.specs, commands=commands, disabled=disabled, max_hops=config.service.max_hops)


def _digest(loaded: Loaded, registry: Registry, authored: Authored) -> str:
    digest = blake3()
    of_plugins = (file for found in registry.found for file in found.files)
    for name, content in (*loaded.files, *of_plugins, *authored.files):
        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def _unlisted_directories(config: Config, registry: Registry, authored: Authored) -> Iterator[Problem]:
    reasons = dict(registry.missing)
    for path, directory in zip(config.plugins_places, config.plugins_dirs, strict=True):
        if directory in reasons:
            yield Problem(path, reasons[directory])
    if authored.unlisted is not None:
        yield Problem(_PIPELINES_DIR, authored.unlisted)


def _missing_commands(config: Config, plugins: Mapping[str, ConfiguredPlugin]) -> Iterator[Problem]:
    """Yield each use of a command that a plugin does not have."""
    for asked in config.asked:
        if not isinstance(asked, AskedCommand) or asked.plugin not in plugins:
            continue
        known = plugins[asked.plugin].commands
        if known is not None and asked.command not in known:
            hint = nearest(asked.command, known) or f" (it has {', '.join(known)})"
            yield Problem(asked.place, f"plugin {asked.plugin} has no command {asked.command!r}{hint}")


def _unknown_timeouts(plugins: Mapping[str, ConfiguredPlugin]) -> Iterator[Problem]:
    """Yield each timeout for a command that the plugin does not have. Commands with a default are always allowed."""
    for name, plugin in plugins.items():
        commands = plugin.commands
        if commands is None:
            continue
        known = dict.fromkeys([*DEFAULT_TIMEOUTS, *commands])
        for command in plugin.settings.timeouts:
            if command not in known:
                yield Problem(("plugins", name, "timeouts", command),
                              f"plugin {name} has no command {command!r}{nearest(command, known)}", at_key=True)


def _events_without_subscriber(config: Config, compiled: Compiled) -> Iterator[Problem]:
    """Yield each endpoint whose event has no subscriber."""
    taken = {pipeline.on for pipeline in compiled.pipelines.values()}
    for asked in config.asked:
        if isinstance(asked, AskedEvent) and asked.event not in taken:
            yield Problem(asked.place, f"no pipeline subscribes to the event {asked.event!r}")


_log = log.Component("daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSource:
    """A configuration file and its environment. `stdout` is where a log to standard output goes."""

    path: Path
    environ: Mapping[str, str]
    stdout: str | Path = "stdout"

    def read(self) -> LoadResult:
        """Read everything. Raises DuctileError (78) with every problem."""
        return build(self.path, self.environ)

    def read_again(self, in_force: RuntimeConfig) -> LoadResult:
        """Read everything for a reload. Open files cannot move, and a slip must not fail all queued jobs.

        Raises only DuctileError. A bug in reading is logged with its traceback, and nothing changes.
        """
        try:
            result = self.read()
        except DuctileError:
            raise
        except Exception as error:
            for line in "".join(traceback.format_exception(error)).splitlines():
                _log.error(line)
            raise DuctileError(f"a bug: reading {printable(self.path)} failed with {type(error).__name__}; please"
                               " report it with the lines before this one", exit_code=EXIT_FAILED) from error
        if not result.runtime.enabled:
            raise DuctileError(f"{printable(self.path)}: no plugin is enabled, so all queued jobs would"
                               " fail; a reload needs a configuration with at least one", exit_code=EXIT_CONFIG)
        before, after = in_force.config, result.runtime.config
        moved = [f"{dotted(key)} cannot change while ductiled runs: stop it, move {_as_written(in_force, key, old)} to"
                 f" {_as_written(result.runtime, key, new)}, start it again"
                 for key, old, new in ((("state", "path"), before.state_path, after.state_path),
                                         (("workspace", "path"), before.workspace_path, after.workspace_path))
                 if old != new]
        if moved:
            raise DuctileError(*moved, exit_code=EXIT_CONFIG)
        return result

    def open_log(self, config: Config) -> log.Opened:
        """Open the log of a configuration, without using it yet. Raises DuctileError (71)."""
        service = config.service
        destination = self.stdout if service.log == "stdout" else service.log
        return log.opened(destination, service.log_level, service.name, service.log_format)


def _as_written(read: RuntimeConfig, key: KeyPath, path: Path) -> str:
    """Return a path for a message: as written in the file if it comes from a variable."""
    written = at(read.written, key)
    return written if holds_variable(written) else printable(path)
