"""A stand-in for Discord: a channel that keeps its messages, and repeats none that comes twice with the same nonce."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_SECONDS = 20.0


class Channel:
    """`messages` are what was posted: path, `Authorization`, message. `posts` counts the requests."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, dict]] = []
        self.posts = 0
        self._holds = False
        self._arrived = threading.Semaphore(0)
        self._over = threading.Event()
        channel = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if channel.take(self.path, self.headers["Authorization"], message):
                    self._say(b'{"id": "1162047182345678999", "type": 0}')

            def _say(self, data: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.005})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def hold(self) -> None:
        """Answer the next message never, though it is posted."""
        self._holds = True

    def await_held(self) -> None:
        """Wait for the one that is not answered. Raises TimeoutError."""
        if not self._arrived.acquire(timeout=_SECONDS):
            raise TimeoutError(f"nothing was posted within {_SECONDS} s")

    def take(self, path: str, authorization: str, message: dict) -> bool:
        """Keep a message; return whether it is answered (Discord's documentation: Create Message, `enforce_nonce`)."""
        self.posts += 1
        nonces = [each["nonce"] for _, _, each in self.messages]
        if not (message.get("enforce_nonce") and message["nonce"] in nonces):
            self.messages.append((path, authorization, message))
        if not self._holds:
            return True
        self._holds = False
        self._arrived.release()
        self._over.wait(_SECONDS)
        return False

    def close(self) -> None:
        """Let go of every request and stop."""
        self._over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
