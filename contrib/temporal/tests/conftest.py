"""Fixtures: the server of all tests, and a site in a namespace of its own for each."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from running import Server, Site


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("temporal") is None:
        pytest.skip("the program temporal is not in PATH, and there is no Go to build it")
    found = Server(tmp_path_factory.mktemp("server"))
    found.start()
    yield found
    found.kill()


@pytest.fixture
def site(tmp_path: Path, server: Server, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site in a namespace of its own."""
    namespace = f"test-{os.getpid()}-{abs(hash(request.node.name))}"
    subprocess.run(["temporal", "operator", "namespace", "create", "--address", server.address, "--namespace",
                    namespace], check=True, capture_output=True)
    found = Site(tmp_path, server, namespace)
    yield found
    found.close()
