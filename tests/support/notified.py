"""The notify plugin, in this process and as one of its own, and an HTTP server for it that misbehaves on request."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ductile.protocol import Response, decode_response, encode_request
from ductile.units import utc_text
from support import in_process

RUN = Path(__file__).resolve().parents[2] / "plugins" / "notify" / "run.py"
SECRET = "s3cr3t-t0ken"
# This Python first: one that is found by way of a wrapper is slow to start.
ENVIRON = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """An HTTP server that gives one answer after the other and keeps the requests: path, headers, body."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.methods: list[str] = []
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.requests.append((self.path, {key.lower(): text for key, text in self.headers.items()}, body))
                server.methods.append(self.command)
                server.answers.pop(0)(self)

            do_GET = do_HEAD = do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.005})
        self._thread.start()
        self.host = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.url = f"{self.host}/hooks/{SECRET}?key={SECRET}"

    def close(self) -> None:
        """Let go of every request and stop."""
        self.over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def stall(self, handler: BaseHTTPRequestHandler) -> None:
        """Say nothing."""
        self.over.wait(30)

    def stall_in_the_body(self, handler: BaseHTTPRequestHandler) -> None:
        """Begin and say no more."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        self.over.wait(30)

    def trickle_a_head(self, handler: BaseHTTPRequestHandler) -> None:
        """Begin a head and never end it."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while not self.over.wait(0.02):
                handler.wfile.write(b"a")
        except ConnectionError:
            return

    def trickle(self, handler: BaseHTTPRequestHandler) -> None:
        """Say a byte every now and then."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        try:
            while not self.over.wait(0.02):
                handler.wfile.write(b"x")
        except ConnectionError:
            return


def answer(status: int, *, retry_after: str | None = None, location: str | None = None) -> Answer:
    """Answer with a status, and with a reason and a body that tell the secret."""
    def give(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status, f"no {SECRET}")
        if retry_after is not None:
            handler.send_header("Retry-After", retry_after)
        if location is not None:
            handler.send_header("Location", location)
        handler.end_headers()
        if status != 204:
            handler.wfile.write(f"cannot POST {handler.path}".encode())

    return give


def raw(data: bytes) -> Answer:
    """Answer with these bytes and close the connection."""
    return lambda handler: handler.wfile.write(data) and None


def encoded(config: object, payload: object, *, command: str = "handle", seconds_left: int = 60) -> bytes:
    """Return a request as Ductile writes it."""
    deadline = datetime.now(UTC) + timedelta(seconds=seconds_left)
    return encode_request(
        protocol=2, job_id="j-1", command=command, config=config, state={},
        event={"type": "t", "payload": payload, "source": "cli"}, deadline_at=utc_text(deadline), context={},
        workspace_dir="/ws/j-1",
    )


def run(request: bytes, *, environ: dict[str, str] = ENVIRON) -> Response:
    """Have the plugin answer in this process; return its answer, in which nothing of the secret is told."""
    response = in_process.answer(RUN.parent, request, Path.cwd(), environ)
    assert SECRET not in repr(response)
    return response


def run_process(request: bytes, *, environ: dict[str, str] = ENVIRON, code: int = 0) -> Response:
    """Do the same with the plugin as a process of its own, which exits with `code`."""
    done = subprocess.run([RUN], input=request, env=environ, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (code, b"")
    assert SECRET.encode() not in done.stdout
    return decode_response(done.stdout)


def send(server: Server, *answers: Answer, payload: object = None, seconds_left: int = 60,
         **config: object) -> Response:
    """Have the plugin send to a server that answers so."""
    server.answers = list(answers)
    payload = {"message": "Hello"} if payload is None else payload
    return run(encoded({"url": server.url, **config}, payload, seconds_left=seconds_left))


def failure(response: Response) -> tuple[str | None, bool]:
    """Return the error of a failed answer and whether it is to be tried again."""
    assert (response.status, response.events) == ("error", ())
    return response.error, response.retry
