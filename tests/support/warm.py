"""Starts ductiled without delay: a process that has imported it forks, where a new Python would import it again.

What it starts is a child of the test run, as what Popen starts: the process between the two ends at once, and the test
run adopts orphans. Only the command line of the process, and its name, differ from those of an executed program.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_LARGEST_ORDER = 1 << 20
_PROGRAM = Path(sys.executable).with_name("ductiled")
# What the interpreter, its libraries or the loader read before a program can: a new process has to read it.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
_ENVIRON = {"PATH": os.defpath, "LANG": "C.UTF-8"}


class Started:
    """A child of this process, as far as Popen's methods are needed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

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

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit code. Raises TimeoutExpired."""
        if self.poll() is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                if not select.select([pidfd], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("ductiled", timeout)
            finally:
                os.close(pidfd)
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has been reaped."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash does."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that forks."""

    def __init__(self) -> None:
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -P: the modules beside this one have names of installed packages.
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, env=_ENVIRON, start_new_session=True)

    def can_start(self, environ: Mapping[str, str]) -> bool:
        """Say whether a program in this environment would be the same as one that is executed."""
        special = {name: value for name, value in environ.items() if name.startswith(_READ_AT_START)}
        return special == {"LANG": _ENVIRON["LANG"]}

    def start(self, options: Sequence[str], environ: Mapping[str, str], streams: Sequence[int]) -> Started:
        """Start ductiled at the head of a session, in the root directory, with these three descriptors."""
        order = json.dumps({"argv": [os.fspath(_PROGRAM), *options], "environ": dict(environ)})
        socket.send_fds(self._wire, [order.encode()], streams)
        return Started(int(self._wire.recv(64)))

    def close(self) -> None:
        """End the process that forks."""
        self._wire.close()
        self._process.wait(10)


def _serve(wire: socket.socket) -> None:
    """Fork for each order. Returns in the process that is to become ductiled, and when there are no more orders."""
    while True:
        data, streams, _, _ = socket.recv_fds(wire, _LARGEST_ORDER, 3)
        if not data:
            os._exit(0)
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child == 0:
                _become(json.loads(data), streams)
                return
            os.write(writer, str(child).encode())
            os._exit(0)
        os.waitpid(between, 0)
        wire.send(os.read(reader, 64))
        for descriptor in (reader, writer, *streams):
            os.close(descriptor)


def _become(order: dict, streams: list[int]) -> None:
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    os.environ.clear()
    os.environ.update(order["environ"])
    time.tzset()
    sys.argv = order["argv"]


if __name__ == "__main__":
    from ductile.main import run

    _wire = socket.socket(fileno=int(sys.argv[1]))
    _serve(_wire)
    _wire.detach()
    run()
