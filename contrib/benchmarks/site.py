"""A configuration in a scratch directory, and a real daemon that runs on it."""

from __future__ import annotations

import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from types import MappingProxyType

from benchmarks.figures import BenchmarkFailed
from ductile import db

ROOT = Path(__file__).resolve().parents[2]
ECHO = ROOT / "plugins" / "echo" / "run.sh"

DAEMON = (sys.executable, "-P", "-c", "from ductile.main import run; run()")
OPERATOR = (sys.executable, "-P", "-c", "from ductile.ctl.main import run; run()")

_PATIENCE_SECONDS = 300.0
_PAUSE_SECONDS = 0.02
_NOTE_BYTES = 4096
# Laid out as the starter configuration is.
_CONFIG = """\
service:
  log: ./ductiled.log
{service}
plugins_dir:
  - ./plugins
  - {shipped}

plugins:
{plugins}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A directory with a `config.yaml`, plugins of its own under `plugins`, and the data."""

    directory: Path

    @property
    def database(self) -> Path:
        return self.directory / "data" / "state.db"

    @contextmanager
    def ledger(self) -> Iterator[sqlite3.Connection]:
        """A connection to the database, which is made where there is none yet."""
        db.make_directory(self.database)
        with closing(db.open_for_daemon(self.database)) as conn:
            yield conn

    @contextmanager
    def follower(self) -> Iterator[sqlite3.Connection]:
        """A connection beside that of a running daemon."""
        with closing(db.connect_again(self.database)) as conn:
            yield conn


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A daemon that has said that it is ready."""

    pid: int
    ready_seconds: float     # from its start to that
    notes: socket.socket     # of what it tells systemd

    def await_note(self, note: bytes) -> None:
        """Wait until the daemon tells this. Raises BenchmarkFailed."""
        while select.select([self.notes], [], [], _PATIENCE_SECONDS)[0]:
            if note in self.notes.recv(_NOTE_BYTES).split(b"\n"):
                return
        raise BenchmarkFailed(f"ductiled did not say {note.decode()}")


def make_site(directory: Path, plugins: Mapping[str, str], sections: str = "", *, service: str = "") -> Site:
    """Write a configuration with these plugins, each with its settings as YAML of a line a key.

    `sections` is the YAML of further sections, `service` a line of that section.
    """
    (directory / "plugins").mkdir(parents=True)
    blocks = "\n".join(f"  {name}:\n{indent(settings, '    ')}" for name, settings in plugins.items())
    text = _CONFIG.format(shipped=ROOT / "plugins", plugins=blocks, service=indent(service, "  "))
    (directory / "config.yaml").write_text(text + sections, encoding="utf-8")
    return Site(directory=directory)


@contextmanager
def running(site: Site, environ: Mapping[str, str] = MappingProxyType({})) -> Iterator[Running]:
    """Run the daemon until the block ends, then stop it cleanly. Raises BenchmarkFailed where it does not.

    `environ` is what it finds in its environment beside ours.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")   # an abstract name that the kernel chooses (unix(7), autobind)
        socket_name = "@" + listener.getsockname()[1:].decode("ascii")
        started = time.monotonic()
        with open(site.directory / "stderr", "wb") as errors:
            process = subprocess.Popen([*DAEMON, "-c", site.directory], stdin=subprocess.DEVNULL, stdout=errors,
                                       stderr=errors, env={**os.environ, **environ, "NOTIFY_SOCKET": socket_name})
        try:
            _await_ready(listener, process, site)
            yield Running(pid=process.pid, ready_seconds=time.monotonic() - started, notes=listener)
            process.send_signal(signal.SIGTERM)
            if process.wait(timeout=_PATIENCE_SECONDS) != 0:
                raise BenchmarkFailed(f"ductiled stopped with exit code {process.returncode}: {_last_words(site)}")
        finally:
            process.kill()
            process.wait()


def _await_ready(listener: socket.socket, process: subprocess.Popen, site: Site) -> None:
    end = os.pidfd_open(process.pid)
    try:
        while True:
            found, _, _ = select.select([listener, end], [], [], _PATIENCE_SECONDS)
            if listener not in found:
                raise BenchmarkFailed(f"ductiled did not become ready: {_last_words(site)}")
            if b"READY=1" in listener.recv(_NOTE_BYTES).split(b"\n"):
                return
    finally:
        os.close(end)


def _last_words(site: Site) -> str:
    files = (site.directory / "stderr", site.directory / "ductiled.log")
    lines = [line for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]
    return lines[-1] if lines else "it printed nothing"


def seconds_to_look(site: Site, *command: str) -> float:
    """Return how long a command of `ductilectl` takes. Raises BenchmarkFailed where it fails."""
    return seconds_to_run([*OPERATOR, "-c", str(site.directory), *command])


def seconds_to_run(command: Sequence[str]) -> float:
    """Return how long a program takes. Raises BenchmarkFailed where it fails."""
    started = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode != 0:
        raise BenchmarkFailed(f"{command[-1]!r} exited {done.returncode}: {done.stderr.strip()[-200:]}")
    return seconds


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds. Raises BenchmarkFailed where it never does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() >= deadline:
            raise BenchmarkFailed(f"waited {_PATIENCE_SECONDS:.0f} s in vain for {what}")
        time.sleep(_PAUSE_SECONDS)
