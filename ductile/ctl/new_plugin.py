"""`ductilectl new-plugin`: the directory of a plugin that runs as it stands, to be made one's own."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

from ductile.config.values import as_name
from ductile.ctl import skeleton_texts
from ductile.ctl.session import Session
from ductile.errors import EXIT_IO, EXIT_OK, EXIT_USAGE, DuctileError, io_exit_code
from ductile.text import one_line
from ductile.workspace.tree import remove

_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o644
_PROGRAM_MODE = 0o755
# A name that YAML takes for a text as it stands.
_WORD = re.compile(r"(?!(?:true|false|null)$)[A-Za-z][A-Za-z0-9_-]*", re.IGNORECASE)


def new_plugin(session: Session, *, name: str, language: str, parent: Path | None) -> int:
    """Make the directory `name` in `parent`, which is there, whole or not at all.

    Raises DuctileError, with nothing made: 64 for a name that no plugin can have, 74 where the directory is there or
    cannot be written, 77 where this user may not.
    """
    _require_name(name)
    directory = (session.config.plugins_dirs[0] if parent is None else parent) / name
    if os.path.lexists(directory):
        raise DuctileError(f"{one_line(str(directory))} exists already; take another name, or move it away",
                           exit_code=EXIT_IO)
    quoted = name if _WORD.fullmatch(name) else json.dumps(name)
    texts = skeleton_texts.files(name, quoted, language)
    try:
        _make(directory, texts, skeleton_texts.entrypoint(language))
    except OSError as error:
        raise DuctileError(f"cannot make {one_line(str(directory))}: {error.strerror}; nothing was made",
                           exit_code=io_exit_code(error)) from error
    session.emit({"plugin": name, "directory": str(directory), "files": sorted(texts)},
                 _next(directory, quoted, skeleton_texts.entrypoint(language)))
    return EXIT_OK


def _require_name(name: str) -> None:
    try:
        as_name(name)
    except ValueError as error:
        raise DuctileError(f"ductilectl new-plugin: NAME: {error}", exit_code=EXIT_USAGE) from error


def _make(directory: Path, texts: Mapping[str, str], program: str) -> None:
    """Make all files in a directory of another name, and give it its own when they are there."""
    part = Path(mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for file, text in texts.items():
            (part / file).write_text(text, encoding="utf-8")
            # Whatever the umask is: the daemon's user has to read it, and nobody else may write it.
            (part / file).chmod(_PROGRAM_MODE if file == program else _FILE_MODE)
        part.chmod(_DIRECTORY_MODE)
        part.rename(directory)
    except BaseException:
        remove(os.fspath(part))
        raise


def _next(directory: Path, quoted: str, program: str) -> str:
    place = str(directory) if os.sep in str(directory) else f"{os.curdir}{os.sep}{directory}"
    return (f"{one_line(place)} is made; what it does stands in {program}. To try it:\n"
            f"  ductilectl test {shlex.quote(place)}\n"
            "To have it run, put it into config.yaml, and then `ductilectl reload`:\n"
            f"  plugins:\n    {quoted}:\n      schedule: {{every: 1h}}\n      config: {{greeting: Hello}}\n")
