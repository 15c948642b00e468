"""Webhooks of the running daemon: who is believed, what becomes of a request, and that no acknowledged one is lost."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ductile import db
from support import hooks, processes
from support.daemon import RealDaemon, until
from support.gate import Gate
from support.wire import PATH, Wire, ask, head, signature, signed

BODY = b'{"number": 1}'
JOBS = "SELECT count(*) FROM job_queue"


@pytest.fixture
def address(daemon: RealDaemon) -> hooks.Address:
    """The address of a daemon that runs, with a hook whose jobs wait."""
    hooks.install_waiting_hook(daemon)
    address = hooks.listen(daemon, max_body_size="1KB")
    daemon.start()
    return address


def curl(address: hooks.Address, *options: str, path: str = PATH) -> tuple[int, str]:
    """Return the status and the body of curl's request."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    run = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *options,
         f"http://{address[0]}:{address[1]}{path}"],
        capture_output=True, text=True, timeout=30, check=True)
    body, _, status = run.stdout.rpartition("\n")
    return int(status), body


def posted(body: bytes, *headers: str) -> bytes:
    """A request that says nothing of a signature unless `headers` do."""
    return head("POST", PATH, f"Content-Length: {len(body)}", *headers) + body


def test_a_webhook_sent_with_curl_is_a_job_with_its_event(daemon: RealDaemon) -> None:
    hooks.install_hook(daemon)
    address = hooks.listen(daemon)
    daemon.start()
    headers = (f"X-Sig: sha256={signature(BODY)}", "Cookie: s3cret", "Authorization: s3cret",
               "Content-Type: application/json")
    status, answer = curl(address, "-d", BODY.decode(), *(word for line in headers for word in ("-H", line)),
                          path=f"{PATH}?a=b")
    job_id = json.loads(answer)["job_id"]
    assert (status, json.loads(answer)) == (202, {"job_id": job_id})
    daemon.await_job(job_id, "succeeded")
    [(plugin, command, submitted_by, payload)] = daemon.rows(
        "SELECT plugin, command, submitted_by, payload FROM job_queue WHERE id = ?", job_id)
    event = json.loads(payload)
    assert (plugin, command, submitted_by) == ("hook", "handle", "webhook")
    assert (event["type"], event["source"], event["payload"]) == ("webhook", f"webhook:{PATH}", {"number": 1})
    assert set(event["http"].pop("headers")) == {"host", "user-agent", "accept", "content-type", "content-length"}
    assert event["http"] == {"method": "POST", "path": PATH, "query": "a=b", "content_type": "application/json"}
    daemon.stop()
    assert len(daemon.log("webhook accepted", path=PATH, job_ids=[job_id])) == 1


def test_a_body_of_megabytes_is_taken_from_a_client_that_waits_for_leave(daemon: RealDaemon, tmp_path: Path) -> None:
    hooks.install_waiting_hook(daemon)
    address = hooks.listen(daemon, max_body_size="3MB")
    daemon.start()
    body = b"a" * (3 * 1024**2)
    (tmp_path / "body").write_bytes(body)
    options = ["--data-binary", f"@{tmp_path}/body", "-H", f"X-Sig: {signature(body)}", "-H", "Expect: 100-continue"]
    assert curl(address, *options)[0] == 202
    (tmp_path / "body").write_bytes(body + b"a")
    assert curl(address, *options) == (413, "")
    assert daemon.rows("SELECT count(*), length(payload) > 3000000 FROM job_queue") == [(1, 1)]


def test_the_memory_of_a_large_body_is_given_back(daemon: RealDaemon) -> None:
    def resident() -> int:
        [line] = [line for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines() if "VmRSS" in line]
        return int(line.split()[1]) * 1024

    hooks.install_hook(daemon)
    address = hooks.listen(daemon, max_body_size="32MB")
    daemon.start()
    before = resident()
    job_id = ask(address, signed(b"a" * 16_000_000)).json["job_id"]
    daemon.await_job(job_id, "succeeded")
    until(lambda: resident() - before < 10_000_000, True, pause=lambda: not daemon.ended_within(0.05),
          explain=lambda: f"before {before}, now {resident()}")
    daemon.stop()


def test_a_right_signature_is_believed_in_either_case(daemon: RealDaemon, address: hooks.Address) -> None:
    right = signature(BODY)
    answers = [ask(address, posted(BODY, header)).status for header in (
        f"X-Sig: {right}", f"X-Sig: {right.upper()}", f"x-sig: sha256={right}")]
    assert (answers, daemon.rows(JOBS)) == ([202, 202, 202], [(3,)])


def test_whatever_is_wrong_with_a_signature_the_answer_is_the_same(daemon: RealDaemon, address: hooks.Address) -> None:
    right = signature(BODY)
    answers = [ask(address, posted(BODY, *headers)) for headers in (
        [], ["X-Sig:"], [f"X-Sig: {right[:-1]}"], [f"X-Sig: {right}", f"X-Sig: {right}"], [f"X-Sig: {right}, {right}"],
        [f"X-Sig: {signature(BODY + b' ')}"], [f"X-Sig: {signature(BODY, 'another secret altogether')}"],
        ["X-Sig: é"], ["X-Sig: " + "0" * 60_000], [f"X-Other: {right}"],
    )]
    assert {(answer.status, answer.body, tuple(answer.headers)) for answer in answers} == {
        (403, b"", ("date", "content-length", "connection"))}
    assert daemon.rows(JOBS) == [(0,)]
    daemon.stop()
    reasons = [line["reason"] for line in daemon.log("webhook refused", path=PATH, status=403, address="127.0.0.1")]
    # The first five of each; the last is counted.
    missing, twice, wrong = "the header X-Sig is missing", "the header X-Sig is repeated", "the signature is wrong"
    assert reasons == [missing, wrong, wrong, twice, wrong, wrong, wrong, missing]
    [more] = daemon.log("more webhooks refused")
    assert (more["path"], more["reason"], more["count"]) == (PATH, "the signature is wrong", 2)


REFUSED = [
    (signed(b"a" * 1025), 413),
    (head("POST", PATH, f"X-Sig: {signature(BODY)}") + BODY, 411),
    (posted(BODY, f"X-Sig: {signature(BODY)}", f"Content-Length: {len(BODY)}"), 400),
    (posted(BODY, f"X-Sig: {signature(BODY)}", "Transfer-Encoding: chunked"), 400),
    (head("POST", PATH, "Transfer-Encoding: chunked", f"X-Sig: {signature(BODY)}")
     + b"c\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    (head("POST", PATH, "Content-Length: -1", f"X-Sig: {signature(BODY)}") + BODY, 400),
    (head("POST", PATH, f"Content-Length: +{len(BODY)}", f"X-Sig: {signature(BODY)}") + BODY, 400),
    (head("POST", PATH, f"Content-Length: {len(BODY):030d}", f"X-Sig: {signature(BODY)}") + BODY, 400),
    (signed(BODY, path=PATH + "/"), 404),
    (signed(BODY, path="/" + PATH), 404),
    (signed(BODY, path=PATH.replace("a", "%61")), 404),
    (signed(BODY, path="/"), 404),
    (head("OPTIONS", "*"), 404),
]


def test_a_second_request_behind_a_refused_one_never_runs(daemon: RealDaemon, address: hooks.Address) -> None:
    answers = []
    for request, _ in REFUSED:
        with Wire(address) as wire:
            wire.send(request + signed(BODY))
            answers.append((wire.answer().status, wire.rest()))
    assert answers == [(status, b"") for _, status in REFUSED]
    assert daemon.rows(JOBS) == [(0,)]


def test_an_endpoint_is_posted_to_and_nothing_else(address: hooks.Address) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "post"):
        with Wire(address) as wire:
            wire.send(head(method, PATH))
            answer = wire.answer(to_head=method == "HEAD")
            assert (answer.status, answer.headers["allow"], answer.body, wire.rest()) == (405, "POST", b"", b""), method


def test_the_largest_body_is_taken_and_good_requests_share_a_connection(
        daemon: RealDaemon, address: hooks.Address) -> None:
    with Wire(address) as wire:
        for body in (b"a" * 1024, b"", b"[1]", b"\xff"):
            wire.send(signed(body))
            assert wire.answer().status == 202
    payloads = [json.loads(row[0])["payload"] for row in daemon.rows("SELECT payload FROM job_queue ORDER BY seq")]
    assert payloads == [{"body": "a" * 1024}, {"body": ""}, {"body": [1]}, {"body_base64": "/w=="}]


def test_two_hundred_silent_strangers_do_not_keep_a_sender_out(daemon: RealDaemon, address: hooks.Address) -> None:
    with Wire(address) as kept, ExitStack() as strangers:
        kept.send(signed(BODY))
        assert kept.answer().status == 202
        for number in range(200):
            stranger = strangers.enter_context(socket.create_connection(address, 20))
            stranger.sendall(b"POST /" if number % 2 else b"")
            if number % 20 == 0:
                kept.send(signed(BODY))
                assert kept.answer().status == 202
        assert ask(address, signed(BODY)).status == 202
    assert daemon.rows(JOBS) == [(12,)]
    daemon.stop()


def test_a_full_queue_asks_the_sender_to_come_again(daemon: RealDaemon, address: hooks.Address) -> None:
    daemon.configure(service={"max_queue_depth": 2})
    daemon.stop()
    daemon.start()
    answers = [ask(address, signed(BODY)) for _ in range(3)]
    assert [answer.status for answer in answers] == [202, 202, 503]
    assert (answers[2].headers["retry-after"], answers[2].body) == ("30", b"")
    daemon.await_log("webhook refused", path=PATH, reason="the queue is full", level="warn")
    too_many = "3 jobs are waiting, more than service.max_queue_depth (2)"
    assert too_many not in json.loads(curl(address, path="/healthz")[1])["reasons"]
    # Others may queue more than webhooks may.
    daemon.submit("hook", "poll")
    status, answer = curl(address, path="/healthz")
    assert (status, json.loads(answer)["queue_depth"]) == (503, 3)
    assert too_many in json.loads(answer)["reasons"]


def test_health_is_told_on_this_machine(daemon: RealDaemon) -> None:
    hooks.install_hook(daemon)
    address = hooks.listen(daemon)
    daemon.start()
    status, answer = curl(address, path="/healthz")
    health = json.loads(answer)
    assert 0 <= health.pop("uptime_seconds") < 60
    assert (status, health) == (200, {
        "status": "ok", "reasons": [], "queue_depth": 0, "plugins_loaded": 1, "plugins_circuit_open": 0})
    with Wire(address) as wire:
        wire.send(head("HEAD", "/healthz"))
        assert (wire.answer(to_head=True).status, wire.rest()) == (200, b"")
    assert curl(address, "-d", "", path="/healthz") == (405, "")
    daemon.stop()


def test_health_is_degraded_with_its_reasons(daemon: RealDaemon, address: hooks.Address) -> None:
    (daemon.data / "ws").rename(daemon.data / "gone")
    status, answer = curl(address, path="/healthz")
    [not_loaded, gone] = json.loads(answer)["reasons"]
    assert (status, json.loads(answer)["status"], json.loads(answer)["plugins_loaded"]) == (503, "degraded", 0)
    assert not_loaded.startswith("plugin hook is not loaded: ")
    assert gone == f"the workspace directory {daemon.data}/ws is gone"


def test_a_job_whose_end_is_being_written_is_no_reason(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    hooks.install_hook(daemon)
    address = hooks.listen(daemon)
    daemon.start()
    job = daemon.submit("waits")
    [plugin] = gate.arrived()
    with closing(db.connect_again(daemon.database)) as conn:
        # The loop waits for this with the plugin's end in its hand.
        conn.execute("BEGIN IMMEDIATE")
        gate.let_through()
        processes.await_end(plugin, 20)
        seen = [ask(address, head("GET", "/healthz")).json["reasons"] for _ in range(200)]
        conn.execute("ROLLBACK")
    assert seen == [[]] * 200
    daemon.await_job(job, "succeeded")
    daemon.stop()


def test_a_flood_of_unsigned_requests_leaves_a_few_lines(daemon: RealDaemon, address: hooks.Address) -> None:
    for _ in range(10):
        # One connection each: a refused request is the last on its own.
        wires = [Wire(address) for _ in range(30)]
        for wire in wires:
            wire.send(posted(BODY))
        for wire in wires:
            assert wire.answer().status == 403
            wire.vanish()
    daemon.stop()
    lines = daemon.log("webhook refused") + daemon.log("more webhooks refused")
    assert len(lines) <= 12
    assert sum(line.get("count", 1) for line in lines) == 300


def test_a_repeated_delivery_is_one_job_unless_that_died(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", called="blocker", config=gate.config)
    hooks.install_hook(daemon)
    daemon.plugin("dies", "#!/bin/sh\nexit 1\n", commands=("handle",), retry={"max_attempts": 1})
    address = hooks.listen(daemon, dedupe_header="X-Id")
    endpoint = {**daemon.config["webhooks"]["endpoints"][0], "path": "/dies", "plugin": "dies"}
    daemon.config["webhooks"]["endpoints"].append(endpoint)
    daemon.configure()
    daemon.start()
    daemon.submit("blocker")
    gate.arrived()
    first = ask(address, signed(BODY, "X-Id: 1"))
    job_id = first.json["job_id"]
    again = {"deduped": True, "job_id": job_id}
    repeated = ask(address, signed(b"another body", "x-id: 1"))
    assert (first.status, repeated.status, repeated.json) == (202, 200, again)
    # Another id, none, and two that contradict each other tell nothing.
    others = [ask(address, signed(BODY, *headers)) for headers in (["X-Id: 2"], [], [], ["X-Id: 1", "X-Id: 1"])]
    dies = ask(address, signed(BODY, "X-Id: 1", path="/dies"))
    assert [answer.status for answer in (*others, dies)] == [202] * 5
    gate.let_through()
    daemon.await_job(dies.json["job_id"], "dead")
    daemon.await_job(job_id, "succeeded")
    assert ask(address, signed(BODY, "X-Id: 1")).json == again
    anew = ask(address, signed(BODY, "X-Id: 1", path="/dies"))
    assert (anew.status, anew.json["job_id"] != dies.json["job_id"]) == (202, True)
    # Beyond dedupe_ttl it is another delivery.
    daemon.write("UPDATE job_queue SET completed_at = '2020-01-01T00:00:00.000Z' WHERE id = ?", job_id)
    assert ask(address, signed(BODY, "X-Id: 1")).status == 202
    daemon.stop()


def test_a_delivery_that_is_being_worked_on_is_not_taken_again(daemon: RealDaemon, gate: Gate) -> None:
    daemon.plugin("hook", (Path(__file__).parents[1] / "plugins" / "waits" / "run").read_text(), commands=("handle",),
                  config=gate.config)
    address = hooks.listen(daemon, dedupe_header="X-Id")
    daemon.start()
    first = ask(address, signed(b"{}", "X-Id: 1"))
    gate.arrived()
    repeated = ask(address, signed(b"{}", "X-Id: 1"))
    assert (repeated.status, repeated.json) == (200, {"deduped": True, "job_id": first.json["job_id"]})
    gate.let_through()
    daemon.await_job(first.json["job_id"], "succeeded")
    daemon.stop()


def test_a_request_that_is_being_sent_when_the_daemon_stops_is_answered(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    hooks.install_waiting_hook(daemon)
    address = hooks.listen(daemon)
    daemon.start()
    daemon.submit("waits")
    gate.arrived()
    with Wire(address) as wire:
        request = signed(BODY, "Expect: 100-continue")
        wire.send(request.removesuffix(BODY))
        assert wire.answer().status == 100
        daemon.send(15)
        daemon.await_log("stopping")
        wire.send(BODY)
        first = wire.answer()
    # So is one that comes while the plugin runs.
    second = ask(address, signed(BODY))
    assert (first.status, second.status) == (202, 202)
    assert "ductiled is stopping" in ask(address, head("GET", "/healthz")).json["reasons"]
    gate.let_through()
    daemon.ends(0)
    daemon.start()
    assert [daemon.job(answer.json["job_id"])[0] for answer in (first, second)] == ["queued"] * 2
    daemon.stop()


def test_every_acknowledged_webhook_is_one_job_though_the_daemon_is_killed(daemon: RealDaemon) -> None:
    hooks.install_waiting_hook(daemon)
    address = hooks.listen(daemon, dedupe_header="X-Id")
    daemon.start()
    with hooks.Senders(address, range(1000), threads=8).sending() as senders:
        senders.await_answers(400)
        senders.nobody_is_there()
        daemon.kill()
        daemon.start()
        senders.somebody_is_there()
    jobs = {json.loads(payload)["payload"]["body"]: job_id
            for job_id, payload in daemon.rows("SELECT id, payload FROM job_queue")}
    assert senders.cut_off >= 1
    assert jobs == {number: answer.json["job_id"] for number, answer in senders.answers.items()}
    assert {answer.status for answer in senders.answers.values()} <= {200, 202}
    assert daemon.rows(JOBS) == [(1000,)]
    daemon.stop()
