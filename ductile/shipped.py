"""Where the plugins, pipelines and example configuration that come with Ductile are on this machine."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from ductile.errors import EXIT_IO, DuctileError

# Every Ductile comes with echo; a bare `plugins` beside the package may be someone else's.
_MARK = Path("plugins", "echo", "manifest.yaml")


def share() -> Path:
    """Return the directory that holds `plugins`, `pipelines` and `etc`: the checkout's root, or what pip installed.

    Raises DuctileError (EXIT_IO), naming the places looked at, when the plugins are in none of them.
    """
    places = _places()
    for place in places:
        if os.path.isfile(place / _MARK):
            return place
    looked_at = ", ".join(map(str, places))
    raise DuctileError(
        f"the plugins that come with ductile are in none of {looked_at}: install ductile again",
        exit_code=EXIT_IO,
    )


def plugins() -> Path:
    """Return the directory of the shipped plugins. Raises as `share` does."""
    return share() / "plugins"


def pipelines() -> Path:
    """Return the directory of the shipped pipelines. Raises as `share` does."""
    return share() / "pipelines"


def example_config() -> Path:
    """Return the example configuration that explains every key. Raises as `share` does."""
    return share() / "etc" / "ductile" / "config.yaml"


def _places() -> tuple[Path, ...]:
    root = Path(__file__).resolve().parent.parent
    # A user's own install, or Debian's, is not under the interpreter's prefix: its scheme is the one
    # whose library directory this package sits in.
    schemes = [name for name in sysconfig.get_scheme_names() if _library(name) == root]
    data = [sysconfig.get_path("data", name) for name in schemes] + [sysconfig.get_path("data")]
    return (root, *(Path(directory) / "share" / "ductile" for directory in dict.fromkeys(data)))


def _library(scheme: str) -> Path:
    return Path(sysconfig.get_path("purelib", scheme)).resolve()
