"""`python -m benchmarks.sender PORT CONNECTIONS COUNT`: post signed webhooks and print the seconds that it took."""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import time
from collections.abc import Iterable, Sequence

from benchmarks import signed
from benchmarks.figures import BenchmarkFailed

_PATIENCE_SECONDS = 30.0


def main() -> int:
    """Post and print."""
    port, connections, count = map(int, sys.argv[1:])
    try:
        print(_seconds_to_post(port, connections, count))
    except (BenchmarkFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _seconds_to_post(port: int, connections: int, count: int) -> float:
    """Open the connections, send each a request that is not timed, then so many over all of them."""
    requests = [signed.request(number) for number in range(connections + count)]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection((signed.HOST, port), timeout=_PATIENCE_SECONDS))
                  for _ in range(connections)]
        for connection in opened:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _post(opened, requests[:connections])
        started = time.monotonic()
        _post(opened, requests[connections:])
        return time.monotonic() - started


def _post(connections: Sequence[socket.socket], requests: Iterable[bytes]) -> None:
    """Send all requests, over each connection the next one as soon as the last one has been answered.

    One thread that waits for all: a thread for each would take its processor time from the server.
    """
    left = iter(requests)
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for connection, request in zip(connections, left, strict=False):
            selector.register(connection, selectors.EVENT_READ, stack.enter_context(connection.makefile("rb")))
            connection.sendall(request)
        while selector.get_map():
            answered = selector.select(_PATIENCE_SECONDS)
            if not answered:
                raise BenchmarkFailed(f"a webhook was not answered within {_PATIENCE_SECONDS:.0f} s")
            for key, _ in answered:
                signed.read_answer(key.data)
                request = next(left, None)
                if request is None:
                    selector.unregister(key.fileobj)
                else:
                    key.fileobj.sendall(request)


if __name__ == "__main__":
    sys.exit(main())
