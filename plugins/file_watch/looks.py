"""What two looks at a directory make of its files: which are there, new, complete, changed or gone."""

from __future__ import annotations

import base64
import fnmatch
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ductile_plugin import Permanent, log

# What programs write while they write something else, and what systems leave behind.
_IGNORED = re.compile("|".join((
    r".*\.(part|partial|crdownload|download|opdownload|!ut|!qb|aria2|tmp|temp|swp|swx|new)", r".*~", r"~\$.*", r"#.*#",
    r"4913", r"\.~lock\..*#", r"\.#.*", r"\..*\.[A-Za-z0-9]{6}", r"\.~tmp~", r"[.~]syncthing[.~].*\.tmp",
    r"\..*\.~[0-9a-f]*", r"\.dropbox\.cache", r"\.ds_store", r"\._.*", r"thumbs\.db", r"desktop\.ini", r"\.nfs.*",
    r"\.fuse_hidden.*", r"\.git", r"\.stfolder", r"\.stversions")), re.IGNORECASE)
# Beside a file that is still being written lies one of its name and this.
_COMPANIONS = (".part", ".aria2", ".crdownload")
MOST_FILES = 100_000
MOST_STATE_BYTES = 600 * 1024
# File systems that store local time shift all of it by this when daylight saving begins or ends.
_HOUR_NS, _GRAIN_NS = 3600 * 10**9, 2 * 10**9
# A browser creates an empty file of the final name first.
EMPTY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Version:
    """A file's modification time in ns and its size."""

    mtime: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a path: the version that was told of, one that waits to be complete, since when either is gone.

    Times are seconds since 1970.
    """

    told: Version | None = None
    waiting: Version | None = None
    since: int = 0
    gone: int = 0


def pack(entries: dict[str, Entry]) -> str:
    """Return entries as the state keeps them. Raises Permanent where they are too many."""
    fields = []
    for path, entry in sorted(entries.items()):
        told, waiting = (f"{each.mtime}:{each.size}" if each else "" for each in (entry.told, entry.waiting))
        fields += [os.fsencode(path), f"{told},{waiting},{entry.since or ''},{entry.gone or ''}".encode()]
    packed = base64.b64encode(zlib.compress(b"\0".join(fields), 6)).decode()
    if len(packed) > MOST_STATE_BYTES:
        raise Permanent(f"{len(entries)} files are too many to remember: narrow include, or watch their directories "
                        f"one by one")
    return packed


def unpack(packed: str) -> dict[str, Entry]:
    fields = zlib.decompress(base64.b64decode(packed)).split(b"\0")
    found = {}
    for path, rest in zip(fields[::2], fields[1::2], strict=False):
        told, waiting, since, gone = rest.decode().split(",")
        found[os.fsdecode(path)] = Entry(*(_version(each) for each in (told, waiting)), int(since or 0), int(gone or 0))
    return found


def _version(text: str) -> Version | None:
    mtime, _, size = text.partition(":")
    return Version(int(mtime), int(size)) if size else None


def scan(root: str, *, recursive: bool, include: list[str], ignore: list[str]) -> tuple[dict[str, Version], list[str]]:
    """Return the files by path below the root, and the directories that cannot be read. Raises OSError, Permanent."""
    found, unreadable, waiting = {}, [], [""]
    while waiting:
        directory = waiting.pop()
        try:
            listed = {entry.name: entry for entry in os.scandir(os.path.join(root, directory) if directory else root)}
        except OSError as error:
            if not directory:
                raise
            log(f"{directory}: {error.strerror}", "warn")
            unreadable.append(directory + os.sep)
            continue
        for name, entry in listed.items():
            path = os.path.join(directory, name)
            if _IGNORED.fullmatch(name) or _is_any(path, name, ignore):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting += [path] if recursive else []
            elif _is_any(path, name, include) and not any(f"{name}{each}" in listed for each in _COMPANIONS):
                found.update(_look(path, entry))
        if len(found) > MOST_FILES:
            raise Permanent(f"there are more than {MOST_FILES} files: narrow include")
    return found, unreadable


def _is_any(path: str, name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _look(path: str, entry: os.DirEntry) -> Iterator[tuple[str, Version]]:
    """Give a regular file's version, nothing for one that is gone by now or is none."""
    try:
        if entry.is_file(follow_symlinks=False):
            stat = entry.stat(follow_symlinks=False)
            yield path, Version(stat.st_mtime_ns, stat.st_size)
    except OSError:
        return


def same(one: Version | None, other: Version) -> bool:
    """Say whether a file has not changed. The change of an hour is that of the clocks."""
    if one is None or one.size != other.size:
        return False
    apart = abs(one.mtime - other.mtime)
    return apart == 0 or abs(apart - _HOUR_NS) <= _GRAIN_NS


def compare(entries: dict[str, Entry], found: dict[str, Version], unreadable: list[str], now: int,
            stable: float) -> tuple[dict[str, Entry], list[str], list[str]]:
    """Return what is known now, and the paths that are complete and that are gone, none of which is told of yet."""
    known, complete, gone = {}, [], []
    for path, version in found.items():
        entry = replace(entries.get(path, Entry()), gone=0)
        if same(entry.told, version):
            known[path] = Entry(told=version)
            continue
        # A clock that was set back makes nothing wait for the time that it had before.
        since = min(entry.since, now) if entry.waiting == version else now
        known[path] = Entry(told=entry.told, waiting=version, since=since)
        if now - since >= (max(stable, EMPTY_SECONDS) if stable and version.size == 0 else stable):
            complete.append(path)
    for path, entry in entries.items():
        if path in found:
            continue
        if path.startswith(tuple(unreadable)):
            known[path] = entry
        elif entry.told:
            known[path] = replace(entry, waiting=None, since=0, gone=min(entry.gone or now, now))
            if now - known[path].gone >= stable:
                gone.append(path)
    return known, sorted(complete, key=lambda path: (found[path].mtime, path)), sorted(gone)
