"""Takes the listening sockets that systemd passes at a start (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from ductile.errors import EXIT_CONFIG, EXIT_USAGE, DuctileError

_FIRST = 3


def count(environ: Mapping[str, str]) -> int:
    """Return how many sockets were passed to this process. Raises DuctileError (64) if that is no number."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    text = environ.get("LISTEN_FDS", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise DuctileError(f"LISTEN_FDS: expected a number, got {text!r}", exit_code=EXIT_USAGE)
    return int(text)


def take(environ: Mapping[str, str]) -> tuple[socket.socket, ...]:
    """Return the sockets that were passed to this process; plugins do not inherit them.

    Raises DuctileError: 78 for a descriptor that is no listening stream socket.
    """
    return tuple(_socket(descriptor) for descriptor in range(_FIRST, _FIRST + count(environ)))


def _socket(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        made = socket.socket(fileno=descriptor)
    except OSError as error:
        raise DuctileError(f"descriptor {descriptor} of LISTEN_FDS is no socket: {error.strerror}; use only"
                           " ListenStream= in the socket unit", exit_code=EXIT_CONFIG) from error
    if (made.type != socket.SOCK_STREAM or not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            or made.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)):
        raise DuctileError(f"descriptor {descriptor} of LISTEN_FDS is no listening socket of streams; use only"
                           " ListenStream= and Accept=no in the socket unit", exit_code=EXIT_CONFIG)
    made.setblocking(False)
    return made
