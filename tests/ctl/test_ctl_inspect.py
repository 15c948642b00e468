"""`inspect`: one job with its attempts, and the chain it belongs to as a tree."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from ctl.desk import PATIENCE_SECONDS, SAYS_OK, Desk, Said, job_id, start
from ductile import db
from ductile.ctl import chain
from ductile.queue import attempt_table, job_table
from ductile.queue.job import LogEntry, Status
from ductile.routing import context_table
from ductile.routing.baggage import NewContext
from ductile.workspace import artifact_table
from ductile.workspace.artifact import Artifact
from support.clock import START
from support.daemon import RealDaemon
from support.ledger import new_job, put_job

LONGER_THAN_PYTHON_RECURSES = 3000
SCALE = """\
#!/bin/sh
cat >/dev/null
echo '{"status": "ok", "events": [{"type": "weighed", "payload": {"kg": 81}}, {"type": "unheard"}]}'
"""


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    with desk.ledger() as conn:
        yield conn


def log(conn: sqlite3.Connection, job: str, result: dict[str, Any] | None = None, **fields: Any) -> None:
    found = job_table.get(conn, job)
    entry = {"id": f"log-{job}-{found.attempt}", "status": "failed",
             "completed_at": START + timedelta(seconds=2), **fields}
    with db.transaction(conn):
        attempt_table.append(conn, found, LogEntry(**entry), None if result is None else json.dumps(result))


def carry(conn: sqlite3.Connection, context_id: str, accumulated: dict[str, Any], parent: str | None = None) -> str:
    with db.transaction(conn):
        context_table.add(conn, NewContext(id=context_id, hop=1, accumulated=accumulated, parent_id=parent), START)
    return context_id


def follow(conn: sqlite3.Connection, number: int, parent: int, status: Status = Status.QUEUED, **fields: Any) -> None:
    put_job(conn, job_id(number), status, parent_job_id=job_id(parent), root_job_id=job_id(1), **fields)


# The asked job


INSPECTED = f"""\
id               00000001-0000-4000-8000-000000000000
plugin           echo
command          handle
status           queued
attempt          1 of 4
submitted by     webhook
dedupe key       k\\x1b[2J
created at       2026-02-08 10:00:00 +0000
root job id      00000001-0000-4000-8000-000000000000
source event id  e1
payload
    {{
      "type": "t",
      "payload": {{
        "a": "\\x9b"
      }}
    }}

2026-02-08 10:00:02 +0000 attempt 1 failed: no\\x07
    warn: line\\x1b one
    note: the key 'x' is refused\\x07
    result: almost
    event made {{"b": 1}}
    stderr:
        Traceback:
          at\\x1b home

chain of 1 job:
* 00000001 echo handle: queued, attempt 1 of 4
    queued 2026-02-08 10:00:00 +0000
      ! the key 'x' is refused\\x07
      event made -> dropped: the attempt failed
{chain.LEGEND}"""
NOTES = ["the key 'x' is refused\x07"]
RESULT = {"status": "error", "result": "almost", "events": [{"type": "made", "payload": {"b": 1}}],
          "logs": [{"level": "warn", "message": "line\x1b one"}], "notes": NOTES}


def put_talkative(conn: sqlite3.Connection) -> None:
    put_job(conn, job_id(1), command="handle", payload='{"type": "t", "payload": {"a": "\\u009b"}}',
            dedupe_key="k\x1b[2J", submitted_by="webhook", source_event_id="e1")
    log(conn, job_id(1), RESULT, error="no\x07", stderr="Traceback:\n  at\x1b home\n", exit_code=1)


def test_one_job_is_shown_with_its_attempts(conn: sqlite3.Connection, desk: Desk) -> None:
    put_talkative(conn)
    assert desk.call("inspect", "0000") == Said(code=0, out=INSPECTED, err="")


def test_the_document_of_a_job_has_everything_that_is_stored(conn: sqlite3.Connection, desk: Desk) -> None:
    put_talkative(conn)
    found = desk.call("inspect", job_id(1), "--json").json
    (attempt,) = found.pop("attempts")
    assert len(found.pop("chain")) == 1
    assert found == {
        "id": job_id(1), "plugin": "echo", "command": "handle", "payload": {"type": "t", "payload": {"a": "\x9b"}},
        "status": "queued", "attempt": 1, "max_attempts": 4, "submitted_by": "webhook", "dedupe_key": "k\x1b[2J",
        "created_at": "2026-02-08T10:00:00.000Z", "started_at": None, "completed_at": None, "next_retry_at": None,
        "last_error": None, "parent_job_id": None, "root_job_id": job_id(1), "source_event_id": "e1",
        "event_context_id": None, "pipeline_name": None, "pipeline_hash": None, "step_id": None, "replay_of": None,
        "core_event": None, "schedule_id": None,
    }
    assert attempt == {
        "id": f"log-{job_id(1)}-1", "job_id": job_id(1), "attempt": 1, "plugin": "echo", "command": "handle",
        "status": "failed", "started_at": None, "completed_at": "2026-02-08T10:00:02.000Z", "exit_code": 1,
        "last_error": "no\x07", "stderr": "Traceback:\n  at\x1b home\n", "printed": None, "seconds": None,
        "result": RESULT,
    }


# The chain


def put_chain(conn: sqlite3.Connection) -> None:
    """A poll whose event went three ways: to a step that waits for its retry, to one that is done, and nowhere."""
    put_job(conn, job_id(1), Status.SUCCEEDED, plugin="scale")
    log(conn, job_id(1), {"status": "ok", "events": [
        {"type": "weighed", "payload": {}, "ways": [
            {"plugin": "analyse", "job_id": job_id(2), "step_id": "look"}, {"plugin": "mail", "job_id": job_id(3)},
            {"plugin": "mail", "duplicate_of": job_id(9)},
            {"plugin": "note", "duplicate_of": job_id(8), "step_id": "s"},
        ]}, {"type": "unheard", "payload": {}, "ways": []}], "notes": NOTES}, status="succeeded")
    first = carry(conn, "c1", {"origin_plugin": "scale", "kg": 81, "unit": "kg"})
    follow(conn, 2, 1, plugin="analyse", command="handle", pipeline_name="weight", step_id="look",
           event_context_id=first)
    conn.execute("UPDATE job_queue SET next_retry_at = '2026-02-08T11:00:00.000Z', attempt = 2,"
                 " started_at = created_at, last_error = 'tired' WHERE id = ?", (job_id(2),))
    follow(conn, 3, 1, Status.SUCCEEDED, plugin="mail", command="handle",
           event_context_id=carry(conn, "c2", {"origin_plugin": "scale", "kg": 81, "unit": "kg", "to": "a\x1b",
                                              "gone": [1]}))
    follow(conn, 4, 3, Status.DEDUPED, plugin="log", command="handle", replay_of=job_id(7), event_context_id=carry(
        conn, "c3", {"origin_plugin": "scale", "kg": 81.0, "unit": "x" * 200, "to": "a\x1b", "k" * 70: None}, "c2"))


CHAIN = f"""\
chain of 4 jobs:
- 00000001 scale poll: succeeded, attempt 1 of 4
    queued 2026-02-08 10:00:00 +0000, started 2026-02-08 10:00:00 +0000, ended 2026-02-08 10:00:00 +0000
    2026-02-08 10:00:02 +0000 attempt 1 succeeded in 2.000 s
      ! the key 'x' is refused\\x07
      event weighed -> job 00000002 analyse, step look
      event weighed -> job 00000003 mail
      event weighed -> mail: a duplicate of job 00000009
      event weighed -> note, step s: a duplicate of job 00000008
      event unheard -> no subscribers
  - 00000002 analyse handle, step weight/look: waiting until 2026-02-08 11:00:00 +0000, attempt 2 of 4
      queued 2026-02-08 10:00:00 +0000, started 2026-02-08 10:00:00 +0000
      error: tired
      + origin_plugin: "scale"
      + kg: 81
      + unit: "kg"
  * 00000003 mail handle: succeeded, attempt 1 of 4
      queued 2026-02-08 10:00:00 +0000, started 2026-02-08 10:00:00 +0000, ended 2026-02-08 10:00:00 +0000
      + origin_plugin: "scale"
      + kg: 81
      + unit: "kg"
      + to: "a\\u001b"
      + gone: [1]
    - 00000004 log handle, replay of 00000007: deduped, attempt 1 of 4
        queued 2026-02-08 10:00:00 +0000, ended 2026-02-08 10:00:00 +0000
        ~ kg: 81.0 (was 81)
        ~ unit: "{"x" * 80}… (200 characters)" (was "kg")
        + {"k" * 59}…: null
        x gone
{chain.LEGEND}"""


def test_the_chain_is_a_tree_with_the_asked_job_marked(conn: sqlite3.Connection, desk: Desk) -> None:
    put_chain(conn)
    said = desk.call("inspect", "00000003")
    assert (said.code, said.out[said.out.index("chain of"):], said.err) == (0, CHAIN, "")


def test_the_document_has_the_chain_with_the_root_first(conn: sqlite3.Connection, desk: Desk) -> None:
    put_chain(conn)
    chain = desk.call("inspect", "00000003", "--json").json["chain"]
    assert [(link["job_id"], link["depth"], link["asked"]) for link in chain] == [
        (job_id(1), 0, False), (job_id(2), 1, False), (job_id(3), 1, True), (job_id(4), 2, False)]
    assert chain[0]["attempts"] == [{
        "attempt": 1, "status": "succeeded", "started_at": "2026-02-08T10:00:00.000Z",
        "completed_at": "2026-02-08T10:00:02.000Z", "seconds": 2.0, "last_error": None, "notes": NOTES,
        "passed_on": [], "events": [
            {"type": "weighed", "ways": [
                {"plugin": "analyse", "job_id": job_id(2), "step_id": "look"},
                {"plugin": "mail", "job_id": job_id(3)}, {"plugin": "mail", "duplicate_of": job_id(9)},
                {"plugin": "note", "duplicate_of": job_id(8), "step_id": "s"}]},
            {"type": "unheard", "ways": []}]}]
    assert chain[1] == {
        "job_id": job_id(2), "parent_job_id": job_id(1), "plugin": "analyse", "command": "handle",
        "pipeline_name": "weight", "step_id": "look", "submitted_by": "cli", "replay_of": None, "status": "queued",
        "attempt": 2, "max_attempts": 4, "created_at": "2026-02-08T10:00:00.000Z",
        "started_at": "2026-02-08T10:00:00.000Z", "completed_at": None, "next_retry_at": "2026-02-08T11:00:00.000Z",
        "last_error": "tired", "depth": 1, "asked": False,
        "baggage_added": {"origin_plugin": "scale", "kg": 81, "unit": "kg"}, "baggage_before": {},
        "attempts": [], "files": [],
    }
    assert chain[3]["baggage_added"] == {"kg": 81.0, "unit": "x" * 200, "k" * 70: None}
    assert chain[3]["baggage_before"] == {"kg": 81, "unit": "kg", "gone": [1]}


def test_with_context_the_whole_baggage_is_shown(conn: sqlite3.Connection, desk: Desk) -> None:
    put_chain(conn)
    links = desk.call("inspect", "00000003", "--context", "--json").json["chain"]
    assert [link["context"] for link in links[:2]] == [None, {"origin_plugin": "scale", "kg": 81, "unit": "kg"}]
    assert "".join([
        '      context: {\n', '        "origin_plugin": "scale",\n', '        "kg": 81,\n', '        "unit": "kg"\n',
        '      }\n']) in desk.call("inspect", "00000003", "--context").out


def test_a_long_payload_is_cut_in_its_strings_and_its_lines(conn: sqlite3.Connection, desk: Desk) -> None:
    payload = {"text": "é" * 5000, "list": list(range(300)), "short": "x" * 100}
    put_job(conn, job_id(1), payload=json.dumps({"type": "t", "payload": payload}))
    out = desk.call("inspect", "00000001").out
    assert f'\n        "text": "{"é" * 80}… (5,000 characters)",\n' in out
    assert "\n    and 109 lines more: use --json\n" in out
    assert desk.call("inspect", "00000001", "--json").json["payload"]["payload"] == payload


def put_step(conn: sqlite3.Connection, number: int, parent: int | None, **fields: Any) -> None:
    put_job(conn, job_id(number), Status.SUCCEEDED, root_job_id=job_id(1), pipeline_name="p", step_id=f"s{number}",
            parent_job_id=None if parent is None else job_id(parent), **fields)


def give(conn: sqlite3.Connection, number: int, **digests: str) -> None:
    """Record files of a job, each with its digest and a size of 1,536 bytes."""
    artifact_table.add(conn, job_id(number), [
        Artifact(path=path, size=1536, mtime_ns=1, digest=digest * 64) for path, digest in digests.items()])


FILES = f"""\
chain of 3 jobs:
* 00000001 echo poll, step p/s1: succeeded, attempt 1 of 4
    queued 2026-02-08 10:00:00 +0000, started 2026-02-08 10:00:00 +0000, ended 2026-02-08 10:00:00 +0000
    file a  1.5 KB  aaaaaaaaaaaa
    file b\\x1b[31m  1.5 KB  bbbbbbbbbbbb
      no event -> job 00000002 echo, step s2
      no event -> note, step s9: a duplicate of job 00000009
  - 00000002 echo poll, step p/s2: succeeded, attempt 1 of 4
      queued 2026-02-08 10:00:00 +0000, started 2026-02-08 10:00:00 +0000, ended 2026-02-08 10:00:00 +0000
      file a  1.5 KB  cccccccccccc
      file new  1.5 KB  aaaaaaaaaaaa
      and 1 file of the job before it
    - 00000003 echo poll, step p/s3: succeeded, attempt 1 of 4
        queued 2026-02-08 10:00:00 +0000, started 2026-02-08 10:00:00 +0000, ended 2026-02-08 10:00:00 +0000
        and 3 files of the job before it
{chain.LEGEND}"""


def put_steps(conn: sqlite3.Connection) -> None:
    """Three steps: the first passes on what it was given, each has files."""
    for number in (1, 2, 3):
        put_step(conn, number, number - 1 or None)
    log(conn, job_id(1), {"status": "ok", "ways": [
        {"plugin": "echo", "job_id": job_id(2), "step_id": "s2"},
        {"plugin": "note", "duplicate_of": job_id(9), "step_id": "s9"}]}, status="succeeded")
    give(conn, 1, **{"a": "a", "b\x1b[31m": "b"})
    for number in (2, 3):
        give(conn, number, **{"a": "c", "b\x1b[31m": "b", "new": "a"})


def test_the_chain_shows_what_was_passed_on_and_the_files_of_each_job(conn: sqlite3.Connection, desk: Desk) -> None:
    put_steps(conn)
    out = desk.call("inspect", "00000001").out
    assert out[out.index("chain of"):] == FILES


def test_the_document_has_what_was_passed_on_and_every_file(conn: sqlite3.Connection, desk: Desk) -> None:
    put_steps(conn)
    first, second, third = desk.call("inspect", "00000001", "--json").json["chain"]
    assert (first["attempts"][0]["passed_on"], first["attempts"][0]["events"]) == ([
        {"plugin": "echo", "job_id": job_id(2), "step_id": "s2"},
        {"plugin": "note", "duplicate_of": job_id(9), "step_id": "s9"}], [])
    assert [(each["path"], each["inherited"]) for each in first["files"]] == [("a", False), ("b\x1b[31m", False)]
    assert second["files"] == [
        {"path": "a", "size": 1536, "digest": "c" * 64, "inherited": False},
        {"path": "b\x1b[31m", "size": 1536, "digest": "b" * 64, "inherited": True},
        {"path": "new", "size": 1536, "digest": "a" * 64, "inherited": False}]
    assert [each["inherited"] for each in third["files"]] == [True] * 3


def test_the_files_of_a_job_are_read_once_however_many_follow_from_it(conn: sqlite3.Connection) -> None:
    put_job(conn, "root", Status.SUCCEEDED)
    for number in range(50):
        put_job(conn, f"child-{number}", Status.SUCCEEDED, parent_job_id="root", root_job_id="root")
    read: list[str] = []
    conn.set_trace_callback(lambda sql: read.append(sql) if "FROM artifacts" in sql else None)
    chain.rows(conn, job_table.get(conn, "root"))
    conn.set_trace_callback(None)
    assert len(read) == 51


def test_of_many_files_twenty_are_shown_and_the_document_has_all(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(1), Status.SUCCEEDED)
    give(conn, 1, **{f"f{number:04d}": "a" for number in range(1234)})
    out = desk.call("inspect", "00000001").out
    shown = [line for line in out.splitlines() if line.startswith("    file ")]
    assert (len(shown), shown[-1]) == (20, "    file f0019  1.5 KB  aaaaaaaaaaaa")
    assert "\n    and 1,214 files more\n" in out
    assert len(desk.call("inspect", "00000001", "--json").json["chain"][0]["files"]) == 1234


def test_a_file_whose_name_is_not_utf_8_is_shown(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(1), Status.SUCCEEDED)
    give(conn, 1, **{os.fsdecode(b"\xff\n"): "a"})
    assert "    file \\udcff  1.5 KB  aaaaaaaaaaaa\n" in desk.call("inspect", "00000001").out
    assert desk.call("inspect", "00000001", "--json").json["chain"][0]["files"][0]["path"] == "\udcff\n"


def test_a_job_that_tells_of_a_death_says_so(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(1), core_event="ductile.job.dead")
    assert "\ncore event    ductile.job.dead\n" in desk.call("inspect", "00000001").out
    assert desk.call("inspect", "00000001", "--json").json["core_event"] == "ductile.job.dead"


def test_a_value_that_only_python_takes_for_the_same_is_added(conn: sqlite3.Connection, desk: Desk) -> None:
    carry(conn, "c1", {"a": True, "b": 1})
    put_job(conn, job_id(1), event_context_id=carry(conn, "c2", {"a": 1, "b": 1}, "c1"))
    assert desk.call("inspect", job_id(1), "--json").json["chain"][0]["baggage_added"] == {"a": 1}


def test_each_attempt_of_a_job_has_its_line(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(1), Status.RUNNING)
    log(conn, job_id(1), error="first", id="z")
    conn.execute("UPDATE job_queue SET attempt = 2")
    log(conn, job_id(1), status="interrupted", id="y")
    log(conn, job_id(1), error="third", id="x")
    found = desk.call("inspect", job_id(1), "--json").json["chain"][0]["attempts"]
    assert [(each["attempt"], each["status"], each["last_error"]) for each in found] == [
        (1, "failed", "first"), (2, "interrupted", None), (2, "failed", "third")]


def test_a_chain_may_have_several_roots(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(1))
    put_job(conn, job_id(2), root_job_id=job_id(1), replay_of=job_id(1))
    follow(conn, 3, 1)
    chain = desk.call("inspect", job_id(1), "--json").json["chain"]
    assert [(link["job_id"], link["depth"]) for link in chain] == [(job_id(1), 0), (job_id(3), 1), (job_id(2), 0)]


def test_other_chains_are_left_out(conn: sqlite3.Connection, desk: Desk) -> None:
    for number in (1, 2):
        put_job(conn, job_id(number))
    assert [link["job_id"] for link in desk.call("inspect", job_id(2), "--json").json["chain"]] == [job_id(2)]


def test_a_chain_may_be_longer_than_python_recurses(conn: sqlite3.Connection, desk: Desk) -> None:
    count = LONGER_THAN_PYTHON_RECURSES
    with db.transaction(conn):
        job_table.add(conn, [
            new_job(job_id(number), root_job_id=job_id(1), parent_job_id=job_id(number - 1) if number > 1 else None)
            for number in range(1, count + 1)], START)
    said = desk.call("inspect", job_id(count))
    titles = [line for line in said.out.splitlines() if line.lstrip().startswith(("- ", "* "))]
    assert (said.code, len(titles)) == (0, count)
    assert titles[20] == f"{' ' * 40}- {21:08x} echo poll: queued, attempt 1 of 4"
    assert titles[21] == f"{' ' * 40}- (depth 21) {22:08x} echo poll: queued, attempt 1 of 4"
    assert titles[-1] == f"{' ' * 40}* (depth {count - 1}) {count:08x} echo poll: queued, attempt 1 of 4"


def test_a_routed_event_is_followed_to_its_job(daemon: RealDaemon) -> None:
    daemon.plugin("scale", SCALE)
    daemon.plugin("analyse", SAYS_OK, commands=("handle",))
    daemon.config["routes"] = [{"from": "scale", "event_type": "weighed", "to": "analyse"}]
    daemon.configure()
    daemon.start()
    root = daemon.submit("scale")
    daemon.until("SELECT plugin, status FROM job_queue ORDER BY seq",
                 [("scale", "succeeded"), ("analyse", "succeeded")])
    ((routed,),) = daemon.rows("SELECT id FROM job_queue WHERE plugin = 'analyse'")
    out, err = start("inspect", routed, "--json", home=daemon.home).communicate(timeout=PATIENCE_SECONDS)
    first, second = json.loads(out)["chain"]
    assert (first["job_id"], first["asked"], second["job_id"], second["asked"], err) == (root, False, routed, True, "")
    assert first["attempts"][0]["events"] == [
        {"type": "weighed", "ways": [{"plugin": "analyse", "job_id": routed}]}, {"type": "unheard", "ways": []}]
    assert second["baggage_added"] == {
        "origin_plugin": "scale", "origin_event_type": "weighed", "origin_job_id": root, "kg": 81}
    daemon.stop()
