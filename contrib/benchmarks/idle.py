"""What a daemon costs that has nothing to do: wake-ups, processor time, memory."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import ledger, signed
from benchmarks.figures import BenchmarkFailed, Figure, Scale
from benchmarks.site import Site, make_site, running, until

_HEARTBEAT_SECONDS = 60
_DAY_SECONDS = 86_400
_KIB_IN_MIB = 1024
_STEPS = 5
_LARGE = "32MB"
_LARGE_BODIES = 8


def idle(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """A daemon with pipelines, and plugins that have all run once and are not due again; then one that listens, too."""
    site = _make_site(scratch / "idle", scale.plugins, "")
    with _at_rest(site, scale.plugins) as pid:
        switches, used = _switches(pid), _processor_seconds(pid)
        # The measurement is the passing of time itself.
        time.sleep(scale.idle_seconds)
        switches, used = _switches(pid) - switches, _processor_seconds(pid) - used
        resident = _resident(pid)
    port = signed.free_port()
    listening = _make_site(scratch / "listening", scale.plugins, signed.section(port, "absent", limit=_LARGE))
    with _at_rest(listening, scale.plugins) as pid:
        resident_listening = _resident(pid)
        for number in range(_LARGE_BODIES):
            _post(port, signed.request(number, scale.large_body))
        resident_afterwards = _resident(pid)
    beats = 1 + int(scale.idle_seconds // _HEARTBEAT_SECONDS)
    yield Figure(what=f"idle for {scale.idle_seconds:g} s, context switches of all threads", value=switches,
                 limit=beats, detail="a heartbeat a minute")
    yield Figure(what="idle, processor time a day", value=used / scale.idle_seconds * _DAY_SECONDS, limit=10, unit="s",
                 detail=f"{1000 * used:.1f} ms in {scale.idle_seconds:g} s")
    memory = f"resident memory, idle, {scale.plugins} plugins, {scale.plugins} pipelines"
    yield Figure(what=memory, value=resident, limit=30, unit="MiB")
    yield Figure(what=f"{memory}, a listener", value=resident_listening, limit=35, unit="MiB")
    yield Figure(what=f"the same after {_LARGE_BODIES} webhooks of {scale.large_body / 1e6:g} MB",
                 value=resident_afterwards, limit=45, unit="MiB")


def _post(port: int, request: bytes) -> None:
    with socket.create_connection((signed.HOST, port)) as connection:
        connection.sendall(request)
        signed.read_answer(connection.makefile("rb"))


def _make_site(directory: Path, count: int, sections: str) -> Site:
    plugins = {f"echo-{number}": "uses: echo\nschedule: {every: 1w}" for number in range(count)}
    # Nowhere on the disk: what is queued for it waits.
    plugins["absent"] = "enabled: true"
    site = make_site(directory, plugins, sections)
    _write_pipelines(site, count)
    return site


@contextmanager
def _at_rest(site: Site, plugins: int) -> Iterator[int]:
    """Run the daemon, and yield its PID when every plugin has run."""
    with running(site, signed.ENVIRON) as daemon, site.follower() as conn:
        until(lambda: _polls(conn) == plugins and ledger.is_idle(conn), "every plugin to have run")
        yield daemon.pid


def _write_pipelines(site: Site, count: int) -> None:
    directory = site.directory / "pipelines"
    directory.mkdir()
    for number in range(count):
        steps = "".join(f"  - uses: echo-{step % count}\n" for step in range(number, number + _STEPS))
        (directory / f"{number}.yaml").write_text(f"name: p{number}\non: e{number}\nsteps:\n{steps}",
                                                  encoding="utf-8")


def _polls(conn) -> int:
    return conn.execute("SELECT count(*) FROM job_log WHERE command = 'poll' AND status = 'succeeded'").fetchone()[0]


def _switches(pid: int) -> int:
    """Return how often any thread has given up the processor or lost it (proc_pid_status(5))."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        found += sum(map(int, re.findall(r"voluntary_ctxt_switches:\s*(\d+)", status.read_text())))
    return found


def _processor_seconds(pid: int) -> float:
    """Return what the process has used, to the nanosecond: /proc counts in hundredths of a second."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise BenchmarkFailed(f"the processor time of process {pid} cannot be read: {os.strerror(error)}")
    return time.clock_gettime(clock.value)


def _resident(pid: int) -> float:
    """Return the resident memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) / _KIB_IN_MIB
