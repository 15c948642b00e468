"""Webhooks of the real daemon: where it listens, and senders that post to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.daemon import RealDaemon
from support.wire import PATH, SECRET, Answer, Wire, signed

Address = tuple[str, int]

_SECONDS = 20.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listen(daemon: RealDaemon, *, host: str = "127.0.0.1", port: int | None = None, **endpoint: Any) -> Address:
    """Configure one endpoint, by default for the plugin `hook`, and return the address that is listened on."""
    daemon.environ.setdefault("HOOK_SECRET", SECRET)
    address = "127.0.0.1", port or free_port()
    settings = {"path": PATH, "plugin": "hook", "secret": "${HOOK_SECRET}", "signature_header": "X-Sig", **endpoint}
    daemon.configure(webhooks={"listen": f"{host}:{address[1]}", "endpoints": [settings]})
    return address


def install_hook(daemon: RealDaemon) -> None:
    """Have a plugin `hook` that succeeds at everything."""
    daemon.plugin("hook", '#!/bin/sh\ncat >/dev/null\necho \'{"status": "ok"}\'\n', commands=("handle", "poll"))


def install_waiting_hook(daemon: RealDaemon) -> None:
    """Have a plugin `hook` whose jobs wait, because it cannot be loaded."""
    install_hook(daemon)
    (daemon.directory("hook") / "run").unlink()


class Senders:
    """Threads that post numbered bodies until all are answered; one that is cut off sends the same again."""

    def __init__(self, address: Address, numbers: range, *, threads: int) -> None:
        self.answers: dict[int, Answer] = {}
        self.cut_off = 0
        self._address = address
        self._numbers = iter(numbers)
        self._lock = threading.Condition()
        self._is_up = threading.Event()
        self._is_up.set()
        self._is_over = False
        self._threads = [threading.Thread(target=self._send_all, name=f"sender {n}") for n in range(threads)]

    @contextmanager
    def sending(self) -> Iterator[Senders]:
        """Send during the block and, at its end, wait until everything is answered."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
            for thread in self._threads:
                thread.join(_SECONDS)
                assert not thread.is_alive(), "not everything was answered"
        finally:
            self._is_over = True
            self._is_up.set()
            for thread in self._threads:
                thread.join(_SECONDS)

    def await_answers(self, count: int) -> None:
        """Wait until so many have been answered."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.answers) >= count, _SECONDS)

    def stop(self) -> None:
        """Send no more. Posts on their way are answered, or cut off."""
        self._is_over = True

    def nobody_is_there(self) -> None:
        """Let senders that are cut off wait."""
        self._is_up.clear()

    def somebody_is_there(self) -> None:
        """Let them go on."""
        self._is_up.set()

    def _send_all(self) -> None:
        number = self._next()
        while number is not None and not self._is_over:
            try:
                with Wire(self._address) as wire:
                    while number is not None and not self._is_over:
                        wire.send(signed(b"%d" % number, f"X-Id: {number}"))
                        answer = wire.answer()
                        with self._lock:
                            self.answers[number] = answer
                            self._lock.notify_all()
                        number = self._next()
            except ConnectionError:
                self.cut_off += 1
                assert self._is_up.wait(_SECONDS)

    def _next(self) -> int | None:
        with self._lock:
            return next(self._numbers, None)
