"""A real development server of Temporal, and workers and a gateway as the operator starts them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from temporalio.client import Client

from ductile_temporal.__main__ import connect

PATIENCE_SECONDS = 120.0
PLUGIN = Path(__file__).resolve().parent / "plugin"


def until(look: Callable[[], Any], explain: Callable[[], str] = lambda: "") -> Any:
    """Look until something true is seen, and return it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited too long\n{explain()}"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


class Server:
    """`temporal server start-dev`, whose database outlives it."""

    def __init__(self, directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self._directory / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                ["temporal", "server", "start-dev", "--headless", "--port", self.address.rpartition(":")[2],
                 "--http-port", str(free_port()), "--metrics-port", str(free_port()), "--log-level", "error",
                 "--db-filename", self._directory / "temporal.db"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, lambda: (self._directory / "server.log").read_text())

    def _answers(self) -> bool:
        async def ask() -> bool:
            try:
                client = await Client.connect(self.address)
                return (await client.count_workflows()).count >= 0
            except Exception as error:  # RPCError and RuntimeError until it is up
                return isinstance(error, AssertionError)
        return asyncio.run(ask())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Site:
    """A configuration, what all its machines share, and the programs that run on it."""

    def __init__(self, home: Path, server: Server, namespace: str) -> None:
        self.home = home
        self.shared = home / "shared"
        self.server = server
        self.namespace = namespace
        self.config: dict[str, Any] = {"plugins_dir": "plugins", "pipelines_dir": "pipelines", "plugins": {}}
        self._stack = ExitStack()
        self._count = 0

    def actors(self, *names: str, **settings: Any) -> None:
        """Configure plugins that do what an event says."""
        (self.home / "plugins").mkdir()
        (self.home / "pipelines").mkdir()
        shutil.copytree(PLUGIN, self.home / "plugins" / "actor")
        self.configure(plugins={name: {"uses": "actor", "retry": {"backoff_base": "1s"}, **settings} for name in names})

    def configure(self, **sections: Any) -> None:
        self.config |= sections
        (self.home / "config.yaml").write_text(json.dumps(self.config))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ductile_temporal", "--temporal", self.server.address, "--namespace",
                self.namespace, "-c", str(self.home), "--shared", str(self.shared), *arguments]

    def start(self, *arguments: str, ready: str) -> subprocess.Popen[bytes]:
        """Start a program and wait until it says that it is ready."""
        self._count += 1
        log = self.home / f"{arguments[0]}{self._count}.log"
        with open(log, "ab") as output:
            process = subprocess.Popen(self.command(*arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       env={**os.environ, "HOOK_SECRET": "correct-horse-battery-staple"})
        self._stack.callback(end, process)
        until(lambda: ready in log.read_text() or process.poll() is not None, log.read_text)
        assert process.poll() is None, log.read_text()
        return process

    def workers(self, count: int) -> list[subprocess.Popen[bytes]]:
        return [self.start("worker", "--local", str(self.home / f"local{self._count}"), ready="worker ready")
                for _ in range(count)]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=PATIENCE_SECONDS,
                              check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def emit(self, event: str, payload: Any) -> str:
        """Begin a chain, and return its id."""
        return self.run("emit", event, "--payload", json.dumps(payload)).strip()

    def ask(self, work: Callable[[Client], Any]) -> Any:
        """Do something with a client."""
        async def do() -> Any:
            return await work(await connect(self.server.address, self.namespace, self.shared))
        return asyncio.run(do())

    def result(self, chain: str) -> list[dict[str, Any]]:
        """Wait for the end of a chain, and return its jobs."""
        async def wait(client: Client) -> Any:
            handle = client.get_workflow_handle(chain)
            try:
                return await asyncio.wait_for(handle.result(), PATIENCE_SECONDS)
            except TimeoutError:
                raise AssertionError("waited too long\n" + self.story()) from None
            except Exception as error:
                cause = error.__cause__
                if cause is None:
                    raise
                return cause.details[0]
        found: list[dict[str, Any]] = self.ask(wait)
        return found

    def journal(self, what: str = "", plugin: str = "") -> list[dict[str, Any]]:
        path = self.home / "journal"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if line["what"].startswith(what) and line["plugin"].startswith(plugin)]

    def story(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in sorted(self.home.glob("*.log")))

    def close(self) -> None:
        self._stack.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program as an init system does."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
