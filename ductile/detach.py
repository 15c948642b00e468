"""`ductiled -d`: detach from the terminal; the command waits until the daemon is ready or has failed."""

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
        self._pipe = os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace")

    def ready(self) -> None:
        """Tell the command that the daemon is ready."""
        self._send(EXIT_OK, ())

    def failed(self, exit_code: int, lines: tuple[str, ...]) -> None:
        """Tell the command what to print and its exit code. Ignored if a report was already sent."""
        self._send(exit_code, lines)

    def _send(self, exit_code: int, lines: tuple[str, ...]) -> None:
        if self._pipe.closed:
            return
        try:
            with self._pipe as pipe:
                json.dump({"exit_code": exit_code, "lines": lines}, pipe)
        except BrokenPipeError:
            # The command was interrupted; the daemon runs on.
            return


def detach() -> Report:
    """Become a daemon: a new session, no terminal, umask 077, working directory `/`.

    Returns only in the daemon. The command exits in here, with the daemon's error lines and exit code; SIGINT ends only
    the command. Raises DuctileError (71) if there is no process or pipe to be had.
    """
    # Until it has left the terminal, the daemon would receive it as well.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
    except OSError as error:
        raise DuctileError(f"cannot detach: {error.strerror}", exit_code=EXIT_SYSTEM) from error
    if child:
        os.close(writer)
        # The handler of the daemon would exit with 0, which says that it is ready.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os._exit(_wait(child, reader, mask))
    os.close(reader)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    report = Report(writer)
    try:
        # The daemon sets up signals itself, and plugins may dump core.
        DaemonContext(detach_process=True, umask=_UMASK, files_preserve=[writer], signal_map={},
                      prevent_core=False).open()
    except OSError as error:
        # It forks twice more. The command still waits, and this process may have left its terminal.
        report.failed(EXIT_SYSTEM, (f"cannot detach: {_reason(error)}",))
        os._exit(EXIT_SYSTEM)
    return report


def _reason(error: OSError) -> str:
    """Return the system's text for an error; python-daemon wraps it in one without."""
    cause = error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else error.strerror) or str(error)


def _wait(child: int, reader: int, mask: set[int | signal.Signals]) -> int:
    """Wait for the daemon with this signal mask, and return the exit code. `child` is the first fork."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.waitpid(child, 0)
        return _await(reader)
    except KeyboardInterrupt:
        print("interrupted; the daemon continues to start, see its log", file=sys.stderr)
        return EXIT_INTERRUPTED


def _await(reader: int) -> int:
    """Wait for the daemon's report, print its lines and return its exit code."""
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    try:
        report = json.loads(text)
    except ValueError:
        print("the daemon ended before it was ready; see its log", file=sys.stderr)
        return EXIT_FAILED
    for line in report["lines"]:
        print(line, file=sys.stderr)
    sys.stderr.flush()
    return int(report["exit_code"])
