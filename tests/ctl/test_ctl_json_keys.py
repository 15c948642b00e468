"""The keys of every JSON document are those that are promised, and no others."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctl.desk import call, run
from ctl.json_keys import ANY, DOCUMENTS, WITHOUT, differences, keys, places
from ductile.ctl import commandline, logs
from ductile.ctl.session import Session
from support.daemon import RealDaemon
from support.gate import Gate

SOURCE = """#!/bin/sh
case $(cat) in
    *'"command":"poll"'*)
        echo made >file
        printf '{"status":"ok","state_updates":{"n":1},'
        printf '"events":[{"type":"made","payload":{"a":1},"dedupe_key":"k"}]}' ;;
    *) printf '{"status":"ok"}' ;;
esac
"""
# They start programs, and end what these leave behind: in a process of their own.
STARTING = ("test", "edit")
FAILS = "#!/bin/sh\nprintf '{\"status\":\"error\",\"error\":\"no\"}'\n"


class Calls:
    """`ductilectl --json` called on a daemon's directory, and what it has shown, by the promise that it is about."""

    def __init__(self, daemon: RealDaemon) -> None:
        self.home, self.environ = daemon.home, daemon.environ
        self.shown: dict[str, list[Any]] = {name: [] for name in DOCUMENTS}

    def __call__(self, promise: str, *arguments: str | Path) -> Any:
        if arguments[0] in STARTING:
            said = run("--json", *arguments, home=self.home, env=self.environ)
        else:
            said = call("-c", self.home, "--json", *arguments, environ=self.environ)
        assert said.out, said.err
        self.shown[promise].append(said.json)
        return said.json


def configured(daemon: RealDaemon, gate: Gate) -> None:
    daemon.plugin("source", SOURCE, commands=("poll", "handle", "health", "init"), schedule={"every": "6h"})
    daemon.plugin("taker", SOURCE, commands=("handle",))
    daemon.plugin("fails", FAILS, commands=("poll", "init"), retry={"max_attempts": 1})
    daemon.plugin("again", FAILS)
    daemon.install("waits", config=gate.config)
    daemon.environ["HOOK_SECRET"] = "s" * 16
    daemon.configure(webhooks={"listen": f"unix:{daemon.home}/hook.sock", "endpoints": [
        {"path": "/hook", "plugin": "taker", "secret": "${HOOK_SECRET}", "preset": "github"}]})
    (daemon.home / "pipelines").mkdir()
    (daemon.home / "pipelines" / "p.yaml").write_text(
        "name: p\non: made\nsteps: [{id: one, uses: taker}, {id: two, uses: taker}]\n")


@pytest.fixture
def shown(daemon: RealDaemon, gate: Gate) -> Iterator[dict[str, list[Any]]]:
    """Everything that there is to be shown, of a daemon that has done everything that can be done."""
    configured(daemon, gate)
    show = Calls(daemon)
    show("(any that only reads, before ductiled has run)", "status")
    show("init DIR", "init", daemon.home / "other")
    show("new-plugin NAME", "new-plugin", "mine")
    show("webhook presets", "webhook", "presets")
    show("test PLUGIN", "test", "source")
    show.shown["attempt DIR"] = [attempted(daemon)]
    daemon.start()
    daemon.until("SELECT count(*) FROM job_queue WHERE step_id = 'two' AND status = 'succeeded'", [(1,)])
    # The event of the second run is a duplicate of the first one's.
    show("run PLUGIN --wait", "run", "source", "--wait")
    dead = show("run PLUGIN --wait", "run", "fails", "--wait")["job_id"]
    show("logs", "logs")
    show.shown["logs -f"] = followed(daemon)
    for job_id, in daemon.rows("SELECT id FROM job_queue WHERE plugin IN ('source', 'fails') AND command = 'poll'"):
        show("inspect JOB", "inspect", job_id)
        show("inspect JOB --context", "inspect", job_id, "--context")
    show("retry JOB", "retry", dead)
    show("retry --all-failed", "retry", "--all-failed", "--yes", "--plugin", "source")
    show("replay JOB", "replay", daemon.rows("SELECT id FROM job_queue WHERE step_id = 'two'")[0][0])
    again = show("run PLUGIN", "run", "again")["job_id"]
    daemon.until("SELECT attempt FROM job_queue WHERE id = ?", [(2,)], again)
    show("run PLUGIN", "run", "waits")
    gate.arrived()
    show("emit EVENT", "emit", "made", "--payload", '{"b": 2}')
    show("emit EVENT --dry-run", "emit", "made", "--payload", '{"b": 2}', "--dry-run")
    show("cancel JOB", "cancel", show("run PLUGIN", "run", "source")["job_id"])
    daemon.write("INSERT INTO circuit_breakers (plugin, command, state, failure_count, updated_at)"
                 " VALUES ('fails', 'poll', 'closed', 1, '2026-02-08T10:00:00.000Z')")
    show("status", "status")
    show("queue", "queue")
    show("webhook test PATH", "webhook", "test", "/hook")
    show("completion SHELL", "completion", "fish")
    show("schedule", "schedule")
    show("jobs", "jobs")
    for name, *arguments in (("check", "--database"), ("plugins",), ("pipelines",), ("health",), ("reload",), ("wait",
                                                                                                               )):
        show(name, name, *arguments)
    show("pipelines NAME", "pipelines", "p")
    show("pause PLUGIN", "pause", "fails")
    show("resume PLUGIN", "resume", "fails")
    show("reset PLUGIN", "reset", "fails")
    show.environ = {**show.environ, "EDITOR": "true"}
    show("edit", "edit")
    show("backup FILE", "backup", daemon.home / "copy.db")
    show("restore FILE", "-c", daemon.home / "other", "restore", daemon.home / "copy.db")
    (daemon.home / "state.json").write_text("{}")
    show("state PLUGIN", "state", "source")
    show("state PLUGIN --set FILE", "state", "source", "--set", daemon.home / "state.json")
    show("state PLUGIN --clear", "state", "source", "--clear")
    yield show.shown
    gate.let_through()
    daemon.stop()


def attempted(daemon: RealDaemon) -> Any:
    """What `attempt` shows of a job that it reads."""
    job = {"id": "a", "plugin": "source", "command": "poll", "max_attempts": 1, "submitted_by": "cli"}
    (daemon.home / "attempted.json").write_text(json.dumps({"job": job}))
    with open(daemon.home / "attempted.json") as file:
        return run("attempt", daemon.home / "jobs", home=daemon.home, env=daemon.environ, stdin=file).json


def followed(daemon: RealDaemon) -> list[Any]:
    """What `logs -f` shows, one document a line."""
    out = io.StringIO()
    session = Session(environ={}, stdin=io.BytesIO(), out=out, err=io.StringIO(), as_json=True,
                      config_option=str(daemon.home))
    logs.follow(session, asked=logs.Asked(), has_reader=lambda: False)
    assert daemon.rows("SELECT min(20, count(*)) FROM job_log") == [(len(out.getvalue().splitlines()),)]
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_document_has_the_keys_that_are_promised(shown: dict[str, list[Any]]) -> None:
    found = {name: sorted({text for document in documents for text in differences(DOCUMENTS[name], document)})
             for name, documents in shown.items()}
    assert {name: texts for name, texts in found.items() if texts} == {}
    unseen = {}
    for name, documents in shown.items():
        seen: set[str] = set()
        for document in documents:
            differences(DOCUMENTS[name], document, seen=seen)
        unseen[name] = sorted(places(DOCUMENTS[name]) - seen)
    assert {name: left for name, left in unseen.items() if left} == {}, "promised, but shown by nothing here"


def test_every_command_is_in_the_table() -> None:
    (commands,) = (action for action in commandline._parser([])._actions
                   if isinstance(action, argparse._SubParsersAction))
    promised = {name.split()[0] for name in DOCUMENTS if not name.startswith("(")}
    assert promised | set(WITHOUT) == set(commands.choices)
    assert promised & set(WITHOUT) == set()


@pytest.mark.parametrize(("form", "value", "expected"), [
    (keys("a b?"), {"a": 1}, []), (keys("a b?"), {"a": 1, "b": [1, "x", None]}, []),
    (keys("a b?"), {"b": 1}, [".a is missing"]), (keys("a"), {"a": 1, "c": 1}, [".c is new"]),
    (keys("a"), {"a": {}}, [".a: has keys of its own"]), ([keys("a")], [{"a": 1}, {}], ["[].a is missing"]),
    ({"a": [keys("b")]}, {"a": None}, []), ({"a": [keys("b")]}, {"a": {}}, [".a: expected a list"]),
    (keys("a"), [], [": expected an object"]), (ANY, {"x": [{}]}, []),
])
def test_a_difference_is_seen(form: Any, value: Any, expected: list[str]) -> None:
    assert differences(form, value) == expected
