"""Wheels of what is installed here, for pip to install from without a network."""

from __future__ import annotations

import re
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile


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
