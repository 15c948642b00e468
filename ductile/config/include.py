"""Merges the files that a configuration includes into one document."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ductile import safe_files
from ductile.config.find import CONFIG_LIMIT_BYTES
from ductile.config.values import as_file_path
from ductile.errors import DuctileError
from ductile.safe_files import printable
from ductile.validation import Path as KeyPath
from ductile.validation import Problem, kind_of
from ductile.yamlfile import Document, read_yaml

_INCLUDE = "include"
_MOST_LEVELS = 8
_MOST_FILES = 100
# Commands look for the database in the main file, also while that cannot be read as a whole.
_MAIN_FILE_ONLY = "state"
_AGAIN = "expected once, got it again at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Included:
    """A configuration with all that it includes, and what is wrong with including it.

    `paths` are the included files in the order in which they were read, as `document.names`; `files` have their names
    relative to the configuration's directory and their contents.
    """

    document: Document
    problems: tuple[Problem, ...]
    paths: tuple[Path, ...]
    files: tuple[tuple[str, bytes], ...]

    def directory(self, key_path: KeyPath, main: Path) -> Path:
        """Return where a relative path at a key starts: the directory of its file, `main` for the main file."""
        number = self.document.source(key_path)
        return main if number == 0 else self.paths[number - 1].parent


def included(main: Document, path: Path) -> Included:
    """Return the document of `path`, an absolute path, with the files that it includes merged into it.

    Mappings at the top level are merged by key, and lists appended; the same key twice is a problem. Nothing on disk
    makes this raise.
    """
    if not isinstance(main.value, Mapping) or _INCLUDE not in main.value:
        return Included(document=main, problems=(), paths=(), files=())
    merger = _Merger(path)
    merger.merge(main, 0)
    merger.follow(main.value, path, 0, (path,))
    document = Document(value=merger.value, problems=main.problems, positions=merger.positions,
                        key_positions=merger.key_positions, names=tuple(map(printable, merger.paths)),
                        sources=merger.sources)
    return Included(document=document, problems=tuple(merger.problems), paths=tuple(merger.paths),
                    files=tuple(merger.files))


@dataclass(slots=True)
class _Merger:
    """Merges one file after another; files have numbers, 0 for the main one."""

    main: Path
    value: dict[str, Any] = field(default_factory=dict)
    positions: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    key_positions: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    sources: dict[KeyPath, int] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def follow(self, value: Mapping[str, Any], path: Path, first: int, trail: tuple[Path, ...]) -> None:
        """Merge what the file `path` includes. Its entries are in the merged list from `first` on."""
        entries = value.get(_INCLUDE)
        if not isinstance(entries, list):
            if entries is not None and path == self.main:
                self.problems.append(Problem((_INCLUDE,), f"expected a list of files, got {kind_of(entries)}"))
            return
        for index, entry in enumerate(entries, first):
            place = (_INCLUDE, index)
            try:
                file = self._file(entry, path, trail)
                document = self._read(file)
            except ValueError as error:
                self.problems.append(Problem(place, str(error)))
                continue
            number = len(self.paths)
            nested = len(self.value[_INCLUDE])
            self.problems += self._misplaced(document, file, place)
            self.merge(document, number)
            self.follow(document.value, file, nested, (*trail, file))

    def _file(self, entry: Any, path: Path, trail: tuple[Path, ...]) -> Path:
        """Return the path of an entry of the file `path`. Raises ValueError."""
        if isinstance(entry, str) and "${" in entry:
            raise ValueError("expected a path without variables")
        file = as_file_path(entry, path.parent)
        real = os.path.realpath(file)
        for number, other in enumerate(trail):
            if real == os.path.realpath(other):
                circle = " -> ".join(printable(each) for each in (*trail[number:], file))
                raise ValueError(f"expected no circle, got {circle}")
        if any(real == os.path.realpath(other) for other in self.paths):
            raise ValueError(f"expected each file once, got {printable(file)} again")
        if len(trail) > _MOST_LEVELS:
            raise ValueError(f"expected at most {_MOST_LEVELS} levels of files that include others, got more")
        if len(self.paths) >= _MOST_FILES:
            raise ValueError(f"expected at most {_MOST_FILES} files, got more")
        return file

    def _read(self, file: Path) -> Document:
        """Read a file. Raises ValueError with one line."""
        try:
            content = safe_files.read(file, CONFIG_LIMIT_BYTES)
            document = read_yaml(content, printable(file))
        except OSError as error:
            raise ValueError(safe_files.why_unreadable(file, error)) from None
        except DuctileError as error:
            raise ValueError(error.lines[0]) from None
        self.paths.append(file)
        self.files.append((os.path.relpath(file, self.main.parent), content))
        if not isinstance(document.value, Mapping) or not document.value:
            got = kind_of(document.value) if document.value else "an empty file"
            raise ValueError(f"{printable(file)}: expected a mapping, got {got}")
        return document

    def _misplaced(self, document: Document, file: Path, place: KeyPath) -> list[Problem]:
        """Return the problems of an included file that are reported where it is included."""
        name = printable(file)
        found = [Problem(place, document.locate(name, problem)) for problem in document.problems]
        if _MAIN_FILE_ONLY in document.value:
            text = "belongs into the main file, where commands look for the database"
            found.append(Problem(place, document.locate(name, Problem((_MAIN_FILE_ONLY,), text, at_key=True))))
        entries = document.value.get(_INCLUDE, [])
        if entries is not None and not isinstance(entries, list):
            text = f"expected a list of files, got {kind_of(entries)}"
            found.append(Problem(place, document.locate(name, Problem((_INCLUDE,), text))))
        return found

    def merge(self, document: Document, number: int) -> None:
        """Merge the document of a file."""
        moved: dict[KeyPath, KeyPath] = {}
        for key, item in document.value.items():
            if number and (key == _MAIN_FILE_ONLY or (key == _INCLUDE and not isinstance(item, list))):
                continue
            known = self.value.get(key)
            if isinstance(known, Mapping) and isinstance(item, Mapping):
                section = dict(known)
                for inner, each in item.items():
                    self._put(section, (key, inner), each, document, number, moved)
                self.value[key] = section
            else:
                self._put(self.value, (key,), item, document, number, moved)
        self.sources.update((new, number) for new in moved.values() if number)
        for found, merged in ((document.positions, self.positions), (document.key_positions, self.key_positions)):
            merged.update((new, position) for path, position in found.items() if (new := _moved(path, moved)))
        if not number:
            self.positions[()] = document.where(())

    def _put(self, into: dict[str, Any], path: KeyPath, item: Any, document: Document, number: int,
             moved: dict[KeyPath, KeyPath]) -> None:
        """Put one value where it belongs, and note which positions move with it."""
        key = path[-1]
        assert isinstance(key, str), "a key of a mapping"
        known = into.get(key)
        if known is None:
            into[key] = item
            moved[path] = path
        elif isinstance(known, list) and isinstance(item, list):
            into[key] = [*known, *item]
            moved.update({(*path, index): (*path, len(known) + index) for index in range(len(item))})
        elif item is not None:
            again = document.place(printable(self.paths[number - 1]), path, at_key=True)
            self.problems.append(Problem(path, f"{_AGAIN} {again}", at_key=True))


def _moved(path: KeyPath, moved: Mapping[KeyPath, KeyPath]) -> KeyPath | None:
    """Return where a path of an included file is in the merged document, None if it is not."""
    for length in range(1, min(len(path), 3) + 1):
        if path[:length] in moved:
            return (*moved[path[:length]], *path[length:])
    return None
