"""The daemon's log: lines to standard output, syslog or a file. Writing never blocks."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ductile import log_line
from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.log_line import Format
from ductile.safe_files import printable

_LEVELS = {"debug": 0, "info": 1, "warn": 2, "error": 3}
_NEVER = len(_LEVELS)
_NAMES = tuple(_LEVELS)

# For a slow reader. When it is full, lines are dropped and counted.
_BUFFER_BYTES = 1024 * 1024
_HELD_LINES = 1000

_SYSLOG = "/dev/log"
_SYSLOG_DAEMON = 3 << 3               # the facility, RFC 3164
_SYSLOG_SEVERITIES = (7, 6, 4, 3)     # debug, info, warning, error
_SYSLOG_BYTES = 64 * 1024             # of a message; longer ones are truncated
_NO_FILE = "Is a FIFO or a socket, not a file"
_FILE_MODE = 0o640  # readable by the owner and a group, never by others

# A level and a line with its newline, or the rest of one.
_Line = tuple[int, bytes]
# What becomes a line: time, level, component, message, fields.
_Entry = tuple[datetime, int, str, str, Mapping[str, Any]]


class _Output(Protocol):
    """A destination of lines. `batch` is the number of lines that one write takes."""

    batch: int

    def reopen(self) -> bool:
        """Reopen it if necessary; True if it was. Raises OSError."""

    def write(self, lines: Sequence[_Line]) -> int:
        """Write as much as fits and return the number of bytes. Raises BlockingIOError if none fits, OSError."""

    def wait(self, seconds: float) -> None:
        """Wait until something fits, for at most `seconds`."""

    def close(self) -> None: ...


class _Stream:
    """An open pipe, terminal or file. Its descriptor is never made non-blocking: other processes may share it."""

    batch = 256

    def __init__(self, fd: int) -> None:
        """Write to the file of `fd` through a descriptor of its own."""
        self._is_polled = False
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            try:
                # A new open file description has its own flags.
                self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
                return
            except OSError:
                # No /proc, a pipe of another user, or one without a reader.
                self._is_polled = True
        self._fd = os.dup(fd)

    def reopen(self) -> bool:
        return False

    def write(self, lines: Sequence[_Line]) -> int:
        data = _joined(lines)
        if self._is_polled:
            if not _is_ready(self._fd, 0):
                raise BlockingIOError
            # A ready pipe accepts this much without blocking (pipe(7)).
            data = data[:select.PIPE_BUF]
        return os.write(self._fd, data)

    def wait(self, seconds: float) -> None:
        _is_ready(self._fd, seconds)

    def close(self) -> None:
        os.close(self._fd)


class _File(_Stream):
    """A file by its path; reopened after it was moved or removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_polled = False
        self._fd = _open_file(path)

    def reopen(self) -> bool:
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
    """A connected socket; not made non-blocking either."""

    batch = 256

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def reopen(self) -> bool:
        return False

    def write(self, lines: Sequence[_Line]) -> int:
        return self._socket.send(_joined(lines), socket.MSG_DONTWAIT)

    def wait(self, seconds: float) -> None:
        _is_ready(self._socket.fileno(), seconds)

    def close(self) -> None:
        self._socket.close()


class _Syslog(_Socket):
    """Syslog, a datagram for each line; `name` is the tag."""

    batch = 1

    def __init__(self, name: str) -> None:
        super().__init__(_connect_syslog())
        self._name = name.encode("utf-8", "backslashreplace")

    def write(self, lines: Sequence[_Line]) -> int:
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
                # The system's limit is lower. Dropped: a retry would fail too.
                return
            # For example after a restart of syslogd: the socket is a new one.
            fresh = _connect_syslog()
            self._socket.close()
            self._socket = fresh
            fresh.send(message, socket.MSG_DONTWAIT)


class _Log:
    """The buffer between the components and the output."""

    def __init__(self) -> None:
        self.level = _NEVER       # nothing is logged before `set_up`
        self._format: Format = log_line.as_json
        self._output: _Output | None = None
        self._lock = threading.Lock()
        self._held: list[_Entry] = []
        self._lines: deque[_Line] = deque()
        self._bytes = 0           # in `_lines`
        self._is_partial = False     # the first of `_lines` is the rest of a partly written line
        self._dropped = 0
        self._owner: int | None = None
        self.is_behind = False    # the last write did not take everything

    def use(self, output: _Output, level: int, format: Format) -> None:
        """Switch to another output; lines that the old one did not take go to the new one, as they are."""
        with self._lock:
            self._drain()
            self._close_output()
            self._output = output
            self._format = format
            self.level = level

    def add(self, level: int, component: str, message: str, fields: Mapping[str, Any]) -> None:
        """Add a line, and write it now unless this thread holds its lines."""
        with self._lock:
            if self._output is None:
                return
            self._held.append((datetime.now(UTC), level, component, message, fields))
            if self._owner != threading.get_ident() or len(self._held) >= _HELD_LINES:
                self._drain()

    def hold(self) -> None:
        with self._lock:
            self._owner = threading.get_ident()

    def flush(self) -> None:
        with self._lock:
            self._drain()

    def close(self, patience: float) -> None:
        """Write the rest, waiting up to `patience` seconds for a slow reader, and end the log."""
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
        self._drop_partial()

    def _keep(self, entry: _Entry) -> None:
        line = self._line(entry)
        if not self._has_room(line):
            self._dropped += 1
            return
        if self._dropped:
            self._append_dropped()
        self._append(line)

    def _line(self, entry: _Entry) -> _Line:
        now, level, component, message, fields = entry
        return level, self._format(now, _NAMES[level], component, message, fields)

    def _append_dropped(self) -> None:
        self._append(self._line((datetime.now(UTC), _LEVELS["warn"], "daemon", "log lines dropped",
                                 {"count": self._dropped})))
        self._dropped = 0

    def _has_room(self, line: _Line) -> bool:
        return not self._lines or self._bytes + len(line[1]) <= _BUFFER_BYTES

    def _append(self, line: _Line) -> None:
        self._lines.append(line)
        self._bytes += len(line[1])

    def _drain(self) -> None:
        """Write what fits; the rest waits for the next line or the next turn of the loop."""
        self.is_behind = False
        output = self._output
        for entry in self._held:
            self._keep(entry)
        self._held.clear()
        if output is None or not self._lines:
            return
        try:
            if output.reopen():
                self._drop_partial()
            while self._lines:
                self._remove(output.write(list(islice(self._lines, output.batch))))
                if self._dropped and not self._lines:
                    self._append_dropped()
        except BlockingIOError:
            self.is_behind = True
        except OSError:
            # A full disk or no reader. Retried with the next line; a timer would only wake an idle daemon.
            return

    def _remove(self, written: int) -> None:
        """Remove written bytes from the buffer, which may end within a line."""
        self._bytes -= written
        while self._lines and written >= len(self._lines[0][1]):
            written -= len(self._lines.popleft()[1])
            self._is_partial = False
        if written:
            level, text = self._lines[0]
            self._lines[0] = level, text[written:]
            self._is_partial = True

    def _drop_partial(self) -> None:
        """Remove the rest of a line that began in another file."""
        if self._is_partial:
            self._remove(len(self._lines[0][1]))


_LOG = _Log()


class Component:
    """The log of one part of the daemon. Messages are constant, values are fields."""

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
        """Log at a level given by name."""
        self._write(_LEVELS[level], message, fields)

    def _write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        if level >= _LOG.level:
            _LOG.add(level, self._name, message, fields)


class Opened:
    """An opened log that is not in use yet."""

    def __init__(self, output: _Output, level: str, format: Format) -> None:
        self._output = output
        self._level = _LEVELS[level]
        self._format = format

    def use(self) -> None:
        """Replace the log in use."""
        _LOG.use(self._output, self._level, self._format)

    def close(self) -> None:
        """Close it; the log in use stays."""
        self._output.close()


def opened(destination: str | Path, level: str, name: str = "ductile", format: str = "auto") -> Opened:
    """Open `stdout`, `syslog` or a file, for lines from `level` upwards; `name` is the syslog tag.

    `format` is `json`, `text`, or `auto`: text on a terminal, else JSON. Raises DuctileError (71) if the file cannot be
    opened or there is no syslog. Later failures never stop the daemon: lines wait in a bounded buffer, and are dropped
    and counted when it is full.
    """
    return Opened(_open(destination, name), level, _format(destination, format))


def _format(destination: str | Path, name: str) -> Format:
    is_terminal = destination == "stdout" and sys.stdout.isatty()
    if name == "json" or (name == "auto" and not is_terminal):
        return log_line.as_json
    return log_line.as_text if is_terminal else log_line.as_dated_text


def set_up(destination: str | Path, level: str, name: str = "ductile", format: str = "auto") -> None:
    """Open a log and use it. Raises DuctileError (71), and then the log in use stays."""
    opened(destination, level, name, format).use()


def has_syslog() -> bool:
    """True if this machine has a syslog."""
    return os.path.exists(_SYSLOG)


def hold() -> None:
    """Hold this thread's lines until `flush`, so that the loop formats and writes them while a plugin runs."""
    _LOG.hold()


def flush() -> None:
    """Write the buffered lines, as far as they fit."""
    _LOG.flush()


def is_behind() -> bool:
    """True if the last write did not take everything, so that `flush` should be called again."""
    return _LOG.is_behind


def close(patience: float = 0.0) -> None:
    """Write the buffered lines, waiting up to `patience` seconds for a slow reader, and end the log."""
    _LOG.close(patience)


def _open(destination: str | Path, name: str) -> _Output:
    if destination == "stdout":
        fd = sys.stdout.fileno()
        return _Socket(socket.socket(fileno=os.dup(fd))) if stat.S_ISSOCK(os.fstat(fd).st_mode) else _Stream(fd)
    try:
        return _Syslog(name) if destination == "syslog" else _File(Path(destination))
    except OSError as error:
        place = f"syslog at {_SYSLOG}" if destination == "syslog" else printable(Path(destination))
        raise DuctileError(
            f"cannot open the log {place}: {error.strerror}; set service.log to a writable path",
            exit_code=EXIT_SYSTEM,
        ) from error


def _open_file(path: Path) -> int:
    """Open a file or a device for the log. Raises OSError, also for a FIFO, whose reader may be missing or stop."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, _FILE_MODE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            # A FIFO without a reader, or a socket (open(2)).
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
    """Wait until a descriptor is writable, for at most `seconds`; True if it is."""
    ready = select.poll()
    ready.register(fd, select.POLLOUT)
    return bool(ready.poll(seconds * 1000))
