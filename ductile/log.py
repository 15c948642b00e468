"""The daemon's log: one JSON object a line, to standard output, syslog or a file that may be rotated."""

from __future__ import annotations

import errno
import json
import logging
import logging.handlers
import os
import stat
import sys
import threading
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from ductile.disk import printable
from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.units import utc_text

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_NAMES = {number: name for name, number in _LEVELS.items()} | {logging.CRITICAL: "error"}
_ROOT = logging.getLogger("ductile")
_ROOT.addHandler(logging.NullHandler())   # nothing is printed before `set_up` has been told where to
_HELD_LINES = 1000
_NEVER = logging.CRITICAL + 1
_ENCODER = json.JSONEncoder(default=str)
_SYSLOG = "/dev/log"
_NO_FILE = "Not a file, but a FIFO or a socket"
_FILE_MODE = 0o640  # logs are for the owner and a group of readers, never for others


class _Lines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": utc_text(datetime.fromtimestamp(record.created, timezone.utc)),
            "level": _NAMES.get(record.levelno, "info"),
            "component": record.component,
            "message": record.msg,
        }
        return _ENCODER.encode(line | record.fields)


class _LogFile(logging.handlers.WatchedFileHandler):
    """A file that is opened again when it was moved away; a line that cannot be written ends nothing."""

    def _open(self) -> IO[str]:
        return open(self.baseFilename, "a", encoding="utf-8", opener=_open_without_waiting)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            # A full disk: what it has not taken is lost, like any line that cannot be written.
            return


class _Held(logging.handlers.MemoryHandler):
    """Lines of the thread that made it, kept until they are asked for; those of other threads let all go.

    With it the handler that they are for is closed.
    """

    def __init__(self, capacity: int, target: logging.Handler) -> None:
        super().__init__(capacity, flushLevel=_NEVER, target=target)
        self._owner = threading.get_ident()

    def shouldFlush(self, record: logging.LogRecord) -> bool:
        return threading.get_ident() != self._owner or super().shouldFlush(record)

    def close(self) -> None:
        target = self.target
        super().close()
        if target is not None:
            target.close()


class Component:
    """The log as one part of the daemon writes it: constant messages, values as fields."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, message: str, **fields: Any) -> None:
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self._write(logging.INFO, message, fields)

    def warn(self, message: str, **fields: Any) -> None:
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._write(logging.ERROR, message, fields)

    def at(self, level: str, message: str, **fields: Any) -> None:
        """Write at a level given by its name, as plugins do."""
        self._write(_LEVELS[level], message, fields)

    def _write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        if _ROOT.isEnabledFor(level):
            # Made here and not by `_ROOT.log`, which walks the stack for a file name that no line shows.
            record = logging.LogRecord(_ROOT.name, level, "", 0, message, None, None)
            record.component = self._name
            record.fields = fields
            _ROOT.handle(record)


class Opened:
    """A log that is open: it is in force from `use` on, or closed again."""

    def __init__(self, handler: logging.Handler, level: str) -> None:
        self._handler = handler
        self._level = level

    def use(self) -> None:
        """Send all lines here from now on, in the place of what was in force."""
        logging.raiseExceptions = False
        # No line shows these, and each is looked up for each line.
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        _ROOT.setLevel(_LEVELS[self._level])
        _ROOT.propagate = False
        _replace_handlers(self._handler)

    def close(self) -> None:
        """Give it up: what is in force stays."""
        self._handler.close()


def opened(destination: str | Path, level: str, name: str = "ductile") -> Opened:
    """Open `stdout`, `syslog` or a file, for lines from `level` upwards; `name` is who speaks in syslog.

    Raises DuctileError (71) where the file cannot be opened or there is no syslog. A line that cannot be written later
    is dropped: a full disk or a closed pipe must not end the daemon.
    """
    handler = _handler(destination, name)
    handler.setFormatter(_Lines())
    return Opened(handler, level)


def set_up(destination: str | Path, level: str, name: str = "ductile") -> None:
    """Send the log there from now on. Raises DuctileError (71), and then it stays where it was."""
    opened(destination, level, name).use()


def hold() -> None:
    """Keep this thread's lines from now on until `flush`: a loop that starts processes writes while they run."""
    handler = _ROOT.handlers[0]
    _ROOT.addHandler(_Held(_HELD_LINES, handler))
    _ROOT.removeHandler(handler)


def _replace_handlers(handler: logging.Handler) -> None:
    """Put a handler in the place of all others, with never a moment without one: threads may be writing."""
    before = list(_ROOT.handlers)
    _ROOT.addHandler(handler)
    for old in before:
        _ROOT.removeHandler(old)
        old.close()


def flush() -> None:
    """Write the lines that are held."""
    for handler in _ROOT.handlers:
        with suppress(OSError):
            handler.flush()


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file or a device for the log. Raises OSError, also for a FIFO, whose reader all lines would wait for."""
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, _FILE_MODE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            # A FIFO without a reader, or a socket: open(2).
            raise OSError(errno.ENXIO, _NO_FILE) from error
        raise
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENXIO, _NO_FILE)
    os.set_blocking(fd, True)
    return fd


def _handler(destination: str | Path, name: str) -> logging.Handler:
    if destination == "stdout":
        return logging.StreamHandler(sys.stdout)
    try:
        if destination == "syslog":
            # The handler takes a socket that is not there for one that is not there yet.
            os.stat(_SYSLOG)
            handler = logging.handlers.SysLogHandler(_SYSLOG, logging.handlers.SysLogHandler.LOG_DAEMON)
            handler.ident = f"{name}: "
            return handler
        return _LogFile(destination)
    except OSError as error:
        place = f"syslog at {_SYSLOG}" if destination == "syslog" else printable(Path(destination))
        raise DuctileError(
            f"cannot open the log {place}: {error.strerror}; set service.log to a path that can be written",
            exit_code=EXIT_SYSTEM,
        ) from error
