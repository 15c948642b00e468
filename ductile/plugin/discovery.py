"""Finds the plugins on disk, and says why it refuses those that it cannot trust."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from ductile import safe_files
from ductile.config.model import PluginConfig
from ductile.errors import DuctileError
from ductile.plugin.entrypoint import Entrypoint, NotTrusted, find, refuse_writable
from ductile.plugin.manifest import (
    Manifest,
    doubtful_keys,
    entrypoint_name,
    manifest_name,
    missing_keys,
    parse_manifest,
)
from ductile.protocol import INIT
from ductile.safe_files import printable
from ductile.strictjson import canonical
from ductile.text import one_line
from ductile.validation import Path as Place
from ductile.validation import Problem, nearest
from ductile.yamlfile import Document, read_yaml

MANIFEST = "manifest.yaml"
MANIFESTS = (MANIFEST, "manifest.yml")
MANIFEST_LIMIT_BYTES = 1024**2
_MOST_MANIFEST_VALUES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin that can run. `doubts` are warnings about keys of its manifest that may be misspelt."""

    manifest: Manifest
    directory: Path
    program: Entrypoint
    doubts: tuple[str, ...] = ()

    @property
    def entrypoint(self) -> Path:
        """Return the real path of its program, without links."""
        return self.program.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A directory with a manifest: a plugin, or the `faults` that prevent its loading, a line each.

    `name` is the manifest's, else the directory's. `files` are the names, relative to the directory of plugins, and
    the contents that were read.
    """

    name: str
    directory: Path
    plugin: Plugin | None
    faults: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]

    @property
    def reason(self) -> str | None:
        """Return on one line why it was not loaded, or None."""
        return summary(self.faults)


def summary(faults: Sequence[str]) -> str | None:
    """Return the first fault with the number of further ones, or None."""
    if not faults:
        return None
    more = f" (and {len(faults) - 1} more: `ductilectl check` shows all)" if len(faults) > 1 else ""
    return f"{faults[0]}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The plugins in the order of the search; `missing` are the directories that cannot be listed, with the reason."""

    found: tuple[Found, ...]
    missing: tuple[tuple[Path, str], ...]
    searched: tuple[Path, ...] = ()

    def get(self, name: str) -> Found | None:
        """Return the first entry with this name, loaded or not."""
        return next((found for found in self.found if found.name == name), None)


def discover(dirs: Sequence[Path]) -> Registry:
    """Return the plugins in these directories, one level deep, each directory sorted by name.

    Of two plugins with one name the first counts, even if it cannot be loaded: other code must not run in its place.
    Nothing on disk makes this raise.
    """
    found: list[Found] = []
    missing: list[tuple[Path, str]] = []
    searched = tuple(dict.fromkeys(dirs))
    for plugins_dir in searched:
        try:
            names = sorted(os.listdir(plugins_dir))
        except OSError as error:
            missing.append((plugins_dir, safe_files.why_not_listed(plugins_dir, error)))
            continue
        for name in names:
            candidate = look_at(plugins_dir / name)
            if candidate is not None:
                found.append(_unless_taken(candidate, found))
    return Registry(found=tuple(found), missing=tuple(missing), searched=searched)


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
    return replace(candidate, plugin=None, faults=(reason,))


def look_at(directory: Path) -> Found | None:
    """Return the plugin in a directory, or None if there is no manifest. Nothing on disk makes this raise."""
    name = printable(Path(directory.name))
    files: tuple[tuple[str, bytes], ...] = ()
    plugin: Plugin | None = None
    faults: tuple[str, ...] = ()
    try:
        path, content = _read_manifest(directory)
        if content is None:
            return None
        files = ((f"{directory.name}/{path.name}", content),)
        document = _parse(path, content)
        name = manifest_name(document.value) or name
        plugin, faults = _load(directory, path, document)
    except NotTrusted as error:
        faults = (str(error),)
    return Found(name=name, directory=directory, plugin=plugin, faults=faults, files=files)


def _read_manifest(directory: Path) -> tuple[Path, bytes | None]:
    """Return the manifest's path and bytes, or None for the bytes. Raises NotTrusted."""
    read = [(directory / name, _content(directory / name)) for name in MANIFESTS]
    found = [(path, content) for path, content in read if content is not None]
    if len(found) > 1:
        raise NotTrusted(f"{printable(directory)}: {' and '.join(MANIFESTS)} both exist; remove one of them")
    return found[0] if found else read[0]


def _content(path: Path) -> bytes | None:
    try:
        return safe_files.read(path, MANIFEST_LIMIT_BYTES)
    except NotADirectoryError:
        return None
    except OSError as error:
        if error.errno == errno.ENOENT and not os.path.islink(path):
            return None
        raise NotTrusted(safe_files.why_unreadable(path, error)) from error


def _parse(path: Path, content: bytes) -> Document:
    try:
        return read_yaml(content, printable(path), most_values=_MOST_MANIFEST_VALUES)
    except DuctileError as error:
        raise NotTrusted(error.lines[0]) from error


def _load(directory: Path, path: Path, document: Document) -> tuple[Plugin | None, tuple[str, ...]]:
    """Return the plugin, or None and every fault."""
    faults = [*_undecodable(directory)]
    for each in (directory, path):
        try:
            refuse_writable(each)
        except NotTrusted as error:
            faults.append(str(error))
    manifest, problems = parse_manifest(document.value)
    faults += placed(document, printable(path), (*document.problems, *problems))
    named = entrypoint_name(document.value)
    entrypoint = None
    try:
        entrypoint = None if named is None else find(directory, named, path)
    except NotTrusted as error:
        faults.append(str(error))
    if faults or manifest is None or entrypoint is None:
        return None, tuple(faults)
    return Plugin(manifest=manifest, directory=directory, program=entrypoint,
                  doubts=tuple(placed(document, printable(path), doubtful_keys(document.value)))), ()


def placed(document: Document, name: str, problems: Sequence[Problem]) -> list[str]:
    """Return problems as lines, in the order of the file."""
    ordered = sorted(problems, key=document.order)
    return [document.locate(name, problem) for problem in ordered]


def _undecodable(directory: Path) -> Iterator[str]:
    try:
        os.fsencode(directory.name).decode("utf-8")
    except UnicodeDecodeError:
        yield f"{printable(directory)}: the directory's name is not UTF-8; rename it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredPlugin:
    """One entry of the configuration's `plugins`: `plugin` is its code, or `reason` says why it is not loaded.

    `faults` are all reasons, a line each; `place` is the key path if the configuration is wrong and not the plugin.
    `fingerprint` identifies this version with this configuration, for `init`; None if it is not loaded.
    """

    settings: PluginConfig
    plugin: Plugin | None
    reason: str | None = None
    faults: tuple[str, ...] = ()
    place: Place | None = None
    version: str | None = None
    fingerprint: str | None = None

    @property
    def runnable(self) -> bool:
        """Return whether its jobs may run."""
        return self.settings.enabled and self.plugin is not None

    @property
    def commands(self) -> tuple[str, ...] | None:
        """Return the commands of its manifest, or None if it is not loaded."""
        return None if self.plugin is None else tuple(self.plugin.manifest.commands)

    @property
    def needs_init(self) -> str | None:
        """Return the fingerprint that `init` must have succeeded for; None for a plugin without that command."""
        if self.plugin is None or INIT not in self.plugin.manifest.commands:
            return None
        return self.fingerprint


def bind(settings: PluginConfig, registry: Registry) -> ConfiguredPlugin:
    """Return the plugin of an entry of the configuration."""
    found = registry.get(settings.uses)
    place = ("plugins", settings.name)
    if found is None:
        return _not_loaded(settings, (_not_found(settings.uses, registry),),
                           place if settings.uses == settings.name else (*place, "uses"))
    if found.plugin is None:
        return _not_loaded(settings, found.faults)
    version = found.plugin.manifest.version
    missing = missing_keys(found.plugin.manifest, settings.config)
    if missing:
        lacks = f"plugins.{settings.name}.config lacks {', '.join(map(one_line, missing))}, which the plugin requires"
        return replace(_not_loaded(settings, (lacks,), (*place, "config")), version=version)
    fingerprint = blake3(canonical({"version": version, "config": settings.config}).encode()).hexdigest()
    return ConfiguredPlugin(settings=settings, plugin=found.plugin, version=version, fingerprint=fingerprint)


def _not_loaded(settings: PluginConfig, faults: tuple[str, ...], place: Place | None = None) -> ConfiguredPlugin:
    return ConfiguredPlugin(settings=settings, plugin=None, reason=summary(faults), faults=faults, place=place)


def _not_found(name: str, registry: Registry) -> str:
    """Return where a plugin was searched, and the nearest name."""
    searched = ", ".join(printable(directory) for directory in registry.searched)
    text = f"no plugin named {name!r} was found in {searched or 'plugins_dir'}"
    namesake = next((found for found in registry.found if found.directory.name == name), None)
    if namesake is not None:
        return f"{text}; the manifest in {printable(namesake.directory)} has the name {namesake.name!r}"
    return f"{text}{nearest(name, [found.name for found in registry.found])}"
