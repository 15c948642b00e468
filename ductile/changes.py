"""Lists what changes from one configuration to the next, key by key, without the values of secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ductile.config.variables import at, holds_variable, resolve
from ductile.pipeline.graph import Pipeline, canonical
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.routing.baggage import names_a_credential
from ductile.runtime_config import RuntimeConfig
from ductile.text import counted, one_line
from ductile.validation import Path, dotted

_MOST_LINES = 200
_SHOWN = 60
# Compared separately, under names of their own.
_SEPARATE = ("plugins", "routes", "webhooks.endpoints", "pipelines")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """A value with its variables resolved, and as written in the file. None means absent."""

    value: Any
    written: Any

    def child(self, key: Any) -> _Value:
        return _Value(value=at(self.value, (key,)), written=at(self.written, (key,)))


def compare(before: RuntimeConfig, after: RuntimeConfig, failed: Mapping[str, int]) -> tuple[str, ...]:
    """Return what changes, a line each. `failed` is how many queued jobs fail because of it, by plugin."""
    old, new = _document(before), _document(after)
    lines = [
        *_plugins(before, after, old, new, failed),
        *_named("endpoint", _endpoints(old), _endpoints(new)),
        *_named("route", _routes(before), _routes(after)),
        *_named("pipeline", _pipelines(before), _pipelines(after)),
        *(f"setting {line}" for line in _differences((), _settings(old), _settings(new))),
    ]
    shown = [one_line(line) for line in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        shown.append(f"and {counted(len(lines) - _MOST_LINES, 'more change')}")
    return tuple(shown)


def _document(runtime: RuntimeConfig) -> _Value:
    return _Value(value=resolve(runtime.written, runtime.environ)[0], written=runtime.written)


def _settings(document: _Value) -> _Value:
    """Return a configuration without the parts that are compared separately."""
    return _Value(value=_without(document.value, ()), written=_without(document.written, ()))


def _without(value: Any, path: Path) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _without(item, (*path, key)) for key, item in value.items()
            if dotted((*path, key)) not in _SEPARATE}


def _plugins(before: RuntimeConfig, after: RuntimeConfig, old: _Value, new: _Value,
             failed: Mapping[str, int]) -> Iterator[str]:
    changed = set()
    for name in {**before.plugins, **after.plugins}:
        was, now = (document.child("plugins").child(name) for document in (old, new))
        for line in _plugin(before, after, name, was, now, _failed(failed.get(name, 0))):
            changed.add(name)
            yield f"plugin {name} {line}"
    for name, count in failed.items():
        if name not in changed:
            why = "disabled" if name in after.plugins else "not configured"
            yield f"plugin {name} is {why}{_failed(count)}"


def _failed(count: int) -> str:
    return f": {counted(count, 'queued job')} failed" if count else ""


def _plugin(before: RuntimeConfig, after: RuntimeConfig, name: str, old: _Value, new: _Value,
            failed: str) -> Iterator[str]:
    was, now = before.plugins.get(name), after.plugins.get(name)
    if now is None:
        yield f"removed{failed}"
    elif was is None:
        yield "added"
        if name in after.unavailable:
            yield f"added: {_unavailable(now)}"
    else:
        yield from (f"changed: {line}" for line in (
            *_switch(was, now, failed), *_differences((), _without_switch(old), _without_switch(new)),
            *_variables(before, after, was, now), *_code(was, now), *_availability(before, after, name, now)))


def _switch(was: ConfiguredPlugin, now: ConfiguredPlugin, failed: str) -> Iterator[str]:
    if was.settings.enabled != now.settings.enabled:
        yield f"enabled {_text(was.settings.enabled)} -> {_text(now.settings.enabled)}{failed}"


def _without_switch(value: _Value) -> _Value:
    # `_switch` reports it, with its default where it is absent.
    return _Value(value={key: item for key, item in (value.value or {}).items() if key != "enabled"},
                  written=value.written)


def _variables(before: RuntimeConfig, after: RuntimeConfig, was: ConfiguredPlugin,
               now: ConfiguredPlugin) -> Iterator[str]:
    """Yield each variable passed to the plugin whose value has changed."""
    for name in now.settings.env:
        if name in was.settings.env and before.environ.get(name) != after.environ.get(name):
            yield f"environment variable {name} changed"


def _code(was: ConfiguredPlugin, now: ConfiguredPlugin) -> Iterator[str]:
    """Yield what differs in the manifest, its place and the program."""
    if was.plugin is None or now.plugin is None:
        return
    old, new = was.plugin.manifest, now.plugin.manifest
    for command in {**old.commands, **new.commands}:
        if command not in old.commands:
            yield f"command {command} added"
        elif command not in new.commands:
            yield f"command {command} removed"
        elif old.commands[command] != new.commands[command]:
            yield f"command {command} changed"
    if was.plugin.program != now.plugin.program and old.entrypoint == new.entrypoint:
        yield "program replaced"
    yield from _differences((), *(
        _plain({"version": each.manifest.version, "protocol": each.manifest.protocol,
                "entrypoint": each.manifest.entrypoint, "description": each.manifest.description,
                "config_keys": {"required": list(each.manifest.required_keys)},
                "private_state": sorted(each.manifest.private_state), "directory": str(each.directory)})
        for each in (was.plugin, now.plugin)))


def _availability(before: RuntimeConfig, after: RuntimeConfig, name: str, now: ConfiguredPlugin) -> Iterator[str]:
    reasons = before.unavailable.get(name), after.unavailable.get(name)
    if reasons[0] == reasons[1]:
        return
    if name in after.unavailable:
        yield _unavailable(now)
    elif now.settings.enabled:
        yield "loaded again"


def _unavailable(plugin: ConfiguredPlugin) -> str:
    return f"not loaded, its jobs wait: {plugin.reason}"


def _endpoints(document: _Value) -> dict[str, _Value]:
    endpoints = document.child("webhooks").child("endpoints")
    count = len(endpoints.value) if isinstance(endpoints.value, list) else 0
    return {str(each.child("path").value): each for each in map(endpoints.child, range(count))}


def _routes(runtime: RuntimeConfig) -> dict[str, _Value]:
    return {f"{route.source} {route.event_type} {route.target}": _plain(None) for route in runtime.config.routes}


def _pipelines(runtime: RuntimeConfig) -> dict[str, _Value]:
    return {name: _plain(_steps_by_id(pipeline)) for name, pipeline in runtime.router.pipelines.items()}


def _steps_by_id(pipeline: Pipeline) -> dict[str, Any]:
    form = json.loads(canonical(pipeline))
    return {**form, "nodes": None, "steps": {node.pop("id"): node for node in form["nodes"]}}


def _plain(value: Any) -> _Value:
    return _Value(value=value, written=None)


def _named(kind: str, old: Mapping[str, _Value], new: Mapping[str, _Value]) -> Iterator[str]:
    for name in {**old, **new}:
        if name not in old:
            yield f"{kind} {name} added"
        elif name not in new:
            yield f"{kind} {name} removed"
        else:
            yield from (f"{kind} {name} changed: {line}" for line in _differences((), old[name], new[name]))


def _differences(path: Path, old: _Value, new: _Value) -> Iterator[str]:
    """Yield a line for each key below `path` whose value has changed."""
    keys = _keys(old.value, new.value)
    for key in keys:
        yield from _differences((*path, key), old.child(key), new.child(key))
    if not keys and not _is_same(old.value, new.value):
        yield _difference(path, old, new)


def _is_same(old: Any, new: Any) -> bool:
    # Python takes True for 1. An empty mapping means the same as none.
    return (old == new and type(old) is type(new)) or (old in (None, {}) and new in (None, {}))


def _keys(old: Any, new: Any) -> Sequence[Any]:
    """Return the keys or indexes by which two values are compared, empty if they are compared as a whole."""
    both = [value for value in (old, new) if value is not None]
    if all(isinstance(value, Mapping) for value in both):
        return list(dict.fromkeys(key for value in both for key in value))
    if all(isinstance(value, list) for value in both) and any(isinstance(item, Mapping) for value in both
                                                              for item in value):
        return range(max(map(len, both)))
    return ()


def _difference(path: Path, old: _Value, new: _Value) -> str:
    texts = [_text(value.value) for value in (old, new)]
    is_secret = any(isinstance(part, str) and names_a_credential(part) for part in path) or any(
        _holds_variable(value.written) for value in (old, new))
    if is_secret or None in texts:
        return f"{dotted(path)} changed"
    return f"{dotted(path)} {texts[0]} -> {texts[1]}"


def _holds_variable(written: Any) -> bool:
    if isinstance(written, list):
        return any(map(_holds_variable, written))
    if isinstance(written, Mapping):
        return any(map(_holds_variable, written.values()))
    return holds_variable(written)


def _text(value: Any) -> str | None:
    """Return a value as written in the file, None if it is not a single line."""
    if value is None:
        return "(not set)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        items = [text for item in value if (text := _text(item)) is not None]
        return one_line(f"[{', '.join(items)}]", _SHOWN) if len(items) == len(value) else None
    if isinstance(value, Mapping):
        return None
    return one_line(str(value), _SHOWN) or "''"
