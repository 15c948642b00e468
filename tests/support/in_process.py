"""A shipped Python plugin without a process: its `respond`, called as its `main` would call it."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from ductile.protocol import Response, decode_response

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
LIBRARY = PLUGINS / "lib" / "ductile_plugin.py"


@functools.cache
def load(directory: Path) -> ModuleType:
    """Return the run.py of a plugin. Its own modules stay out of the way of those of other plugins."""
    path, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, os.fspath(directory))
    try:
        return _loaded(f"run_of_{directory.name}", directory / "run.py")
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - known:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == directory:
                del sys.modules[name]


@functools.cache
def library() -> ModuleType:
    """Return the library that the shipped plugins import."""
    return sys.modules.get("ductile_plugin") or _loaded("ductile_plugin", LIBRARY)


def answer(directory: Path, given: bytes, workspace: Path, environ: Mapping[str, str]) -> Response:
    """Return what the plugin answers to a request, in this working directory and environment."""
    module = load(directory)
    with _surroundings(workspace, environ):
        printed = library().answer(module.respond, decoded(given))
    return decode_response(library()._encoded(printed))


def decoded(given: bytes) -> object:
    """Return a request as the library's `main` reads it."""
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        return None


@contextlib.contextmanager
def _surroundings(workspace: Path, environ: Mapping[str, str]) -> Iterator[None]:
    before, place = dict(os.environ), os.getcwd()
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    os.chdir(workspace)
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)
        time.tzset()


def _loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
