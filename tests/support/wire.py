"""Raw HTTP: bytes to a listener and what comes back, with nothing in between that would mend them."""

from __future__ import annotations

import hmac
import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

SECRET = "correct-horse-battery-staple"
PATH = "/hooks/a"

# Far more than any answer takes.
_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer; the names of its headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Wire:
    """A connection."""

    def __init__(self, address: tuple[str, int] | str, *, source: str = "") -> None:
        """Connect to a host and port, from an address of this machine, or to the path of a Unix socket."""
        if isinstance(address, str):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(_SECONDS)
            self._socket.connect(address)
        else:
            self._socket = socket.create_connection(address, _SECONDS, (source, 0) if source else None)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def stop_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def vanish(self) -> None:
        """End the connection by a reset (socket(7), SO_LINGER)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self._socket.close()

    def answer(self, *, to_head: bool = False) -> Answer:
        """Read one answer. Raises ConnectionError where there is none. `to_head`: one to HEAD, without its body."""
        line = self._file.readline()
        if not line.startswith(b"HTTP/1.1 "):
            raise ConnectionError(f"no answer but {line!r}")
        headers: dict[str, str] = {}
        while (text := self._file.readline()) != b"\r\n":
            name, _, value = text.decode("latin-1").partition(":")
            assert name.lower() not in headers, f"{name} is there twice"
            headers[name.lower()] = value.strip()
        length = 0 if to_head else int(headers.get("content-length", "0"))
        return Answer(status=int(line.split()[1]), headers=headers, body=self._file.read(length))

    def rest(self) -> bytes:
        """Return what comes until the other side closes."""
        try:
            return self._file.read()
        except ConnectionResetError:
            return b""

    def trickle(self, byte: bytes, *, every: float, most: int) -> int:
        """Send a byte every so many seconds until an answer comes, and return how many were sent."""
        for count in range(most):
            self.send(byte)
            self._socket.settimeout(every)
            try:
                if self._socket.recv(1, socket.MSG_PEEK) is not None:
                    return count + 1
            except TimeoutError:
                continue
            finally:
                self._socket.settimeout(_SECONDS)
        return most


def signature(body: bytes, secret: str = SECRET) -> str:
    """Return the signature in hexadecimal."""
    return hmac.digest(secret.encode(), body, "sha256").hex()


def head(method: str = "POST", path: str = PATH, *headers: str, version: str = "HTTP/1.1") -> bytes:
    """Return a head with these lines of headers."""
    return "".join(f"{line}\r\n" for line in (f"{method} {path} {version}", "Host: x", *headers, "")).encode("latin-1")


def signed(body: bytes, *headers: str, path: str = PATH, secret: str = SECRET) -> bytes:
    """Return a whole request whose signature is right."""
    return head("POST", path, f"Content-Length: {len(body)}", f"X-Sig: {signature(body, secret)}", *headers) + body


def ask(address: tuple[str, int] | str, request: bytes) -> Answer:
    """Send one request on a connection of its own, and return its answer."""
    with Wire(address) as wire:
        wire.send(request)
        return wire.answer()
