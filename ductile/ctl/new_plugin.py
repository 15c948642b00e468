"""`ductilectl new-plugin`: create the directory of a new plugin from a template."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

from ductile import shipped
from ductile.config.values import as_name
from ductile.ctl.session import Session
from ductile.errors import EXIT_IO, EXIT_OK, EXIT_USAGE, DuctileError, io_exit_code
from ductile.plugin.discovery import MANIFEST
from ductile.text import one_line
from ductile.workspace.tree import remove

_PROGRAMS = {"sh": "run.sh", "python": "run.py", "node": "run.js"}
_PYTHON_LIBRARY = "ductile_plugin.py"
# What a template has in place of the name.
_NAME = "PLUGIN_NAME"
_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o644
_PROGRAM_MODE = 0o755
# A name that YAML reads as a string without quotes.
_WORD = re.compile(r"(?!(?:true|false|null)$)[A-Za-z][A-Za-z0-9_-]*", re.IGNORECASE)


def new_plugin(session: Session, *, name: str, language: str, parent: Path | None) -> int:
    """Create the directory `name` in `parent`, complete or not at all.

    Raises DuctileError, with nothing created: 64 for a name that no plugin can have, 74 if the directory exists or
    cannot be written or the templates are missing, 77 without permission.
    """
    _require_name(name)
    directory = (session.config.plugins_dirs[0] if parent is None else parent) / name
    if os.path.lexists(directory):
        raise DuctileError(f"{one_line(str(directory))} exists; choose another name, or move it away",
                           exit_code=EXIT_IO)
    quoted = name if _WORD.fullmatch(name) else json.dumps(name)
    files = _files(name, quoted, language)
    try:
        _create(directory, files, _PROGRAMS[language])
    except OSError as error:
        raise DuctileError(f"cannot create {one_line(str(directory))}: {error.strerror}; nothing was created",
                           exit_code=io_exit_code(error)) from error
    session.emit({"plugin": name, "directory": str(directory), "files": sorted(files)},
                 _next_steps(directory, quoted, _PROGRAMS[language]))
    return EXIT_OK


def _require_name(name: str) -> None:
    try:
        as_name(name)
    except ValueError as error:
        raise DuctileError(f"ductilectl new-plugin: NAME: {error}", exit_code=EXIT_USAGE) from error


def _files(name: str, quoted: str, language: str) -> Mapping[str, str]:
    """Return the files of a new plugin by name; `quoted` is its name as YAML."""
    template = shipped.plugins() / "_template" / language
    try:
        files = {file: (template / file).read_text("utf-8").replace(_NAME, quoted if file == MANIFEST else name)
                 for file in (MANIFEST, "README.md", _PROGRAMS[language])}
        if language == "python":
            files[_PYTHON_LIBRARY] = (shipped.plugins() / "lib" / _PYTHON_LIBRARY).read_text("utf-8")
    except OSError as error:
        raise DuctileError(f"cannot read the template {one_line(str(error.filename))}: {error.strerror}; install"
                           " ductile again", exit_code=EXIT_IO) from error
    return files


def _create(directory: Path, files: Mapping[str, str], program: str) -> None:
    """Write all files into a directory with a temporary name, and rename it once they are complete."""
    part = Path(mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for file, text in files.items():
            (part / file).write_text(text, encoding="utf-8")
            # Whatever the umask is: the daemon's user must read them, and nobody else may write them.
            (part / file).chmod(_PROGRAM_MODE if file == program else _FILE_MODE)
        part.chmod(_DIRECTORY_MODE)
        part.rename(directory)
    except BaseException:
        remove(os.fspath(part))
        raise


def _next_steps(directory: Path, quoted: str, program: str) -> str:
    path = str(directory) if os.sep in str(directory) else f"{os.curdir}{os.sep}{directory}"
    return (f"Created {one_line(path)}; edit {program}. To try it:\n"
            f"  ductilectl test {shlex.quote(path)}\n"
            "To run it, add it to config.yaml and run `ductilectl reload`:\n"
            f"  plugins:\n    {quoted}:\n      schedule: {{every: 1h}}\n      config: {{greeting: Hello}}\n")
