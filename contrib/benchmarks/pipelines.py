"""What a pipeline costs: to compile, and to run step by step, beside bare spawns with the same files and commits."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks import ledger
from benchmarks.figures import BenchmarkFailed, Figure, Scale
from benchmarks.site import Site, make_site, running, until
from ductile import runtime_config, submit
from ductile.db import transaction
from ductile.pipeline.compiler import compile_all
from ductile.pipeline.files import read_pipelines
from ductile.protocol import encode_request
from ductile.queue.job import Submitter

_STEPS = 5
_EVENT = "benchmark.begins"
# Writes a file of its own and passes on what it was given.
_PROGRAM = """\
#!/bin/sh
cat >/dev/null
echo "made in attempt $DUCTILE_ATTEMPT" >"$$.txt"
echo '{"status": "ok"}'
"""
_MANIFEST = "name: step\nversion: 0.1.0\nprotocol: 2\nentrypoint: run.sh\ncommands: [handle]\n"
_PIPELINE = f"name: chain\non: {_EVENT}\nsteps:\n" + "  - uses: step\n" * _STEPS
_SCHEMA = "CREATE TABLE job (id INTEGER PRIMARY KEY, status TEXT NOT NULL, result TEXT)"

_COMPILED_STEPS = 20


def chain(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """A chain of five steps, each with a file more in its workspace, by a real daemon, against bare spawns."""
    ours, bare = [], []
    for number in range(scale.rounds):
        site = _make_chain(scratch / f"chain-{number}")
        ours.append(_seconds_by_daemon(site, scale.chains))
        bare.append(_seconds_bare(scratch / f"bare-{number}", site.directory / "plugins" / "step" / "run.sh",
                                  scale.chains))
    yield Figure(
        what=f"{scale.chains:,} chains of {_STEPS} steps with their files, of the rate of bare spawns",
        value=median(alone / daemon for daemon, alone in zip(ours, bare, strict=False)), limit=0.82, is_floor=True,
        detail=f"{_STEPS * scale.chains / median(ours):,.0f} of {_STEPS * scale.chains / median(bare):,.0f} steps/s",
    )


def compiling(scale: Scale, scratch: Path) -> Iterator[Figure]:
    """Reading and compiling many pipelines."""
    directory = scratch / "pipelines"
    directory.mkdir()
    for number in range(scale.pipelines):
        steps = "".join(f"  - {{id: s{step}, uses: step}}\n" for step in range(_COMPILED_STEPS))
        (directory / f"{number}.yaml").write_text(f"name: p{number}\non: e{number}\nsteps:\n{steps}", encoding="utf-8")
    authored = read_pipelines(directory)
    started = time.process_time()
    compiled = compile_all(authored.specs, commands={"step": ["handle"]}, disabled=(), max_hops=_COMPILED_STEPS)
    seconds = time.process_time() - started
    if authored.problems or compiled.problems or len(compiled.pipelines) != scale.pipelines:
        raise BenchmarkFailed("the pipelines did not compile")
    yield Figure(what=f"compiling {scale.pipelines:,} pipelines of {_COMPILED_STEPS} steps", value=seconds, limit=1,
                 unit="s")


def _make_chain(directory: Path) -> Site:
    site = make_site(directory, {"step": "config: {}"}, "pipelines_dir: ./pipelines\n")
    plugin = directory / "plugins" / "step"
    plugin.mkdir()
    (plugin / "manifest.yaml").write_text(_MANIFEST, encoding="utf-8")
    program = plugin / "run.sh"
    program.write_text(_PROGRAM, encoding="utf-8")
    program.chmod(0o755)
    (directory / "pipelines").mkdir()
    (directory / "pipelines" / "chain.yaml").write_text(_PIPELINE, encoding="utf-8")
    return site


def _seconds_by_daemon(site: Site, chains: int) -> float:
    built = runtime_config.build(site.directory / "config.yaml", os.environ).runtime
    now = datetime.now(UTC)
    with site.ledger() as conn, transaction(conn):
        for _ in range(chains):
            event = submit.new_event(_EVENT, {}, "cli", new_id=_new_id, now=now)
            for each in submit.jobs_for_event(built, event, None, Submitter.CLI, new_id=_new_id):
                submit.submit(conn, each.job, context=each.context, dedupe_ttl=0, now=now)
    with running(site):
        started = time.monotonic()
        with site.follower() as conn:
            until(lambda: ledger.is_idle(conn), "the chains to end")
            seconds = time.monotonic() - started
            succeeded, files = conn.execute(
                "SELECT (SELECT count(*) FROM job_queue WHERE status = 'succeeded'), (SELECT count(*) FROM artifacts)"
            ).fetchone()
    if succeeded != chains * _STEPS or files != chains * sum(range(1, _STEPS + 1)):
        raise BenchmarkFailed(f"{succeeded} of {chains * _STEPS} steps succeeded, with {files} files")
    return seconds


def _new_id() -> str:
    return str(uuid.uuid4())


def _seconds_bare(directory: Path, program: Path, chains: int) -> float:
    """Return how long a bare loop takes: two commits a step, the files linked on, what is new synced and sealed."""
    directory.mkdir()
    with closing(sqlite3.connect(directory / "bare.db", isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute(_SCHEMA)
        conn.executemany("INSERT INTO job VALUES (?, 'queued', NULL)", ((each,) for each in range(chains * _STEPS)))
        started = time.monotonic()
        for number in range(chains * _STEPS):
            conn.execute("UPDATE job SET status = 'running' WHERE id = ?", (number,))
            before = directory / str(number - 1) if number % _STEPS else None
            answer = _run_step(directory / str(number), before, program)
            conn.execute("UPDATE job SET status = 'succeeded', result = ? WHERE id = ?", (answer, number))
        return time.monotonic() - started


def _run_step(workspace: Path, before: Path | None, program: Path) -> bytes:
    workspace.mkdir(mode=0o700)
    inherited = [] if before is None else os.listdir(before)
    for name in inherited:
        os.link(before / name, workspace / name)
    request = encode_request(protocol=2, job_id=workspace.name, command="handle", config={}, event={"type": _EVENT},
                             context={}, state={}, deadline_at="2026-02-08T10:00:00.000Z",
                             workspace_dir=str(workspace))
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=workspace,
                               start_new_session=True)
    process.stdin.write(request)
    process.stdin.close()
    answer = process.stdout.read()
    process.stdout.close()
    process.wait()
    for name in set(os.listdir(workspace)) - set(inherited):
        _sync(workspace / name)
        os.chmod(workspace / name, 0o444)
    _sync(workspace)
    # Without it a power cut may take the whole directory (fsync(2)).
    _sync(workspace.parent)
    json.loads(answer)
    return answer


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
