"""A stand-in for an SMTP server that enforces encryption and login, and misbehaves on request."""

from __future__ import annotations

import base64
import contextlib
import email.policy
import re
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

HANG_UP, STALL = b"hang up", b"stall"


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail that the server took."""

    sender: str
    recipients: list[str]
    data: bytes

    @property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.data, policy=email.policy.default)


def certificate(directory: Path) -> Path:
    """Return a file with a key and a certificate for localhost and 127.0.0.1."""
    file = directory / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", file, "-out", directory / "cert.pem", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True, timeout=30)
    file.write_bytes(file.read_bytes() + (directory / "cert.pem").read_bytes())
    return file


class Smtp:
    """An SMTP server; `answers` replaces what it says to a command such as `RCPT`, or at its end of data (`.`).

    `pem` makes it speak TLS: from the first byte with `security` tls, after STARTTLS otherwise.
    """

    def __init__(self, *, pem: Path | None = None, security: str = "none", password: str | None = None) -> None:
        self.mails: list[Mail] = []
        self.lines: list[str] = []
        self.answers: dict[str, bytes] = {}
        self.arrived = threading.Event()
        self._over = threading.Event()
        self._pem, self._security, self._password = pem, security, password
        smtp = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    smtp._serve(self.request)
                except (OSError, ssl.SSLError, EOFError):
                    # The client has gone.
                    return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005})
        self._thread.start()
        self.port = self._server.server_address[1]

    def close(self) -> None:
        """Release who waits and stop."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, sock: socketserver.socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            if self._security == "tls":
                sock = stack.enter_context(self._wrapped(sock))
            self._talk(sock, stack)

    def _wrapped(self, sock: socketserver.socket.socket) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pem)
        sock.settimeout(10)
        return context.wrap_socket(sock, server_side=True)

    def _talk(self, sock: socketserver.socket.socket, stack: contextlib.ExitStack) -> None:
        file, is_encrypted, is_known = sock.makefile("rb"), self._security == "tls", self._password is None
        sender, recipients = "", []
        self._say(sock, "", b"220 stand-in ready")
        while line := file.readline():
            self.lines.append(line.decode("latin-1").rstrip())
            self.arrived.set()
            word = line[:4].decode("latin-1").upper().strip()
            if word in ("EHLO", "HELO"):
                more = b"250-STARTTLS\r\n" if self._security == "starttls" and not is_encrypted else b""
                if self._password is not None and (is_encrypted or not more):
                    more += b"250-AUTH PLAIN XOAUTH2\r\n"
                self._say(sock, word, b"250-stand-in\r\n" + more + b"250 8BITMIME")
            elif word == "STAR" and self._security == "starttls":
                self._say(sock, word, b"220 go ahead")
                file.close()
                sock, is_encrypted = stack.enter_context(self._wrapped(sock)), True
                file = sock.makefile("rb")
            elif word == "AUTH":
                # After a NUL in PLAIN, between two SOH in XOAUTH2.
                given = base64.b64decode(line.split()[-1]).decode()
                is_known = re.split("[\0\1]+(?:auth=Bearer )?", given.rstrip("\1"))[-1] == self._password
                self._say(sock, word, b"235 welcome" if is_known else b"535 5.7.8 no such login")
            elif word == "MAIL":
                sender, recipients = _between(line), []
                self._say(sock, word, b"250 ok" if is_known else b"530 5.7.0 log in first")
            elif word == "RCPT":
                if self._say(sock, f"RCPT {_between(line)}", self.answers.get("RCPT", b"250 ok")).startswith(b"25"):
                    recipients.append(_between(line))
            elif word == "DATA":
                self._say(sock, word, b"354 go on")
                data = b""
                while not data.endswith(b"\r\n.\r\n"):
                    line = file.readline()
                    if not line:
                        raise EOFError
                    data += line
                data = data.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
                if self.answers.get(".", b"250").startswith((b"250", HANG_UP, STALL)):
                    self.mails.append(Mail(sender=sender, recipients=recipients, data=data))
                self._say(sock, ".", b"250 taken")
            else:
                self._say(sock, word, b"250 ok")

    def _say(self, sock: socketserver.socket.socket, word: str, text: bytes) -> bytes:
        text = self.answers.get(word, text)
        if text == STALL:
            self._over.wait(30)
        if text in (STALL, HANG_UP):
            raise EOFError
        sock.sendall(text + b"\r\n")
        return text


def _between(line: bytes) -> str:
    return line.decode("latin-1").partition("<")[2].partition(">")[0]


@contextlib.contextmanager
def taking_mail(**options: object) -> Iterator[Smtp]:
    """Run a server for a while."""
    server = Smtp(**options)
    try:
        yield server
    finally:
        server.close()
