"""The daemon's log: one JSON object a line, to standard output, syslog or a file; writing it never blocks."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.safe_files import printable
from ductile.units import utc_text

_LEVELS = {"debug": 0, "info": 1, "warn": 2, "error": 3}
_NEVER = len(_LEVELS)
_NAMES = tuple(_LEVELS)
_ENCODER = json.JSONEncoder(default=str)

# What a reader that does not read may keep waiting; past it, lines are dropped and counted.
_BUFFER_BYTES = 1024 * 1024
_HELD_LINES = 1000

_SYSLOG = "/dev/log"
_SYSLOG_DAEMON = 3 << 3               # the facility, RFC 3164
_SYSLOG_SEVERITIES = (7, 6, 4, 3)     # debug, info, warning, error
_SYSLOG_BYTES = 64 * 1024             # of a message: what is longer is cut
_NO_FILE = "Not a file, but a FIFO or a socket"
_FILE_MODE = 0o640  # logs are for the owner and a group of readers, never for others

# A level and a line with its newline, or what is left of one.
_Line = tuple[int, bytes]


class _Output(Protocol):
    """Where lines go. `at_once` is how many lines it takes together."""

    at_once: int

    def renew(self) -> bool:
        """Open it again where that is needed, and say whether it was. Raises OSError."""

    def take(self, lines: Sequence[_Line]) -> int:
        """Take what fits and return its bytes. Raises BlockingIOError where none does, OSError where none can."""

    def wait(self, seconds: float) -> None:
        """Wait until something fits, or for so long."""

    def close(self) -> None: ...


class _Stream:
    """A pipe, a terminal or a file that is open; its descriptor is never made non-blocking, for others may share it."""

    at_once = 256

    def __init__(self, fd: int) -> None:
        """Write to what `fd` is open on, by a descriptor of its own."""
        self._is_polled = False
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            try:
                # Another opening of the same pipe or terminal has flags of its own.
                self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
                return
            except OSError:
                # No /proc, another user's pipe, or one whose reader is gone.
                self._is_polled = True
        self._fd = os.dup(fd)

    def renew(self) -> bool:
        return False

    def take(self, lines: Sequence[_Line]) -> int:
        data = _joined(lines)
        if self._is_polled:
            if not _is_ready(self._fd, 0):
                raise BlockingIOError
            # A pipe that is ready takes so much without waiting (pipe(7)).
            data = data[:select.PIPE_BUF]
        return os.write(self._fd, data)

    def wait(self, seconds: float) -> None:
        _is_ready(self._fd, seconds)

    def close(self) -> None:
        os.close(self._fd)


class _File(_Stream):
    """A file by its path, opened again when it was moved away or removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_polled = False
        self._fd = _open_file(path)

    def renew(self) -> bool:
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._fd)):
                return False
        except FileNotFoundError:
            pass
        fresh = _open_file(self._path)
        os.close(self._fd)
        self._fd = fresh
        return True


class _Socket:
    """A connected socket, which is not made non-blocking either."""

    at_once = 256

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def renew(self) -> bool:
        return False

    def take(self, lines: Sequence[_Line]) -> int:
        return self._socket.send(_joined(lines), socket.MSG_DONTWAIT)

    def wait(self, seconds: float) -> None:
        _is_ready(self._socket.fileno(), seconds)

    def close(self) -> None:
        self._socket.close()


class _Syslog(_Socket):
    """The system's log, a datagram for each line; `name` is who speaks."""

    at_once = 1

    def __init__(self, name: str) -> None:
        super().__init__(_connect_syslog())
        self._name = name.encode("utf-8", "backslashreplace")

    def take(self, lines: Sequence[_Line]) -> int:
        level, text = lines[0]
        head = b"<%d>%s: " % (_SYSLOG_DAEMON + _SYSLOG_SEVERITIES[level], self._name)
        self._send((head + text.rstrip(b"\n"))[:_SYSLOG_BYTES])
        return len(text)

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                # The machine allows still less: lost, for no later try would do better.
                return
            # Started again, say: there is another socket of that name.
            fresh = _connect_syslog()
            self._socket.close()
            self._socket = fresh
            fresh.send(message, socket.MSG_DONTWAIT)


class _Log:
    """Lines on their way out, and what became of those that found no room."""

    def __init__(self) -> None:
        self.level = _NEVER       # nothing is written before `set_up` was told where to
        self._output: _Output | None = None
        self._lock = threading.Lock()
        self._lines: deque[_Line] = deque()
        self._bytes = 0           # in `_lines`
        self._is_torn = False     # the first of `_lines` is the rest of one that was taken in part
        self._dropped = 0
        self._owner: int | None = None
        self.is_behind = False    # the reader did not take all when it was last tried

    def use(self, output: _Output, level: int) -> None:
        """Write to another output from now on, also what the last one did not take."""
        with self._lock:
            self._drain()
            self._close_output()
            self._output = output
            self.level = level

    def add(self, line: _Line) -> None:
        """Take a line, and write it now unless it is held."""
        with self._lock:
            if self._output is None:
                return
            self._keep(line)
            if self._owner != threading.get_ident() or len(self._lines) >= _HELD_LINES:
                self._drain()

    def hold(self) -> None:
        with self._lock:
            self._owner = threading.get_ident()

    def flush(self) -> None:
        with self._lock:
            self._drain()

    def close(self, patience: float) -> None:
        """Write what is left, with so many seconds for a reader that lags, and nothing from then on."""
        until = time.monotonic() + patience
        with self._lock:
            self._drain()
            while self._output is not None and self.is_behind and (left := until - time.monotonic()) > 0:
                self._output.wait(left)
                self._drain()
            self._close_output()
            self._lines.clear()
            self._bytes = self._dropped = 0
            self._owner = None
            self.is_behind = False
            self.level = _NEVER

    def _close_output(self) -> None:
        if self._output is None:
            return
        self._output.close()
        self._output = None
        self._forget_torn()

    def _keep(self, line: _Line) -> None:
        if not self._has_room(line):
            self._dropped += 1
            return
        if self._dropped:
            self._append_dropped()
        self._append(line)

    def _append_dropped(self) -> None:
        self._append(_encode(_LEVELS["warn"], "daemon", "log lines dropped", {"count": self._dropped}))
        self._dropped = 0

    def _has_room(self, line: _Line) -> bool:
        return not self._lines or self._bytes + len(line[1]) <= _BUFFER_BYTES

    def _append(self, line: _Line) -> None:
        self._lines.append(line)
        self._bytes += len(line[1])

    def _drain(self) -> None:
        """Write what fits; the rest waits for the next line, or the next turn of the loop."""
        self.is_behind = False
        output = self._output
        if output is None or not self._lines:
            return
        try:
            if output.renew():
                self._forget_torn()
            while self._lines:
                self._forget(output.take(list(islice(self._lines, output.at_once))))
                if self._dropped and not self._lines:
                    self._append_dropped()
        except BlockingIOError:
            self.is_behind = True
        except OSError:
            # A full disk, a reader that is gone: later, perhaps. A timer would wake an idle daemon for nothing.
            return

    def _forget(self, taken: int) -> None:
        """Forget what has been taken, up to the middle of a line."""
        self._bytes -= taken
        while self._lines and taken >= len(self._lines[0][1]):
            taken -= len(self._lines.popleft()[1])
            self._is_torn = False
        if taken:
            level, text = self._lines[0]
            self._lines[0] = level, text[taken:]
            self._is_torn = True

    def _forget_torn(self) -> None:
        """Forget the rest of a line whose beginning is elsewhere."""
        if self._is_torn:
            self._forget(len(self._lines[0][1]))


_LOG = _Log()


class Component:
    """The log as one part of the daemon writes it: constant messages, values as fields."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, message: str, **fields: Any) -> None:
        self._write(_LEVELS["debug"], message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self._write(_LEVELS["info"], message, fields)

    def warn(self, message: str, **fields: Any) -> None:
        self._write(_LEVELS["warn"], message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._write(_LEVELS["error"], message, fields)

    def at(self, level: str, message: str, **fields: Any) -> None:
        """Write at a level given by its name, as plugins do."""
        self._write(_LEVELS[level], message, fields)

    def _write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        if level >= _LOG.level:
            _LOG.add(_encode(level, self._name, message, fields))


class Opened:
    """A log that is open: it is in force from `use` on, or closed again."""

    def __init__(self, output: _Output, level: str) -> None:
        self._output = output
        self._level = _LEVELS[level]

    def use(self) -> None:
        """Send all lines here from now on, in the place of what was in force."""
        _LOG.use(self._output, self._level)

    def close(self) -> None:
        """Give it up: what is in force stays."""
        self._output.close()


def opened(destination: str | Path, level: str, name: str = "ductile") -> Opened:
    """Open `stdout`, `syslog` or a file, for lines from `level` upwards; `name` is who speaks in syslog.

    Raises DuctileError (71) where the file cannot be opened or there is no syslog. What cannot be written later waits
    within a bound; past it lines are dropped and counted: neither a full disk nor a reader that does not read keeps
    the daemon from its work.
    """
    return Opened(_open(destination, name), level)


def set_up(destination: str | Path, level: str, name: str = "ductile") -> None:
    """Send the log there from now on. Raises DuctileError (71), and then it stays where it was."""
    opened(destination, level, name).use()


def has_syslog() -> bool:
    """Say whether this machine has a syslog to write to."""
    return os.path.exists(_SYSLOG)


def hold() -> None:
    """Keep this thread's lines from now on until `flush`: a loop that starts processes writes while they run."""
    _LOG.hold()


def flush() -> None:
    """Write what waits, as far as it fits."""
    _LOG.flush()


def is_behind() -> bool:
    """Say whether the reader has not taken all when it was last tried: `flush` may get rid of more soon."""
    return _LOG.is_behind


def close(patience: float = 0.0) -> None:
    """End the log: write what waits, with so many seconds for a reader that lags."""
    _LOG.close(patience)


def _encode(level: int, component: str, message: str, fields: dict[str, Any]) -> _Line:
    line: dict[str, Any] = {
        "timestamp": utc_text(datetime.now(UTC)), "level": _NAMES[level], "component": component,
        "message": message,
    }
    try:
        text = _ENCODER.encode(line | fields)
    except Exception as error:
        # A field's own __str__ may raise anything.
        text = _ENCODER.encode(line | {"fields_not_written": f"{type(error).__name__} in one of {', '.join(fields)}"})
    return level, text.encode("ascii") + b"\n"


def _open(destination: str | Path, name: str) -> _Output:
    if destination == "stdout":
        fd = sys.stdout.fileno()
        return _Socket(socket.socket(fileno=os.dup(fd))) if stat.S_ISSOCK(os.fstat(fd).st_mode) else _Stream(fd)
    try:
        return _Syslog(name) if destination == "syslog" else _File(Path(destination))
    except OSError as error:
        place = f"syslog at {_SYSLOG}" if destination == "syslog" else printable(Path(destination))
        raise DuctileError(
            f"cannot open the log {place}: {error.strerror}; set service.log to a path that can be written",
            exit_code=EXIT_SYSTEM,
        ) from error


def _open_file(path: Path) -> int:
    """Open a file or a device for the log. Raises OSError, also for a FIFO: it has no reader, or one that may stop."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, _FILE_MODE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            # A FIFO without a reader, or a socket: open(2).
            raise OSError(errno.ENXIO, _NO_FILE) from error
        raise
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENXIO, _NO_FILE)
    return fd


def _connect_syslog() -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        connected.connect(_SYSLOG)
        return connected
    except OSError:
        connected.close()
        raise


def _joined(lines: Sequence[_Line]) -> bytes:
    return b"".join([text for _, text in lines])


def _is_ready(fd: int, seconds: float) -> bool:
    """Wait until a descriptor can be written, for at most so long, and say whether it can."""
    ready = select.poll()
    ready.register(fd, select.POLLOUT)
    return bool(ready.poll(seconds * 1000))
