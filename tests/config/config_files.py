"""Configuration files on disk, and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ductile.config.load import Loaded, load

# Long enough for no warning, and to be looked for in every message.
SECRET = "correct horse battery staple"
ENVIRON = {"SECRET": SECRET, "EMPTY": "", "TZ": "UTC"}

ECHO = "plugins:\n  echo:\n    "
SCHEDULE = ECHO + "schedule:\n      "
TWO_PLUGINS = "plugins: {echo: {}, off: {enabled: false}}\n"
ROUTES = TWO_PLUGINS + "routes:\n  - "


def load_text(directory: Path, text: str, environ: Mapping[str, str] = ENVIRON, *, keep_unset: bool = False) -> Loaded:
    """Return what the text says as the config.yaml of a directory."""
    path = directory / "config.yaml"
    path.write_text(text)
    return load(path, environ, keep_unset=keep_unset)


def lines(loaded: Loaded) -> list[str]:
    """Return every problem as the operator reads it, without the name of the file and of its directory."""
    located = [loaded.locate(problem).removeprefix(f"{loaded.path}:") for problem in loaded.problems]
    return [line.replace(str(loaded.path.parent), "DIR") for line in located]


def endpoint(**keys: str | None) -> str:
    """Return a configuration with one good endpoint, but for `keys`; a key that is None is left out."""
    all_keys = {"path": "/a", "plugin": "echo", "secret": "${SECRET}", "signature_header": "X-Sig", **keys}
    written = [f"{key}: {value}" for key, value in all_keys.items() if value is not None]
    head = TWO_PLUGINS + "webhooks:\n  listen: 127.0.0.1:8081\n  endpoints:\n    - "
    return head + "\n      ".join(written) + "\n"
