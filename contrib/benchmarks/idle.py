"""What a daemon costs that has nothing to do: wake-ups, processor time, memory."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import ledger
from benchmarks.figures import BenchmarkFailed, Figure, Scale
from benchmarks.site import make_site, running, until

_HEARTBEAT_SECONDS = 60
_DAY_SECONDS = 86_400
_KIB_IN_MIB = 1024


def idle(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """A daemon with plugins that have all run once and are not due again."""
    plugins = {f"echo-{number}": "uses: echo\nschedule: {every: 1w}" for number in range(scale.plugins)}
    site = make_site(scratch / "idle", plugins)
    with running(site) as daemon, site.follower() as conn:
        until(lambda: _polls(conn) == scale.plugins and ledger.is_idle(conn), "every plugin to have run")
        switches, used = _switches(daemon.pid), _processor_seconds(daemon.pid)
        # The measurement is the passing of time itself.
        time.sleep(scale.idle_seconds)
        switches, used = _switches(daemon.pid) - switches, _processor_seconds(daemon.pid) - used
        resident = _resident(daemon.pid)
    beats = 1 + int(scale.idle_seconds // _HEARTBEAT_SECONDS)
    yield Figure(what=f"idle for {scale.idle_seconds:g} s, context switches of all threads", value=switches,
                 limit=beats, detail="a heartbeat a minute")
    yield Figure(what="idle, processor time a day", value=used / scale.idle_seconds * _DAY_SECONDS, limit=10, unit="s",
                 detail=f"{1000 * used:.1f} ms in {scale.idle_seconds:g} s")
    yield Figure(what=f"resident memory, idle, {scale.plugins} plugins", value=resident, limit=30, unit="MiB")


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
