"""How soon the daemon acts: on a call, a webhook, a signal, and on a call while it prunes."""

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

# Asks the daemon to run the plugin, and returns the seconds from then, or from its word, until that has rung the bell.
Call = Callable[[Running, sqlite3.Connection, int], float]


def wake(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """A call (a durable commit and a signal) to the plugin's first act, less what a bare spawn takes."""
    site = make_site(scratch / "wake", {"here": "timeouts: {poll: 10s}"})
    yield _figure("a call to its plugin's start, idle daemon, beyond a bare spawn",
                  *_seconds_to_start(site, {}, scale.rounds * scale.calls, _call), limit=50)


def hook_wake(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """The answer to a webhook, whose job is on the disk then, to the plugin's first act, less a bare spawn."""
    port = signed.free_port()
    site = make_site(scratch / "hook-wake", {"here": "timeouts: {handle: 10s}"}, signed.section(port, "here"))
    requests = map(signed.request, itertools.count())

    def call(daemon: Running, conn: sqlite3.Connection, bell: int) -> float:
        with socket.create_connection((signed.HOST, port), timeout=_PATIENCE_SECONDS) as connection:
            connection.sendall(next(requests))
            signed.read_answer(connection.makefile("rb"))
            return _seconds_to_bell(bell, time.monotonic())

    yield _figure("an accepted webhook to its plugin's start, idle daemon, beyond a bare spawn",
                  *_seconds_to_start(site, signed.ENVIRON, scale.rounds * scale.calls, call), limit=2)


def pruning(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """The longest that a call waits for a turn of the loop which prunes: each chain is one old job."""
    site = make_site(scratch / "pruning", {"here": "timeouts: {poll: 10s}"}, service="job_log_retention: 1d")
    with site.ledger() as conn:
        ledger.fill(conn, "here", waiting=0, finished=scale.many_rows)
    called, spawned = _each_seconds_to_start(site, {}, scale.rounds * scale.calls, _call)
    with site.ledger() as conn:
        left = conn.execute("SELECT count(*) FROM job_queue").fetchone()[0]
    yield Figure(what=f"the longest call while {scale.many_rows:,} chains are pruned, beyond a bare spawn",
                 value=_MILLISECONDS * (max(called) - median(spawned)), limit=50, unit="ms",
                 detail=f"median {_MILLISECONDS * (median(called) - median(spawned)):.1f} ms, {left:,} left")


def signals(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """The longest from a signal to an idle daemon until it tells systemd that it obeys."""
    site = make_site(scratch / "signals", {"echo": "enabled: true"})
    seconds = []
    with running(site) as daemon, site.follower() as conn:
        until(lambda: ledger.is_idle(conn), "the daemon to be idle")
        for _ in range(scale.calls):
            seconds.append(_seconds_to_note(daemon, signal.SIGHUP, b"RELOADING=1"))
            daemon.await_note(b"READY=1")
        seconds.append(_seconds_to_note(daemon, signal.SIGTERM, b"STOPPING=1"))
    yield Figure(what=f"a signal acted on, idle daemon, the longest of {len(seconds)}",
                 value=_MILLISECONDS * max(seconds), limit=50, unit="ms",
                 detail=f"median {_MILLISECONDS * median(seconds):.2f} ms")


def _seconds_to_note(daemon: Running, number: signal.Signals, note: bytes) -> float:
    started = time.monotonic()
    os.kill(daemon.pid, number)
    daemon.await_note(note)
    return time.monotonic() - started


def _call(daemon: Running, conn: sqlite3.Connection, bell: int) -> float:
    started = time.monotonic()
    ledger.submit(conn, "here")
    os.kill(daemon.pid, signal.SIGUSR1)
    return _seconds_to_bell(bell, started)


def _seconds_to_start(site: Site, environ: Mapping[str, str], count: int, call: Call) -> tuple[float, float]:
    """Return the medians of so many calls of an idle daemon and as many bare spawns, one after the other."""
    called, spawned = _each_seconds_to_start(site, environ, count, call)
    return median(called), median(spawned)


def _each_seconds_to_start(site: Site, environ: Mapping[str, str], count: int,
                           call: Call) -> tuple[list[float], list[float]]:
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
    return called, spawned


def _figure(what: str, called: float, spawned: float, *, limit: float) -> Figure:
    return Figure(what=what, value=_MILLISECONDS * (called - spawned), limit=limit, unit="ms",
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
