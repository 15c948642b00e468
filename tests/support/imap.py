"""A stand-in for an IMAP server with one account: folders, numbers, flags, and faults on request."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

HANG_UP, STALL = b"hang up", b"stall"


@dataclass(kw_only=True)
class Mail:
    uid: int
    data: bytes
    flags: set[str] = field(default_factory=set)
    arrived: str = "30-Nov-2026 10:00:00 +0000"
    # What the server says of its size, where it lies.
    size: int | None = None


class Imap:
    """An IMAP server; `answers` replaces what it says to a command such as `SELECT` or `UID FETCH`."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.tokens: set[str] = set()
        self.capabilities = "IMAP4rev1 UIDPLUS MOVE AUTH=XOAUTH2"
        self.folders: dict[str, list[Mail]] = {"INBOX": [], "Done": []}
        self.validity, self.next = 1, 1
        self.answers: dict[str, bytes] = {}
        self.lines: list[str] = []
        self._over = threading.Event()
        imap = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    imap._talk(self.request)
                except (OSError, EOFError):
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

    def arrives(self, data: bytes, folder: str = "INBOX", **options: object) -> int:
        """Put a mail into a folder, and return its number."""
        self.folders[folder].append(Mail(uid=self.next, data=data, **options))
        self.next += 1
        return self.next - 1

    def renumber(self) -> None:
        """Number all mails anew, as after the folder was rebuilt."""
        self.validity += 1
        for number, mail in enumerate(self.folders["INBOX"], 1):
            mail.uid = number
        self.next = len(self.folders["INBOX"]) + 1

    def flags(self, folder: str = "INBOX") -> dict[int, set[str]]:
        return {mail.uid: mail.flags for mail in self.folders[folder]}

    def _talk(self, sock: socket.socket) -> None:
        # An answer of several lines is several packets.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        file = sock.makefile("rb")
        self._say(sock, "", b"* OK stand-in")
        folder: list[Mail] = []
        while line := file.readline():
            tag, _, rest = line.decode("latin-1").strip().partition(" ")
            self.lines.append(rest)
            word, _, arguments = rest.partition(" ")
            if word == "UID":
                more, _, arguments = arguments.partition(" ")
                word = f"UID {more}"
            if word == "AUTHENTICATE":
                sock.sendall(b"+ \r\n")
                told = base64.b64decode(file.readline()).decode()
                good = any(told == f"user=ann\1auth=Bearer {token}\1\1" for token in self.tokens)
                if not good:
                    sock.sendall(b"+ " + base64.b64encode(b'{"status":"401"}') + b"\r\n")
                    file.readline()
                said = b"OK done" if good else b"NO [AUTHENTICATIONFAILED] no"
            elif word in ("SELECT", "EXAMINE"):
                name = arguments.strip('"')
                folder = self.folders.get(name, [])
                sock.sendall(b"* %d EXISTS\r\n* OK [UIDVALIDITY %d] x\r\n* OK [UIDNEXT %d] x\r\n" % (
                    len(folder), self.validity, self.next))
                said = b"OK [READ-WRITE]" if name in self.folders else b"NO [NONEXISTENT] no such folder"
            else:
                said = self._does(sock, word, arguments, folder)
            self._say(sock, word, said, tag)
            if word == "LOGOUT":
                return

    def _does(self, sock: socket.socket, word: str, arguments: str, folder: list[Mail]) -> bytes:
        if word == "CAPABILITY":
            sock.sendall(f"* CAPABILITY {self.capabilities}\r\n".encode())
        elif word == "LOGIN":
            return b"OK done" if arguments == f'ann "{self.password}"' else b"NO [AUTHENTICATIONFAILED] no " + (
                arguments.encode())
        elif word == "UID SEARCH":
            found = folder if arguments.startswith("SINCE") else _named(folder, arguments.removeprefix("UID "))
            sock.sendall(b"* SEARCH " + " ".join(str(mail.uid) for mail in found).encode() + b"\r\n")
        elif word == "UID FETCH":
            for mail in _named(folder, arguments.split()[0]):
                self._give(sock, mail, arguments)
        elif word == "UID STORE":
            flag = re.search(r"\((.*)\)", arguments)[1]
            for mail in _named(folder, arguments.split()[0]):
                mail.flags.add(flag)
        elif word in ("UID MOVE", "UID COPY"):
            which, name = arguments.split(" ", 1)
            if name.strip('"') not in self.folders:
                return b"NO [TRYCREATE] no such folder"
            for mail in _named(folder, which):
                self.folders[name.strip('"')].append(mail)
                if word == "UID MOVE":
                    folder.remove(mail)
        elif word == "UID EXPUNGE":
            for mail in _named(folder, arguments):
                folder.remove(mail)
        elif word != "LOGOUT":
            return b"BAD unknown"
        return b"OK done"

    def _give(self, sock: socket.socket, mail: Mail, items: str) -> None:
        if "BODY" not in items:
            size = len(mail.data) if mail.size is None else mail.size
            sock.sendall(f'* 1 FETCH (UID {mail.uid} RFC822.SIZE {size} INTERNALDATE "{mail.arrived}")\r\n'.encode())
            return
        if "PEEK" not in items:
            mail.flags.add(r"\Seen")
        data = mail.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if "HEADER" in items else mail.data
        section = "HEADER" if "HEADER" in items else ""
        sock.sendall(f"* 1 FETCH (UID {mail.uid} BODY[{section}] {{{len(data)}}}\r\n".encode() + data + b")\r\n")

    def _say(self, sock: socket.socket, word: str, text: bytes, tag: str = "") -> None:
        text = self.answers.get(word, text)
        if text == STALL:
            self._over.wait(30)
        if text in (STALL, HANG_UP):
            raise EOFError
        sock.sendall((f"{tag} ".encode() if tag else b"") + text + b"\r\n")


def _named(folder: list[Mail], numbers: str) -> list[Mail]:
    """Return the mails of a set of numbers; `*` is the last, and a range goes either way, as RFC 3501 says."""
    last = max((mail.uid for mail in folder), default=0)
    found: set[int] = set()
    for part in numbers.split(","):
        first, _, end = part.replace("*", str(last)).partition(":")
        low, high = sorted((int(first), int(end or first)))
        found |= {mail.uid for mail in folder if low <= mail.uid <= high}
    return [mail for mail in folder if mail.uid in found]


@contextlib.contextmanager
def keeping_mail(password: str) -> Iterator[Imap]:
    """Run a server for a while."""
    server = Imap(password)
    try:
        yield server
    finally:
        server.close()
