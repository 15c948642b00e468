"""Chains of jobs in the real daemon: pipelines of the plugin `step`, and what came of them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ductile import db
from ductile.ctl import main
from support.daemon import RealDaemon, until

_LOOK_SECONDS = 0.005
# A retry that is due at once, however often.
AGAIN = {"max_attempts": 100, "backoff_base": "0s"}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a call of `ductilectl` gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return what it printed as JSON."""
        return json.loads(self.out)


def ctl(daemon: RealDaemon, *arguments: str) -> Said:
    """Call `ductilectl` on the daemon's configuration."""
    out, err = io.StringIO(), io.StringIO()
    code = main.main(["-c", os.fspath(daemon.home), *arguments], daemon.environ, out=out, err=err)
    return Said(code=code, out=out.getvalue(), err=err.getvalue())


def emit(daemon: RealDaemon, event_type: str, **payload: Any) -> list[str]:
    """Hand an event to the router, and return the ids of the jobs that it became."""
    said = ctl(daemon, "--json", "emit", event_type, "--payload", json.dumps(payload))
    assert said.code == 0, said.err
    return [job["job_id"] for job in said.json["jobs"]]


def step(daemon: RealDaemon, name: str, *events: Mapping[str, Any], settings: Mapping[str, Any] | None = None,
         **config: Any) -> None:
    """Configure a plugin that emits these events and does as its config says; see tests/plugins/step."""
    answer = {"events": events} if events else {}
    given = {"seen": os.fspath(seen_in(daemon, name)), "answer": answer, **config}
    daemon.install("step", called=name, config=given, **{"retry": AGAIN, **(settings or {})})


def event(kind: str = "done", **payload: Any) -> dict[str, Any]:
    """Return an event."""
    return {"type": kind, "payload": payload}


def seen_in(daemon: RealDaemon, name: str) -> Path:
    """Return the file in which the plugin of a step notes what it sees."""
    return daemon.home / f"seen-{name}"


def seen(daemon: RealDaemon, name: str) -> list[dict[str, Any]]:
    """Return what the attempts of a step have seen, in the order of time."""
    file = seen_in(daemon, name)
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def contents(attempt: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of the files that an attempt has found."""
    return {path: text for path, (_, _, text) in attempt["files"].items()}


def uses(*plugins: str) -> list[dict[str, str]]:
    """Return steps in a row, each with its plugin's name for an id."""
    return [{"id": plugin, "uses": plugin} for plugin in plugins]


def pipeline(name: str, *steps: Mapping[str, Any], on: str | None = "go") -> dict[str, Any]:
    """Return a pipeline."""
    return {"name": name, **({} if on is None else {"on": on}), "steps": list(steps)}


def job_of(daemon: RealDaemon, plugin: str) -> str:
    """Return the id of the one job of a plugin."""
    [(job,)] = daemon.rows("SELECT id FROM job_queue WHERE plugin = ?", plugin)
    return job


def ends(daemon: RealDaemon) -> list[tuple]:
    """Return plugin, status and error of every job, in the order of the queue."""
    return daemon.rows("SELECT plugin, status, last_error FROM job_queue ORDER BY seq")


def await_rest(daemon: RealDaemon) -> None:
    """Wait until no job waits or runs: what follows from a job is committed with its end."""
    daemon.until("SELECT count(*) FROM job_queue WHERE completed_at IS NULL", [(0,)])


def await_that(daemon: RealDaemon, look: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until(look, True, pause=lambda: not daemon.ended_within(_LOOK_SECONDS), explain=daemon.story)


def await_a_beat(daemon: RealDaemon) -> None:
    """Wait until a whole heartbeat has come and gone: each takes an old stray directory away."""
    for name in ("stray-1", "stray-2"):
        stray = daemon.data / "ws" / name
        stray.mkdir()
        os.utime(stray, (0, 0))
        await_that(daemon, lambda: not stray.exists())


def run(daemon: RealDaemon, event_type: str = "go", **payload: Any) -> list[str]:
    """Have a daemon take an event to the end of all that follows, and return the ids of its first jobs."""
    daemon.start()
    jobs = emit(daemon, event_type, **payload)
    await_rest(daemon)
    daemon.stop()
    return jobs


def workspace(daemon: RealDaemon, job: str) -> Path:
    """Return where a job's workspace is."""
    return daemon.data / "ws" / job


def files(directory: Path) -> dict[str, str]:
    """Return the texts of the files of a directory, by path."""
    return {os.path.relpath(path, directory): path.read_text() for path in directory.rglob("*") if path.is_file()}


def is_sound(daemon: RealDaemon) -> bool:
    """Say whether SQLite's full check finds nothing in the database."""
    with closing(db.connect_again(daemon.database)) as conn:
        return conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)] and db.full_check(conn) == []
