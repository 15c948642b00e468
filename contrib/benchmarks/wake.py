"""How soon a plugin starts that an idle daemon is asked to run, beside a bare spawn of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import ledger
from benchmarks.figures import BenchmarkFailed, Figure, Scale
from benchmarks.site import make_site, running, until

# The plugin's first act opens a FIFO that the benchmark sits at: its clock is the only one.
_MANIFEST = "name: here\nversion: 0.1.0\nprotocol: 2\nentrypoint: run.sh\ncommands: [poll]\n"
_PLUGIN = """\
#!/bin/sh
echo >'{fifo}'
echo '{{"status": "ok"}}'
"""
_MILLISECONDS = 1000


def wake(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """A call (a durable commit and a signal) to the plugin's first act, less what a bare spawn takes."""
    site = make_site(scratch / "wake", {"here": "timeouts: {poll: 10s}"})
    plugin = _write_plugin(site.directory / "plugins" / "here", fifo := site.directory / "fifo")
    # Opened for both ways, so that it never comes to an end.
    bell = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    called, spawned = [], []
    try:
        with running(site) as daemon, site.follower() as conn:
            for _ in range(scale.rounds * scale.calls):
                started = time.monotonic()
                ledger.submit(conn, "here")
                os.kill(daemon.pid, signal.SIGUSR1)
                os.read(bell, 16)
                called.append(time.monotonic() - started)
                until(lambda: ledger.is_idle(conn), "the job to end")
                spawned.append(_seconds_to_spawn(plugin, bell))
    finally:
        os.close(bell)
    yield Figure(
        what="a call to its plugin's start, idle daemon, beyond a bare spawn",
        value=_MILLISECONDS * (median(called) - median(spawned)), limit=5, unit="ms",
        detail=f"{_MILLISECONDS * median(called):.1f} less {_MILLISECONDS * median(spawned):.1f} ms",
    )


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
    os.read(bell, 16)
    seconds = time.monotonic() - started
    if process.wait() != 0:
        raise BenchmarkFailed(f"the plugin ended with exit code {process.returncode}")
    return seconds
