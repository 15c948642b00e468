"""The webhook listener: a thread for each connection, which reads requests within their limits and sends answers."""

from __future__ import annotations

import contextlib
import errno
import functools
import http.server
import io
import math
import os
import select
import socket
import socketserver
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.log import Component
from ductile.webhook.http_head import (
    Head,
    Refused,
    bad_chunk,
    body_length,
    check_trailer,
    chunk_size,
    parse,
    path_of,
    too_large,
)
from ductile.webhook.sockets import UNIX_CLIENT, ServerSocket

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_HEAD_LIMIT_BYTES = 64 * 1024
_HEADERS_LIMIT = 100
# Not Python's own size: from 3.14 on it is larger than a head may be.
_BUFFER_BYTES = 8 * 1024
_MAPPED = "::ffff:"             # RFC 4291, section 2.5.5.2
_CHUNK_LINE_BYTES = 4 * 1024
_TRAILERS_LIMIT = 100
_LINGER_BYTES = 8 * 1024**2     # more than most bodies: a client that sends everything first still gets its answer
_PAUSE_SECONDS = 0.1            # when the process is out of descriptors or threads

_log = Component("webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits for clients. Each time is a total, however slowly the bytes arrive.

    `idle_seconds` is the time between two requests on a connection, `linger_seconds` the time that a refused client has
    to read its answer, `grace_seconds` the time that a client has to show a verified request before it may be closed
    to make room.
    """

    head_seconds: float = 10.0
    body_seconds: float = 10.0
    idle_seconds: float = 60.0
    linger_seconds: float = 1.0
    grace_seconds: float = 0.2
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

    `request_path` is the path of the current request; None if the client has not sent one. `forwarded_for` is what
    proxies say of where it came from, the nearest proxy last.
    """

    def __init__(self, connection: socket.socket, address: Any, listener: Listener, peer: Peer) -> None:
        self._listener = listener
        self._limits = listener.limits
        self._peer = peer
        self.request_path: str | None = None
        self.forwarded_for: list[str] = []
        self._is_first = True
        self._is_answered = False
        # The base class serves the connection in here; it only stores its server.
        super().__init__(connection, address, cast(socketserver.BaseServer, listener))

    @property
    def address(self) -> str:
        """The IP address of the client, or `unix` on a Unix socket."""
        if self.connection.family == socket.AF_UNIX:
            return UNIX_CLIENT
        # On a socket of both families an IPv4 address is mapped.
        return str(self.client_address[0]).removeprefix(_MAPPED)

    @property
    def is_health(self) -> bool:
        """True if only health is served on the address that the client has connected to."""
        return self._peer.server is not None and self._peer.server.is_health

    def setup(self) -> None:
        super().setup()
        if self.connection.family != socket.AF_UNIX:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
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
        self.command, self.request_path, self.forwarded_for, self._is_answered = "", None, [], False
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
        self._listener.mark_idle(self._peer)
        try:
            if not self._reader.peek(1):
                return False
        except TimeoutError:
            return False
        finally:
            self._listener.mark_busy(self._peer)
        self._stream.until = (begun if self._is_first else time.monotonic()) + self._limits.head_seconds
        self._is_first = False
        return True

    def read_head(self) -> Head:
        """Read the head of the request. Raises Refused, and OSError when the client is gone."""
        try:
            # Usually the head has arrived as a whole. An empty line before it is skipped (RFC 9112, section 2.2), and
            # not searched for here.
            length = self._reader.peek(1).find(b"\r\n\r\n", 1) + 4
            data = self._reader.read(length) if length >= 4 else self._read_lines()
            data = data.removeprefix(b"\r\n")
        except TimeoutError as error:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the head did not arrive in time") from error
        self.request_path = path_of(data)
        if data.count(b"\r\n") > _HEADERS_LIMIT + 2:
            raise _malformed(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        head = parse(data)
        if head is None:
            raise _malformed(HTTPStatus.BAD_REQUEST)
        self.command = head.method
        self.forwarded_for = [each.strip() for value in head.values("x-forwarded-for") for each in value.split(",")]
        self.close_connection = not head.keeps_connection
        return head

    def _read_lines(self) -> bytes:
        """Read a head line by line, so that a malformed line is refused before the next one arrives."""
        data = bytearray()
        while not data.endswith(b"\r\n\r\n"):
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

    def read_body(self, head: Head, limit: int) -> bytes:
        """Read the body of the request, at most `limit` bytes. Raises Refused, and OSError when the client is gone."""
        length = body_length(head, limit)
        self._stream.until = time.monotonic() + self._limits.body_seconds
        try:
            if head.expects_continue:
                self._stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return self._read_chunks(limit) if length is None else self._read_bytes(length)
        except TimeoutError as error:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time") from error

    def _read_bytes(self, length: int) -> bytes:
        data = self._reader.read(length)
        if len(data) < length:
            raise Refused(HTTPStatus.BAD_REQUEST, "the body ended early")
        return data

    def _read_chunks(self, limit: int) -> bytes:
        """Read a body in chunks, and discard its trailers (RFC 9112, section 7.1). Raises Refused."""
        body = bytearray()
        while size := chunk_size(self._read_line()):
            if len(body) + size > limit:
                raise too_large()
            body += self._read_bytes(size)
            if self._read_bytes(2) != b"\r\n":
                raise bad_chunk()
        for _ in range(_TRAILERS_LIMIT):
            line = self._read_line()
            if line == b"\r\n":
                return bytes(body)
            check_trailer(line)
        raise bad_chunk()

    def _read_line(self) -> bytes:
        return self._reader.readline(_CHUNK_LINE_BYTES)

    def mark_verified(self) -> None:
        """Note that the signature of the request is valid: the connection is not closed for room until it is answered.

        Raises OSError if it has been closed already, so that nothing is stored whose sender gets no answer.
        """
        self._listener.mark_verified(self._peer)

    def send(self, reply: Reply) -> None:
        """Answer the request. Raises OSError when the client is gone."""
        self._is_answered = True
        self.close_connection |= reply.close or self._peer.is_last
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


class Peer:
    """What the listener knows of a connection. `verified_at` is None until it has sent a verified request."""

    __slots__ = ("connected_at", "connection", "is_answering", "is_cut", "is_fresh", "is_idle", "is_last", "server",
                 "verified_at")

    def __init__(self, connection: socket.socket, server: ServerSocket | None = None) -> None:
        self.connection = connection
        self.server = server            # whose client it is
        self.connected_at = time.monotonic()
        self.verified_at: float | None = None
        self.is_answering = False       # a verified request is being answered
        self.is_fresh = True            # no byte of a request has arrived yet
        self.is_idle = False            # before a request
        self.is_cut = False             # closed to make room
        self.is_last = False            # the request in progress is the last one: nobody listens on its address now

    @property
    def worth(self) -> tuple[bool, float]:
        """Whom to close first for room: the least. Strangers, however many, do not drive out a sender."""
        return self.verified_at is not None, self.connected_at if self.verified_at is None else self.verified_at


class Listener:
    """Listening sockets, a thread that accepts, and a thread for each connection."""

    def __init__(self, handle: Callable[[Connection], None], *, limits: Limits = _LIMITS) -> None:
        """`handle` answers one request on a connection. Nothing is accepted before `serve`."""
        self.handle = handle
        self.limits = limits
        self.closing = False
        self._peers: set[Peer] = set()                  # connections that count; those that were cut do not
        self._served = 0                                # connections with a thread, cut ones among them
        self._is_exhausted = False                      # the last accept failed for lack of resources
        self._lock = threading.Lock()
        self._has_ended = threading.Condition(self._lock)
        self._sockets: tuple[ServerSocket, ...] = ()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._accept, name="listener", daemon=True)

    def serve(self, sockets: Sequence[ServerSocket], limits: Limits | None = None) -> None:
        """Accept on these sockets from now on, and on no other.

        Idle connections of other sockets are closed; requests in progress are still answered. Raises DuctileError (71)
        if no thread can be started.
        """
        with self._lock:
            self._sockets = tuple(sockets)
            self.limits = limits or self.limits
            self._dismiss()
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)
            return
        if not sockets:
            return
        try:
            self._thread.start()
        except RuntimeError as error:
            raise DuctileError(f"cannot listen: {error}; check the limits on memory and processes",
                               exit_code=EXIT_SYSTEM) from error

    def close(self) -> None:
        """Accept no more, for ever. Idle connections are closed; requests in progress are still answered."""
        self.closing = True
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        with self._lock:
            self._sockets = ()
            self._dismiss()

    def _dismiss(self) -> None:
        """Let the connections end on whose sockets nothing is accepted any more.

        One that has just been accepted still has its time for a first request.
        """
        youngest = time.monotonic() - self.limits.grace_seconds
        for peer in self._peers:
            peer.is_last = peer.server not in self._sockets
            if peer.is_last and peer.is_idle and not (peer.is_fresh and peer.connected_at > youngest):
                _stop_reading(peer)

    def mark_idle(self, peer: Peer) -> None:
        """Note that no byte of another request has arrived: `close` ends the connection."""
        with self._lock:
            peer.is_idle = True
            if peer.is_answering:
                peer.is_answering = False
                self._wake_if_full()
            if peer.is_last and not peer.is_fresh:
                _stop_reading(peer)

    def mark_busy(self, peer: Peer) -> None:
        """End the effect of `mark_idle`."""
        with self._lock:
            peer.is_idle = peer.is_fresh = False

    def mark_verified(self, peer: Peer) -> None:
        """Note that the connection has sent a request with a valid signature. Raises OSError if it was cut."""
        with self._lock:
            if peer.is_cut:
                raise ConnectionAbortedError
            peer.verified_at = time.monotonic()
            peer.is_answering = True

    @property
    def is_quiet(self) -> bool:
        """True if no connection is left."""
        return self._served == 0

    def wait_until_quiet(self, seconds: float) -> None:
        """Wait until no connection is left, for at most `seconds`. Call it after `close`."""
        until = time.monotonic() + seconds
        with self._lock:
            self._has_ended.wait_for(lambda: self._served == 0, min(seconds, self.limits.grace_seconds))
            self._dismiss()
            self._has_ended.wait_for(lambda: self._served == 0, max(0.0, until - time.monotonic()))

    def _accept(self) -> None:
        while not self.closing:
            with self._lock:
                seconds = self._seconds_to_room()
                sockets = self._sockets
            # Without room, new clients wait in the backlog.
            for each in self._await(sockets, None) if seconds == 0 else self._await((), seconds):
                self._accept_on(each)
                break

    def _await(self, sockets: Sequence[ServerSocket], seconds: float | None) -> list[ServerSocket]:
        """Wait until a client connects, `_wake` is written or the time is over. Return the sockets with a client."""
        # accept(2) reserves a descriptor before it waits, and would fail without a client.
        incoming = select.poll()
        incoming.register(self._wake, select.POLLIN)
        try:
            for each in sockets:
                incoming.register(each.socket, select.POLLIN)
        except ValueError:
            # It has just been closed, and `_sockets` has changed.
            return []
        ready = {descriptor for descriptor, _ in incoming.poll(None if seconds is None else math.ceil(seconds * 1000))}
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            return []
        return [each for each in sockets if each.socket.fileno() in ready]

    def _accept_on(self, server: ServerSocket) -> None:
        try:
            connection, address = server.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            # The client has gone again.
            return
        except OSError as error:
            # Unless it has just been closed.
            if error.errno not in (errno.EBADF, errno.EINVAL):
                self._pause(error)
            return
        peer = Peer(connection, server)
        with self._lock:
            self._make_room(self.limits.connections - 1)
            self._peers.add(peer)
            self._served += 1
        thread = threading.Thread(target=self._serve, args=(peer, address), name="connection", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._forget(peer)
            self._pause(error)
            return
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
        with self._lock:
            self._make_room(max(0, len(self._peers) - 1))
        time.sleep(_PAUSE_SECONDS)

    def _seconds_to_room(self) -> float | None:
        """Return how long until a connection may be closed for another, None while all are being answered."""
        victim = self._victim() if len(self._peers) >= self.limits.connections else None
        if victim is None:
            return None if len(self._peers) >= self.limits.connections else 0
        if victim.verified_at is not None:
            return 0
        # What it has sent may not have been read yet.
        return max(0.0, victim.connected_at + self.limits.grace_seconds - time.monotonic())

    def _victim(self) -> Peer | None:
        """Return whom to close first to make room; None if every connection has a verified request to be answered."""
        return min((peer for peer in self._peers if not peer.is_answering), key=lambda peer: peer.worth, default=None)

    def _wake_if_full(self) -> None:
        if len(self._peers) >= self.limits.connections:
            os.eventfd_write(self._wake, 1)

    def _make_room(self, limit: int) -> None:
        """Close connections until `limit` are left, or only such whose verified request is being answered."""
        while len(self._peers) > limit and (victim := self._victim()) is not None:
            victim.is_cut = True
            self._peers.discard(victim)
            with contextlib.suppress(OSError):
                victim.connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, peer: Peer, address: Any) -> None:
        try:
            Connection(peer.connection, address, self, peer)
        except OSError:
            # The client is gone: nobody is left to answer.
            pass
        finally:
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        peer.connection.close()
        with self._lock:
            self._wake_if_full()
            self._peers.discard(peer)
            self._served -= 1
            self._has_ended.notify_all()


def _stop_reading(peer: Peer) -> None:
    with contextlib.suppress(OSError):
        peer.connection.shutdown(socket.SHUT_RD)


@functools.cache
def _status_line(status: HTTPStatus) -> str:
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n"


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)

