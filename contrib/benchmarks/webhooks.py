"""How many webhooks a second are on the disk when they are answered, beside a bare server that does as much."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import signed
from benchmarks.figures import BenchmarkFailed, Figure, Scale
from benchmarks.site import make_site, running

_CONTRIB = Path(__file__).resolve().parents[1]
_SLOW_SYNC = Path(__file__).with_name("slowsync.c")
_SLOW_CONNECTIONS = 32
# One sync a request behind one lock, each with 5 ms more: a server that commits alone cannot do better.
_SLOW_RATE = 200
# Configured, but nowhere on the disk: what is queued for it waits, and the daemon runs nothing.
_PLUGIN = {"absent": "enabled: true"}
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rates:
    """Webhooks a second, a pair a round."""

    ours: list[float]
    bare: list[float]

    @property
    def ratio(self) -> float:
        return median(ours / bare for ours, bare in zip(self.ours, self.bare, strict=False))

    @property
    def detail(self) -> str:
        return f"{median(self.ours):,.0f} of {median(self.bare):,.0f} a second"


def webhooks(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """Webhooks that wait as jobs, over few and over many connections."""
    for connections, limit in ((1, 0.8), (8, 0.85), (32, 1.0)):
        rates = _measure(scratch / str(connections), signed.ENVIRON, connections, scale.rounds, scale.posted)
        yield Figure(what=f"durable webhooks over {_counted(connections)}, of a bare server's rate", value=rates.ratio,
                     limit=limit, is_floor=True, detail=rates.detail)


def webhooks_slow(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """The same on a disk that takes its time; nothing where there is no C compiler to slow it with."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("bench: webhooks-slow skipped: no C compiler (cc) to build what slows the disk", file=sys.stderr)
        return
    environ = {**signed.ENVIRON, "LD_PRELOAD": str(_built(compiler, scratch / "slowsync.so"))}
    rates = _measure(scratch / "slow", environ, _SLOW_CONNECTIONS, scale.rounds, scale.posted_slowly)
    if median(rates.bare) > _SLOW_RATE:
        raise BenchmarkFailed(f"the disk was not slowed: a bare server took {median(rates.bare):.0f} webhooks a second")
    yield Figure(what=f"durable webhooks over {_counted(_SLOW_CONNECTIONS)}, every fsync 5 ms slower, the same",
                 value=rates.ratio, limit=10, is_floor=True, detail=rates.detail)


def _counted(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"


def _measure(directory: Path, environ: Mapping[str, str], connections: int, rounds: int, count: int) -> _Rates:
    port = signed.free_port()
    site = make_site(directory, _PLUGIN, signed.section(port, *_PLUGIN))
    rates = _Rates(ours=[], bare=[])
    with running(site, environ), _bare_server(directory / "bare.db", environ) as bare_port:
        for _ in range(rounds):
            rates.ours.append(_rate(port, connections, count))
            rates.bare.append(_rate(bare_port, connections, count))
    with site.follower() as conn:
        queued = conn.execute("SELECT count(*) FROM job_queue").fetchone()[0]
    if queued != rounds * (connections + count):
        raise BenchmarkFailed(f"{queued} of {rounds * (connections + count)} webhooks were queued")
    return rates


@contextmanager
def _bare_server(database: Path, environ: Mapping[str, str]) -> Iterator[int]:
    """Run the bare server until the block ends; what is given is its port."""
    command = [sys.executable, "-m", "benchmarks.bareserver", database]
    with subprocess.Popen(command, cwd=_CONTRIB, env={**os.environ, **environ}, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        try:
            printed, _, _ = select.select([process.stdout], [], [], _PATIENCE_SECONDS)
            port = process.stdout.readline() if printed else b""
            if not port:
                raise BenchmarkFailed("the bare server did not start")
            yield int(port)
        finally:
            process.kill()


def _rate(port: int, connections: int, count: int) -> float:
    """Return the webhooks a second that a sender, a process of its own, gets rid of."""
    command = [sys.executable, "-m", "benchmarks.sender", *map(str, (port, connections, count))]
    try:
        done = subprocess.run(command, cwd=_CONTRIB, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=_PATIENCE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkFailed(f"{count} webhooks took more than {_PATIENCE_SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise BenchmarkFailed(f"the sender of webhooks failed: {done.stderr.strip()[-200:]}")
    return count / float(done.stdout)


def _built(compiler: str, library: Path) -> Path:
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, _SLOW_SYNC, "-ldl"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_SECONDS,
                          check=False)
    if done.returncode != 0:
        raise BenchmarkFailed(f"{compiler} cannot build {_SLOW_SYNC.name}: {done.stderr.strip()[-200:]}")
    return library
