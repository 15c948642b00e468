"""Finds the configuration file and, at a glance, the database that it names."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Mapping
from itertools import pairwise, takewhile
from pathlib import Path

from ductile import safe_files
from ductile.config import model
from ductile.errors import EXIT_CONFIG, DuctileError
from ductile.safe_files import printable

FILE_NAME = "config.yaml"
SYSTEM_PATH = Path("/etc/ductile") / FILE_NAME
VARIABLE = "DUCTILE_CONFIG"

# Some ten thousand lines; a value handed to a plugin may be large, but what is larger than this is something else.
CONFIG_LIMIT_BYTES = 4 * 1024**2

_ANOTHER_USER = "run this as the user that runs ductiled"

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


def find(argument: str | None, environ: Mapping[str, str], *, denied: int, system: Path = SYSTEM_PATH) -> Path:
    """Return the configuration file to use: `argument` of -c, $DUCTILE_CONFIG, the user's own, the system's.

    Raises DuctileError (78) where the named one does not exist, or where none is named and none found; with the exit
    code `denied` where this user may not look.
    """
    if argument is not None:
        return _named(argument, "-c", denied)
    if environ.get(VARIABLE):
        return _named(environ[VARIABLE], f"${VARIABLE}", denied)
    return _usual(_home(environ), system, denied)


def _home(environ: Mapping[str, str]) -> Path | None:
    """Return the user's home directory; None where there is none, as for a UID that no account has."""
    home = environ.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return Path(home) if home else None


def _usual(home: Path | None, system: Path, denied: int) -> Path:
    places = [system] if home is None else [home / ".config" / "ductile" / FILE_NAME, system]
    looked_at, barred = [f"${VARIABLE}"], False
    for place in places:
        try:
            os.stat(place)
            return place
        except PermissionError as error:
            barred = True
            looked_at.append(f"{printable(place)}: {error.strerror}")
        except OSError:
            looked_at.append(printable(place))
    text = f"no configuration found (looked at {', '.join(looked_at)})"
    if barred:
        raise DuctileError(f"{text}; {_ANOTHER_USER}, or name one with -c", exit_code=denied)
    raise DuctileError(f"{text}; `ductilectl init` makes a starter configuration", exit_code=EXIT_CONFIG)


def _named(text: str, origin: str, denied: int) -> Path:
    path = Path(text)
    status = _status(path, origin, denied) if text else None
    if status is None:
        what = printable(path) if text else "''"
        raise DuctileError(f"{what}: no such file or directory, named by {origin}", exit_code=EXIT_CONFIG)
    if not stat.S_ISDIR(status.st_mode):
        return path
    if _status(path / FILE_NAME, origin, denied) is None:
        raise DuctileError(f"{printable(path)}: no {FILE_NAME} in this directory, named by {origin}",
                           exit_code=EXIT_CONFIG)
    return path / FILE_NAME


def _status(path: Path, origin: str, denied: int) -> os.stat_result | None:
    """Return what the system says of a file, or None where there is none. Raises DuctileError where it does not say."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        text = f"{printable(path)}: cannot be looked at: {error.strerror}, named by {origin}"
        if isinstance(error, PermissionError):
            raise DuctileError(f"{text}; {_ANOTHER_USER}", exit_code=denied) from error
        raise DuctileError(text, exit_code=EXIT_CONFIG) from error


def state_path(path: Path) -> Path | None:
    """Return `state.path` of the configuration `path`, or None where only reading all of it can tell.

    For commands that need nothing else: a look at the lines takes a fiftieth of importing a YAML parser. Whatever
    could mean something else to YAML gives None.
    """
    try:
        text = safe_files.read(path, CONFIG_LIMIT_BYTES).decode("utf-8")
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
        return model.STATE_PATH
    inside = list(takewhile(lambda line: line.start("body") > 0, lines[states[0] + 1:]))
    if len(states) > 1 or lines[states[0]]["value"] is not None or not inside or inside[0]["body"].startswith("-"):
        return None
    column = inside[0].start("body")
    paths = [line["value"] for line in inside if line["key"] == "path" and line.start("body") == column]
    return _plain_path(paths[0]) if len(paths) == 1 else None if paths else model.STATE_PATH


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
