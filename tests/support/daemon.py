"""The real daemon on a directory of its own, with the test as its init system."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ductile import db, runtime_config
from ductile import submit as intake
from ductile.pidfile import pid_file, signal_daemon
from ductile.queue.job import Submitter
from ductile.runtime_config import RuntimeConfig
from support import ordinary, processes
from support.ledger import place_fresh
from support.warm import Started, Warm

DUCTILED = Path(sys.executable).with_name("ductiled")
PLUGINS = Path(__file__).resolve().parents[1] / "plugins"

# Far more than anything takes; a test that waits this long has failed.
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.005
# With others than these, a program is executed and not forked.
_WARM_SETTINGS = {"stdin", "stdout", "stderr", "cwd", "env", "umask"}
_MANIFEST = """\
name: {name}
version: 0.1.0
protocol: 2
entrypoint: run
commands: {commands}
"""


def until(look: Callable[[], Any], expected: Any, *, pause: Callable[[], bool], explain: Callable[[], str]) -> None:
    """Look until what is seen equals `expected`; after PATIENCE_SECONDS, or once nothing can change, fail.

    `pause` waits an instant and says whether looking again makes sense.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    goes_on = True
    while (seen := look()) != expected:
        if not goes_on or time.monotonic() >= deadline:
            why = "waited too long" if goes_on else "the daemon has ended"
            raise AssertionError(f"{why}:\n  expected {expected!r}\n  but saw  {seen!r}\n{explain()}")
        goes_on = pause()


class RealDaemon:
    """`ductiled` on the directory `home`, run by the program `become` or forked from `warm` if one of them is given.

    `forked` is for `Warm.start`: the user that it becomes, the descriptors that are closed.
    """

    def __init__(self, home: Path, *, become: Sequence[str] = (), warm: Warm | None = None, **forked: Any) -> None:
        self.home = home
        self.moved_to(home / "data")
        self.output = home / "output.jsonl"
        self.errors = home / "errors.txt"
        self.config: dict[str, Any] = {"service": {"tick_interval": "1h"}, "plugins_dir": "./plugins", "plugins": {}}
        self.environ = {
            "PATH": f"{DUCTILED.parent}:{os.defpath}", "HOME": os.fspath(home), "TZ": "UTC", "LANG": "C.UTF-8",
        }
        self.become = become
        self.warm = warm
        self.forked = forked
        self.notes: list[str] = []
        self._read: tuple[list, RuntimeConfig] | None = None
        self._process: subprocess.Popen[bytes] | Started | None = None
        self._pidfd: int | None = None
        self._children = processes.children()
        self._systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The kernel finds a free abstract address.
        self._systemd.bind("")
        (home / "plugins").mkdir(mode=0o755)
        self.configure()

    # The configuration

    def moved_to(self, data: Path) -> None:
        """Look for the database and the PID file in this directory from now on."""
        self.data = data
        self.database = data / "state.db"
        self.pid_file = pid_file(self.database)

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Write the configuration, with these sections laid over what they hold."""
        for name, section in sections.items():
            self.config[name] = {**self.config.get(name, {}), **section}
        # JSON is YAML.
        (self.home / "config.yaml").write_text(json.dumps(self.config, indent=1))

    def pipelines(self, *pipelines: Mapping[str, Any]) -> None:
        """Write the pipelines, in place of those that there are."""
        directory = self.home / "pipelines"
        directory.mkdir(exist_ok=True)
        (directory / "all.yaml").unlink(missing_ok=True)
        if pipelines:
            (directory / "all.yaml").write_text(json.dumps({"pipelines": pipelines}, indent=1))

    def install(self, name: str, *, called: str | None = None, **settings: Any) -> None:
        """Put a plugin of tests/plugins in place and configure it, under another name where one is given."""
        if not self.directory(name).exists():
            shutil.copytree(PLUGINS / name, self.directory(name))
            self._keep_from_others(name)
        self._add(called or name, {"uses": name, **settings})

    def plugin(self, name: str, program: str, *, commands: Sequence[str] = ("poll",), **settings: Any) -> None:
        """Make a plugin of a program's text and configure it."""
        self.directory(name).mkdir()
        (self.directory(name) / "manifest.yaml").write_text(_MANIFEST.format(name=name, commands=json.dumps(commands)))
        (self.directory(name) / "run").write_text(program)
        self._keep_from_others(name)
        self._add(name, settings)

    def directory(self, plugin: str) -> Path:
        """Return where a plugin is."""
        return self.home / "plugins" / plugin

    def _keep_from_others(self, name: str) -> None:
        self.directory(name).chmod(0o755)
        for file in self.directory(name).iterdir():
            file.chmod(0o755 if file.name == "run" else 0o644)

    def _add(self, name: str, settings: Mapping[str, Any]) -> None:
        self.configure(plugins={name: dict(settings)})

    # The process

    @property
    def pid(self) -> int:
        """The daemon's PID, also of one that has ended."""
        return self._process.pid

    def start(self, *options: str, **popen: Any) -> None:
        """Start the daemon and wait until it says that it is ready. It finds a database, if an empty one."""
        if not self.become and self.forked.get("user") is None and not self.database.parent.exists():
            self.database.parent.mkdir(mode=0o700)
            place_fresh(self.database)
        self.spawn(*options, **popen)
        self.await_note("READY=1")

    def spawn(self, *options: str, **popen: Any) -> None:
        """Start the daemon and do not wait. `popen` goes to Popen."""
        # What a daemon that was killed has still said is not this one's word.
        self._heard().clear()
        environ = {**self.environ, "NOTIFY_SOCKET": "@" + self._systemd.getsockname()[1:].decode()}
        with open(self.output, "ab") as output, open(self.errors, "ab") as errors:
            settings = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": errors, "cwd": "/",
                        "env": environ, **popen}
            if self._is_forked(settings):
                self._process = self.warm.popen(["-c", self.home, *options], settings.pop("env"), **settings,
                                                **self.forked)
            else:
                self._process = subprocess.Popen([*self.become, ordinary.program("ductiled", self.become), "-c",
                                                  self.home, *options], start_new_session=True, **settings)
        self.watch(self._process.pid)

    def _is_forked(self, settings: Mapping[str, Any]) -> bool:
        return self.warm is not None and not self.become and settings.keys() <= _WARM_SETTINGS \
            and self.warm.can_start(settings["env"])

    def watch(self, pid: int) -> None:
        """Stop waiting for anything once this process has ended: the daemon, where another program has started it."""
        self._unwatch()
        self._pidfd = os.pidfd_open(pid)

    def _unwatch(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def run(self, *options: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run the daemon where it should end by itself, on a terminal so to speak: without NOTIFY_SOCKET."""
        words = options or ("-c", self.home)
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": "/",
                 "env": self.environ, **settings}
        if self._is_forked(given):
            return self._run_warm(words, **given)
        return subprocess.run([*self.become, ordinary.program("ductiled", self.become), *words], **given, text=True,
                              timeout=PATIENCE_SECONDS, check=False)

    def _run_warm(self, words: Sequence[str | Path], *, stdout: int, stderr: int,
                  **given: Any) -> subprocess.CompletedProcess[str]:
        # In files: the end of what it starts is not waited for.
        with TemporaryFile() as output, TemporaryFile() as errors:
            streams = {"stdout": output.fileno() if stdout == subprocess.PIPE else stdout,
                       "stderr": errors.fileno() if stderr == subprocess.PIPE else stderr}
            started = self.warm.popen(words, given.pop("env"), **streams, **given, **self.forked)
            try:
                code = started.wait(PATIENCE_SECONDS)
            finally:
                started.kill()
            for stream in (output, errors):
                stream.seek(0)
            return subprocess.CompletedProcess(words, code, output.read().decode(), errors.read().decode())

    def send(self, number: int) -> None:
        """Send the daemon a signal."""
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, *, exit_code: int = 0) -> None:
        """Stop the daemon and see that it ends as it should, leaves nothing alive and has not complained."""
        self.send(number)
        self.ends(exit_code)
        assert self.survivors() == set(), self.story()

    def ends(self, exit_code: int, errors: str = "") -> None:
        """Wait for the daemon's end; `errors` is what it must have said on standard error."""
        try:
            code = self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the daemon does not end\n{self.story()}") from error
        assert (code, self.errors.read_text()) == (exit_code, errors), self.story()

    def kill(self) -> None:
        """End the daemon as a crash does."""
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def ended_within(self, seconds: float) -> bool:
        """Give the daemon so much time, unless it ends before. Return whether it has ended."""
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def survivors(self) -> set[int]:
        """Return the processes that dead daemons of this test have left alive."""
        own = {self._process.pid} if self._process is not None and self._process.poll() is None else set()
        # What a test itself has started beside the daemon is in this session.
        return processes.living(processes.in_other_sessions(processes.children() - self._children - own))

    def started(self) -> list[int]:
        """Return the children of the running daemon."""
        tasks = Path(f"/proc/{self.pid}/task")
        return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]

    def kill_leftover(self, pid: int) -> None:
        """End one process that a killed daemon has left alive."""
        os.kill(pid, signal.SIGKILL)
        processes.await_end(pid, PATIENCE_SECONDS)

    def close(self) -> None:
        """Kill the daemon and all that it has started."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        processes.end_all(processes.children() - self._children)
        self._unwatch()
        self._systemd.close()

    # What it says

    def await_note(self, note: str, count: int = 1) -> None:
        """Wait until the daemon has told its init system so, with a line such as `READY=1`, so many times."""
        self._until(lambda: self._heard().count(note) >= count, True)

    def await_open(self, path: Path) -> None:
        """Wait until the daemon has a file open."""
        self._until(lambda: os.fspath(path) in self._open_files(), True)

    def _open_files(self) -> list[str]:
        directory = f"/proc/{self.pid}/fd"
        return [os.path.realpath(entry) for entry in Path(directory).iterdir()]

    def _heard(self) -> list[str]:
        while select.select([self._systemd], [], [], 0)[0]:
            self.notes += self._systemd.recv(4096).decode().splitlines()
        return self.notes

    def lines(self, text: str = "") -> list[dict[str, Any]]:
        """Return the whole lines of the log so far, of all starts, that have this text in them."""
        logged = self.output.read_text() if self.output.exists() else ""
        return [json.loads(line) for line in logged.splitlines(keepends=True) if line.endswith("\n") and text in line]

    def log(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines of the log with this message and these fields."""
        # Only lines that may be meant are parsed: this looks again and again.
        return [line for line in self.lines(json.dumps(message)) if line["message"] == message
                and fields.items() <= line.items()]

    def await_log(self, message: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait until the log has at least so many such lines, and return the last."""
        self._until(lambda: len(self.log(message, **fields)) >= count, True)
        return self.log(message, **fields)[-1]

    def await_file(self, path: Path, pattern: str) -> None:
        """Wait until a file is there with something in it that fits the regular expression."""
        self._until(lambda: path.exists() and re.search(pattern, path.read_text()) is not None, True)

    # The database

    def rows(self, sql: str, *parameters: Any) -> list[tuple]:
        """Return what a query gives, in a read transaction of its own."""
        with closing(db.connect_again(self.database)) as conn:
            return conn.execute(sql, parameters).fetchall()

    def until(self, sql: str, expected: list[tuple], *parameters: Any) -> None:
        """Wait until the query gives these rows."""
        with closing(db.connect_again(self.database)) as conn:
            self._until(lambda: conn.execute(sql, parameters).fetchall(), expected)

    def write(self, sql: str, *parameters: Any) -> None:
        """Change the database by hand."""
        with closing(db.connect_again(self.database)) as conn, db.transaction(conn):
            conn.execute(sql, parameters)

    def submit(self, plugin: str, command: str = "poll", event: Mapping[str, Any] | None = None) -> str:
        """Queue a job as the operator's program does, and return its id. `event` has `type` and `payload`."""
        now = datetime.now(UTC)
        if event is not None:
            event = intake.new_event(event["type"], event["payload"], "cli", new_id=_new_id, now=now)
        known = self._known()
        job = intake.command_job(known.plugins[plugin], command, Submitter.CLI, new_id=_new_id, event=event)
        with closing(db.connect_again(self.database)) as conn, db.transaction(conn):
            submitted = intake.submit(conn, job, dedupe_ttl=known.config.service.dedupe_ttl, now=now)
        signal_daemon(self.pid_file, signal.SIGUSR1)
        return submitted.job_id

    def _known(self) -> RuntimeConfig:
        """Return what the configuration says, read again only if a file of it or of a plugin has changed."""
        files = [self.home / "config.yaml", *self.home.glob("*.yaml"), *self.home.glob("plugins/*/*")]
        key = [(file, file.lstat().st_ino, file.lstat().st_mtime_ns) for file in files] + sorted(self.environ.items())
        if self._read is None or self._read[0] != key:
            self._read = key, runtime_config.read(files[0], self.environ, keep_unset=True).runtime
        return self._read[1]

    def job(self, job_id: str) -> tuple[str, int, str | None]:
        """Return a job's status, attempt and last error."""
        return self.rows("SELECT status, attempt, last_error FROM job_queue WHERE id = ?", job_id)[0]

    def await_job(self, job_id: str, status: str) -> None:
        """Wait until a job has this status."""
        self.until("SELECT status FROM job_queue WHERE id = ?", [(status,)], job_id)

    def attempts(self, job_id: str) -> list[tuple[int, str]]:
        """Return the attempts of a job in the order in which they ended: number and status."""
        return self.rows("SELECT attempt, status FROM job_log WHERE job_id = ? ORDER BY seq", job_id)

    # Waiting

    def _until(self, look: Callable[[], Any], expected: Any) -> None:
        # A socket holds ten datagrams (net.unix.max_dgram_qlen), and the daemon drops what does not fit.
        self._heard()
        until(look, expected, pause=lambda: not self.ended_within(_LOOK_SECONDS), explain=self.story)

    def story(self) -> str:
        """Return the end of what the daemon has said and of what stands in its tables, for failures."""
        parts = ["log:", *(json.dumps(line) for line in self.lines()[-20:]), "standard error:",
                 self.errors.read_text() if self.errors.exists() else "(none)"]
        if self.database.exists():
            try:
                parts += ["jobs:", *map(str, self.rows("SELECT id, plugin, command, status, attempt, last_error"
                                                       " FROM job_queue ORDER BY seq DESC LIMIT 10"))]
            except sqlite3.Error as error:
                parts.append(str(error))
        return "\n".join(parts)


def _new_id() -> str:
    return str(uuid.uuid4())
