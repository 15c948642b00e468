"""`ductilectl edit`: edit the configuration, check it, put it in place and reload."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import mkstemp

from ductile import runtime_config, stdio
from ductile.ctl.output import handled
from ductile.ctl.reload import reload
from ductile.ctl.session import Session
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_USAGE, DuctileError
from ductile.pidfile import pid_file, running_pid
from ductile.text import one_line

_USUAL_EDITOR = "vi"


def edit(session: Session) -> int:
    """Open a copy of the configuration in an editor, and put it in place once it is valid.

    A copy with errors is edited again or kept beside the file. Raises DuctileError: 78 with the errors, 1 if the editor
    fails or the file has changed meanwhile, 64 for an editor that is none, and as `reload` does; OSError.
    """
    # Not the link to it, which would be replaced.
    path = Path(os.path.realpath(session.config_path))
    before = path.read_bytes()
    copy = _copy(path, before)
    is_kept = False
    try:
        while True:
            _open_editor(session, copy)
            if copy.read_bytes() == before:
                session.emit({"config": str(path), "changed": False}, "nothing was changed\n")
                return EXIT_OK
            problems = _problems(session, copy, path)
            if not problems:
                break
            session.err.write("".join(f"{stdio.as_line(line)}\n" for line in problems))
            if not session.can_ask or not session.ask("Edit again?"):
                is_kept = True
                raise DuctileError(f"the configuration is as it was; your edits are in {one_line(str(copy))}",
                                   exit_code=EXIT_CONFIG)
        if path.read_bytes() != before:
            is_kept = True
            raise DuctileError(f"{one_line(str(path))} was changed by somebody else meanwhile; your edits are in"
                               f" {one_line(str(copy))}", exit_code=EXIT_FAILED)
        _put_in_place(copy, path)
        is_kept = True
    finally:
        if not is_kept:
            copy.unlink(missing_ok=True)
    return _reload(session, path)


def _copy(path: Path, content: bytes) -> Path:
    """Write a copy beside the file, where its relative paths mean the same."""
    descriptor, name = mkstemp(prefix=f".{path.stem}.edit-", suffix=path.suffix, dir=path.parent)
    with open(descriptor, "wb") as file:
        file.write(content)
    return Path(name)


def _open_editor(session: Session, file: Path) -> None:
    editor = session.environ.get("VISUAL") or session.environ.get("EDITOR") or _USUAL_EDITOR
    try:
        words = shlex.split(editor)
        # A Ctrl-C is for the editor.
        with handled((signal.SIGINT, signal.SIGQUIT), lambda number, frame: None):
            code = subprocess.run([*words, file], env=session.environ, check=False).returncode
    except (ValueError, IndexError, FileNotFoundError, PermissionError) as error:
        raise DuctileError(f"cannot run the editor {one_line(editor)!r}; set VISUAL or EDITOR",
                           exit_code=EXIT_USAGE) from error
    if code != 0:
        raise DuctileError(f"the editor {one_line(editor)!r} failed ({code}); nothing was changed",
                           exit_code=EXIT_FAILED)


def _problems(session: Session, copy: Path, path: Path) -> list[str]:
    """Return every problem of the copy, with the name of the file instead."""
    try:
        problems = runtime_config.read(copy, session.environ, keep_unset=True).problems
    except DuctileError as error:
        problems = error.lines
    return [line.replace(str(copy), str(path)) for line in problems]


def _put_in_place(copy: Path, path: Path) -> None:
    """Replace the file by its copy, with its owner and mode, whole also after a power cut."""
    found = path.stat()
    with suppress(PermissionError):
        os.chown(copy, found.st_uid, found.st_gid)
    copy.chmod(stat.S_IMODE(found.st_mode))
    _sync(copy)
    copy.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reload(session: Session, path: Path) -> int:
    # Not what was read before.
    session = replace(session)
    if running_pid(pid_file(session.state_path)) is not None:
        return reload(session, ask=True)
    session.emit({"config": str(path), "changed": True}, f"{one_line(str(path))} is saved; ductiled is not running and"
                 " reads it when it starts\n")
    return EXIT_OK
