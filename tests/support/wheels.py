"""Wheels of what is installed here, for pip to install from without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from support.newcomer import PATIENCE_SECONDS, make_clone

_QUIET = ("--isolated", "--disable-pip-version-check", "--no-cache-dir")


class Built(NamedTuple):
    """A clone that Ductile was built from, its wheel, and another clone with the wheel in its .venv-quickstart."""

    source: Path
    wheel: Path
    clone: Path
    venv: Path


def build(directory: Path) -> Built:
    """Build Ductile, and install it as the quickstart does, from what the machine has already."""
    source, clone, wheels = make_clone(directory / "source"), make_clone(directory / "clone"), directory / "wheels"
    venv = clone / ".venv-quickstart"
    wheels.mkdir()
    # As pip calls what builds it (PEP 517), without three of its processes.
    _run(sys.executable, "-c", "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])",
         wheels, cwd=source)
    (wheel,) = wheels.iterdir()
    _run(sys.executable, "-m", "venv", "--without-pip", venv)
    _run(venv / "bin" / "python", metadata.distribution("pip").locate_file("pip"), *_QUIET, "install", "--no-deps",
         "--no-index", wheel)
    (library,) = venv.glob("lib/python3*/site-packages")
    # The dependencies; a path in such a file brings no other .pth file with it, so Ductile itself is the clone's.
    (library / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (venv / "quickstart.stamp").touch()
    return Built(source, wheel, clone, venv)


def _run(*command: str | Path, cwd: Path = Path(os.sep)) -> None:
    """Run a program that is to succeed, deaf to the settings of the machine."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, cwd=cwd, capture_output=True, text=True, check=False,
                          timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr


def make_wheels(directory: Path) -> Path:
    """Make a wheel of everything that Ductile and its build need, and return the directory."""
    for name in needed():
        _wheel(name, directory)
    return directory


def _wheel(name: str, directory: Path) -> None:
    distribution = metadata.distribution(name)
    files = [file for file in distribution.files if ".." not in file.parts and "__pycache__" not in file.parts]
    stem = next(file.parts[0] for file in files if file.parts[0].endswith(".dist-info")).removesuffix(".dist-info")
    tags = [tag.split("-") for tag in Parser().parsestr(distribution.read_text("WHEEL")).get_all("Tag")]
    tag = "-".join(".".join(dict.fromkeys(column)) for column in zip(*tags, strict=False))
    with ZipFile(directory / f"{stem}-{tag}.whl", "w") as archive:
        for file in files:
            if file.locate().is_file():
                archive.write(file.locate(), file.as_posix())


def needed() -> set[str]:
    """Return what Ductile and its build need, with what that needs."""
    found, left = set(), ["pyyaml", "blake3", "python-daemon", "setuptools"]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        asked = [re.match(r"[\w.-]+", line)[0] for line in metadata.requires(name) or () if "extra ==" not in line]
        left += [other for other in asked if any(metadata.distributions(name=other))]
    return found
