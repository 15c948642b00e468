"""The plugins on disk: walks the plugin directories, refuses what cannot be trusted, and says why."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ductile import disk
from ductile.disk import NotRegular, TooLarge, printable
from ductile.errors import DuctileError
from ductile.plugin.manifest import Manifest, manifest_name, parse_manifest
from ductile.yamlfile import Document, read_yaml

MANIFEST = "manifest.yaml"
# A manifest is a page of text; what is larger is something else.
MANIFEST_LIMIT_BYTES = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin that can be run: `entrypoint` is a real path, without links."""

    manifest: Manifest
    directory: Path
    entrypoint: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A directory with a manifest: a plugin, or the one reason why it was not loaded.

    `name` is the manifest's, or the directory's where the manifest tells none. `files` are the names,
    relative to the directory of plugins, and contents of what was read.
    """

    name: str
    directory: Path
    plugin: Plugin | None
    reason: str | None
    files: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Everything found, in the order of the search; `missing` are the plugin directories that cannot be listed, each
    with the reason."""

    found: tuple[Found, ...]
    missing: tuple[tuple[Path, str], ...]

    def get(self, name: str) -> Found | None:
        """Return what was found first under that name, loaded or not."""
        return next((found for found in self.found if found.name == name), None)


class _NotLoaded(Exception):
    """Carries the reason why a plugin is not loaded."""


def discover(dirs: Sequence[Path]) -> Registry:
    """Return what the plugin directories hold, one level deep, each sorted by name.

    Of two plugins with one name the first is taken, even where it cannot be loaded: another one's code must
    not run in its place. Nothing on disk makes this raise; every fault is a reason.
    """
    found: list[Found] = []
    missing: list[tuple[Path, str]] = []
    for plugins_dir in dict.fromkeys(dirs):
        try:
            names = sorted(os.listdir(plugins_dir))
        except OSError as error:
            missing.append((plugins_dir, disk.why_not_listed(plugins_dir, error)))
            continue
        for name in names:
            candidate = look_at(plugins_dir / name)
            if candidate is not None:
                found.append(_unless_taken(candidate, found))
    return Registry(found=tuple(found), missing=tuple(missing))


def _unless_taken(candidate: Found, earlier: Sequence[Found]) -> Found:
    owner = next((found for found in earlier if found.name == candidate.name), None)
    if owner is None:
        return candidate
    if owner.directory.parent == candidate.directory.parent:
        reason = (
            f"{printable(candidate.directory / MANIFEST)}: the name {candidate.name!r} is taken by "
            f"{printable(owner.directory)}; change one of the two names, or remove one of the directories"
        )
    else:
        reason = f"shadowed by {printable(owner.directory)}"
    return replace(candidate, plugin=None, reason=reason)


def look_at(directory: Path) -> Found | None:
    """Return what a directory holds, or None where it has no manifest or is not a directory. Nothing on disk makes
    this raise."""
    path = directory / MANIFEST
    name, files = _printable_name(directory), ()
    plugin, reason = None, None
    try:
        content = _read_manifest(directory, path)
        if content is None:
            return None
        files = ((f"{directory.name}/{MANIFEST}", content),)
        document = _parse(path, content)
        name = manifest_name(document.value) or name
        plugin = _load(directory, path, document)
    except _NotLoaded as error:
        reason = str(error)
    return Found(name=name, directory=directory, plugin=plugin, reason=reason, files=files)


def _read_manifest(directory: Path, path: Path) -> bytes | None:
    """Return the manifest's bytes, or None where there is no manifest. Raises _NotLoaded."""
    try:
        return disk.read(path, MANIFEST_LIMIT_BYTES)
    except NotADirectoryError:
        return None
    except OSError as error:
        if error.errno == errno.ENOENT and not os.path.islink(path):
            return None
        raise _unreadable(path, directory, error) from error
    except NotRegular as error:
        raise _NotLoaded(f"{printable(path)}: not a regular file; put a file in its place") from error
    except TooLarge as error:
        raise _NotLoaded(
            f"{printable(path)}: larger than 1 MiB, which no manifest is; put a manifest in its place") from error


def _parse(path: Path, content: bytes) -> Document:
    try:
        return read_yaml(content, printable(path))
    except DuctileError as error:
        raise _NotLoaded(error.lines[0]) from error


def _load(directory: Path, path: Path, document: Document) -> Plugin:
    _refuse_undecodable(directory)
    for place in (directory, path):
        _refuse_writable(place, _mode(place, directory))
    manifest, problems = parse_manifest(document.value)
    problems = [*document.problems, *problems]
    if manifest is None or problems:
        raise _NotLoaded(document.locate(printable(path), problems[0]))
    return Plugin(manifest=manifest, directory=directory, entrypoint=_entrypoint(directory, path, manifest))


def _entrypoint(directory: Path, path: Path, manifest: Manifest) -> Path:
    """Return the real path of the entrypoint. Raises _NotLoaded where it cannot be run or trusted."""
    # The bytes of its UTF-8 name, whatever the locale makes of them.
    named = directory / os.fsdecode(manifest.entrypoint.encode())
    try:
        home = Path(os.path.realpath(directory, strict=True))
        real = Path(os.path.realpath(named, strict=True))
    except FileNotFoundError as error:
        raise _NotLoaded(
            f"{printable(named)}: the entrypoint is missing; put it there, or mend 'entrypoint' in {printable(path)}"
        ) from error
    except OSError as error:
        raise _unreadable(named, directory, error) from error
    if not real.is_relative_to(home):
        raise _NotLoaded(
            f"{printable(named)}: the entrypoint leads out of the plugin's directory, to {printable(real)}; "
            f"replace the link by the file: cp --remove-destination {_quoted(real)} {_quoted(named)}"
        )
    mode = _mode(real, directory)
    if not stat.S_ISREG(mode):
        raise _NotLoaded(
            f"{printable(named)}: the entrypoint is not a regular file; mend 'entrypoint' in {printable(path)}")
    _refuse_writable(real, mode)
    # Whoever may write to a directory on the way can put another file in the entrypoint's place.
    for parent in real.parents[: len(real.relative_to(home).parts) - 1]:
        _refuse_writable(parent, _mode(parent, directory))
    if not os.access(real, os.X_OK):
        raise _NotLoaded(f"{printable(named)}: the entrypoint is not executable: chmod a+rx {_quoted(real)}")
    return real


def _mode(path: Path, directory: Path) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        raise _unreadable(path, directory, error) from error


def _refuse_undecodable(directory: Path) -> None:
    try:
        os.fsencode(directory.name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _NotLoaded(f"{printable(directory)}: the directory's name is not UTF-8; rename it") from error


def _refuse_writable(path: Path, mode: int) -> None:
    if mode & stat.S_IWOTH:
        raise _NotLoaded(f"{printable(path)}: writable by others: chmod o-w {_quoted(path)}")


def _unreadable(path: Path, directory: Path, error: OSError) -> _NotLoaded:
    if error.errno == errno.EACCES:
        mend = f"let the daemon's user in: chmod -R a+rX {_quoted(directory)}"
    else:
        mend = "remove it or put a good one in its place"
    return _NotLoaded(f"{printable(path)}: cannot be read: {error.strerror}; {mend}")


def _printable_name(directory: Path) -> str:
    return printable(Path(directory.name))


def _quoted(path: Path) -> str:
    return shlex.quote(printable(path))
