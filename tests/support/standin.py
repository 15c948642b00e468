"""Stand-ins for HTTP services: a test says how one answers, and which requests it refuses, stalls or garbles first."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

# What a server can do to a client besides answering with a status; `Service.faults` takes these and statuses.
STALL, STALL_IN_BODY, TRUNCATE, NONSENSE, HANG_UP, HTML, LONG = (
    "stall", "stall in body", "truncate", "nonsense", "hang up", "html", "long")
# All of them that must end in a failure that is retried, whatever was asked.
PASSING = (STALL, STALL_IN_BODY, TRUNCATE, NONSENSE, HANG_UP, 429, 500, 503)
_BYTES = {
    TRUNCATE: b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"status\": 0",
    NONSENSE: b"\x16\x03\x01\x00 what is this\r\n\r\n", HANG_UP: b"",
    HTML: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 22\r\n\r\n<html>sign in</html>\r\n",
    STALL: b"", STALL_IN_BODY: b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request: header names are in lower case, `query` and `form` have the last value of each name."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


# A status, a body (bytes, text, or anything else as JSON) and, where there are some, headers.
Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Held:
    """The answers of a service, of which one is kept until `release`."""

    def __init__(self, reply: Callable[[Asked], Reply], path: str) -> None:
        self._reply, self._path = reply, path
        self._first, self.arrived, self._released = threading.Lock(), threading.Event(), threading.Event()

    def __call__(self, asked: Asked) -> Reply:
        reply = self._reply(asked)
        if asked.path == self._path and self._first.acquire(blocking=False):
            self.arrived.set()
            self._released.wait(30)
        return reply

    def await_request(self) -> None:
        assert self.arrived.wait(20), f"nobody asked for {self._path}"

    def release(self) -> None:
        self._released.set()


class Service:
    """An HTTP server on this machine that records the requests and answers each with `reply(asked)`.

    `faults` are used up first, one a request: a status, with headers or without, or one of the constants of this
    module; None lets one through.
    """

    def __init__(self, reply: Callable[[Asked], Reply]) -> None:
        self.reply = reply
        self.faults: list[int | str | Reply | None] = []
        self.asked: list[Asked] = []
        self.arrived = threading.Event()
        self._over = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service._answer(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.005})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        """Release every request and stop."""
        self.release()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def hold(self, path: str) -> Held:
        """Keep the answer to the next request for a path, after all that it does to the service."""
        held = Held(self.reply, path)
        self.reply = held
        return held

    def release(self) -> None:
        """Let go of the requests that are stalled; they get no answer."""
        self._over.set()

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        asked = Asked(
            method=handler.command, path=parts.path, query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in handler.headers.items()},
            body=handler.rfile.read(int(handler.headers.get("Content-Length", 0))))
        self.asked.append(asked)
        self.arrived.set()
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, str):
            self._garble(handler, fault)
            return
        reply = self.reply(asked) if fault is None else (fault, "no") if isinstance(fault, int) else fault
        _send(handler, *reply)

    def _garble(self, handler: BaseHTTPRequestHandler, fault: str) -> None:
        if fault == LONG:
            _send(handler, 200, b"[" + b"1," * (6 * 1024 * 1024) + b"1]")
            return
        handler.wfile.write(_BYTES[fault])
        if fault in (STALL, STALL_IN_BODY):
            self._over.wait(30)


def _send(handler: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    data = body if isinstance(body, bytes) else (
        body.encode() if isinstance(body, str) else json.dumps(body).encode())
    kind = "application/json" if not isinstance(body, str | bytes) else "text/plain; charset=utf-8"
    handler.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
        handler.send_header(name, value)
    try:
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)
    except ConnectionError:
        # The client has read enough, or was killed.
        return


@contextmanager
def serving(reply: Callable[[Asked], Reply]) -> Iterator[Service]:
    """Run a service for a while."""
    service = Service(reply)
    try:
        yield service
    finally:
        service.close()


@contextmanager
def refusing() -> Iterator[str]:
    """Give the url of a server that refuses each connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
