"""Functions run in a process of their own, and hostile plugins attended by one, out of reach of the test's process."""

from __future__ import annotations

import os
import pickle
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ductile import schema
from ductile.dispatch import reaper
from ductile.dispatch.outcome import Facts
from ductile.dispatch.run_lock import JOB_ID_VARIABLE, RunLocks
from ductile.dispatch.runner import Launch, Run, become_subreaper

HOSTILE = Path(__file__).resolve().parents[1] / "plugins" / "hostile"
NOBODY = 65534
# This Python first: one that is found by way of a wrapper is slow to start.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

# Far longer than anything that is waited for: whoever meets it has found a hang.
_PATIENCE_SECONDS = 60.0


class Child:
    """A forked process that runs one function and hands back what it returns."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, ordinary: bool = False,
                 user: int = NOBODY) -> None:
        """Start it. `ordinary` has root become an ordinary user first, `user`; another user is one already."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._reader: int | None = reader
        self.pid = os.fork()
        if self.pid == 0:
            _be_the_child(writer, function, arguments, user if ordinary else None)
        os.close(writer)

    def result(self) -> Any:
        """Wait for the end and return what the function returned. Its exception is an AssertionError here."""
        try:
            answer = self._read()
        finally:
            self.stop()
        assert answer, "the process ended without an answer, or gave none in time"
        done, value = pickle.loads(answer)
        assert done, value
        return value

    def stop(self) -> None:
        """Kill the process where it still runs. It can be called again."""
        if self._reader is None:
            return
        os.close(self._reader)
        self._reader = None
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _read(self) -> bytes:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        answer = bytearray()
        while poll.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            data = os.read(self._reader, 1 << 20)
            if not data:
                return bytes(answer)
            answer += data
        return b""


def in_a_child(function: Callable[..., Any], *arguments: Any, ordinary: bool = False, user: int = NOBODY) -> Any:
    """Return what the function returns in a process of its own."""
    return Child(function, *arguments, ordinary=ordinary, user=user).result()


@contextmanager
def writable_by_all() -> Iterator[Path]:
    """A directory that an ordinary user reaches, as those of pytest are not; removed in the end."""
    directory = Path(tempfile.mkdtemp(prefix="ductile-"))
    directory.chmod(0o777)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _be_the_child(writer: int, function: Callable[..., Any], arguments: tuple[Any, ...], user: int | None) -> None:
    try:
        # An ordinary user may not be able to read the checkout, so the child has read what it needs of it.
        for number in range(1, schema.VERSION + 1):
            list(schema.statements(number))
        # What an earlier test of this process knew of its children says nothing about this child's.
        for known in (reaper._foreign_children, reaper._foreign_sessions, reaper._ignored_children):
            known.clear()
        if user is not None and os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        answer = pickle.dumps((True, function(*arguments)))
    except BaseException:
        answer = pickle.dumps((False, traceback.format_exc()))
    try:
        with open(writer, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one run, as the process that attended it saw it. `seconds` counts from the spawn."""

    job_id: str
    directory: Path
    facts: Facts
    seconds: float
    children: list[int]      # of the attending process, when the run was over
    leaked: list[str]        # descriptors that were not open before it
    lock_is_free: bool

    def survivors(self) -> list[int]:
        """Return the processes that carry the job's id in their environment, or its directory in their command."""
        return marked(f"{JOB_ID_VARIABLE}={self.job_id}".encode(), os.fsencode(self.directory) + b"/")


def attending(name: str, directory: Path, *, timeout: int = 1, stdin: bytes = b"{}\n", end: bool = False,
              variables: Mapping[str, str] | None = None) -> Child:
    """Run a hostile plugin in `directory`, attended by a process of its own; `end` asks for its end at once."""
    directory.mkdir()
    entrypoint = directory / name
    # By a link: the directory's path is in its command line then, whatever it does to its environment.
    entrypoint.symlink_to(HOSTILE / name)
    return Child(_attend, entrypoint, timeout, stdin, end, dict(variables or {}))


def _attend(entrypoint: Path, timeout: int, stdin: bytes, end: bool, variables: dict[str, str]) -> Attempt:
    become_subreaper()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    job_id = str(uuid.uuid4())
    locks = RunLocks(entrypoint.parent / "running")
    environ = {"PATH": PATH, JOB_ID_VARIABLE: job_id, **variables}
    before = descriptors()
    lock = locks.take()
    run = Run(Launch(entrypoint=entrypoint, cwd=entrypoint.parent, environ=environ, stdin=stdin, timeout=timeout,
                     keep_open=lock))
    os.close(lock)
    locks.mark(job_id, run.pid)
    if end:
        run.end()
    facts = run.wait()
    return Attempt(
        job_id=job_id, directory=entrypoint.parent, facts=facts, seconds=time.monotonic() - run.started,
        children=children(), leaked=sorted(set(descriptors()) - set(before)), lock_is_free=locks.release(job_id),
    )


def descriptors() -> list[str]:
    """Return this process's open descriptors, each with what it is open on."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            # The one that lists the directory.
            continue
    return found


def ended_pid() -> int:
    """Return the PID of a process that has ended: it leads no session, as this one's own PID may."""
    with subprocess.Popen(["/bin/true"]) as ended:
        return ended.pid


def children() -> list[int]:
    """Return this process's children, zombies among them."""
    return [int(name) for name in _processes() if _stat(name)[1:2] == [str(os.getpid())]]


def marked(*marks: bytes) -> list[int]:
    """Return the processes, but for zombies, that have one of these in their environment or command line."""
    found = []
    for name in _processes():
        carried = _content(name, "environ") + b"\0" + _content(name, "cmdline")
        if int(name) != os.getpid() and any(mark in carried for mark in marks) and _stat(name)[0] not in "ZX":
            found.append(int(name))
    return found


def _processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _stat(name: str) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; that of a process that is gone is X."""
    return _content(name, "stat").rpartition(b") ")[2].decode().split() or ["X"]


def _content(name: str, file: str) -> bytes:
    try:
        return Path("/proc", name, file).read_bytes()
    except OSError:
        return b""
