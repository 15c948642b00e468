"""The webhook listener: a thread for each connection, which reads requests within their limits and sends answers."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import os
import select
import socket
import socketserver
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.inbox import start_thread
from ductile.log import Component
from ductile.webhook.http_head import Head, Refused, parse, path_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_HEAD_LIMIT_BYTES = 64 * 1024
_HEADERS_LIMIT = 100
# Not Python's own size: from 3.14 on it is larger than a head may be.
_BUFFER_BYTES = 8 * 1024
_LINGER_BYTES = 8 * 1024**2     # more than most bodies: a client that sends everything first still gets its answer
_BACKLOG = 128
_PAUSE_SECONDS = 0.1            # when the process is out of descriptors or threads

_log = Component("webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits for clients. Each time is a total, however slowly the bytes arrive.

    `idle_seconds` is the time between two requests on a connection, `linger_seconds` the time that a refused client has
    to read its answer.
    """

    head_seconds: float = 10.0
    body_seconds: float = 10.0
    idle_seconds: float = 60.0
    linger_seconds: float = 1.0
    connections: int = 64


_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer. `close` ends the connection: nothing after the request is read."""

    status: HTTPStatus
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = True


class _DeadlineStream(io.RawIOBase):
    """Reads and writes a socket until a deadline, `until`.

    The socket never blocks. A timeout of the socket itself would apply to each call, not to the total.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setblocking(False)
        self._input, self._output = select.poll(), select.poll()
        self._input.register(connection, select.POLLIN)
        self._output.register(connection, select.POLLOUT)
        self.until = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while True:
            self._wait(self._input)
            try:
                return self._connection.recv_into(buffer)
            except BlockingIOError:
                continue

    def send(self, data: bytes) -> None:
        """Write all of `data`. Raises TimeoutError at the deadline."""
        while data:
            try:
                data = data[self._connection.send(data):]
            except BlockingIOError:
                self._wait(self._output)

    def _wait(self, ready: select.poll) -> None:
        """Wait until the socket is ready or closed by the client. Raises TimeoutError."""
        left = self.until - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise TimeoutError


class Connection(http.server.BaseHTTPRequestHandler):
    """One connection. For each request it calls the listener's `handle`, which reads and answers it here.

    `request_path` is the path of the current request; None if the client has not sent one.
    """

    disable_nagle_algorithm = True

    def __init__(self, connection: socket.socket, address: tuple[Any, ...], listener: Listener) -> None:
        self._listener = listener
        self._limits = listener.limits
        self.request_path: str | None = None
        self._is_first = True
        self._is_answered = False
        # The base class serves the connection in here; it only stores its server.
        super().__init__(connection, address, cast(socketserver.BaseServer, listener))

    @property
    def address(self) -> str:
        """The IP address of the client."""
        return str(self.client_address[0])

    def setup(self) -> None:
        super().setup()
        self._stream = _DeadlineStream(self.connection)
        self._reader = self.rfile = io.BufferedReader(self._stream, _BUFFER_BYTES)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            # The client is gone, or the connection was closed to make room.
            self.close_connection = True

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.command, self.request_path, self._is_answered = "", None, False
        if not self._await_request():
            return
        try:
            self._listener.handle(self)
        except OSError:
            raise
        except Exception:
            # No request may end the daemon.
            _log.error("request failed because of a bug", error=traceback.format_exc())
            if not self._is_answered:
                self.send(Reply(status=HTTPStatus.INTERNAL_SERVER_ERROR))

    def _await_request(self) -> bool:
        """Wait for the first byte of a request; False if none comes.

        The deadline for the head starts at the first byte, or at connect for the first request.
        """
        begun = time.monotonic()
        self._stream.until = begun + (self._limits.head_seconds if self._is_first else self._limits.idle_seconds)
        self._listener.mark_idle(self.connection)
        try:
            if not self._reader.peek(1):
                return False
        except TimeoutError:
            return False
        finally:
            self._listener.mark_busy(self.connection)
        self._stream.until = (begun if self._is_first else time.monotonic()) + self._limits.head_seconds
        self._is_first = False
        return True

    def read_head(self) -> Head:
        """Read the head of the request. Raises Refused, and OSError when the client is gone."""
        try:
            # Usually the head has arrived as a whole.
            length = self._reader.peek(1).find(b"\r\n\r\n") + 4
            data = self._reader.read(length) if length >= 4 else self._read_lines()
        except TimeoutError as error:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the head did not arrive in time") from error
        self.request_path = path_of(data)
        if data.count(b"\r\n") > _HEADERS_LIMIT + 2:
            raise _malformed(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        head = parse(data)
        if head is None:
            raise _malformed(HTTPStatus.BAD_REQUEST)
        self.command = head.method
        self.close_connection = not head.keeps_connection
        return head

    def _read_lines(self) -> bytes:
        """Read a head line by line, so that a malformed line is refused before the next one arrives."""
        data = bytearray()
        while data != b"\r\n" and not data.endswith(b"\r\n\r\n"):
            line = self._reader.readline(_HEAD_LIMIT_BYTES + 1 - len(data))
            if len(data) + len(line) > _HEAD_LIMIT_BYTES:
                raise _malformed(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if data else HTTPStatus.REQUEST_URI_TOO_LONG)
            if not line.endswith(b"\r\n"):
                # Also when the client stopped in the middle of a line.
                raise _malformed(HTTPStatus.BAD_REQUEST)
            self.request_path = self.request_path or path_of(line)
            data += line
        return bytes(data)

    def read_body(self, head: Head, length: int) -> bytes:
        """Read the body of the request. Raises Refused, and OSError when the client is gone."""
        self._stream.until = time.monotonic() + self._limits.body_seconds
        try:
            if head.expects_continue:
                self._stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = self._reader.read(length)
        except TimeoutError as error:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time") from error
        if len(body) < length:
            raise Refused(HTTPStatus.BAD_REQUEST, "the body ended early")
        return body

    def mark_verified(self) -> None:
        """Note that the signature of the request is valid: this connection is among the last to be closed for room."""
        self._listener.mark_verified(self.connection)

    def send(self, reply: Reply) -> None:
        """Answer the request. Raises OSError when the client is gone."""
        self._is_answered = True
        self.close_connection |= reply.close or self._listener.closing
        fields = "".join([f"{name}: {value}\r\n" for name, value in reply.headers])
        end = "Connection: close\r\n\r\n" if self.close_connection else "\r\n"
        head = (f"{_status_line(reply.status)}Date: {_date(int(time.time()))}\r\n{fields}"
                f"Content-Length: {len(reply.body)}\r\n{end}").encode("latin-1")
        self._stream.until = time.monotonic() + self._limits.body_seconds
        self._stream.send(head if self.command == "HEAD" else head + reply.body)
        if reply.close:
            self._linger()

    def _linger(self) -> None:
        """Discard what a refused client still sends, for a moment: an immediate close would reset its answer away."""
        self.connection.shutdown(socket.SHUT_WR)
        self._stream.until = time.monotonic() + self._limits.linger_seconds
        left = _LINGER_BYTES
        while left > 0 and (data := self._reader.read1(left)):
            left -= len(data)


def _malformed(status: HTTPStatus) -> Refused:
    return Refused(status, "the head is malformed or too large")


class Listener:
    """A listening socket, a thread that accepts, and a thread for each connection."""

    def __init__(self, host: str, port: int, handle: Callable[[Connection], None], *, limits: Limits = _LIMITS) -> None:
        """Bind and listen; `handle` answers one request on a connection. Raises DuctileError (71)."""
        self.handle = handle
        self.limits = limits
        self.closing = False
        # For each connection: whether it has sent a verified request, and when it last did, or else connected.
        self._verified: dict[socket.socket, tuple[bool, float]] = {}
        self._idle: set[socket.socket] = set()          # connections between two requests
        self._served = 0                                # connections with a thread, closed ones among them
        self._is_exhausted = False                      # the last accept failed for lack of resources
        self._lock = threading.Lock()
        self._has_ended = threading.Condition(self._lock)
        self._socket = _listen(host, port)
        self._thread = threading.Thread(target=self._accept, name="listener", daemon=True)

    @property
    def address(self) -> str:
        """The listening address, such as 127.0.0.1:8081 or [::1]:8081."""
        return _format_address(*self._socket.getsockname()[:2])

    def start(self) -> None:
        """Start to accept. Raises DuctileError (71) and closes the socket if no thread can be started."""
        try:
            start_thread(self._thread)
        except RuntimeError as error:
            address = self.address
            self.close()
            raise DuctileError(f"cannot listen on {address}: {error}; check the limits on memory and processes",
                               exit_code=EXIT_SYSTEM) from error

    def close(self) -> None:
        """Stop listening. Idle connections are closed; requests in progress are still answered."""
        self.closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        with self._lock:
            for connection in self._idle:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def mark_idle(self, connection: socket.socket) -> None:
        """Let `close` end the connection: no byte of a request has arrived."""
        with self._lock:
            self._idle.add(connection)
            if self.closing:
                connection.shutdown(socket.SHUT_RD)

    def mark_busy(self, connection: socket.socket) -> None:
        """End the effect of `mark_idle`."""
        with self._lock:
            self._idle.discard(connection)

    def mark_verified(self, connection: socket.socket) -> None:
        """Note that the connection has just sent a request with a valid signature."""
        with self._lock:
            if connection in self._verified:
                self._verified[connection] = True, time.monotonic()

    @property
    def is_quiet(self) -> bool:
        """True if no connection is left."""
        return self._served == 0

    def wait_until_quiet(self, seconds: float) -> None:
        """Wait until no connection is left, for at most `seconds`."""
        with self._lock:
            self._has_ended.wait_for(lambda: self._served == 0, seconds)

    def _accept(self) -> None:
        # accept(2) reserves a descriptor before it waits, and would fail without a client.
        incoming = select.poll()
        incoming.register(self._socket, select.POLLIN)
        while not self.closing:
            incoming.poll()
            try:
                connection, address = self._socket.accept()
            except OSError as error:
                self._pause(error)
                continue
            self._make_room(self.limits.connections - 1)
            with self._lock:
                self._verified[connection] = False, time.monotonic()
                self._served += 1
            thread = threading.Thread(target=self._serve, args=(connection, address), name="connection", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._forget(connection)
                self._pause(error)
                continue
            if self._is_exhausted:
                self._is_exhausted = False
                _log.info("connections accepted again")

    def _pause(self, error: Exception) -> None:
        """Close one connection and wait a moment when the process is out of resources. Logged once."""
        if self.closing:
            return
        if not self._is_exhausted:
            self._is_exhausted = True
            _log.warn("connections not accepted", error=str(error))
        self._make_room(max(0, len(self._verified) - 1))
        time.sleep(_PAUSE_SECONDS)

    def _make_room(self, limit: int) -> None:
        """Close connections until `limit` are left: the one first whose last verified request is longest ago.

        Those without any go before all others: strangers, however many, do not drive out a sender.
        """
        with self._lock:
            while len(self._verified) > limit:
                victim = min(self._verified, key=self._verified.__getitem__)
                del self._verified[victim]
                with contextlib.suppress(OSError):
                    victim.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket, address: tuple[Any, ...]) -> None:
        try:
            Connection(connection, address, self)
        except OSError:
            # The client is gone: nobody is left to answer.
            pass
        finally:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        connection.close()
        with self._lock:
            self._verified.pop(connection, None)
            self._served -= 1
            self._has_ended.notify_all()


@functools.cache
def _status_line(status: HTTPStatus) -> str:
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n"


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        # The text of create_server repeats the address.
        why = os.strerror(error.errno) if error.errno and not isinstance(error, socket.gaierror) else error.strerror
        raise DuctileError(f"cannot listen on {_format_address(host, port)}: {why}; set webhooks.listen to a free"
                           f" address", exit_code=EXIT_SYSTEM) from error


def _format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
