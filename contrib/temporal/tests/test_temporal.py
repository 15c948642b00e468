"""Ductile's plugins and pipelines on a real Temporal: what is killed, changed or large loses and doubles nothing."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from ductile_temporal import workflows
from running import Site, end, free_port, until

ROOT = Path(__file__).resolve().parents[3]
SECRET = b"correct-horse-battery-staple"
CHAIN = {"name": "chain", "on": "begun", "steps": [{"id": "one", "uses": "first"}, {"id": "two", "uses": "second"}]}


def overlaps(journal: list[dict[str, Any]]) -> list[Any]:
    """Return the runs of the journal of one plugin that began before the one before them had ended."""
    return [(one, two) for one, two in pairwise(journal) if one["what"] == two["what"] == "begin"]


def identities(site: Site, *plugins: str) -> set[str]:
    """Return the workers that ran these plugins."""
    async def look(client: Client) -> set[str]:
        return {event.activity_task_started_event_attributes.identity for plugin in plugins
                async for event in client.get_workflow_handle(workflows.plugin_workflow(plugin)).fetch_history_events()
                if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED}
    found: set[str] = site.ask(look)
    return found


def post(url: str, body: bytes, secret: bytes, header: str, **more: str) -> tuple[int, dict[str, Any]]:
    signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    request = urllib.request.Request(url, body, {header: signature, **more})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, {}


def test_the_wisdom_loop_crosses_two_workers(site: Site) -> None:
    demo = ROOT / "contrib" / "demo"
    channel, standins_port = site.home / "channel.txt", site.home / "port"
    with open(standins_port, "wb") as output, subprocess.Popen([demo / "standins", channel], stdout=output) as standins:
        try:
            port = until(lambda: standins_port.read_text().strip())
            subprocess.run([sys.executable, demo / "prepare", ROOT, site.home, port], check=True, capture_output=True)
            site.workers(2)
            address = f"127.0.0.1:{free_port()}"
            site.start("gateway", "--listen", address, ready="listening")
            secrets = dict(line.split("=") for line in (site.home / "secrets.env").read_text().splitlines())
            ids = []
            message = (site.home / "message.json").read_text()
            [video] = re.findall(r"v=([\w-]{11})", message)
            for number in range(3):
                # Another link each: the same one is a duplicate.
                body = message.replace(video, f"{video[:-1]}{number}").encode()
                status, answer = post(f"http://{address}/webhooks/discord", body,
                                      secrets["DISCORD_RELAY_SECRET"].encode(), "X-Signature-256")
                assert status == 202
                ids.append(answer["job_id"])
            for chain in ids:
                jobs = site.result(chain)
                assert sorted((each["plugin"], each["status"]) for each in jobs) == [
                    (name, "succeeded")
                    for name in ("discord", "discord_notify", "note", "summarize", "youtube_transcript")]
        finally:
            standins.terminate()
    assert channel.read_text().count("How a blade is made") >= 3
    assert len(list((site.home / "notes").rglob("*.md"))) >= 1
    assert len(identities(site, "discord", "youtube_transcript", "summarize", "note", "discord_notify")) == 2


def test_a_worker_that_is_killed_in_the_middle_of_a_plugin_loses_and_doubles_nothing(site: Site) -> None:
    site.actors("first", "second")
    site.configure(pipelines=[CHAIN])
    workers = site.workers(2)
    chain = site.emit("begun", {"first": {"seconds": 8}})
    [begun] = until(lambda: site.journal("begin", "first"))
    killed = next(worker for worker in workers if begun["parent"] in children(worker.pid))
    killed.kill()
    assert [(each["plugin"], each["status"]) for each in site.result(chain)] == [
        ("first", "succeeded"), ("second", "succeeded")]
    # The plugin of the dead worker was ended before it came to its end, and before another one began.
    assert [each["what"] for each in site.journal(plugin="first")] == ["begin", "begin", "end"]
    assert not Path(f"/proc/{begun['pid']}").exists()
    assert [each["what"] for each in site.journal(plugin="second")] == ["begin", "end"]


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()]


def test_a_server_that_is_killed_for_twelve_seconds_loses_and_doubles_nothing(site: Site) -> None:
    site.actors("first", "second")
    site.configure(pipelines=[CHAIN])
    site.workers(2)
    chains = [site.emit("begun", {"number": number, "first": {"seconds": 1}}) for number in range(6)]
    until(lambda: len(site.journal("end", "first")) >= 2)
    site.server.kill()
    time.sleep(12)
    site.server.start()
    for chain in chains:
        assert [each["status"] for each in site.result(chain)] == ["succeeded"] * 2
    for plugin in ("first", "second"):
        ends = [each["job"] for each in site.journal("end", plugin)]
        # What ran when the server died may have run again: its result could not be told.
        assert (len(set(ends)), len(ends) <= 7) == (6, True)
        assert overlaps(site.journal(plugin=plugin)) == []


def test_failures_are_those_of_ductile(site: Site) -> None:
    site.actors("first", "second")
    site.configure(pipelines=[CHAIN, {"name": "alert", "on": "ductile.job.dead", "steps": [{"uses": "second"}]}])
    site.workers(1)
    payloads = {"recovers": {"failures": 2}, "exit": {"exit": 78},
                "final": {"failures": 9, "answer": {"retry": False}}}
    chains = {name: site.emit("begun", {"first": act}) for name, act in payloads.items()}
    found = {name: site.result(chain) for name, chain in chains.items()}
    assert [each["status"] for each in found["recovers"]] == ["succeeded", "succeeded"]
    # The other job is that of ductile.job.dead.
    assert [(each["plugin"], each["status"]) for each in found["exit"]] == [("first", "dead"), ("second", "succeeded")]
    assert [each["error"] for each in found["final"]] == ["not yet", None]
    assert sorted(each["attempt"] for each in site.journal("begin", "first")) == ["1", "1", "1", "2", "3"]
    # Each attempt but that with exit code 78, whose answer was not printed, handed its state back.
    assert json.loads(site.run("state", "first")) == {"count": 4}


def test_a_webhook_runs_once_for_each_key_and_not_at_all_without_a_signature(site: Site) -> None:
    site.actors("first", "second")
    site.configure(webhooks={"listen": "127.0.0.1:8081", "endpoints": [
        {"path": "/hook", "plugin": "first", "secret": "${HOOK_SECRET}", "signature_header": "X-Sig",
         "dedupe_header": "X-Id"}]})
    address = f"127.0.0.1:{free_port()}"
    site.start("gateway", "--listen", address, ready="listening")
    url = f"http://{address}/hook"
    # No worker runs: Temporal has the chain all the same.
    status, answer = post(url, b'{"first": {"failures": 1}}', SECRET, "X-Sig", **{"X-Id": "a"})
    assert status == 202
    assert post(url, b"{}", SECRET, "X-Sig", **{"X-Id": "a"}) == (200, {"deduped": True, "job_id": answer["job_id"]})
    assert post(url, b"{}", b"wrong", "X-Sig", **{"X-Id": "b"})[0] == 403
    assert promised(address, 2_000_000) == 413
    site.workers(1)
    until(lambda: len(site.journal("end", "first")) == 2, site.story)
    assert {each["job"] for each in site.journal()} == {answer["job_id"]}


def promised(address: str, size: int) -> int:
    """Return the answer to the head of a request that promises a body."""
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.putrequest("POST", "/hook")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        return connection.getresponse().status


def test_a_fan_out_to_one_plugin_never_overlaps_on_four_workers(site: Site) -> None:
    site.actors("first", "second")
    site.configure(routes=[{"from": "first", "event_type": "made", "to": "second"}],
                   pipelines=[{"name": "out", "on": "begun", "steps": [{"uses": "first"}]}])
    site.workers(4)
    jobs = site.result(site.emit("begun", {"first": {"events": 33}}))
    assert [each["status"] for each in jobs] == ["succeeded"] * 34
    assert len({each["job"] for each in site.journal("end", "second")}) == 33
    assert overlaps(site.journal(plugin="second")) == []
    assert json.loads(site.run("state", "second")) == {"count": 33}


def test_a_chain_keeps_its_pipeline_while_all_workers_are_replaced(site: Site) -> None:
    site.actors("first", "second", "third")
    site.configure(pipelines=[CHAIN])
    [old] = site.workers(1)
    chain = site.emit("begun", {"first": {"seconds": 30}})
    until(lambda: site.journal("begin", "first"))
    site.configure(pipelines=[{**CHAIN, "steps": [{"id": "one", "uses": "first"}, {"id": "two", "uses": "third"}]}])
    # It ends the plugin, whose attempt does not count.
    end(old)
    assert old.returncode == 0
    assert site.journal("end") == []
    (site.home / "plugins" / "actor" / "run").write_text(
        (site.home / "plugins" / "actor" / "run").read_text().replace('act.get("seconds", 0)', "0"))
    site.workers(1)
    assert [each["plugin"] for each in site.result(chain)] == ["first", "second"]
    assert [each["attempt"] for each in site.journal("begin", "first")] == ["1", "1"]
    assert [each["plugin"] for each in site.result(site.emit("begun", {}))] == ["first", "third"]


def test_a_job_waits_until_a_worker_has_its_plugin(site: Site) -> None:
    site.actors("first")
    site.workers(1)
    site.configure(pipelines=[CHAIN], plugins={name: {"uses": "actor"} for name in ("first", "second")})
    chain = site.emit("begun", {})
    until(lambda: "has no workflow" in site.story(), site.story)
    site.workers(1)
    assert [(each["plugin"], each["status"]) for each in site.result(chain)] == [
        ("first", "succeeded"), ("second", "succeeded")]


def test_an_event_of_450_kb_and_files_reach_the_next_step(site: Site) -> None:
    site.actors("first", "second")
    site.configure(pipelines=[CHAIN])
    site.workers(2)
    jobs = site.result(site.emit("begun", {"first": {"size": 450_000}}))
    assert [each["status"] for each in jobs] == ["succeeded"] * 2
    workspace = site.shared / "ws" / jobs[1]["id"]
    assert (workspace / "first").read_text() == "first"
    assert (workspace / "second").read_text() == "x" * 100
    assert list((site.shared / "payloads").iterdir()) != []


def test_a_schedule_runs_on_its_grid_and_follows_a_changed_rule(site: Site) -> None:
    site.actors("first", schedule={"every": "1s"})
    [old] = site.workers(1)
    until(lambda: len(site.journal("end")) >= 3, site.story)
    end(old)
    site.configure(plugins={"first": {"uses": "actor"}})
    site.workers(1)
    until(lambda: running(site, "Schedule") == 0, site.story)


def running(site: Site, kind: str) -> int:
    async def count(client: Client) -> int:
        return (await client.count_workflows(f"WorkflowType = '{kind}' AND ExecutionStatus = 'Running'")).count
    found: int = site.ask(count)
    return found
