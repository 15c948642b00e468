"""Finds the configuration file, and the database that a broken one names."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from ductile import safe_files
from ductile.config import model
from ductile.config.values import as_file_path
from ductile.errors import EXIT_CONFIG, DuctileError
from ductile.safe_files import printable

FILE_NAME = "config.yaml"
SYSTEM_PATH = Path("/etc/ductile") / FILE_NAME
VARIABLE = "DUCTILE_CONFIG"

# Some ten thousand lines; a value handed to a plugin may be large, but what is larger than this is something else.
CONFIG_LIMIT_BYTES = 4 * 1024**2

_ANOTHER_USER = "run this as the user that runs ductiled"

_STATE = re.compile(r"""^["']?state["']?[ ]*:""", re.MULTILINE)
_STATE_PATH = re.compile(r"""
    ^state:[ ]*(?:[#].*)?\r?\n                          # the section, with nothing else on its line
    (?:[ ]*(?:[#].*)?\r?\n)*                           # empty lines and comments
    [ ]+path:[ ]+
    (?: (?P<plain>[^\s"'&*!|>{\[\#](?:[^\r\n#]|(?<=\S)[#])*?) | (?P<quote>["'])(?P<quoted>[^"'\\\r\n]+)(?P=quote) )
    [ ]*(?:[ ][#].*)?\r?$
""", re.VERBOSE | re.MULTILINE)


def find(argument: str | None, environ: Mapping[str, str], *, denied: int, system: Path = SYSTEM_PATH) -> Path:
    """Return the configuration file to use: `argument` of -c, $DUCTILE_CONFIG, the user's own, the system's.

    Raises DuctileError: 78 if the named file does not exist or none is found, `denied` if this user may not look.
    """
    if argument is not None:
        return _named(argument, "-c", denied)
    if environ.get(VARIABLE):
        return _named(environ[VARIABLE], f"${VARIABLE}", denied)
    return _usual(_home(environ), system, denied)


def _home(environ: Mapping[str, str]) -> Path | None:
    """Return the user's home directory, None for a UID without an account."""
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
    raise DuctileError(f"{text}; `ductilectl init` writes a starter configuration", exit_code=EXIT_CONFIG)


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
    """Return the status of a file, None if it does not exist. Raises DuctileError."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        text = f"{printable(path)}: cannot be read: {error.strerror}, named by {origin}"
        if isinstance(error, PermissionError):
            raise DuctileError(f"{text}; {_ANOTHER_USER}", exit_code=denied) from error
        raise DuctileError(text, exit_code=EXIT_CONFIG) from error


def state_path(path: Path) -> Path | None:
    """Return `state.path` of a configuration that is not valid YAML, or its default if the file has no `state` section.

    This is a lenient look at the lines, so that commands that only need the database keep working. None if the path is
    not written out on a line of its own, or the file cannot be read.
    """
    try:
        text = safe_files.read(path, CONFIG_LIMIT_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return None
    written: str | None = model.STATE_PATH
    if _STATE.search(text):
        found = _STATE_PATH.search(text)
        written = None if found is None else found["plain"] or found["quoted"]
    if written is None or "$" in written:
        return None
    try:
        return as_file_path(written, Path(os.path.abspath(path.parent)))
    except ValueError:
        return None
