"""Reads the configuration file with the variables it names, and places every problem."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from ductile import disk
from ductile.check import Path as Place
from ductile.check import Problem
from ductile.config.collisions import collisions
from ductile.config.envfile import read_env_file
from ductile.config.localzone import local_zone
from ductile.config.place import CONFIG_LIMIT_BYTES
from ductile.config.read import read_config
from ductile.config.schema import Config
from ductile.config.values import as_file_path
from ductile.config.variables import at, references, resolve, without_value_of, without_values
from ductile.disk import NotRegular, TooLarge, printable
from ductile.errors import EXIT_CONFIG, DuctileError
from ductile.yamlfile import Document, read_yaml

_ENV_FILE = ("service", "env_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration that was read, right or wrong.

    `path` is as the caller gave it. `files` are the files that were read, by name relative to the
    configuration's directory, for a digest; the env_file, being secrets, is not among them. `environ` is the
    environment with the env_file's variables over it. `unknown` are the places of values that nothing can be said of,
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

        `file:line:column: path.to.key: text`; what is nowhere in the file stands at its deepest ancestor.
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
        line, column = self.document.where(place, at_key=True)
        return f"{printable(self.path)}:{line}:{column}: {text}"


def load(path: Path, environ: Mapping[str, str], *, keep_unset: bool = False) -> Loaded:
    """Return what the file says, with everything that is wrong with it.

    With `keep_unset` an unset variable stays as `${NAME}`, and neither it nor the env_file is a problem.
    Raises DuctileError (78), with one line, where the file cannot be read or is not YAML.
    """
    content = _content(path)
    document = read_yaml(content, printable(path))
    # A reading is of now, zone data too: what an earlier one has cached may have been updated since.
    ZoneInfo.clear_cache()
    # Absolute, because the daemon leaves its working directory; not resolved, so a linked file keeps its neighbours.
    base = Path(os.path.abspath(path.parent))
    variables, env_file_faults, env_file_warnings = _variables(document.value, base, environ)
    value, faults, unset = resolve(document.value, variables)
    zone, zone_warning = local_zone(environ)
    config, problems, warnings = read_config(value, authored=document.value, base=base, local_zone=zone)
    # What an unset variable would have said is not known, so nothing else is said about its value.
    unknown = frozenset(problem.path for problem in unset + faults)
    problems = [problem for problem in problems if problem.at_key or problem.path not in unknown]
    doubtful = unknown.union(problem.path for problem in problems)
    if document.value in ({}, None) and not document.problems:
        problems.append(Problem((), "expected a configuration, got an empty file; `ductilectl init` writes one"))
    found = [*document.problems, *faults, *problems, *collisions(config, path, value, doubtful)]
    if not keep_unset:
        found += [*env_file_faults, *(problem for problem in unset if problem.path != _ENV_FILE)]
    found.sort(key=lambda problem: document.where(problem.path, problem.at_key))
    warnings += _padded(document.value, variables)
    places = [*(document.locate(printable(path), warning) for warning in warnings), *env_file_warnings]
    return Loaded(
        config=config,
        path=path,
        environ=variables,
        files=((path.name, content),),
        problems=tuple(found),
        warnings=tuple(places if zone_warning is None else [*places, zone_warning]),
        document=document,
        unknown=unknown,
    )


def _content(path: Path) -> bytes:
    try:
        return disk.read(path, CONFIG_LIMIT_BYTES)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except NotRegular:
        reason = "not a regular file; put the configuration there as a file"
    except TooLarge:
        reason = "larger than 4 MiB, which no configuration is; name another file"
    raise DuctileError(f"{printable(path)}: {reason}", exit_code=EXIT_CONFIG)


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
