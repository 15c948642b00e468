"""Starts our programs without delay: a process that has imported one forks, where a new Python would import it again.

What it starts is a child of the test run, as what Popen starts: the process between the two ends at once, and the test
run adopts orphans. Only the command line of the process, and its name, differ from those of an executed program.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_LARGEST_ORDER = 1 << 20
# What the interpreter, its libraries or the loader read before a program can: a new process has to read it.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
# Of these, what is done here as Python does it.
_DONE_HERE = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
_EXAMPLE = Path(__file__).resolve().parents[2] / "etc" / "ductile" / "config.yaml"
_ENVIRON = {"PATH": os.defpath, "LANG": "C.UTF-8"}
_PR_SET_DUMPABLE = 4    # prctl(2)


# The process from which calls of ductilectl are forked, where the fixture of that name has made it.
ductilectl: Warm | None = None


class Started:
    """A child of this process, as far as Popen's attributes and methods are needed. Our ends of its pipes are text."""

    def __init__(self, pid: int, pipes: Sequence[IO[str] | None] = (None, None, None)) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = pipes

    def poll(self) -> int | None:
        """Return the exit code, or None while the process lives."""
        if self.returncode is None:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # Somebody else has reaped it: Popen says 0 then, too.
                ended, status = self.pid, 0
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """Wait for the end and return the exit code. Raises TimeoutExpired."""
        if self.poll() is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                if not select.select([pidfd], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("a program", timeout)
            finally:
                os.close(pidfd)
        return self.poll()

    def communicate(self, timeout: float = 600) -> tuple[str | None, str | None]:
        """Close its input, read its output and wait for the end. Raises TimeoutExpired."""
        if self.stdin is not None:
            self.stdin.close()
        deadline = time.monotonic() + timeout
        pipes = {stream.fileno(): stream for stream in (self.stdout, self.stderr) if stream and not stream.closed}
        read = dict.fromkeys(pipes.values(), b"")
        while pipes:
            ready = select.select(list(pipes), [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                raise subprocess.TimeoutExpired("a program", timeout)
            for fd in ready:
                data = os.read(fd, 65536)
                read[pipes[fd]] += data
                if not data:
                    pipes.pop(fd).close()
        self.wait(max(0.0, deadline - time.monotonic()))
        out, err = (None if stream is None else read.get(stream, b"").decode() for stream in (self.stdout, self.stderr))
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has been reaped."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that forks `ductiled` or `ductilectl`."""

    def __init__(self, program: str) -> None:
        self._program = Path(sys.executable).with_name(program)
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -P: the modules beside this one have names of installed packages.
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, program, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, env=_ENVIRON, start_new_session=True)

    def can_start(self, environ: Mapping[str, str]) -> bool:
        """Say whether a program in this environment would be the same as one that is executed."""
        special = {name: value for name, value in environ.items()
                   if name.startswith(_READ_AT_START) and name not in _DONE_HERE}
        # Without a language, Python takes the same one by itself.
        return special in ({"LANG": _ENVIRON["LANG"]}, {})

    def start(self, options: Sequence[str | Path], environ: Mapping[str, str], streams: Sequence[int], *,
              cwd: str | Path = "/", controls: bool = False, user: int | None = None, umask: int | None = None,
              closed: Sequence[int] = (), listens: int | None = None, pid_is_off_by: int = 0) -> Started:
        """Start the program at the head of a session with these three descriptors, those in `closed` closed.

        With `controls` its standard input is the session's terminal; `user` is who it is then; `listens` is a socket
        passed as systemd does it.
        """
        order = json.dumps({"argv": [os.fspath(self._program), *map(os.fspath, options)], "environ": dict(environ),
                            "cwd": os.fspath(cwd), "controls": controls, "user": user, "umask": umask,
                            "closed": list(closed), "pid_is_off_by": pid_is_off_by})
        socket.send_fds(self._wire, [order.encode()], [*streams, *([] if listens is None else [listens])])
        return Started(int(self._wire.recv(64)))

    def popen(self, options: Sequence[str | Path], environ: Mapping[str, str], *, stdin: int | IO[str],
              stdout: int | IO[str], stderr: int | IO[str], **settings: Any) -> Started:
        """Start the program with streams as Popen takes them."""
        theirs, pipes, opened = [], [], []
        for given, mode in ((stdin, "w"), (stdout, "r"), (stderr, "r")):
            pipes.append(None)
            if given == subprocess.PIPE:
                reader, writer = os.pipe()
                ours, given = (writer, reader) if mode == "w" else (reader, writer)
                pipes[-1] = open(ours, mode, encoding="utf-8")  # noqa: SIM115 (its user closes it)
                opened.append(given)
            elif given == subprocess.DEVNULL:
                given = os.open(os.devnull, os.O_RDWR)
                opened.append(given)
            elif given == subprocess.STDOUT:
                given = theirs[1]
            theirs.append(given if isinstance(given, int) else given.fileno())
        try:
            started = self.start(options, environ, theirs, **settings)
        finally:
            for fd in opened:
                os.close(fd)
        return Started(started.pid, pipes)

    def close(self) -> None:
        """End the process that forks."""
        self._wire.close()
        self._process.wait(10)


def _serve(wire: socket.socket) -> None:
    """Fork for each order. Returns in the process that is to become the program."""
    # Nothing that is here is looked through again, and copied by that, in each fork.
    gc.collect()
    gc.freeze()
    while True:
        data, streams, _, _ = socket.recv_fds(wire, _LARGEST_ORDER, 4)
        if not data:
            os._exit(0)
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            if os.fork() == 0:
                _become(json.loads(data), streams, writer)
                return
            os._exit(0)
        os.waitpid(between, 0)
        os.close(writer)
        wire.send(os.read(reader, 64))
        for descriptor in (reader, *streams):
            os.close(descriptor)


def _become(order: dict, descriptors: list[int], told: int) -> None:
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    if order["controls"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.write(told, str(os.getpid()).encode())
    os.closerange(len(descriptors), os.sysconf("SC_OPEN_MAX"))
    for number in order["closed"]:
        os.close(number)
    if len(descriptors) > 3:
        order["environ"] |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid() + order["pid_is_off_by"])}
    os.chdir(order["cwd"])
    if order["umask"] is not None:
        os.umask(order["umask"])
    if order["user"] is not None:
        _become_user(order["user"])
    os.environ.clear()
    os.environ.update(order["environ"])
    time.tzset()
    sys.argv = order["argv"]
    _open_streams("PYTHONUNBUFFERED" in os.environ)
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
    if "PYTHONPATH" in os.environ:
        sys.path.insert(0, os.environ["PYTHONPATH"])
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")


def _become_user(number: int) -> None:
    """Be an ordinary user, who may look at this process in /proc as at one that was executed."""
    os.setgroups([])
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _open_streams(is_unbuffered: bool) -> None:
    """Open the standard streams as Python does at its start: it looks then whether they are terminals, and closed."""
    for number, name, errors in ((0, "stdin", "strict"), (1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        stream = None
        with contextlib.suppress(OSError):
            raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
            buffer = io.BufferedReader(raw) if number == 0 else raw if is_unbuffered else io.BufferedWriter(raw)
            stream = io.TextIOWrapper(buffer, encoding="utf-8", errors=errors, newline=None if number == 0 else "\n",
                                      line_buffering=number == 2 or raw.isatty(),
                                      write_through=is_unbuffered and number != 0)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _imported(program: str) -> Callable[[], None]:
    """Import a program, have at hand what it would find out first, and return its entry point."""
    # An ordinary user may be unable to read the library.
    for name in ("shutil", "zlib", "bz2", "lzma", "encodings.ascii", "encodings.latin_1", "encodings.idna",
                 "encodings.utf_8_sig"):
        importlib.import_module(name)
    schema = importlib.import_module("ductile.schema")
    schema.expected(schema.VERSION)
    # Regular expressions are compiled once they are used.
    importlib.import_module("ductile.runtime_config").read(_EXAMPLE, _ENVIRON)
    if program == "ductiled":
        # What it imports where it listens takes longer than the rest of its start.
        for name in ("ductile.webhook.listener", "ductile.webhook.handler"):
            importlib.import_module(name)
        return importlib.import_module("ductile.main").run
    package = importlib.import_module("ductile.ctl")
    for module in pkgutil.walk_packages(package.__path__, "ductile.ctl."):
        importlib.import_module(module.name)
    return importlib.import_module("ductile.ctl.main").run


def _exit_of(run: Callable[[], None]) -> None:
    """Run the program and end as Python does, without taking apart all that was imported: that would copy it first."""
    try:
        run()
        code = 0
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except OSError:
        # What Python exits with then.
        code = 120
    os._exit(code)


if __name__ == "__main__":
    _run = _imported(sys.argv[1])
    _wire = socket.socket(fileno=int(sys.argv[2]))
    _serve(_wire)
    _wire.detach()
    _exit_of(_run)
