"""`python -m benchmarks.bareserver DATABASE`: what nobody can do without to take a webhook and not lose it.

Prints its port, and lives for as long as its standard input is open.
"""

from __future__ import annotations

import hmac
import http.server
import json
import sqlite3
import sys
import threading
import uuid
from http import HTTPStatus

from benchmarks import signed

_SCHEMA = "CREATE TABLE job (id TEXT NOT NULL PRIMARY KEY, status TEXT NOT NULL, payload TEXT NOT NULL)"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Checks the signature, commits the body, answers."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not hmac.compare_digest(signed.signature(body), self.headers[signed.SIGNATURE_HEADER]):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        job_id = self.server.store(body)
        answer = json.dumps({"job_id": job_id}).encode("ascii")
        self.send_response(HTTPStatus.ACCEPTED)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep no log."""


class _Server(http.server.ThreadingHTTPServer):
    """A thread for each connection, one connection to the database, one lock."""

    request_queue_size = 128

    def __init__(self, database: str) -> None:
        super().__init__((signed.HOST, 0), _Handler)
        self._lock = threading.Lock()
        self._conn = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self._conn.execute("PRAGMA journal_mode = WAL")
        self._conn.execute("PRAGMA synchronous = FULL")
        self._conn.execute(_SCHEMA)

    def store(self, body: bytes) -> str:
        """Return the id of a new row once it is on the disk."""
        job_id = str(uuid.uuid4())
        with self._lock:
            self._conn.execute("INSERT INTO job (id, status, payload) VALUES (?, 'queued', ?)",
                               (job_id, body.decode("utf-8")))
        return job_id


def main() -> int:
    """Serve until standard input ends."""
    server = _Server(sys.argv[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
