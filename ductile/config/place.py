"""Finds the configuration file and, at a glance, the database that it names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import pairwise, takewhile
from pathlib import Path

from ductile.errors import EXIT_CONFIG, DuctileError

FILE_NAME = "config.yaml"
SYSTEM_PATH = Path("/etc/ductile") / FILE_NAME
VARIABLE = "DUCTILE_CONFIG"

_DEFAULT = "./data/state.db"

# A value that is whole on its line, whatever stands on the next: a text in quotes, a word, or a flat mapping or
# list in which a quote stands only where it opens a text.
_TEXT = r"""(?:"[^"\\]*"|'[^']*')"""
_FLAT = rf"""(?:[^][{{}}"'#]|(?:(?<=[\[{{])|(?<=[:,][ ])){_TEXT})*"""
_VALUE = rf"""(?:{_TEXT}|[A-Za-z0-9./~$_](?:[^:#"']|:(?=[^ ]))*|\{{{_FLAT}\}}|\[{_FLAT}\])"""
_LINE = re.compile(rf"""
    [ ]* (?P<body> (?:-[ ]+)*
        (?: (?P<key>[A-Za-z0-9_.][A-Za-z0-9_./-]*): (?:[ ]+(?P<value>{_VALUE}))? | (?P<item>{_VALUE}) )
    )
    [ ]* (?:[ ][#].*)?
""", re.VERBOSE)
_NO_CONTENT = re.compile(r" *(?:#.*)?")

def find(argument: str | None, environ: Mapping[str, str], *, home: Path, system: Path = SYSTEM_PATH) -> Path:
    """Return the configuration file to use: `argument` of -c, $DUCTILE_CONFIG, the user's own, the system's.

    Raises DuctileError (78) where the named one does not exist, or where none is named and none found.
    """
    if argument is not None:
        return _named(argument, "-c")
    if environ.get(VARIABLE):
        return _named(environ[VARIABLE], f"${VARIABLE}")
    places = (home / ".config" / "ductile" / FILE_NAME, system)
    for place in places:
        # os.path, because a directory that may not be searched counts as absent here.
        if os.path.exists(place):
            return place
    looked_at = ", ".join([f"${VARIABLE}", *map(str, places)])
    raise DuctileError(
        f"no configuration found (looked at {looked_at}); `ductilectl init` makes a starter configuration",
        exit_code=EXIT_CONFIG,
    )


def _named(text: str, origin: str) -> Path:
    path = Path(text)
    if not text or not os.path.exists(path):
        raise DuctileError(f"{text or repr(text)}: no such file or directory, named by {origin}", exit_code=EXIT_CONFIG)
    if not path.is_dir():
        return path
    if not os.path.exists(path / FILE_NAME):
        raise DuctileError(f"{text}: no {FILE_NAME} in this directory, named by {origin}", exit_code=EXIT_CONFIG)
    return path / FILE_NAME


def state_path(path: Path) -> Path | None:
    """Return `state.path` of the configuration `path`, or None where only reading all of it can tell.

    For commands that need nothing else: a look at the lines takes a fiftieth of importing a YAML parser. Whatever
    could mean something else to YAML gives None.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    written = _written(text)
    return None if written is None else Path(os.path.abspath(path.parent)) / written


def _written(text: str) -> str | None:
    """Return what stands under `state.path`, or its default; None where a line is not a simple one."""
    lines = [_LINE.fullmatch(line) for line in text.split("\n") if not _NO_CONTENT.fullmatch(line)]
    if not text.replace("\n", "").isprintable() or None in lines or not _each_stands_alone(lines):
        return None
    states = [index for index, line in enumerate(lines) if line["key"] == "state" and line.start("body") == 0]
    if not states:
        return _DEFAULT
    inside = list(takewhile(lambda line: line.start("body") > 0, lines[states[0] + 1:]))
    if len(states) > 1 or lines[states[0]]["value"] is not None or not inside or inside[0]["body"].startswith("-"):
        return None
    column = inside[0].start("body")
    paths = [line["value"] for line in inside if line["key"] == "path" and line.start("body") == column]
    return _plain_path(paths[0]) if len(paths) == 1 else None if paths else _DEFAULT


def _each_stands_alone(lines: list[re.Match[str]]) -> bool:
    """Say whether the lines are a mapping from the first column on, and none goes on with the one before."""
    if lines and (lines[0].start("body") != 0 or lines[0].start("key") != 0):
        return False
    if any(line["item"] is not None and not line["body"].startswith("-") for line in lines):
        return False
    return not any(
        (before["value"] or before["item"]) and after.start("body") > max(before.start("key"), before.start("body"))
        for before, after in pairwise(lines))


def _plain_path(value: str | None) -> str | None:
    # With a slash in it no word is a number or a boolean.
    if value is None or "/" not in value or "$" in value or value[0] in "[{":
        return None
    return value[1:-1] if value[0] in "\"'" else value.rstrip()
