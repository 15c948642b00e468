"""Plugins on disk that can be loaded, and other processes that look for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ductile.plugin.discovery import discover
from support.launch import in_a_child

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
print(json.dumps([[found.name, found.reason] for found in discover([Path(each) for each in sys.argv[1:]]).found]))
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
    """Return names and reasons as a program finds them that is executed with these variables."""
    run = subprocess.run([sys.executable, "-c", CHILD, *map(str, dirs)], cwd="/", capture_output=True, check=True,
                         env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables})
    return json.loads(run.stdout)


def found_by_an_ordinary_user(*dirs: Path) -> list[list[str | None]]:
    """Return names and reasons as a process without privileges finds them."""
    return in_a_child(lambda: [[found.name, found.reason] for found in discover(dirs).found], ordinary=True)


def missing_for_an_ordinary_user(*dirs: Path) -> list[list[str]]:
    """Return the directories that a process without privileges cannot list, each with the reason."""
    return in_a_child(lambda: [[str(directory), reason] for directory, reason in discover(dirs).missing], ordinary=True)
