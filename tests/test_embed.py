"""Jobs as plain JSON, run by nobody's daemon: what follows from each is what the daemon would do."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ductile import embed, runtime_config
from ductile.dispatch.run_lock import RunLocks
from ductile.errors import DuctileError
from ductile.workspace.manager import Workspaces
from support import plugins_on_disk
from support.launch import in_a_child
from support.wire import SECRET, signature

SAYS = """#!/bin/sh
cat >"$DUCTILE_PLUGIN"
cat "${0%/*}/answer.json"
"""
CONFIG = """
plugins_dir: plugins
pipelines_dir: pipelines
plugins:
  first: {retry: {max_attempts: 3}, schedule: [{id: daily, command: poll, every: daily, at: "07:30", timezone: UTC}]}
  second: {}
pipelines:
  - name: chain
    on: begun
    steps:
      - {id: one, uses: first}
      - {id: two, uses: second, with: {text: "{made}"}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "config.yaml").write_text(CONFIG)
    for name in ("first", "second"):
        answers(tmp_path, name, {"status": "ok"}, is_new=True)
    return tmp_path


def answers(home: Path, name: str, answer: Mapping[str, Any], *, is_new: bool = False) -> None:
    """Let a plugin answer with this."""
    directory = home / "plugins" / name
    if is_new:
        plugins_on_disk.make(home / "plugins", name)
        manifest = directory / "manifest.yaml"
        manifest.write_text(manifest.read_text().replace("[poll]", "[poll, handle]"))
        (directory / "run.sh").write_text(SAYS)
    (directory / "answer.json").write_text(json.dumps(answer))


def opened(home: Path) -> embed.Site:
    return embed.open_site(home / "config.yaml", home, {"PATH": os.environ["PATH"], "HOOK": SECRET})


def attempt(home: Path, job: Mapping[str, Any], state: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """Make an attempt in a process of its own: it becomes a subreaper and ends its children."""
    return in_a_child(lambda: through_json(embed.attempt(opened(home), job, state or {}, **more)))


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def arrivals(home: Path, *arguments: Any) -> list[Any]:
    return in_a_child(lambda: through_json(embed.arrivals(opened(home), *arguments)))


def test_a_chain_runs_to_its_end_by_json_alone(home: Path) -> None:
    answers(home, "first", {"status": "ok", "result": "done", "state_updates": {"cursor": 7},
                            "events": [{"type": "made", "payload": {"made": 5}}]})
    [job] = arrivals(home, {"type": "begun", "payload": {"channel_id": "c"}})
    assert (job["plugin"], job["pipeline_name"], job["attempt"]) == ("first", "chain", 1)
    first = attempt(home, job)
    assert (first["status"], first["state"], first["error"]) == ("succeeded", {"cursor": 7}, None)
    assert [each["path"] for each in first["artifacts"]] == ["first"]
    [following] = first["jobs"]
    baggage = following["context"]["accumulated"]
    assert (baggage["channel_id"], baggage["origin_job_id"]) == ("c", job["id"])
    second = attempt(home, {**following, "inputs": first["artifacts"]})
    assert (second["status"], second["jobs"]) == ("succeeded", [])
    seen = json.loads((home / "ws" / following["id"] / "second").read_text())
    assert seen["event"]["payload"]["text"] == 5
    assert seen["event"]["payload"]["result"] == "done"


def test_a_failure_is_a_result_with_the_job_for_the_next_attempt(home: Path) -> None:
    answers(home, "first", {"status": "error", "error": "it failed", "state_updates": {"token": "new"}})
    [job] = arrivals(home, {"type": "begun", "payload": {}})
    numbers = []
    while job is not None:
        result = attempt(home, job)
        assert (result["error"], result["state"], result["log"]["status"]) == ("it failed", {"token": "new"}, "failed")
        numbers.append((result["status"], result["retry_in"] is None))
        job = result["job"]
    assert numbers == [("queued", False), ("queued", False), ("dead", True)]
    assert list((home / "ws").glob("[!.]*")) == []


def test_a_chain_keeps_the_version_of_the_pipeline_that_it_began_with(home: Path) -> None:
    answers(home, "first", {"status": "ok", "events": [{"type": "made", "payload": {"made": 5}}]})
    [job] = arrivals(home, {"type": "begun", "payload": {}})
    text = (home / "config.yaml").read_text()
    (home / "config.yaml").write_text(text.replace("{id: two, uses: second", "{id: other, uses: second"))
    assert [each["step_id"] for each in attempt(home, job)["jobs"]] == ["two"]
    refused = attempt(home, {**job, "pipeline": None})
    assert refused["status"] == "dead"
    assert refused["error"].startswith("version ")


def test_a_stop_ends_the_plugin_and_uses_no_attempt(home: Path) -> None:
    (home / "plugins" / "first" / "run.sh").write_text("#!/bin/sh\nexec sleep 60\n")
    [job] = arrivals(home, {"type": "begun", "payload": {}})
    result = attempt(home, job, is_stopped=lambda: True)
    assert (result["status"], result["log"]["status"], result["retry_in"]) == ("queued", "interrupted", 0)
    assert (result["job"]["attempt"], result["job"]["interruptions"]) == (1, 1)


def test_an_event_that_nothing_subscribes_to_becomes_no_job(home: Path) -> None:
    assert arrivals(home, {"type": "else", "payload": {}}) == []


@pytest.mark.parametrize("event", [{}, {"type": 1}, {"type": "begun", "payload": []}])
def test_what_is_no_event_is_refused(home: Path, event: Mapping[str, Any]) -> None:
    with pytest.raises(DuctileError, match="an event needs a type"):
        embed.arrivals(opened_here(home), event)


def test_the_slots_of_a_schedule_follow_each_other(home: Path) -> None:
    site = opened_here(home)
    slot, job = embed.next_slot(site, "first", "daily")
    assert slot["next_run_at"].endswith("T07:30:00.000Z")
    assert (job["plugin"], job["command"], job["schedule_id"]) == ("first", "poll", "daily")
    later, _ = embed.next_slot(site, "first", "daily", slot)
    assert later["next_run_at"] > slot["next_run_at"]


@pytest.mark.parametrize(("plugin", "schedule", "text"), [
    ("none", "daily", "plugin none cannot run here: not configured"),
    ("first", "none", "plugin first has no schedule 'none'"),
])
def test_a_schedule_that_does_not_exist_is_named(home: Path, plugin: str, schedule: str, text: str) -> None:
    with pytest.raises(DuctileError) as caught:
        embed.next_slot(opened_here(home), plugin, schedule)
    assert (str(caught.value), caught.value.exit_code) == (text, 66)


@pytest.mark.parametrize("job", [
    {"plugin": "first"}, {"plugin": "first", "id": 1, "command": "poll", "max_attempts": 1, "submitted_by": "cli"},
    {"plugin": "first", "id": "a", "command": "poll", "max_attempts": "x", "submitted_by": "cli"},
    {"plugin": "first", "id": "a", "command": "poll", "max_attempts": 1, "submitted_by": "nobody"},
    {"plugin": "first", "id": "a", "command": "poll", "max_attempts": 1, "submitted_by": "cli", "interruptions": "x"},
    {"plugin": "first", "id": "../a", "command": "poll", "max_attempts": 1, "submitted_by": "cli"},
    {"plugin": "first", "id": "a", "command": "poll", "max_attempts": 1, "submitted_by": "cli", "parent_job_id": ".."},
    {"plugin": "first", "id": "a", "command": "poll", "max_attempts": 1, "submitted_by": "cli", "parent_job_id": "b",
     "inputs": [{"path": "x"}]},
])
def test_what_is_no_job_is_refused_before_anything_runs(home: Path, job: Mapping[str, Any]) -> None:
    with pytest.raises(DuctileError, match="not a job: ") as caught:
        embed.attempt(opened_here(home), job, {})
    assert caught.value.exit_code == 65


WEBHOOKS = """
webhooks:
  listen: 127.0.0.1:8081
  endpoints:
    - {path: /plugin, plugin: second, secret: "${HOOK}", signature_header: X-Sig, max_body_size: 1KB}
    - {path: /event, event: begun, secret: "${HOOK}", signature_header: X-Sig,
       dedupe_header: X-Id, handshake: x-crc}
"""


def accept(home: Path, body: bytes, *headers: tuple[str, str], path: str = "/event", **head: str) -> dict[str, Any]:
    with open(home / "config.yaml", "a") as config:
        config.write(WEBHOOKS)
    headers = headers or (("X-Sig", signature(body)), ("X-Id", "7"))
    return through_json(embed.accept(opened_here(home), {"method": "POST", "path": path, "headers": headers, **head},
                                     body))


def test_a_webhook_becomes_its_event_and_the_jobs_of_that(home: Path) -> None:
    found = accept(home, b'{"channel_id": "c"}', query="a=1")
    event, [job] = found["event"], found["jobs"]
    assert (event["type"], event["payload"], event["dedupe_key"]) == ("begun", {"channel_id": "c"}, "webhook:/event 7")
    assert (event["http"]["query"], event["http"]["headers"]) == ("a=1", {"x-id": "7"})
    assert (job["plugin"], job["step_id"], job["submitted_by"]) == ("first", "one", "webhook")
    assert (found["status"], json.loads(found["body"])) == (202, {"job_id": job["id"], "job_ids": [job["id"]]})
    assert found["headers"] == [["Content-Type", "application/json"]]
    assert attempt(home, job)["status"] == "succeeded"


def test_a_webhook_of_a_plugin_becomes_one_job(home: Path) -> None:
    found = accept(home, b"plain", path="/plugin")
    [job] = found["jobs"]
    assert (job["plugin"], job["command"], job["event"]["payload"]) == ("second", "handle", {"body": "plain"})
    assert json.loads(found["body"]) == {"job_id": job["id"]}


@pytest.mark.parametrize(("changes", "status", "reason"), [
    ({"path": "/none"}, 404, "no endpoint has this path"),
    ({"method": "PUT"}, 405, "the method is not POST"),
    ({"body": b"x" * 1025, "path": "/plugin"}, 413, "the body is larger than max_body_size"),
    ({"headers": [("X-Sig", "0" * 64)]}, 403, "the signature is wrong"),
])
def test_a_webhook_that_is_refused_becomes_nothing(home: Path, changes: dict[str, Any], status: int,
                                                   reason: str) -> None:
    found = accept(home, changes.pop("body", b"{}"), *changes.pop("headers", ()), **changes)
    assert (found["status"], found["reason"], found["event"], found["jobs"]) == (status, reason, None, [])


def test_a_handshake_is_answered_and_becomes_nothing(home: Path) -> None:
    found = accept(home, b"", ("Host", "a"), method="GET", query="crc_token=abc")
    assert (found["status"], found["event"], found["jobs"]) == (200, None, [])
    assert json.loads(found["body"])["response_token"].startswith("sha256=")


@pytest.mark.parametrize("head", [
    {}, {"method": "POST", "path": 7}, {"method": "POST", "path": "/event", "headers": 1},
])
def test_what_is_no_head_is_refused(home: Path, head: Mapping[str, Any]) -> None:
    with pytest.raises(DuctileError, match="not the head of a request: ") as caught:
        embed.accept(opened_here(home), head, b"")
    assert caught.value.exit_code == 65


def opened_here(home: Path) -> embed.Site:
    """A site that changes nothing in this process."""
    runtime = runtime_config.build(home / "config.yaml", {"HOOK": SECRET}).runtime
    return embed.Site(runtime=runtime, workspaces=Workspaces(home / "ws"), locks=RunLocks(home / "running"))
