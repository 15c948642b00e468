"""Plugins on disk that can be loaded, and other processes that look for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from support import ordinary

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = """\
name: {name}
version: 0.1.0
protocol: 2
entrypoint: {entrypoint}
commands: [poll]
"""
CHILD = """\
import json, sys
from pathlib import Path
from ductile.plugin.discovery import discover
registry = discover([Path(each) for each in sys.argv[1:]])
print(json.dumps({
    "found": [[found.name, found.reason] for found in registry.found],
    "missing": [[str(directory), reason] for directory, reason in registry.missing],
}))
"""


def make(plugins: Path, name: str = "echo", *, called: str | None = None, entrypoint: str = "run.sh") -> Path:
    """Write a plugin that can be loaded, in the directory `name`."""
    directory = plugins / name
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    write(directory / "manifest.yaml", MANIFEST.format(name=called or name, entrypoint=entrypoint))
    program = directory / "run.sh"
    write(program, "#!/bin/sh\n")
    program.chmod(0o755)
    return directory


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def found_by_a_child(*dirs: Path, **variables: str) -> list[list[str]]:
    """Return names and reasons as another process finds them; skip where it cannot run at all."""
    return _seen_by_a_child(dirs, (), variables)["found"]


def _seen_by_a_child(dirs: Sequence[Path], become: Sequence[str], variables: Mapping[str, str]) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    python = [*become, ordinary.program("python", become), "-c"]
    probe = subprocess.run([*python, "import ductile.yamlfile"], env=environment, cwd="/", capture_output=True)
    if probe.returncode != 0:
        pytest.skip("an ordinary user cannot read this checkout or run this interpreter")
    run = subprocess.run([*python, CHILD, *map(str, dirs)], env=environment, cwd="/", capture_output=True, check=True)
    return json.loads(run.stdout)


def found_by_an_ordinary_user(*dirs: Path) -> list[list[str]]:
    """Return names and reasons as a process without privileges finds them."""
    return _seen_by_an_ordinary_user(dirs)["found"]


def missing_for_an_ordinary_user(*dirs: Path) -> list[list[str]]:
    """Return the directories that a process without privileges cannot list, each with the reason."""
    return _seen_by_an_ordinary_user(dirs)["missing"]


def _seen_by_an_ordinary_user(dirs: Sequence[Path]) -> dict:
    if os.geteuid() != 0:
        return _seen_by_a_child(dirs, (), {})
    if shutil.which("setpriv") is None:
        pytest.skip("running as root, and there is no setpriv to become somebody else")
    return _seen_by_a_child(dirs, ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], {})
