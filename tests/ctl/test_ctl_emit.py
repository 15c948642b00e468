"""`emit`: an event by hand goes where the router says, or nothing is stored."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from ctl.desk import PATIENCE_SECONDS, SAYS_OK, Desk, Said, start
from ductile import db, runtime_config
from ductile.config import load_table
from ductile.routing import context_table
from support.clock import START
from support.daemon import RealDaemon
from support.ledger import open_jobs

DOWN = "ductiled is not running; the jobs wait until it does\n"
ROUTES = [{"from": "scale", "event_type": "weighed", "to": "mail"},
          {"from": "scale", "event_type": "weighed", "to": "analyse"}]


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    for name in ("scale", "mail", "analyse"):
        desk.plugin(name)
    desk.configure(routes=ROUTES)
    with desk.ledger() as conn:
        yield conn


def taken(conn: sqlite3.Connection, digest: str, *errors: str) -> None:
    """Store that the daemon has read these files."""
    with db.transaction(conn):
        load_table.add(conn, digest=digest, errors=errors, now=START)


def digest(desk: Desk) -> str:
    return runtime_config.read(desk.home / "config.yaml", {}, keep_unset=True).runtime.digest


def test_an_event_becomes_a_job_of_each_route_in_their_order(conn: sqlite3.Connection, desk: Desk) -> None:
    said = desk.call("emit", "weighed", "--source", "scale", "--payload", '{"kg": 81, "who": "é"}')
    jobs = open_jobs(conn, 10)
    assert said == Said(code=0, out="".join(f"{job.id}\n" for job in jobs), err=DOWN)
    assert [(job.plugin, job.command, job.submitted_by, job.max_attempts) for job in jobs] == [
        ("mail", "handle", "cli", 4), ("analyse", "handle", "cli", 4)]
    for job in jobs:
        event = json.loads(job.payload)
        assert (event["type"], event["payload"], event["source"]) == ("weighed", {"kg": 81, "who": "é"}, "scale")
        assert (event["event_id"], job.root_job_id, job.parent_job_id) == (job.source_event_id, job.id, None)
        context = context_table.get(conn, job.event_context_id)
        assert (context.hop, context.accumulated) == (1, {
            "origin_plugin": "scale", "origin_event_type": "weighed", "origin_job_id": job.id, "kg": 81, "who": "é"})


@pytest.mark.parametrize(("options", "payload"), [((), {}), (("--payload", "[1]"), [1]), (("--payload", "null"), None)])
def test_a_payload_may_be_any_json(conn: sqlite3.Connection, desk: Desk, options: tuple[str, ...],
                                   payload: object) -> None:
    found = desk.call("emit", "weighed", "--source", "scale", "--json", *options).json
    jobs = open_jobs(conn, 10)
    assert found == {"event_id": jobs[0].source_event_id, "jobs": [
        {"job_id": job.id, "plugin": job.plugin, "command": "handle", "step_id": None} for job in jobs]}
    assert [json.loads(job.payload)["payload"] for job in jobs] == [payload, payload]


@pytest.mark.parametrize(("arguments", "code", "expected"), [
    (["weighed"], 1, "no pipeline subscribes to the event 'weighed'; nothing was stored (use --source PLUGIN to publish"
                     " it to the routes of a plugin)\n"),
    (["weighd", "--source", "scale"], 1,
     "no route or pipeline subscribes to the event 'weighd' of plugin scale; nothing was stored\n"),
    (["weighed", "--source", "mail"], 1,
     "no route or pipeline subscribes to the event 'weighed' of plugin mail; nothing was stored\n"),
    (["weighed", "--source", "scal"], 66, "no plugin 'scal' is configured (did you mean 'scale'?)\n"),
    (["ductile.job.dead"], 64, "EVENT 'ductile.job.dead': types that start with 'ductile.job.' are reserved\n"),
    (["weighed", "--payload", "{"], 65,
     "--payload is not strict JSON: line 1, column 2: expected a key in double quotes\n"),
    (["weighed", "--source", "scale", "--payload", json.dumps({"x": "x" * 2**20})], 65,
     "the event cannot be accepted: the baggage of its event would be 1,048,693 bytes, at most 1,048,576 are allowed:"
     " keep what is large in a file of the workspace\n"),
])
def test_what_nothing_can_take_is_refused_and_nothing_stored(conn: sqlite3.Connection, desk: Desk, arguments: list[str],
                                                             code: int, expected: str) -> None:
    before = desk.dump()
    assert desk.call("emit", *arguments) == Said(code=code, out="", err=expected)
    assert desk.dump() == before


def test_files_that_the_daemon_has_not_read_are_78(conn: sqlite3.Connection, desk: Desk) -> None:
    taken(conn, "other")
    taken(conn, digest(desk), "refused")
    before = desk.dump()
    assert desk.call("emit", "weighed", "--source", "scale") == Said(code=78, out="", err=(
        "the files differ from those that ductiled has loaded; run `ductilectl reload` first, or start it; nothing"
        " was stored\n"))
    assert desk.dump() == before


def test_files_that_the_daemon_has_read_last_are_good(conn: sqlite3.Connection, desk: Desk) -> None:
    taken(conn, "other")
    taken(conn, digest(desk))
    taken(conn, "", "refused")
    assert desk.call("emit", "weighed", "--source", "scale").code == 0


def test_what_stays_out_of_the_baggage_is_told_once(conn: sqlite3.Connection, desk: Desk) -> None:
    payload = json.dumps({"origin_plugin": "me", "origin_user": "ann", "kg": 1})
    assert desk.call("emit", "weighed", "--source", "scale", "--payload", payload).err == (
        DOWN + "the key 'origin_plugin' is refused: it is the core's own, rename it\n")
    for job in open_jobs(conn, 10):
        assert json.loads(job.payload)["payload"] == {"origin_user": "ann", "kg": 1}
        assert context_table.get(conn, job.event_context_id).accumulated["origin_plugin"] == "scale"


def test_all_jobs_of_an_event_are_stored_or_none(conn: sqlite3.Connection, desk: Desk) -> None:
    conn.execute("CREATE TRIGGER no AFTER INSERT ON job_queue WHEN NEW.plugin = 'analyse'"
                 " BEGIN SELECT raise(ABORT, 'no more'); END")
    before = desk.dump()
    assert desk.call("emit", "weighed", "--source", "scale").code == 74
    assert desk.dump() == before


def test_the_daemon_runs_at_once_what_an_event_became(daemon: RealDaemon) -> None:
    daemon.plugin("scale", SAYS_OK)
    daemon.plugin("mail", SAYS_OK, commands=("handle",))
    daemon.config["routes"] = ROUTES[:1]
    daemon.configure()
    daemon.start()

    def emit() -> tuple[int, Any]:
        process = start("emit", "weighed", "--source", "scale", "--json", home=daemon.home)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert err == ""
        return process.returncode, json.loads(out)["jobs"]

    code, ((job),) = emit()
    assert (code, job["plugin"]) == (0, "mail")
    daemon.await_job(job["job_id"], "succeeded")
    daemon.stop()


def test_a_dry_run_shows_each_job_with_the_payload_of_its_plugin_and_stores_nothing(desk: Desk) -> None:
    for name in ("scale", "mail", "analyse"):
        desk.plugin(name)
    desk.configure(routes=ROUTES[:1], pipelines=[{"name": "p", "on": "weighed", "steps": [{"split": [
        {"id": "look", "uses": "analyse", "with": {"text": "{who}: {kg} kg", "kg": "{kg}"}},
        {"id": "tell", "uses": "mail", "with": {"text": "{whom}"}}]}]}])
    arguments = ("emit", "weighed", "--source", "scale", "--payload", '{"kg": 81, "who": "é"}', "--dry-run")
    said = desk.call(*arguments)
    ids = [line.split('"')[3] for line in said.out.splitlines() if "origin_job_id" in line]
    payload = """\
    {{
      "origin_plugin": "scale",
      "origin_event_type": "weighed",
      "origin_job_id": "{}",
      "kg": 81,
      "who": "é"{}
    }}
"""
    assert (said.code, said.err) == (1, "")
    assert said.out == "".join([
        "analyse handle, step p/look\n", payload.format(ids[0], ',\n      "text": "é: 81 kg"'),
        "mail handle, step p/tell: would fail: with.text: no 'whom' in the payload or the context\n",
        "mail handle\n", payload.format(ids[1], "")])
    rows = desk.call(*arguments, "--json").json["jobs"]
    assert [(row["plugin"], row["pipeline_name"], row["step_id"], row["error"] is None) for row in rows] == [
        ("analyse", "p", "look", True), ("mail", "p", "tell", False), ("mail", None, None, True)]
    assert (rows[0]["payload"]["text"], rows[0]["payload"]["kg"]) == ("é: 81 kg", 81)
    assert not (desk.home / "data").exists()


def test_a_dry_run_of_an_event_without_subscribers_exits_with_1(desk: Desk) -> None:
    desk.plugin("scale")
    said = desk.call("emit", "weighed", "--dry-run")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("no pipeline subscribes to the event 'weighed'; nothing was stored")
