"""A new file in the directory of notes: whole or not there, and never in another's place."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from ductile_plugin import Permanent, Retry

# Of a note that may be the same: the front matter is at the start.
HEAD_BYTES = 64 * 1024
MOST_NAMES = 9999


def file_note(directory: str, stem: str, text: str, *, job_id: str, is_same: Callable[[str], bool]) -> tuple[str, bool]:
    """Return the name of the note and whether it is new.

    It is `stem`.md or, where another note has that name, `stem`-2.md and so on. Where `is_same` says of the start of
    a note that has the name that it is this one, from an earlier run of the job, nothing is written. Raises Failed.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        # One name a job: what a killed run left behind is replaced by the next.
        new = os.path.join(directory, f".note-{job_id}.new")
        _remove(new)
        try:
            return _named(directory, stem, text, new, is_same)
        finally:
            _remove(new)
    except OSError as error:
        text = "its file system has no hard links" if _has_no_links(error) else error.strerror
        raise Retry(f"directory: {directory}: {text}") from None


def _named(directory: str, stem: str, text: str, new: str, is_same: Callable[[str], bool]) -> tuple[str, bool]:
    written = False
    for number in range(1, MOST_NAMES + 1):
        name = f"{stem}.md" if number == 1 else f"{stem}-{number}.md"
        path = os.path.join(directory, name)
        if os.path.lexists(path):
            if os.path.isfile(path) and is_same(_head(path)):
                return name, False
            continue
        if not written:
            _write(new, text)
            written = True
        try:
            # Unlike a rename a link never takes another's place.
            os.link(new, path)
        except FileExistsError:
            continue
        _remove(new)
        _sync(directory)
        return name, True
    raise Permanent(f"directory: {directory}: {MOST_NAMES} notes have the name {stem}")


def _write(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        file.write(text.encode("utf-8", "replace"))
        file.flush()
        os.fsync(file.fileno())


def _head(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES).decode("utf-8", "replace")


def _sync(directory: str) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _has_no_links(error: OSError) -> bool:
    return error.filename2 is not None and error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
