"""Listening sockets: TCP and Unix ones that are bound here, and those that systemd has passed."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ductile.config.model import Address
from ductile.errors import EXIT_SYSTEM, DuctileError

_BACKLOG = 128
_SOCKET_MODE = 0o660
UNIX_CLIENT = "unix"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServerSocket:
    """A listening socket on a configured address; the socket never blocks.

    With `is_health` only the health of the daemon is served there, to everybody. `inode` is that of a Unix socket that
    was bound here. `is_passed` is set for a socket of systemd, which stays open for the next start.
    """

    address: Address
    socket: socket.socket
    is_health: bool = False
    is_passed: bool = False
    inode: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Return the address with the port in use, such as 127.0.0.1:8081, [::1]:8081 or unix:/run/ductile.sock."""
        return text_of(self.socket)

    def close(self) -> None:
        """Stop listening, and remove the file of a Unix socket unless another one has its place.

        A passed socket stays open, so that its clients wait for the next start.
        """
        if self.is_passed:
            return
        if self.inode is not None and self.address.path is not None:
            with contextlib.suppress(OSError):
                found = os.lstat(self.address.path)
                if (found.st_dev, found.st_ino) == self.inode:
                    self.address.path.unlink()
        with contextlib.suppress(OSError):
            # At once, though the thread that accepts may still wait on it.
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def bind(address: Address, *, is_health: bool = False, passed: Sequence[socket.socket] = ()) -> ServerSocket:
    """Return a listening socket, the passed one if it has this address. Raises DuctileError (71)."""
    try:
        for each in passed:
            if _is_same(address, each):
                return ServerSocket(address=address, socket=each, is_health=is_health, is_passed=True)
        if address.path is not None:
            return _bind_path(address, address.path, is_health)
        made = _bind_tcp(address)
    except OSError as error:
        # The text of create_server repeats the address.
        why = os.strerror(error.errno) if error.errno and not isinstance(error, socket.gaierror) else error.strerror
        key = "health_listen" if is_health else "listen"
        raise DuctileError(f"cannot listen on {address}: {why}; set webhooks.{key} to a free address",
                           exit_code=EXIT_SYSTEM) from error
    made.setblocking(False)
    return ServerSocket(address=address, socket=made, is_health=is_health)


def adopt(passed: socket.socket) -> ServerSocket:
    """Return a passed socket that no address was configured for."""
    name = passed.getsockname()
    address = Address(path=Path(name)) if passed.family == socket.AF_UNIX else Address(host=name[0], port=name[1])
    return ServerSocket(address=address, socket=passed, is_passed=True)


def unnamed(passed: Sequence[socket.socket], addresses: Sequence[Address]) -> list[socket.socket]:
    """Return the passed sockets that none of `addresses` names."""
    return [each for each in passed if not any(_is_same(address, each) for address in addresses)]


def text_of(made: socket.socket) -> str:
    """Return the address of a socket as the configuration writes it."""
    name = made.getsockname()
    if made.family == socket.AF_UNIX:
        return f"unix:{name}"
    return str(Address(host=name[0], port=name[1]))


def _is_same(address: Address, made: socket.socket) -> bool:
    name = made.getsockname()
    if (address.path is not None) != (made.family == socket.AF_UNIX):
        return False
    if address.path is not None:
        return os.path.realpath(str(name)) == os.path.realpath(address.path)
    if name[1] != address.port:
        return False
    try:
        return any(found[4][0] == str(name[0]) for found in _lookup(address))
    except OSError:
        return False


def _lookup(address: Address) -> list[tuple[Any, ...]]:
    return list(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))


def _bind_tcp(address: Address) -> socket.socket:
    family, *_, found = _lookup(address)[0]
    both = address.host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(found[:2] if both else found, family=family, backlog=_BACKLOG, dualstack_ipv6=both)


def _bind_path(address: Address, path: Path, is_health: bool) -> ServerSocket:
    _remove_leftover(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode with which the file appears; the umask may only make it narrower.
        os.fchmod(made.fileno(), _SOCKET_MODE)
        made.bind(os.fspath(path))
        os.chmod(path, _SOCKET_MODE)
        made.listen(_BACKLOG)
        made.setblocking(False)
        found = os.lstat(path)
    except OSError:
        made.close()
        raise
    return ServerSocket(address=address, socket=made, is_health=is_health, inode=(found.st_dev, found.st_ino))


def _remove_leftover(path: Path) -> None:
    """Remove a socket on which nobody answers. Raises OSError if somebody does, or if it is something else."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            # Its backlog is full: somebody listens.
            pass
    raise OSError(errno.EADDRINUSE, "")
