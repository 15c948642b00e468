"""What `monitor` may have to show: rows as the ledger gives them, tame and hostile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from ctl.desk import job_id
from ductile.ctl.monitor import render
from ductile.ctl.monitor.state import Snapshot, State
from ductile.units import utc_text
from support.clock import START

NOW = START + timedelta(minutes=5)
# Colours, a title, a cleared screen; a bell, a tab, lines; the direction of writing; wide, composed and lone marks;
# what joins, hides and selects; the end of the planes.
HOSTILE = ("\x1b[2J\x1b]0;owned\x07", "a\tb\r\nc\x00\x7f\x9b31m", "\u202egnp.exe\u2066\u200f", "日本語テキスト" * 30,
           "e\u0301a" + "\u0300" * 400 + "b", "\u0301first", "x\u200by\u200d\ufe0f👩\u200d👧🏳\ufe0f", "\ud800\udfff",
           "\ufeff\u2028\u2029\x85", "\uffff\U0010ffff\ue000\U000e0041", "עברית العربية", "각\u1161\u11a8", "",
           "  padded  ", "…" * 300, "x" * 5000)


def at(seconds: float) -> str:
    """So many seconds after the start, as the ledger has it; NOW is 300."""
    return utc_text(START + timedelta(seconds=seconds))


def job(number: int, status: str = "queued", **fields: Any) -> dict[str, Any]:
    """A row of `glance`: a chain of one job, queued at the start."""
    ended = status in ("succeeded", "dead", "deduped")
    return {
        "seq": number, "job_id": job_id(number), "plugin": "echo", "command": "poll", "status": status, "attempt": 1,
        "max_attempts": 4, "created_at": at(0), "started_at": None if status == "queued" else at(60),
        "completed_at": at(61.5) if ended else None, "next_retry_at": None, "last_error": None, "parent_job_id": None,
        "root_job_id": job_id(number), "pipeline_name": None, "step_id": None, "replay_of": None, **fields,
    }


def plugin(name: str, **fields: Any) -> dict[str, Any]:
    """A row of `status --json`: a plugin that has succeeded and runs again in an hour."""
    return {
        "plugin": name, "version": "0.1.0", "enabled": True, "last_run": at(60), "last_outcome": "succeeded",
        "last_error": None, "last_job_id": None, "next_run": at(3900), "held": [], "state_bytes": 0, "schedules": [],
        "breakers": [], "paused_since": None, **fields,
    }


def chain_of(asked: Mapping[str, Any], *others: Mapping[str, Any], stderr: str | None = None,
             printed: str | None = None, files: Sequence[tuple[str, int]] = (),
             total: int | None = None, added: Mapping[str, Any] | None = None,
             before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `chain.glance` gives of a job."""
    jobs = sorted([asked, *others], key=lambda row: row["seq"])
    return {
        "job_id": asked["job_id"], "jobs": jobs, "total": total or len(jobs), "files_total": len(files),
        "attempt": {"attempt": 1, "status": "failed", "exit_code": 1, "stderr": stderr, "printed": printed},
        "files": [{"path": path, "size": size} for path, size in files],
        "baggage_added": dict(added or {}), "baggage_before": dict(before or {}),
    }


def sight(*, waiting: Sequence[Mapping[str, Any]] = (), ended: Sequence[Mapping[str, Any]] = (),
          plugins: Sequence[Mapping[str, Any]] = (), chain: Mapping[str, Any] | None = None,
          timeouts: Mapping[str, int] | None = None, **status: Any) -> Snapshot:
    """A look at a daemon that has been up since the start; `status` is laid over what `status --json` shows."""
    statuses = ["waiting" if row["next_retry_at"] else row["status"] for row in waiting]
    found = {
        "daemon": {"running": True, "pid": 4711, "since": at(0), "listen": None},
        "config_load": {"loaded_at": at(0), "ok": True, "errors": None},
        "queue": {name: statuses.count(name) for name in ("queued", "waiting", "running")},
        "oldest_waiting": at(0) if {"queued", "waiting"} & set(statuses) else None,
        "ended_24h": {name: [row["status"] for row in ended].count(name) for name in ("succeeded", "dead", "deduped")},
        "plugins": list(plugins), **status,
    }
    return Snapshot(now=NOW, status=found, open=list(waiting), ended=list(ended), chain=chain, timeouts=timeouts or {})


def busy() -> Snapshot:
    """A daemon with something of everything, and hostile texts wherever a plugin could have put them."""
    running = job(1, "running", plugin="withings", started_at=at(288))
    waiting = [
        running, job(2, plugin="video-wisdom", command="handle", created_at=at(170)),
        job(3, attempt=2, next_retry_at=at(320), last_error="connection \x1b[31mreset\x1b[0m\nby peer"),
    ]
    dead = job(6, "dead", plugin="日本語の名前", attempt=4, started_at=at(100), completed_at=at(240),
               last_error="\u202etuo denrut \x1b]0;owned\x07 said no")
    child = job(8, "deduped", plugin="note", command="handle", parent_job_id=job_id(6), root_job_id=job_id(6),
                pipeline_name="wisdom", step_id="a/b", started_at=None)
    ended = [job(7, "succeeded"), dead, child, job(5, "succeeded", plugin="withings", completed_at=at(60.25))]
    plugins = [
        plugin("echo"), plugin("withings", held=["breaker of poll open until 2026-02-08T10:30:00.000Z"],
                               last_outcome="timed_out", last_error="timed out after 60 s",
                               breakers=[{"command": "poll", "state": "open", "failure_count": 3, "opened_at": at(0)}]),
        plugin("\x1b[2Jevil", enabled=False, held=["disabled"], next_run=None, last_run=None, last_outcome=None),
        plugin("note", next_run=at(290), last_outcome="failed", last_error="no\nspace",
               breakers=[{"command": "poll", "state": "closed", "failure_count": 2, "opened_at": None}]),
    ]
    chain = chain_of(dead, child, stderr="Traceback:\n\tline 1\x07\n", printed="\x1b[2J",
                     files=[("out/é\x1b.txt", 2048)])
    return sight(waiting=waiting, ended=ended, plugins=plugins, chain=chain, timeouts={running["job_id"]: 60})


CHOSEN = State(focus="recent", job=job_id(6))


def text(seen_sight: Snapshot, seen: State, columns: int, rows: int) -> str:
    """The screen without its colours, without blanks at the ends of lines."""
    shown = render.lines(seen_sight, seen, columns=columns, rows=rows)
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in shown)
