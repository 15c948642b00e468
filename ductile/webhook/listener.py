"""The webhook listener: it holds against strangers, reads one whole request and hands it on."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import os
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.log import Component
from ductile.webhook.http_head import Head, parse, path_of
from ductile.webhook.refusals import Refusal

_HEAD_LIMIT_BYTES = 64 * 1024
_HEADERS_LIMIT = 100
# Not Python's own size, which is larger than a head may be from 3.14 on: one that has come whole is read at once.
_BUFFER_BYTES = 8 * 1024
_LINGER_BYTES = 8 * 1024**2     # more than most bodies: a sender that does not look before it has sent gets its answer
_BACKLOG = 128
_PAUSE_SECONDS = 0.1            # when the process is out of descriptors or threads

_log = Component("webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a stranger may take. Each time is a total, however the bytes trickle.

    `idle_seconds` is between two requests on a connection that is kept, `linger_seconds` for a refused client to take
    its answer.
    """

    head_seconds: float = 10.0
    body_seconds: float = 10.0
    idle_seconds: float = 60.0
    linger_seconds: float = 1.0
    connections: int = 64


_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer. One with `close` ends the connection: nothing after its request is read.

    `refusal` says why it is one that refuses; `after` is called once it has been sent or could not be, for what nobody
    need wait for.
    """

    status: HTTPStatus
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = True
    refusal: Refusal | None = None
    after: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A request that may send its body: `length` bytes of it, and what answers it then.

    `answer` takes the body and a function to be called once the signature has been verified.
    """

    length: int
    answer: Callable[[bytes, Callable[[], None]], Reply]


class Receiver(Protocol):
    """Who makes something of requests."""

    def receive(self, head: Head, address: str) -> Reply | Expected:
        """Return what answers a head from an address at once, or what body is to be read first."""

    def refused(self, path: str | None, address: str, reply: Reply) -> None:
        """Take note of a refusal that was sent, or could not be; None where not even the path has come."""


class _Deadline(io.RawIOBase):
    """A socket to read from and to write to until a moment, however the bytes trickle.

    It never blocks: a timeout of the socket's own would have to be set anew, in the kernel too, for each turn.
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

    def readinto(self, buffer: memoryview) -> int:
        while True:
            self._wait(self._input)
            try:
                return self._connection.recv_into(buffer)
            except BlockingIOError:
                continue

    def send(self, data: bytes) -> None:
        """Write all of it. Raises TimeoutError where the client does not take it in time."""
        while data:
            try:
                data = data[self._connection.send(data):]
            except BlockingIOError:
                self._wait(self._output)

    def _wait(self, ready: select.poll) -> None:
        """Wait until the socket is ready, or closed by the other side. Raises TimeoutError."""
        left = self.until - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise TimeoutError


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection: its requests, one after the other."""

    disable_nagle_algorithm = True
    server: Listener

    def setup(self) -> None:
        super().setup()
        self._limits = self.server.limits
        self._stream = _Deadline(self.connection)
        self.rfile = io.BufferedReader(self._stream, _BUFFER_BYTES)
        self._is_first = True

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            # The client is gone, or the connection was closed to make room.
            self.close_connection = True

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.command = ""
        if not self._has_begun():
            return
        self._path: str | None = None
        try:
            reply = self._reply()
        except TimeoutError:
            what = "body" if self.command else "head"
            reply = Reply(status=HTTPStatus.REQUEST_TIMEOUT, refusal=Refusal(reason=f"the {what} did not come in time"))
        except OSError:
            raise
        except Exception:
            # A bug that a stranger has found must not end the daemon.
            _log.error("request not answered for a bug", error=traceback.format_exc())
            reply = Reply(status=HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            self._send(reply)
        finally:
            if reply.refusal is not None:
                self.server.receiver.refused(self._path, self.client_address[0], reply)
            if reply.after is not None:
                reply.after()

    def _has_begun(self) -> bool:
        """Wait for the first byte of a request; from then on the head has its time, the first from the beginning."""
        begun = time.monotonic()
        self._stream.until = begun + (self._limits.head_seconds if self._is_first else self._limits.idle_seconds)
        self.server.waits(self.connection)
        try:
            if not self.rfile.peek(1):
                return False
        except TimeoutError:
            return False
        finally:
            self.server.waits_no_more(self.connection)
        self._stream.until = (begun if self._is_first else time.monotonic()) + self._limits.head_seconds
        self._is_first = False
        return True

    def _reply(self) -> Reply:
        head = self._read_head()
        if isinstance(head, HTTPStatus):
            return Reply(status=head, refusal=Refusal(reason="the head is malformed or too large"))
        self.command = head.method
        self.close_connection = not head.wants_more
        expected = self.server.receiver.receive(head, self.client_address[0])
        if isinstance(expected, Reply):
            return expected
        body = self._read_body(head, expected.length)
        if body is None:
            return Reply(status=HTTPStatus.BAD_REQUEST, refusal=Refusal(reason="the body ended too soon"))
        return expected.answer(body, lambda: self.server.has_verified(self.connection))

    def _read_head(self) -> Head | HTTPStatus:
        # Usually it has come whole.
        length = self.rfile.peek(1).find(b"\r\n\r\n") + 4
        data = self.rfile.read(length) if length >= 4 else self._read_lines()
        if isinstance(data, HTTPStatus):
            return data
        self._path = path_of(data)
        if data.count(b"\r\n") > _HEADERS_LIMIT + 2:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        return parse(data) or HTTPStatus.BAD_REQUEST

    def _read_lines(self) -> bytes | HTTPStatus:
        """Read a head line by line: a wrong one is refused when it has come, and not when the rest has."""
        data = bytearray()
        while data != b"\r\n" and not data.endswith(b"\r\n\r\n"):
            line = self.rfile.readline(_HEAD_LIMIT_BYTES + 1 - len(data))
            if len(data) + len(line) > _HEAD_LIMIT_BYTES:
                return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if data else HTTPStatus.REQUEST_URI_TOO_LONG
            if not line.endswith(b"\r\n"):
                # Also where the client has stopped in the midst.
                return HTTPStatus.BAD_REQUEST
            self._path = self._path or path_of(line)
            data += line
        return bytes(data)

    def _read_body(self, head: Head, length: int) -> bytes | None:
        """Return the whole body, None where the client has stopped in its midst."""
        self._stream.until = time.monotonic() + self._limits.body_seconds
        if head.waits_for_leave:
            self._stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _send(self, reply: Reply) -> None:
        self.close_connection |= reply.close or self.server.closing
        fields = "".join([f"{name}: {value}\r\n" for name, value in reply.headers])
        end = "Connection: close\r\n\r\n" if self.close_connection else "\r\n"
        head = (f"{_status_line(reply.status)}Date: {_date(int(time.time()))}\r\n{fields}"
                f"Content-Length: {len(reply.body)}\r\n{end}").encode("latin-1")
        self._stream.until = time.monotonic() + self._limits.body_seconds
        self._stream.send(head if self.command == "HEAD" else head + reply.body)
        if reply.close:
            self._linger()

    def _linger(self) -> None:
        """Take what a refused client still sends, for a moment: closed at once, it would lose the answer to a reset."""
        self.connection.shutdown(socket.SHUT_WR)
        self._stream.until = time.monotonic() + self._limits.linger_seconds
        left = _LINGER_BYTES
        while left > 0 and (data := self.rfile.read1(left)):
            left -= len(data)


class Listener:
    """A socket that listens, a thread that accepts, and a thread for each connection."""

    def __init__(self, host: str, port: int, receiver: Receiver, *, limits: Limits = _LIMITS) -> None:
        """Bind and listen. Raises DuctileError (71) where the address cannot be had."""
        self.receiver = receiver
        self.limits = limits
        self.closing = False
        # Whether each connection has shown a verified request, and when it last did, or came.
        self._shown: dict[socket.socket, tuple[bool, float]] = {}
        self._between: set[socket.socket] = set()       # connections that wait for the beginning of a request
        self._served = 0                                # connections with a thread, evicted ones among them
        self._is_exhausted = False                      # the process could take no more when it last tried
        self._lock = threading.Lock()
        self._has_ended = threading.Condition(self._lock)
        self._socket = _listen(host, port)
        self._thread = threading.Thread(target=self._accept, name="listener", daemon=True)

    @property
    def address(self) -> str:
        """Return where it listens, such as 127.0.0.1:8081 or [::1]:8081."""
        return _spell(*self._socket.getsockname()[:2])

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening; connections that wait for their next request end, those in the midst of one are answered."""
        self.closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        with self._lock:
            for connection in self._between:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def waits(self, connection: socket.socket) -> None:
        """Let `close` end the connection until `waits_no_more`: nothing of a request has come yet."""
        with self._lock:
            self._between.add(connection)
            if self.closing:
                connection.shutdown(socket.SHUT_RD)

    def waits_no_more(self, connection: socket.socket) -> None:
        """Note that a request has begun, or that none will."""
        with self._lock:
            self._between.discard(connection)

    @property
    def is_quiet(self) -> bool:
        """Say whether no connection is left."""
        return self._served == 0

    def wait_until_quiet(self, seconds: float) -> None:
        """Wait until no connection is left, for at most `seconds`."""
        with self._lock:
            self._has_ended.wait_for(lambda: self._served == 0, seconds)

    def has_verified(self, connection: socket.socket) -> None:
        """Note that a connection has just shown a request whose signature was right."""
        with self._lock:
            if connection in self._shown:
                self._shown[connection] = True, time.monotonic()

    def _accept(self) -> None:
        # Waited for here: accept(2) takes a descriptor before it waits, and would fail with nobody there.
        someone = select.poll()
        someone.register(self._socket, select.POLLIN)
        while not self.closing:
            someone.poll()
            try:
                connection, address = self._socket.accept()
            except OSError as error:
                self._pause(error)
                continue
            self._make_room(self.limits.connections - 1)
            with self._lock:
                self._shown[connection] = False, time.monotonic()
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
        """Give up the worst connection where the process can take no more, and a moment. It is said once."""
        if self.closing:
            return
        if not self._is_exhausted:
            self._is_exhausted = True
            _log.warn("connections not accepted", error=str(error))
        self._make_room(max(0, len(self._shown) - 1))
        time.sleep(_PAUSE_SECONDS)

    def _make_room(self, most: int) -> None:
        """Close the connections that have longest not shown a verified request, until `most` are left.

        First those that never have: strangers, however many, do not drive out a sender.
        """
        with self._lock:
            while len(self._shown) > most:
                victim = min(self._shown, key=self._shown.__getitem__)
                del self._shown[victim]
                with contextlib.suppress(OSError):
                    victim.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket, address: tuple) -> None:
        try:
            _Handler(connection, address, self)
        except OSError:
            # Gone before its first byte, or in the last: nobody is left to answer.
            pass
        finally:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        connection.close()
        with self._lock:
            self._shown.pop(connection, None)
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
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno)
        raise DuctileError(f"cannot listen on {_spell(host, port)}: {why}; set webhooks.listen to a free address",
                           exit_code=EXIT_SYSTEM) from error


def _spell(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
