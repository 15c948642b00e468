"""A configuration in a directory of its own, the programs that run on it, and a sender of signed webhooks."""

from __future__ import annotations

import contextlib
import enum
import hmac
import http.client
import json
import os
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

DAEMON = (sys.executable, "-P", "-c", "from ductile.main import run; run()")
OPERATOR = (sys.executable, "-P", "-c", "from ductile.ctl.main import run; run()")
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.02
_ANSWER_SECONDS = 10.0
_HOST, _PATH = "127.0.0.1", "/webhooks/posts"
# Known to everybody: it guards nothing but a daemon on the loopback interface that lives for minutes.
_SECRET = "a secret of the fault injection alone"
_PLUGIN = Path(__file__).with_name("plugin.sh")
_MANIFEST = "{name: mark, version: 1.0.0, protocol: 2, entrypoint: run.sh, commands: [poll, handle]}\n"
_PIPELINE = "{name: pair, on: posted, steps: [{uses: first}, {uses: second}]}\n"
_CONFIG = """\
service: {{tick_interval: 1s, shutdown_grace: 1s, max_queue_depth: 1000000, dedupe_ttl: {dedupe_ttl}}}
plugins_dir: ./plugins
pipelines_dir: ./pipelines
plugins:
  first: {{uses: mark, retry: {{backoff_base: 1s}}}}
  second: {{uses: mark, retry: {{backoff_base: 1s}}}}
{more_plugins}
webhooks:
  listen: 127.0.0.1:{port}
  endpoints:
    - path: {path}
      event: posted
      secret: ${{DUCTILE_FAULTS_SECRET}}
      signature_header: X-Signature
      dedupe_header: X-Delivery
"""


class Tick(enum.Enum):
    """The plugin `tick` as it is configured."""

    ABSENT = ""
    IDLE = "  tick: {uses: mark, retry: {backoff_base: 1s}}"
    EVERY_SECOND = "  tick: {uses: mark, schedule: {every: 1s}, retry: {backoff_base: 1s}}"


class Stuck(Exception):
    """The programs do not go on; the text says how that was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a sender was told; no status where there was no whole answer."""

    status: int | None
    job_id: str | None = None

    @property
    def is_acknowledged(self) -> bool:
        return self.status in (200, 202)


@dataclass(slots=True, kw_only=True)
class Site:
    """One configuration and its data. `home` is what counts for faults; logs and records lie beside it."""

    directory: Path
    port: int
    tick: Tick = Tick.ABSENT
    dedupe_ttl: str = "24h"
    _gate: int | None = field(default=None)

    @property
    def home(self) -> Path:
        return self.directory / "site"

    @property
    def database(self) -> Path:
        return self.home / "data" / "state.db"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    # What is on the disk

    def make(self) -> None:
        plugin = self.home / "plugins" / "mark"
        plugin.mkdir(parents=True)
        shutil.copy(_PLUGIN, plugin / "run.sh")
        (plugin / "manifest.yaml").write_text(_MANIFEST, encoding="utf-8")
        for name in ("pipelines", "locks"):
            (self.home / name).mkdir()
        (self.home / "pipelines" / "pair.yaml").write_text(_PIPELINE, encoding="utf-8")
        self.configure()

    def configure(self, text: str | None = None) -> None:
        """Write the configuration, or another text in its place."""
        if text is None:
            text = _CONFIG.format(port=self.port, path=_PATH, dedupe_ttl=self.dedupe_ttl,
                                  more_plugins=self.tick.value)
        new = self.home / "config.yaml.new"
        new.write_text(text, encoding="utf-8")
        new.replace(self.home / "config.yaml")

    def records(self) -> list[list[str]]:
        """Return what the plugins have written down: event, job id, attempt, plugin, token."""
        try:
            return [line.split() for line in (self.home / "records").read_text(encoding="ascii").splitlines()]
        except FileNotFoundError:
            return []

    def rows(self, sql: str, *parameters: object) -> list[tuple]:
        """Return what a query gives; nothing while there is no database to read. It leaves no trace in the files."""
        try:
            with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=5)) as conn:
                return conn.execute(sql, parameters).fetchall()
        except sqlite3.Error:
            return []

    # The gate at which plugins wait

    def close_gate(self) -> None:
        if self._gate is None:
            os.mkfifo(self.home / "gate")
            self._gate = os.open(self.home / "gate", os.O_RDWR | os.O_CLOEXEC)

    def let_one_pass(self) -> None:
        os.write(self._gate, b"go\n")

    def open_gate(self) -> None:
        """Let all pass that wait and that come."""
        if self._gate is not None:
            (self.home / "gate").unlink()
            os.write(self._gate, b"go\n" * 20)

    def forget_gate(self) -> None:
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None

    # Programs

    def environ(self, more: Mapping[str, str]) -> dict[str, str]:
        passed_on = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.fspath(self.directory), "LANG": "C.UTF-8",
                "DUCTILE_FAULTS_SECRET": _SECRET, **passed_on, **more}

    def operate(self, *arguments: str | Path, environ: Mapping[str, str] = MappingProxyType({}),
                ) -> subprocess.CompletedProcess[str]:
        """Run `ductilectl` to its end."""
        done = subprocess.run([*OPERATOR, "-c", self.home, *arguments], env=self.environ(environ), text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PATIENCE_SECONDS)
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"ductilectl {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def post(self, token: str) -> Answer:
        """Send one signed webhook and return the answer."""
        body = json.dumps({"token": token}).encode("ascii")
        headers = {"Content-Type": "application/json", "X-Delivery": token,
                   "X-Signature": hmac.new(_SECRET.encode("ascii"), body, "sha256").hexdigest()}
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("POST", _PATH, body, headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            return Answer(status=answer.status, job_id=said.get("job_id"))
        except (OSError, http.client.HTTPException, ValueError):
            return Answer(status=None)
        finally:
            connection.close()

    def kill_leftovers(self) -> None:
        """End every process that works in this site: what a killed daemon has left behind."""
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    if Path(os.readlink(f"/proc/{entry}/cwd")).is_relative_to(self.home):
                        os.kill(int(entry), signal.SIGKILL)


class Daemon:
    """A `ductiled` that runs on a site."""

    def __init__(self, site: Site, environ: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start it; `await_ready` waits for it."""
        self._site = site
        self._systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._systemd.bind("")   # an abstract name that the kernel chooses (unix(7), autobind)
        name = "@" + self._systemd.getsockname()[1:].decode("ascii")
        with open(site.log, "ab") as log:
            self._process = subprocess.Popen(
                [*DAEMON, "-c", site.home], env=site.environ({**environ, "NOTIFY_SOCKET": name}),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._pidfd = os.pidfd_open(self._process.pid)
        self.is_ready = False

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def look(self, seconds: float = _LOOK_SECONDS) -> None:
        """Wait a moment, less where it says something or ends, and hear what it says."""
        found, _, _ = select.select([self._systemd, self._pidfd], [], [], seconds)
        if self._systemd in found and b"READY=1" in self._systemd.recv(4096).split(b"\n"):
            self.is_ready = True

    def await_ready(self) -> None:
        """Wait until it is ready or has ended. Raises Stuck."""
        wait_until(lambda: self.is_ready or self.exit_code is not None, self.look, "ductiled to be ready")

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """Stop it as an operator does, and return its exit code. Raises Stuck."""
        self.send(signal.SIGTERM)
        wait_until(lambda: self.exit_code is not None, self.look, "ductiled to stop")
        return self.exit_code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        os.close(self._pidfd)
        self._systemd.close()


def wait_until(condition: Callable[[], bool], look: Callable[[], None], what: str) -> None:
    """Look until the condition holds. Raises Stuck where it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() >= deadline:
            raise Stuck(f"waited {PATIENCE_SECONDS:.0f} s in vain for {what}")
        look()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((_HOST, 0)) as server:
        return server.getsockname()[1]


def has_command(name: str) -> bool:
    """Say whether this `ductilectl` has such a command."""
    return subprocess.run([*OPERATOR, name, "--help"], capture_output=True, check=False).returncode == 0
