"""Where the daemon listens: several addresses, Unix sockets, sockets that systemd passes, and what a restart loses."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support import hooks
from support.daemon import RealDaemon
from support.gate import Gate
from support.wire import PATH, SECRET, ask, head, signed

_SECONDS = 20.0


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """A listening socket that outlives the daemon."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server


def pass_on(daemon: RealDaemon, server: socket.socket, *, pid_is_off_by: int = 0) -> None:
    """Let the daemon be started with this socket, as systemd does it."""
    daemon.forked |= {"listens": server.fileno(), "pid_is_off_by": pid_is_off_by}


def configure(daemon: RealDaemon, **webhooks: object) -> None:
    """Configure one endpoint for the plugin `hook`, and where to listen."""
    daemon.environ.setdefault("HOOK_SECRET", SECRET)
    daemon.config["webhooks"] = {"endpoints": [
        {"path": PATH, "plugin": "hook", "secret": "${HOOK_SECRET}", "signature_header": "X-Sig"}], **webhooks}
    daemon.configure()


def test_it_listens_on_all_addresses_and_changes_them_at_a_reload(daemon: RealDaemon) -> None:
    hooks.install_waiting_hook(daemon)
    first, second, health = hooks.free_port(), hooks.free_port(), hooks.free_port()
    path = daemon.home / "hook.sock"
    configure(daemon, listen=[f"127.0.0.1:{first}", "unix:hook.sock"], health_listen=f"127.0.0.1:{health}")
    daemon.start()
    assert [ask(("127.0.0.1", first), signed(b"{}")).status, ask(str(path), signed(b"{}")).status] == [202, 202]
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    # A peer of a Unix socket counts as this machine.
    assert ask(str(path), head("GET", "/healthz")).status == 503
    assert ask(("127.0.0.1", health), head("GET", "/healthz", "Via: x")).status == 503
    assert ask(("127.0.0.1", health), signed(b"{}")).status == 404
    configure(daemon, listen=f"[::]:{second}")
    daemon.send(1)
    daemon.await_log("configuration reloaded")
    assert ask(("127.0.0.1", second), signed(b"{}")).status == 202
    assert [ask((host, second), head("GET", "/healthz")).status for host in ("127.0.0.1", "::1")] == [503, 503]
    assert not path.exists()
    with pytest.raises(ConnectionRefusedError):
        ask(("127.0.0.1", first), signed(b"{}"))
    daemon.stop()


def test_a_leftover_unix_socket_is_replaced_and_nothing_else_is(daemon: RealDaemon) -> None:
    hooks.install_waiting_hook(daemon)
    path = daemon.home / "hook.sock"
    configure(daemon, listen="unix:hook.sock")
    daemon.start()
    daemon.kill()
    assert path.exists()
    daemon.start()
    assert ask(str(path), signed(b"{}")).status == 202
    daemon.stop()
    assert not path.exists()
    path.write_text("precious")
    done = daemon.run()
    assert (done.returncode, path.read_text()) == (71, "precious")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(path))
        other.listen()
        assert daemon.run().returncode == 71


def test_a_passed_socket_is_the_listener_named_or_not(daemon: RealDaemon, held: socket.socket) -> None:
    hooks.install_waiting_hook(daemon)
    address = held.getsockname()
    for webhooks in ({}, {"listen": f"127.0.0.1:{address[1]}"}):
        configure(daemon, **webhooks)
        pass_on(daemon, held)
        daemon.start()
        assert ask(address, signed(b"{}")).status == 202
        assert daemon.rows("SELECT listen FROM config_loads ORDER BY id DESC LIMIT 1") == [
            (f"127.0.0.1:{address[1]}",)]
        daemon.stop()


def test_a_passed_socket_that_no_address_names_is_an_error_at_start_and_at_reload(
        daemon: RealDaemon, held: socket.socket) -> None:
    hooks.install_waiting_hook(daemon)
    port = held.getsockname()[1]
    configure(daemon, listen=f"127.0.0.1:{hooks.free_port()}")
    pass_on(daemon, held)
    daemon.spawn()
    daemon.ends(78, f"systemd passed a socket that webhooks.listen does not name: 127.0.0.1:{port}; add the address, or"
                    " remove it from the socket unit\n")
    daemon.errors.write_text("")
    configure(daemon, listen=f"127.0.0.1:{port}")
    daemon.start()
    configure(daemon, listen=f"127.0.0.1:{hooks.free_port()}")
    daemon.send(1)
    daemon.await_log("reload rejected; keeping the current configuration")
    assert ask(held.getsockname(), signed(b"{}")).status == 202
    daemon.stop()


def test_sockets_that_were_passed_to_another_process_are_not_taken(daemon: RealDaemon, held: socket.socket) -> None:
    hooks.install_waiting_hook(daemon)
    configure(daemon)
    pass_on(daemon, held, pid_is_off_by=1)
    daemon.start()
    assert daemon.rows("SELECT listen FROM config_loads") == [(None,)]
    daemon.stop()


def test_a_daemon_that_detaches_takes_no_passed_socket(daemon: RealDaemon, held: socket.socket) -> None:
    pass_on(daemon, held)
    done = daemon.run("-c", str(daemon.home), "-d")
    assert (done.returncode, done.stderr) == (
        64, "-d cannot be used with sockets that systemd passes: remove it from the unit\n")


@pytest.mark.parametrize("is_held", [True, False])
def test_a_restart_while_a_plugin_runs_refuses_nothing_that_somebody_holds_a_socket_for(
        daemon: RealDaemon, gate: Gate, held: socket.socket, is_held: bool) -> None:
    daemon.install("waits", config=gate.config)
    hooks.install_waiting_hook(daemon)
    address = held.getsockname() if is_held else ("127.0.0.1", hooks.free_port())
    configure(daemon, listen=f"127.0.0.1:{address[1]}")
    if is_held:
        pass_on(daemon, held)
    daemon.start()
    daemon.submit("waits")
    gate.arrived()
    with posting(address) as sent:
        sent.await_answers(20)
        daemon.send(15)
        daemon.await_log("stopping")
        # Accepted while it stops.
        sent.await_answers(len(sent.answers) + 20)
        assert sent.refused == 0
        gate.let_through()
        daemon.ends(0)
        daemon.start()
        sent.await_answers(len(sent.answers) + 20)
    assert set(sent.answers) == {202}
    assert (sent.refused == 0) or not is_held
    assert daemon.rows("SELECT count(*) FROM job_queue WHERE plugin = 'hook'") == [(len(sent.answers),)]
    daemon.stop()


class Posting:
    """A sender that posts one after the other, each on a connection of its own, and never the same again."""

    def __init__(self, address: hooks.Address) -> None:
        self.answers: list[int] = []
        self.refused = 0
        self._address = address
        self._is_over = threading.Event()
        self._changed = threading.Condition()

    def run(self) -> None:
        while not self._is_over.is_set():
            try:
                status = ask(self._address, signed(b"{}", "Connection: close")).status
            except ConnectionError:
                self.refused += 1
                self._is_over.wait(0.01)
                continue
            with self._changed:
                self.answers.append(status)
                self._changed.notify_all()

    def await_answers(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.answers) >= count, _SECONDS)

    def end(self) -> None:
        self._is_over.set()


@contextmanager
def posting(address: hooks.Address) -> Iterator[Posting]:
    """Post during the block."""
    made = Posting(address)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.end()
        thread.join(_SECONDS)
