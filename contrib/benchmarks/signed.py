"""Signed webhooks as a benchmark sends them, and what a server must know to take them."""

from __future__ import annotations

import hmac
import json
import socket
from typing import BinaryIO

from benchmarks.figures import BenchmarkFailed

HOST = "127.0.0.1"
PATH = "/webhooks/bench"
SIGNATURE_HEADER = "X-Signature"
# Known to everybody: it guards nothing but servers on the loopback interface that live for seconds.
SECRET = "a secret of the benchmark alone"
ENVIRON = {"DUCTILE_BENCH_SECRET": SECRET}
_BODY_BYTES = 1024
_SECTION = """\
webhooks:
  listen: {host}:{port}
  endpoints:
    - path: {path}
      plugin: {plugin}
      secret: ${{DUCTILE_BENCH_SECRET}}
      signature_header: {header}
      max_body_size: {limit}
"""


def section(port: int, plugin: str, *, limit: str = "1MB") -> str:
    """Return the section of a configuration that takes webhooks for a plugin; it needs `ENVIRON`."""
    return _SECTION.format(host=HOST, port=port, path=PATH, plugin=plugin, header=SIGNATURE_HEADER, limit=limit)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


def signature(body: bytes) -> str:
    """Return HMAC-SHA256 of a body, in hexadecimal."""
    return hmac.new(SECRET.encode("ascii"), body, "sha256").hexdigest()


def request(number: int, size: int = _BODY_BYTES) -> bytes:
    """Return a whole request for a connection that is kept, different for each number; `size` is of its body."""
    body = json.dumps({"number": number, "text": ""}).encode("ascii")
    body = body.replace(b'""', b'"' + b"x" * (size - len(body)) + b'"')
    head = (f"POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{SIGNATURE_HEADER}: {signature(body)}\r\n\r\n")
    return head.encode("ascii") + body


def read_answer(stream: BinaryIO) -> None:
    """Take one answer from a connection. Raises BenchmarkFailed where it is not 202."""
    status = stream.readline()
    if not status.startswith(b"HTTP/1.1 202 "):
        raise BenchmarkFailed(f"a webhook was not accepted: {status.decode('latin-1').strip() or 'no answer'}")
    length = 0
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    stream.read(length)
