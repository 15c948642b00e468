"""Reads a document into a frozen `Config` and collects every problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Any

from ductile import units
from ductile.config import misnamed, model
from ductile.config.model import (
    DEFAULT_TIMEOUTS,
    Asked,
    AskedCommand,
    BreakerRule,
    Config,
    PluginConfig,
    Retry,
    Route,
    Service,
)
from ductile.config.schedules import read_schedules
from ductile.config.values import (
    as_duration,
    as_file_path,
    as_name,
    as_path,
    as_plugins_event,
    as_variable,
    sections,
    texts,
)
from ductile.config.variables import at, without_values
from ductile.config.webhooks import read_webhooks
from ductile.protocol import HANDLE
from ductile.validation import MOST_HINTS, Problem, Section, as_choice, as_text, kind_of, nearest
from ductile.validation import Path as Place

# The directory at which a relative path at a key starts.
BaseOf = Callable[[Place], Path]

_LOG_LEVELS = ("debug", "info", "warn", "error")
_LOG_FORMATS = ("auto", "json", "text")
_LOG_WORDS = ("stdout", "syslog")


def read_config(
    document: Any, *, authored: Any, base_of: BaseOf, local_zone: tzinfo
) -> tuple[Config, list[Problem], list[Problem]]:
    """Return the configuration, all problems, and the warnings.

    `document` is `authored` with its variables replaced; no message shows the value of a variable. Relative paths
    start at the `base_of` their key; `local_zone` is for schedules without a time zone. Invalid values are read as
    their defaults, so that checking goes on.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    asked: list[Asked] = []
    root = Section(document, (), problems)
    state = root.section("state")
    workspace = root.section("workspace")
    plugins_dirs = _read_plugins_dirs(root, base_of)
    config = Config(
        service=_read_service(root.section("service"), base_of),
        state_path=_path(state, "path", model.STATE_PATH, base_of, as_file_path),
        workspace_path=_path(workspace, "path", model.WORKSPACE_PATH, base_of),
        workspace_ttl=_duration(workspace, "ttl", units.DAY, least=1),
        plugins_dirs=tuple(plugins_dirs.values()),
        plugins_places=tuple(plugins_dirs),
        pipelines_dir=_path(root, "pipelines_dir", "./pipelines", base_of),
        plugins=_read_plugins(root, local_zone, asked),
        webhooks=read_webhooks(root, authored, base_of(("webhooks", "listen")), warnings, asked),
        routes=_read_routes(root, asked),
        asked=tuple(asked),
    )
    state.finish()
    workspace.finish()
    # Read elsewhere: included files are merged before, and pipelines are read together with those in files.
    root.has("include")
    root.has("pipelines")
    root.finish(misnamed.ROOT)
    problems += _unknown_plugins(config.plugins, document)
    shown = [without_values(problem, authored) for problem in problems]
    return config, shown, [without_values(warning, authored) for warning in warnings]


def _duration(section: Section, key: str, default: int, *, least: int) -> int:
    return section.read(key, default, lambda value: as_duration(value, least=least))


def _path(section: Section, key: str, default: str, base_of: BaseOf,
          parse: Callable[[Any, Path], Path] = as_path) -> Path:
    return section.read(key, base_of(()) / default, lambda value: parse(value, base_of((*section.path, key))))


def _read_service(section: Section, base_of: BaseOf) -> Service:
    default = Service()
    problems_before = len(section.problems)
    dedupe_ttl = _duration(section, "dedupe_ttl", default.dedupe_ttl, least=0)
    job_log_retention = _duration(section, "job_log_retention", default.job_log_retention, least=1)
    # Never compare with a default that replaces an invalid value.
    if len(section.problems) == problems_before and dedupe_ttl > job_log_retention:
        got = section.raw("dedupe_ttl", "the default of 24h")
        section.wrong("dedupe_ttl", f"expected no more than service.job_log_retention, got {got}")
    service = Service(
        name=section.text("name", default.name),
        tick_interval=_duration(section, "tick_interval", default.tick_interval, least=1),
        log_level=section.choice("log_level", default.log_level, _LOG_LEVELS),
        log=section.read("log", default.log, lambda value: _as_log(value, base_of((*section.path, "log")))),
        log_format=section.choice("log_format", default.log_format, _LOG_FORMATS),
        dedupe_ttl=dedupe_ttl,
        job_log_retention=job_log_retention,
        max_hops=section.integer("max_hops", default.max_hops, least=1, most=1000),
        max_queue_depth=section.integer("max_queue_depth", default.max_queue_depth, least=1, most=10_000_000),
        shutdown_grace=_duration(section, "shutdown_grace", default.shutdown_grace, least=0),
        env_file=section.read("env_file", None, lambda value: as_file_path(
            value, base_of((*section.path, "env_file")))),
    )
    section.finish(misnamed.SERVICE)
    return service


def _as_log(value: Any, base: Path) -> str | Path:
    text = as_text(value)
    return text if text in _LOG_WORDS else as_file_path(text, base)


def _read_plugins_dirs(root: Section, base_of: BaseOf) -> dict[Place, Path]:
    value = root.raw("plugins_dir", "./plugins")
    if isinstance(value, list):
        if not value:
            root.wrong("plugins_dir", "expected at least one directory, got an empty list")
        paths = {}
        for place, text in texts(root, "plugins_dir", as_text).items():
            try:
                paths[place] = as_path(text, base_of(place))
            except ValueError as error:
                root.problems.append(Problem(place, str(error)))
        return paths
    return {("plugins_dir",): _path(root, "plugins_dir", "./plugins", base_of)}


def _read_plugins(root: Section, local_zone: tzinfo, asked: list[Asked]) -> Mapping[str, PluginConfig]:
    section = root.section("plugins")
    plugins = {}
    for name in section.written_keys():
        try:
            as_name(name)
        except ValueError as error:
            section.problems.append(Problem((*section.path, name), str(error), at_key=True))
        plugins[name] = _read_plugin(name, section.section(name), local_zone, asked)
    return plugins


def _read_plugin(name: str, section: Section, local_zone: tzinfo, asked: list[Asked]) -> PluginConfig:
    schedules, commands = read_schedules(section, local_zone)
    asked += (AskedCommand(place=place, plugin=name, command=command) for place, command in commands.items())
    plugin = PluginConfig(
        name=name,
        enabled=section.boolean("enabled", True),
        uses=section.read("uses", name, as_name),
        schedules=schedules,
        config=_read_plugin_config(section),
        env=tuple(texts(section, "env", as_variable).values()),
        retry=_read_retry(section.section("retry")),
        timeouts=_read_timeouts(section.section("timeouts")),
        breaker=_read_breaker(section.section("circuit_breaker")),
        max_outstanding_polls=section.integer("max_outstanding_polls", 1, least=1, most=1000),
        announces_success=bool(texts(section, "announce", _as_announced)),
    )
    section.finish(misnamed.PLUGIN)
    return plugin


def _as_announced(value: Any) -> str:
    return as_choice(value, ("success",))


def _read_plugin_config(section: Section) -> Mapping[str, Any]:
    value = section.raw("config", {})
    if isinstance(value, dict):
        return value
    section.wrong("config", f"expected a mapping, got {kind_of(value)}")
    return {}


def _read_retry(section: Section) -> Retry:
    default = Retry()
    retry = Retry(
        max_attempts=section.integer("max_attempts", default.max_attempts, least=1, most=100),
        backoff_base=_duration(section, "backoff_base", default.backoff_base, least=0),
        backoff_max=_duration(section, "backoff_max", default.backoff_max, least=0),
    )
    section.finish(misnamed.RETRY)
    return retry


def _read_timeouts(section: Section) -> Mapping[str, int]:
    timeouts = dict(DEFAULT_TIMEOUTS)
    for command in section.written_keys():
        seconds = _duration(section, command, timeouts.get(command, timeouts["handle"]), least=1)
        try:
            timeouts[as_name(command)] = seconds
        except ValueError as error:
            section.problems.append(Problem((*section.path, command), str(error), at_key=True))
    return timeouts


def _read_breaker(section: Section) -> BreakerRule:
    default = BreakerRule()
    rule = BreakerRule(
        threshold=section.integer("threshold", default.threshold, least=1, most=1000),
        reset_after=_duration(section, "reset_after", default.reset_after, least=1),
    )
    section.finish()
    return rule


def _read_routes(root: Section, asked: list[Asked]) -> tuple[Route, ...]:
    routes: list[Route] = []
    seen: set[Route] = set()
    for section in sections(root, "routes"):
        section.require("from", "event_type", "to")
        # The core's own events go only to pipelines, so such a route would never match.
        event_type = section.read("event_type", "", as_plugins_event)
        route = Route(source=section.text("from"), event_type=event_type, target=section.text("to"))
        complete = all((route.source, route.event_type, route.target))
        if complete and route in seen:
            section.wrong(None, "expected each route once, got a duplicate")
        routes.append(route)
        seen.add(route)
        asked.append(AskedCommand(place=(*section.path, "to"), plugin=route.target, command=HANDLE))
        section.finish()
    return tuple(routes)


def _unknown_plugins(plugins: Mapping[str, PluginConfig], document: Any) -> list[Problem]:
    """Return a problem for each endpoint and route whose plugin is unknown or disabled."""
    problems: list[Problem] = []
    for place in _plugin_places(document):
        name = at(document, place)
        if not isinstance(name, str) or not name:
            continue
        if name not in plugins:
            hint = nearest(name, plugins) if len(problems) < MOST_HINTS else ""
            problems.append(Problem(place, f"expected a configured plugin, got {name!r}{hint}"))
        elif not plugins[name].enabled:
            problems.append(Problem(place, f"expected an enabled plugin, got {name!r}, which is disabled"))
    return problems


def _plugin_places(document: Any) -> list[Place]:
    endpoints = _items(document, ("webhooks", "endpoints"))
    routes = _items(document, ("routes",))
    return [(*item, "plugin") for item in endpoints] + [(*item, key) for item in routes for key in ("from", "to")]


def _items(document: Any, place: Place) -> list[Place]:
    value = at(document, place)
    return [(*place, index) for index in range(len(value))] if isinstance(value, list) else []
