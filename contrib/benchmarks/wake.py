"""How soon a plugin starts that an idle daemon is asked to run, beside a bare spawn of it."""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median

from benchmarks import ledger, signed
from benchmarks.figures import BenchmarkFailed, Figure, Scale
from benchmarks.site import Running, Site, make_site, running, until

# The plugin's first act opens a FIFO that the benchmark sits at: its clock is the only one.
_MANIFEST = "name: here\nversion: 0.1.0\nprotocol: 2\nentrypoint: run.sh\ncommands: [poll, handle]\n"
_PLUGIN = """\
#!/bin/sh
echo >'{fifo}'
echo '{{"status": "ok"}}'
"""
_BELL_BYTES = 16
_MILLISECONDS = 1000
_PATIENCE_SECONDS = 30.0

# Asks the daemon to run the plugin, and returns the seconds until that has rung the bell.
Call = Callable[[Running, sqlite3.Connection, int], float]


def wake(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """A call (a durable commit and a signal) to the plugin's first act, less what a bare spawn takes."""
    site = make_site(scratch / "wake", {"here": "timeouts: {poll: 10s}"})

    def call(daemon: Running, conn: sqlite3.Connection, bell: int) -> float:
        started = time.monotonic()
        ledger.submit(conn, "here")
        os.kill(daemon.pid, signal.SIGUSR1)
        return _seconds_to_bell(bell, started)

    yield _figure("a call to its plugin's start, idle daemon, beyond a bare spawn",
                  *_seconds_to_start(site, {}, scale.rounds * scale.calls, call))


def hook_wake(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """A webhook (a connection, a request, a durable commit) to the plugin's first act, less a bare spawn."""
    port = signed.free_port()
    site = make_site(scratch / "hook-wake", {"here": "timeouts: {handle: 10s}"}, signed.section(port, "here"))
    requests = map(signed.request, itertools.count())

    def call(daemon: Running, conn: sqlite3.Connection, bell: int) -> float:
        request = next(requests)
        started = time.monotonic()
        with socket.create_connection((signed.HOST, port), timeout=_PATIENCE_SECONDS) as connection:
            connection.sendall(request)
            seconds = _seconds_to_bell(bell, started)
            signed.read_answer(connection.makefile("rb"))
        return seconds

    yield _figure("a webhook to its plugin's start, idle daemon, beyond a bare spawn",
                  *_seconds_to_start(site, signed.ENVIRON, scale.rounds * scale.calls, call))


def _seconds_to_start(site: Site, environ: Mapping[str, str], count: int, call: Call) -> tuple[float, float]:
    """Return the medians of so many calls of an idle daemon and as many bare spawns, one after the other."""
    plugin = _write_plugin(site.directory / "plugins" / "here", fifo := site.directory / "fifo")
    # Opened for both ways, so that it never comes to an end.
    bell = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    called, spawned = [], []
    try:
        with running(site, environ) as daemon, site.follower() as conn:
            for _ in range(count):
                called.append(call(daemon, conn, bell))
                until(lambda: ledger.is_idle(conn), "the job to end")
                spawned.append(_seconds_to_spawn(plugin, bell))
    finally:
        os.close(bell)
    return median(called), median(spawned)


def _figure(what: str, called: float, spawned: float) -> Figure:
    return Figure(what=what, value=_MILLISECONDS * (called - spawned), limit=5, unit="ms",
                  detail=f"{_MILLISECONDS * called:.1f} less {_MILLISECONDS * spawned:.1f} ms")


def _write_plugin(directory: Path, fifo: Path) -> Path:
    os.mkfifo(fifo)
    directory.mkdir()
    (directory / "manifest.yaml").write_text(_MANIFEST, encoding="utf-8")
    plugin = directory / "run.sh"
    plugin.write_text(_PLUGIN.format(fifo=fifo), encoding="utf-8")
    plugin.chmod(0o755)
    return plugin


def _seconds_to_spawn(plugin: Path, bell: int) -> float:
    started = time.monotonic()
    process = subprocess.Popen([plugin], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    seconds = _seconds_to_bell(bell, started)
    if process.wait() != 0:
        raise BenchmarkFailed(f"the plugin ended with exit code {process.returncode}")
    return seconds


def _seconds_to_bell(bell: int, started: float) -> float:
    if not select.select([bell], [], [], _PATIENCE_SECONDS)[0]:
        raise BenchmarkFailed(f"the plugin did not start within {_PATIENCE_SECONDS:.0f} s")
    os.read(bell, _BELL_BYTES)
    return time.monotonic() - started
