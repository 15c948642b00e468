"""Fixtures for workspaces: an empty root, a root in memory, small file systems mounted on it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ductile.workspace.manager import Workspaces
from support.launch import descriptors

MOUNT_SECONDS = 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "ws"


@pytest.fixture
def workspaces(root: Path) -> Iterator[Workspaces]:
    """Workspaces in a fresh root; a descriptor that is left open fails the test."""
    made = Workspaces(root)
    made.make_root()
    before = descriptors()
    yield made
    assert descriptors() == before


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory in memory, where there is such a place: a disk that others keep busy takes seconds for so much."""
    directory = Path(tempfile.mkdtemp(prefix="ductile-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    yield directory
    subprocess.run(["rm", "-rf", "--", directory], check=True, timeout=60)


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """A function that mounts a file system of a kind on a directory until the test ends."""
    mounted: list[Path] = []

    def do(kind: str, place: Path, *options: str) -> None:
        command = ["mount", "-t", kind, *options, "none", place]
        if subprocess.run(command, capture_output=True, timeout=MOUNT_SECONDS).returncode != 0:
            pytest.skip(f"this user may not mount a {kind}")
        mounted.append(place)

    yield do
    for place in reversed(mounted):
        subprocess.run(["umount", place], check=True, timeout=MOUNT_SECONDS)
