"""Reads a plugin's manifest from a mapping into one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ductile.config.values import as_name
from ductile.validation import Problem, Section, as_choice, as_text, closest, kind_of

PROTOCOLS = (1, 2)
_REQUIRED = ("name", "version", "protocol", "entrypoint", "commands")
_OPTIONAL = ("description", "config_keys", "private_state")
COMMAND_TYPES = ("read", "write")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of a plugin; `type` is `read`, `write` or None."""

    name: str
    type: str | None
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest; `entrypoint` is relative to the plugin's directory."""

    name: str
    version: str
    protocol: int
    entrypoint: str
    description: str
    commands: Mapping[str, Command]
    required_keys: tuple[str, ...]
    private_state: frozenset[str]


def parse_manifest(value: Any) -> tuple[Manifest | None, list[Problem]]:
    """Return the manifest in a document, or None and every problem.

    Unknown keys are ignored, so that a plugin written for a newer version loads.
    """
    problems: list[Problem] = []
    section = Section(value, (), problems)
    if problems:
        return None, problems
    problems += _missing(value)
    config_keys = section.section("config_keys")
    # Documentation only; the plugin defines what its optional keys mean.
    config_keys.texts("optional")
    manifest = Manifest(
        name=section.read("name", "", as_name),
        version=section.read("version", "", _as_version),
        protocol=section.read("protocol", 0, _as_protocol),
        entrypoint=section.read("entrypoint", "", _as_entrypoint),
        description=section.read("description", "", _as_line),
        commands=_commands(section),
        required_keys=config_keys.texts("required"),
        private_state=frozenset(section.texts("private_state")),
    )
    return (None if problems else manifest), problems


def manifest_name(value: Any) -> str | None:
    """Return the plugin's name if it is valid, whatever else is wrong."""
    try:
        return as_name(value.get("name") if isinstance(value, Mapping) else None)
    except ValueError:
        return None


def entrypoint_name(value: Any) -> str | None:
    """Return the entrypoint if it is valid, whatever else is wrong."""
    try:
        return _as_entrypoint(value.get("entrypoint") if isinstance(value, Mapping) else None)
    except ValueError:
        return None


def doubtful_keys(value: Mapping[str, Any]) -> list[Problem]:
    """Return warnings for unknown keys of a valid manifest that resemble a missing one."""
    lacking = [key for key in _OPTIONAL if key not in value]
    close = ((key, closest(key, lacking)) for key in _unknown(value))
    return [Problem((key,), f"unknown key, which is ignored (did you mean {meant!r}?)", at_key=True)
            for key, meant in close if meant is not None]


def _missing(value: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each missing required key, at the unknown key that resembles it."""
    problems = []
    for key in _REQUIRED:
        if value.get(key) is None:
            meant = closest(key, _unknown(value))
            problems.append(Problem((), f"the key {key!r} is missing") if meant is None else
                            Problem((meant,), f"unknown key; the key {key!r} is missing", at_key=True))
    return problems


def _unknown(value: Mapping[str, Any]) -> list[str]:
    return [key for key in value if key not in _REQUIRED and key not in _OPTIONAL]


def missing_keys(manifest: Manifest, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the required keys that are missing or null in `config`, in the manifest's order."""
    return tuple(key for key in manifest.required_keys if config.get(key) is None)


def _as_version(value: Any) -> str:
    # `version: 0.1` is a number to YAML and a version to its author.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return _as_line(as_text(value))


def _as_protocol(value: Any) -> int:
    if isinstance(value, bool) or value not in PROTOCOLS:
        raise ValueError(f"expected 1 or 2, got {kind_of(value)}")
    return int(value)


def _as_entrypoint(value: Any) -> str:
    entrypoint = as_text(value)
    if not entrypoint.isprintable():
        raise ValueError(f"expected a path of printable characters, got {value!r}")
    if entrypoint.startswith("/") or ".." in entrypoint:
        raise ValueError(f"expected a path inside the plugin's directory, without '..', got {value!r}")
    return entrypoint


def _as_line(value: Any) -> str:
    """Return a string, possibly empty, on one line, for tables."""
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {kind_of(value)}")
    line = " ".join(value.split())
    if not line.isprintable():
        raise ValueError(f"expected a string of printable characters, got {value!r}")
    return line


def _commands(section: Section) -> dict[str, Command]:
    """Read the commands: a list of names, a list of mappings with a name, or a mapping by name."""
    value = section.raw("commands")
    if isinstance(value, Mapping):
        commands = _commands_by_name(section, value)
    elif isinstance(value, list):
        commands = _commands_in_list(section, value)
    else:
        if value is not None:
            section.wrong("commands", f"expected a list or a mapping, got {kind_of(value)}")
        return {}
    if not value:
        section.wrong("commands", "expected at least one command")
    return commands


def _commands_by_name(section: Section, value: Mapping[Any, Any]) -> dict[str, Command]:
    commands = {}
    for key, details in value.items():
        place = (*section.path, "commands", key)
        try:
            name = as_name(key)
        except ValueError as error:
            section.problems.append(Problem(place, str(error), at_key=True))
            continue
        commands[name] = _command(name, Section(details, place, section.problems))
    return commands


def _commands_in_list(section: Section, value: list[Any]) -> dict[str, Command]:
    commands: dict[str, Command] = {}
    for index, item in enumerate(value):
        place = (*section.path, "commands", index)
        details = Section(item if isinstance(item, Mapping) else {}, place, section.problems)
        if isinstance(item, Mapping):
            details.require("name")
            name = details.read("name", "", as_name)
        else:
            name = _plain_name(details, item)
        if name in commands:
            details.wrong(None, f"the command {name!r} is listed twice")
        elif name:
            commands[name] = _command(name, details)
    return commands


def _plain_name(details: Section, item: Any) -> str:
    try:
        return as_name(item)
    except ValueError as error:
        details.wrong(None, str(error))
        return ""


def _command(name: str, details: Section) -> Command:
    return Command(
        name=name,
        type=details.read("type", None, lambda value: as_choice(value, COMMAND_TYPES)),
        description=details.read("description", "", _as_line),
    )
