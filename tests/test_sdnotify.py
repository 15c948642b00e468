from __future__ import annotations

import os
import socket

import pytest

from ductile.sdnotify import Notifier

ME = str(os.getpid())


@pytest.fixture
def manager():
    """The service manager's end: a socket to be bound to an address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(10)
        yield listener


def test_a_path_socket_hears_each_field_as_a_line(manager, tmp_path):
    manager.bind(str(tmp_path / "notify"))
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).send(READY="1", STATUS="running")
    assert manager.recv(4096) == b"READY=1\nSTATUS=running"


def test_an_abstract_socket_hears_it_too(manager):
    manager.bind(f"\0ductile-test-{ME}")
    Notifier({"NOTIFY_SOCKET": f"@ductile-test-{ME}"}).send(WATCHDOG="1")
    assert manager.recv(4096) == b"WATCHDOG=1"


def test_each_call_is_one_datagram(manager, tmp_path):
    manager.bind(str(tmp_path / "notify"))
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.send(READY="1")
    notifier.send(STATUS="caf\u00e9")
    assert [manager.recv(4096), manager.recv(4096)] == [b"READY=1", "STATUS=caf\u00e9".encode()]


def test_a_report_says_a_status_once_and_the_watchdog_each_half_of_its_period(manager, tmp_path):
    manager.bind(str(tmp_path / "notify"))
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "10000000"})
    for status, now in (("idle", 100.0), ("idle", 104.9), (None, 105.0), ("idle", 105.1), ("running", 105.2)):
        notifier.report(status, now)
    assert [manager.recv(4096) for _ in range(4)] == [b"STATUS=idle", b"WATCHDOG=1", b"WATCHDOG=1", b"STATUS=running"]
    assert notifier.watchdog_at == 110.0


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("address", [None, "", "DIR/nobody-listens", "@nobody-listens", "DIR", "x" * 300, "relative"])
def test_where_nobody_listens_nothing_happens(tmp_path, address):
    before = descriptors()
    environ = {} if address is None else {"NOTIFY_SOCKET": address.replace("DIR", str(tmp_path))}
    Notifier(environ).send(READY="1")
    assert descriptors() == before


def test_a_manager_that_does_not_read_holds_nothing_up(manager, tmp_path):
    manager.bind(str(tmp_path / "notify"))
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    for _ in range(5000):
        notifier.send(STATUS="x" * 1000)
    assert manager.recv(4096) == b"STATUS=" + b"x" * 1000


@pytest.mark.parametrize("environ, seconds", [
    ({}, None),
    ({"WATCHDOG_USEC": "30000000"}, 30.0),
    ({"WATCHDOG_USEC": "500000"}, 0.5),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ME}, 30.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),    # meant for another process
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "nonsense"}, None),
    ({"WATCHDOG_PID": ME}, None),
    ({"WATCHDOG_USEC": "0"}, None),
    ({"WATCHDOG_USEC": ""}, None),
    ({"WATCHDOG_USEC": "-1"}, None),
    ({"WATCHDOG_USEC": "soon"}, None),
])
def test_the_watchdog_has_a_period_where_it_is_meant_for_this_process(environ, seconds):
    assert Notifier(environ).watchdog == seconds
