"""Leaving the terminal: the command waits until the daemon behind it is ready, or says why it is not."""

from __future__ import annotations

import json
import os
import signal
import sys

from daemon import DaemonContext
from ductile.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_SYSTEM, DuctileError

_UMASK = 0o077


class Report:
    """The daemon's end of the pipe to the command that started it."""

    def __init__(self, fd: int) -> None:
        self._pipe = open(fd, "w", encoding="utf-8", errors="backslashreplace")

    def ready(self) -> None:
        """Tell the command that all is well."""
        self._send(EXIT_OK, ())

    def failed(self, exit_code: int, lines: tuple[str, ...]) -> None:
        """Tell the command what to print and what to exit with; one that was told before has gone its way."""
        self._send(exit_code, lines)

    def _send(self, exit_code: int, lines: tuple[str, ...]) -> None:
        if self._pipe.closed:
            return
        try:
            with self._pipe as pipe:
                json.dump({"exit_code": exit_code, "lines": lines}, pipe)
        except BrokenPipeError:
            # The command was interrupted; the daemon goes its own way.
            return


def detach() -> Report:
    """Go on as a daemon: a new session, no terminal, umask 077, `/` as working directory.

    Returns in the daemon alone. The command that called ends here, with the daemon's error lines and exit code.
    An interrupt (SIGINT) ends the command alone. Raises DuctileError (71) where no process or pipe can be made.
    """
    # Until it has left the terminal, the daemon would get it too.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
    except OSError as error:
        raise DuctileError(f"cannot detach: {error.strerror}", exit_code=EXIT_SYSTEM) from error
    if child:
        os.close(writer)
        os._exit(_wait(child, reader, mask))
    os.close(reader)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # Signals are set up by the daemon itself, and its plugins may dump core as they like.
    DaemonContext(detach_process=True, umask=_UMASK, files_preserve=[writer], signal_map={}, prevent_core=False).open()
    return Report(writer)


def _wait(child: int, reader: int, mask: set[signal.Signals]) -> int:
    """Wait for the daemon behind `child` with this signal mask, and return the exit code."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.waitpid(child, 0)
        return _await(reader)
    except KeyboardInterrupt:
        print("interrupted; the daemon goes on starting, and its log says what comes of it", file=sys.stderr)
        return EXIT_INTERRUPTED


def _await(reader: int) -> int:
    """Wait for the daemon's report, print its lines and return its exit code."""
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    try:
        report = json.loads(text)
    except ValueError:
        print("the daemon ended before it was ready; its log may say why", file=sys.stderr)
        return EXIT_FAILED
    for line in report["lines"]:
        print(line, file=sys.stderr)
    sys.stderr.flush()
    return report["exit_code"]
