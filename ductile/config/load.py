"""Reads the configuration file with the variables it names, and places every problem."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from ductile import safe_files
from ductile.config.find import CONFIG_LIMIT_BYTES
from ductile.config.include import included
from ductile.config.model import Config
from ductile.config.path_conflicts import path_conflicts
from ductile.config.read import read_config
from ductile.config.values import as_file_path
from ductile.config.variables import at, references, resolve, without_value_of, without_values
from ductile.errors import EXIT_CONFIG, DuctileError
from ductile.safe_files import printable
from ductile.validation import Path as Place
from ductile.validation import Problem
from ductile.yamlfile import Document, read_yaml

_ENV_FILE = ("service", "env_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration that was read, right or wrong.

    `path` is as the caller gave it. `files` are the files that were read, by name relative to the
    configuration's directory, for a digest; the env_file, being secrets, is not among them. `environ` is the
    environment with the env_file's variables over it. `unknown` are the places of values that cannot be checked,
    for a variable in them is unset.
    """

    config: Config
    path: Path
    environ: Mapping[str, str] = field(repr=False)
    files: tuple[tuple[str, bytes], ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    document: Document = field(repr=False)
    unknown: frozenset[Place]

    def locate(self, problem: Problem) -> str:
        """Return a problem as the operator reads it, without the value of any variable.

        `file:line:column: path.to.key: text`; what is nowhere in the file gets the place of its deepest ancestor.
        """
        shown = without_values(problem, self.document.value)
        if shown is problem and not problem.at_key:
            shown = replace(problem, text=self.hidden(problem.text, problem.path))
        return self.document.locate(printable(self.path), shown)

    def hidden(self, text: str, *places: Place) -> str:
        """Return a text about what these places say without the value of any variable that they name."""
        names = {name for place in places for _, name in references(at(self.document.value, place))}
        return without_value_of(names, self.environ, text) if names else text

    def located(self, place: Place, text: str) -> str:
        """Return a text that names what it is about, with the file, line and column of its place before it."""
        return f"{self.document.place(printable(self.path), place, at_key=True)}: {text}"


def load(path: Path, environ: Mapping[str, str], *, keep_unset: bool = False) -> Loaded:
    """Return what the file says, with everything that is wrong with it.

    With `keep_unset` an unset variable stays as `${NAME}`, and neither it nor the env_file is a problem.
    Raises DuctileError (78), with one line, where the file cannot be read or is not YAML.
    """
    content = _content(path)
    # Absolute, because the daemon leaves its working directory; not resolved, so a linked file keeps its neighbours.
    base = Path(os.path.abspath(path.parent))
    merged = included(read_yaml(content, printable(path)), base / path.name)
    document = merged.document

    def base_of(place: Place) -> Path:
        return merged.directory(place, base)

    # A reading is of now, zone data too: what an earlier one has cached may have been updated since.
    ZoneInfo.clear_cache()
    variables, env_file_faults, env_file_warnings = _variables(document.value, base_of(_ENV_FILE), environ)
    value, faults, unset = resolve(document.value, variables)
    zone, zone_warning = local_zone(environ)
    config, problems, warnings = read_config(value, authored=document.value, base_of=base_of, local_zone=zone)
    # What an unset variable would have said is not known, so nothing else is said about its value.
    unknown = frozenset(problem.path for problem in unset + faults)
    problems = [problem for problem in problems if problem.at_key or problem.path not in unknown]
    doubtful = unknown.union(problem.path for problem in problems)
    if document.value in ({}, None) and not document.problems:
        problems.append(Problem((), "expected a configuration, got an empty file; `ductilectl init` writes one"))
    found = [*document.problems, *merged.problems, *faults, *problems,
             *path_conflicts(config, (path, *merged.paths), value, doubtful)]
    if not keep_unset:
        found += [*env_file_faults, *(problem for problem in unset if problem.path != _ENV_FILE)]
    found.sort(key=document.order)
    warnings += _padded(document.value, variables)
    places = [*(document.locate(printable(path), warning) for warning in warnings), *env_file_warnings]
    return Loaded(
        config=config,
        path=path,
        environ=variables,
        files=((path.name, content), *merged.files),
        problems=tuple(found),
        warnings=tuple(places if zone_warning is None else [*places, zone_warning]),
        document=document,
        unknown=unknown,
    )


def _content(path: Path) -> bytes:
    try:
        return safe_files.read(path, CONFIG_LIMIT_BYTES)
    except OSError as error:
        raise DuctileError(safe_files.why_unreadable(path, error), exit_code=EXIT_CONFIG) from error


def _padded(document: Any, variables: Mapping[str, str]) -> list[Problem]:
    """Return a warning for each variable whose value ends as no secret does: a newline is easily read with it."""
    return [Problem(place, f"the value of the variable {name} ends in a newline or blank, which is part of it")
            for place, name in references(document) if variables.get(name, "")[-1:].isspace()]


def _variables(document: Any, base: Path,
               environ: Mapping[str, str]) -> tuple[Mapping[str, str], list[Problem], list[str]]:
    """Return the environment with the env_file's variables over it, what is wrong with that file, and what is odd."""
    name = at(document, _ENV_FILE)
    if not isinstance(name, str) or not name:
        return environ, [], []
    if "${" in name:
        fault = "expected a path without variables, which are known only when it is read"
        return environ, [Problem(_ENV_FILE, fault)], []
    try:
        values, faults, warnings = read_env_file(as_file_path(name, base))
    except ValueError:
        # Told where the configuration is read.
        return environ, [], []
    return {**environ, **values}, [Problem(_ENV_FILE, fault) for fault in faults], warnings


# A file of secrets is some lines long; past this something else was named by mistake.
_LARGEST_BYTES = 1024**2
# Others must not read it, and its group must not write it.
_FORBIDDEN_MODE = 0o027
_COMMENT = re.compile(r"[ \t]#")
_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def read_env_file(path: Path) -> tuple[Mapping[str, str], list[str], list[str]]:
    """Return the variables in the file, what is wrong with it and what is odd, one line each, never showing a value.

    A file that cannot be read, is no regular file, or that others can read or its group can write gives no
    variables. A key that comes twice has its last value, as in a shell.
    """
    try:
        content = safe_files.read(path, _LARGEST_BYTES, forbidden_mode=_FORBIDDEN_MODE)
    except OSError as error:
        return {}, [safe_files.why_unreadable(path, error)], []
    return _parse(content, printable(path))


def _parse(content: bytes, name: str) -> tuple[Mapping[str, str], list[str], list[str]]:
    variables: dict[str, str] = {}
    faults, warnings = [], []
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            faults.append(f"{name}:{number}: expected UTF-8")
            continue
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None or "\0" in text:
            faults.append(f"{name}:{number}: expected KEY=VALUE")
            continue
        value = _unquoted(match[2].strip())
        if value is None:
            faults.append(f"{name}:{number}: expected a closing quote at the end of the line")
            continue
        variables[match[1]] = value
        # In quotes it was meant.
        if _COMMENT.search(value) and match[2].strip() == value:
            warnings.append(f"{name}:{number}: {match[1]}: what is behind ' #' is part of the value; put a comment on a"
                            " line of its own, or the value in quotes")
    return variables, faults, warnings


def _unquoted(value: str) -> str | None:
    if value[:1] not in ("'", '"'):
        return value
    return value[1:-1] if len(value) > 1 and value[-1] == value[0] else None


_LOCALTIME = Path("/etc/localtime")
_DIRECTORY = "zoneinfo"
# The largest files of the zone database have some 4 KiB.
_LARGEST_ZONE_BYTES = 1024**2


def local_zone(environ: Mapping[str, str], localtime: Path = _LOCALTIME) -> tuple[tzinfo, str | None]:
    """Return the system's zone, and a warning where the variable TZ is set to what cannot be used.

    TZ comes first (`Area/City`, an absolute path, empty for UTC), then the name of the zone file that
    `localtime` links to, then that file's rules, then UTC. See tzset(3).
    """
    wanted = environ.get("TZ")
    if wanted is None:
        return _system_zone(localtime), None
    zone = _zone_of_variable(wanted.removeprefix(":"))
    if zone is not None:
        return zone, None
    return _system_zone(localtime), f"TZ: expected a time zone such as Australia/Sydney, got {wanted!r}; it is ignored"


def _zone_of_variable(name: str) -> tzinfo | None:
    if name in ("", "UTC"):
        return UTC
    if name.startswith("/"):
        return _zone_of_file(Path(name))
    return _zone_of_name(name)


def _system_zone(localtime: Path) -> tzinfo:
    if not os.path.exists(localtime):
        return UTC
    # The name is worth having: two schedules in zones of the same name compare equal.
    parts = localtime.resolve().parts
    if _DIRECTORY in parts:
        zone = _zone_of_name("/".join(parts[parts.index(_DIRECTORY) + 1 :]))
        if zone is not None:
            return zone
    return _zone_of_file(localtime) or UTC


def _zone_of_name(name: str) -> tzinfo | None:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None


def _zone_of_file(path: Path) -> tzinfo | None:
    try:
        return ZoneInfo.from_file(io.BytesIO(safe_files.read(path, _LARGEST_ZONE_BYTES)))
    except (ValueError, OSError):
        return None
