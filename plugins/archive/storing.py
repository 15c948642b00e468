"""Appends one record to a file so that it is there whole and once, whatever is killed, torn or full."""

from __future__ import annotations

import csv
import fcntl
import filecmp
import fnmatch
import io
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ductile_plugin import Failed, Permanent, Retry, as_text, log, one_line

# How much of a file's end is searched for a record that was stored just before a crash.
TAIL_BYTES = 1024 * 1024
LOCK_SECONDS = 20
SQLITE_VERSION = 1
MOST_FILES = 100
# What makes a spreadsheet run a cell (OWASP, CSV Injection), full-width forms included.
_FORMULA = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
         sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


@contextmanager
def locked(directory: str, name: str, seconds: float) -> Iterator[None]:
    """Keep other writers of these files out. Raises Retry."""
    end = time.monotonic() + min(seconds, LOCK_SECONDS)
    with open(os.path.join(directory, f".{name}.lock"), "ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise Retry(f"another process holds the lock of {name}") from None
                time.sleep(0.05)
        yield


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def append_line(path: str, line: bytes, beginning: bytes, header: bytes = b"") -> bool:
    """Append a line unless one near the end has the same beginning, and say whether it did. Raises OSError.

    What a crash has left of another line at the end goes into a file beside it first.
    """
    with open(path, "a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
        whole = tail[:tail.rfind(b"\n") + 1]
        if len(whole) < len(tail):
            size = _set_aside(file, path, tail[len(whole):], size)
        if whole.startswith(beginning) or b"\n" + beginning in whole:
            return False
        data = line if size else header + line
        try:
            written = os.write(file.fileno(), data)
        except OSError:
            written = 0
        if written < len(data):
            os.ftruncate(file.fileno(), size)
            raise Retry(f"{path}: no room for a record, or the disk has failed")
        os.fsync(file.fileno())
    if size == 0:
        sync_directory(os.path.dirname(path))
    return True


def _set_aside(file: io.BufferedRandom, path: str, torn: bytes, size: int) -> int:
    """Move the start of a line at the end of a file into another file, and return the size that is left."""
    with open(f"{path}.torn", "ab") as other:
        other.write(torn + b"\n")
        other.flush()
        os.fsync(other.fileno())
    log(f"{path}: moved an incomplete record to {path}.torn", "warn")
    os.ftruncate(file.fileno(), size - len(torn))
    return size - len(torn)


def store_jsonl(path: str, record: dict) -> bool:
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # JavaScript takes these two for line ends.
    line = line.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").encode("utf-8", "replace")
    beginning = json.dumps({"event_id": record["event_id"]}, ensure_ascii=False, separators=(",", ":"))[:-1] + ","
    return append_line(path, line + b"\n", beginning.encode("utf-8", "replace"))


def store_csv(path: str, record: dict, cells: dict[str, object]) -> tuple[str, bool]:
    """Return the file that the row is in, and whether it is new there. Other columns begin another file."""
    header = csv_line(["event_id", *cells])
    stem, ending = os.path.splitext(path)
    for number in range(1, 1000):
        candidate = path if number == 1 else f"{stem}.{number}{ending}"
        try:
            with open(candidate, "rb") as file:
                first = file.readline(len(header) + 1)
        except FileNotFoundError:
            first = b""
        if first in (b"", header):
            row = csv_line([record["event_id"], *cells.values()])
            return candidate, append_line(candidate, row, csv_line([record["event_id"]])[:-1] + b",", header)
    raise Permanent(f"{path}: a thousand files with other columns exist already")


def csv_line(cells: list[object]) -> bytes:
    """Return a row on one line, in which no cell is a formula."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([_cell(cell) for cell in cells])
    return out.getvalue().encode("utf-8", "replace")


def _cell(value: object) -> str:
    text = " ".join(as_text(value).splitlines()).replace("\0", "")
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def store_sqlite(path: str, record: dict) -> bool:
    """Insert a record unless it is there, and say whether it was not. Raises Failed."""
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as conn:
            conn.execute("BEGIN IMMEDIATE")
            version = conn.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SQLITE_VERSION):
                raise Permanent(f"{path}: another program's database (user_version {version})")
            conn.execute("CREATE TABLE IF NOT EXISTS events (event_id TEXT PRIMARY KEY, time TEXT, type TEXT,"
                         " source TEXT, payload TEXT, files TEXT)")
            conn.execute(f"PRAGMA user_version = {SQLITE_VERSION}")
            values = [record[name] for name in ("event_id", "time", "type", "source")]
            values += [json.dumps(record[name], ensure_ascii=False, allow_nan=False) for name in ("payload", "files")]
            values = [value.encode("utf-8", "replace").decode() if value is not None else None for value in values]
            done = conn.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?)", values)
            is_new = done.rowcount == 1
            conn.execute("COMMIT")
            return is_new
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xff
        raise Failed(f"{path}: {one_line(str(error))}", retry=code in _BUSY) from None


def file_away(workspace: str, patterns: list[str], target: str) -> list[str]:
    """Copy the files of the workspace that match into a directory, and return their paths. Raises Permanent, OSError.

    One that is there with the same content is left; one with another content is kept beside it under a name of its own.
    """
    found = []
    for path in sorted(_files(workspace)):
        relative = os.path.relpath(path, workspace)
        if any(fnmatch.fnmatchcase(relative, pattern) for pattern in patterns):
            if len(found) >= MOST_FILES:
                raise Permanent(f"more than {MOST_FILES} files in the workspace match: narrow files")
            found.append(_copied(path, os.path.join(target, relative)))
    return found


def _files(workspace: str) -> Iterator[str]:
    for directory, _, names in os.walk(workspace):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def _copied(path: str, wanted: str) -> str:
    os.makedirs(os.path.dirname(wanted), exist_ok=True)
    stem, ending = os.path.splitext(wanted)
    number, target = 1, wanted
    while os.path.lexists(target):
        if os.path.isfile(target) and filecmp.cmp(path, target, shallow=False):
            return target
        number += 1
        target = f"{stem}-{number}{ending}"
    new = f"{target}.new"
    with open(path, "rb") as source, open(new, "wb") as copy:
        while data := source.read(1024 * 1024):
            copy.write(data)
        copy.flush()
        os.fsync(copy.fileno())
    os.replace(new, target)
    sync_directory(os.path.dirname(target))
    return target
