from __future__ import annotations

import base64
import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from ductile import db
from ductile.config.handshakes import HANDSHAKES
from ductile.config.model import Address, Endpoint, Piece, PieceKind, RequestPlace, Scheme, Webhooks
from ductile.config.webhooks import as_place
from ductile.plugin import plugin_table
from ductile.queue import job_table
from ductile.queue.job import Status, Submitter
from ductile.routing.router import Target
from ductile.webhook.group_commit import GroupCommit, JobStore
from ductile.webhook.handler import Handler
from ductile.webhook.health import Health, document
from ductile.webhook.listener import Connection, Listener, Peer, Reply
from ductile.webhook.sockets import bind
from support import ledger, logs, worlds
from support.clock import START, FakeClock
from support.wire import SECRET, Answer, Wire, head, signature, signed

REFUSED = "the key 'origin_plugin' is refused: it is the core's own, rename it"
MISNAMED = "the key 'ductile_x' of the payload has a name of the core's own, rename it"


class Desk:
    """A handler with one endpoint for the plugin `echo` and one for the event `pushed`."""

    def __init__(self, conn: sqlite3.Connection, *, not_loaded: str | None = None, **service: Any) -> None:
        runtime = worlds.runtime(worlds.plugin(not_loaded=not_loaded), **service)
        webhooks = Webhooks(listen=(Address(host="127.0.0.1", port=8081),), endpoints=(
            _endpoint("/plugin", plugin="echo"), _endpoint("/event", event="pushed")))
        self.runtime = replace(runtime, config=replace(runtime.config, webhooks=webhooks), router=_TwoTake())
        self.posted: list[BaseException | None] = []
        self.vitals = Health(uptime_seconds=7, reasons=(), plugins_loaded=1)
        self.conn = conn
        self.clock = FakeClock()
        store = JobStore(GroupCommit(lambda: conn), current=lambda: self.runtime,
                         post=self.posted.append)
        self._handler = Handler(current=lambda: self.runtime, clock=self.clock, new_id=ledger.ids(),
                                submit=store.submit, health=self._document, metrics=lambda: "ductile_a 1\n")
        self.answers = self._handler.answers
        self.refusals = self._handler.refusals
        self.on_send: Callable[[], None] = lambda: None

    def _document(self) -> dict[str, Any]:
        return document(self.vitals, self.conn, self.runtime.config.service.max_queue_depth)

    def send(self, request: bytes, address: str = "192.0.2.7", *, to_head: bool = False,
             is_health: bool = False) -> Answer:
        """Send one request from an address, and return its answer once the handler is done with it.

        With `is_health` it is sent to `health_listen`.
        """
        listener = Listener(self._handler.handle)
        with (closing(bind(Address(host="127.0.0.1"), is_health=is_health)) as bound,
              socket.create_server(("127.0.0.1", 0)) as server, Wire(server.getsockname()) as wire):
            sender = threading.Thread(target=lambda: (wire.send(request), wire.stop_sending()))
            sender.start()
            with server.accept()[0] as connection:
                _Connection(self, connection, (address, 4711), listener, Peer(connection, bound))
            sender.join()
            return wire.answer(to_head=to_head)

    def post(self, path: str, body: bytes, *headers: str) -> Answer:
        return self.send(signed(body, *headers, path=path))

    def swap(self, **plugin: Any) -> None:
        """Put another configuration in force, with another plugin of the same name."""
        self.runtime = replace(self.runtime, plugins={"echo": worlds.plugin(**plugin)})

    def health(self, address: str = "127.0.0.1", method: str = "GET", *headers: str, is_health: bool = False) -> Answer:
        return self.send(head(method, "/healthz", *headers), address, to_head=method == "HEAD", is_health=is_health)

    def change(self, path: str, **settings: Any) -> None:
        """Put another configuration in force, with other settings of an endpoint."""
        self.listen(endpoints=tuple(replace(each, **settings) if each.path == path else each
                                    for each in self.runtime.config.webhooks.endpoints))

    def listen(self, **settings: Any) -> None:
        """Put another configuration in force, with other settings of the listener."""
        webhooks = replace(self.runtime.config.webhooks, **settings)
        self.runtime = replace(self.runtime, config=replace(self.runtime.config, webhooks=webhooks))

    def deepen(self, depth: int) -> None:
        """Put another configuration in force, with another depth of the queue."""
        service = replace(self.runtime.config.service, max_queue_depth=depth)
        self.runtime = replace(self.runtime, config=replace(self.runtime.config, service=service))

    def jobs(self) -> list[tuple]:
        return self.conn.execute("SELECT id, plugin FROM job_queue ORDER BY seq").fetchall()


class _Connection(Connection):
    """A connection that calls the desk's `on_send` before each answer."""

    def __init__(self, desk: Desk, *arguments: Any) -> None:
        self._desk = desk
        super().__init__(*arguments)

    def send(self, reply: Reply) -> None:
        self._desk.on_send()
        super().send(reply)


class _TwoTake:
    """A router with two pipelines for every event from outside."""

    def next(self, event_type: str, source_plugin: str | None) -> tuple[Target, ...]:
        assert (event_type, source_plugin) == ("pushed", None)
        return tuple(Target(plugin="echo", command="handle", submitted_by=Submitter.ROUTE, pipeline_name=f"p{number}",
                              step_id="first") for number in (1, 2))


class Failing(sqlite3.Connection):
    """A connection whose commits fail with this code where there is one."""

    code: int | None = None

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.code is not None:
            error = sqlite3.OperationalError("it fails")
            error.sqlite_errorcode, error.sqlite_errorname = self.code, "SQLITE_CODE"
            raise error
        return super().execute(sql, *parameters)


REFUSED_BY_HEAD = [
    ("GET", "/plugin", (), 405, "the method is not POST"),
    ("POST", "/plugin", (), 411, "Content-Length is missing"),
    ("POST", "/plugin", ("Content-Length: -1",), 400, "Content-Length or Transfer-Encoding is invalid"),
    ("POST", "/plugin", ("Content-Length: 999999999",), 413, "the body is larger than max_body_size"),
]
RIGHT = f"X-Sig: {signature(b'{}')}"
SIGNATURES = [
    ((), "the header X-Sig is missing"),
    (("X-Sig:",), "the signature is wrong"),
    (("X-Sig: " + "0" * 64,), "the signature is wrong"),
    ((RIGHT, RIGHT), "the header X-Sig is repeated"),
]


def _endpoint(path: str, *, plugin: str | None = None, event: str | None = None) -> Endpoint:
    return Endpoint(path=path, plugin=plugin, event=event, keys=(SECRET.encode(),),
                    scheme=Scheme(headers=("X-Sig",), prefix="sha256=", is_legacy=True),
                    dedupe=(RequestPlace(kind="header", name="X-Id"),), max_body_size=32 * 1024**2)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Failing]:
    with ledger.opened(tmp_path):
        conn = sqlite3.connect(tmp_path / "state.db", isolation_level=None, factory=Failing)
        yield conn
        conn.close()


@pytest.fixture
def desk(conn: Failing) -> Desk:
    return Desk(conn)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1"])
def test_health_is_told_to_this_machine(desk: Desk, address: str) -> None:
    reply = desk.health(address)
    assert (reply.status, json.loads(reply.body)) == (200, {
        "status": "ok", "reasons": [], "uptime_seconds": 7, "queue_depth": 0, "plugins_loaded": 1,
        "plugins_circuit_open": 0})


def test_health_may_be_asked_without_a_body_and_in_no_other_way(desk: Desk) -> None:
    asked, told = desk.health(method="HEAD"), desk.health()
    assert (asked.status, asked.body, asked.headers["content-length"]) == (200, b"", str(len(told.body)))
    refused = desk.health(method="POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("address", ["192.0.2.7", "10.0.0.1", "2001:db8::1", "fe80::1%eth0", "0.0.0.0"])
def test_for_others_there_is_no_health(desk: Desk, address: str) -> None:
    answer = desk.health(address)
    assert (answer.status, answer.body, set(answer.headers)) == (404, b"", {"date", "content-length", "connection"})


@pytest.mark.parametrize("header", ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1",
                                    "Via: 1.1 proxy", "x-forwarded-for:"])
def test_for_those_who_come_through_a_proxy_there_is_no_health(desk: Desk, header: str) -> None:
    assert desk.health("127.0.0.1", "GET", header).status == 404


def test_on_its_own_address_there_is_only_health_and_for_everybody(desk: Desk) -> None:
    assert desk.health("192.0.2.7", "GET", "Via: 1.1 proxy", is_health=True).status == 200
    assert desk.send(signed(b"{}", path="/plugin"), is_health=True).status == 404
    assert desk.jobs() == []


def test_metrics_are_shown_where_health_is_and_only_if_configured(desk: Desk) -> None:
    def status(address: str = "127.0.0.1", **options: bool) -> int:
        return desk.send(head("GET", "/metrics"), address, **options).status

    assert [status(), status(is_health=True)] == [404, 404]
    desk.listen(has_metrics=True)
    assert [status(), status("192.0.2.7"), status("192.0.2.7", is_health=True)] == [200, 404, 200]
    answer = desk.send(head("GET", "/metrics"), "127.0.0.1")
    assert (answer.body, answer.headers["content-type"]) == (
        b"ductile_a 1\n", "text/plain; version=0.0.4; charset=utf-8")


def test_answers_of_endpoints_are_counted(desk: Desk) -> None:
    for request in (signed(b"{}", path="/plugin"), signed(b"{}", path="/plugin"), head("GET", "/plugin"),
                    signed(b"{}", path="/event"), head("GET", "/other")):
        desk.send(request)
    assert desk.answers() == {("/plugin", 202): 2, ("/plugin", 405): 1, ("/event", 202): 1}


@pytest.mark.parametrize(("proxies", "forwarded", "peer", "client"), [
    ((), "198.51.100.1", "192.0.2.7", "192.0.2.7"),
    (("192.0.2.0/24",), "198.51.100.1", "192.0.2.7", "198.51.100.1"),
    (("192.0.2.0/24",), "198.51.100.1", "::ffff:192.0.2.7", "198.51.100.1"),
    (("192.0.2.0/24",), "198.51.100.1", "203.0.113.1", "203.0.113.1"),
    # Only what a trusted proxy has added counts.
    (("192.0.2.0/24",), "127.0.0.1, 198.51.100.1", "192.0.2.7", "198.51.100.1"),
    (("192.0.2.0/24",), "198.51.100.1, 192.0.2.8", "192.0.2.7", "198.51.100.1"),
    (("192.0.2.0/24",), "rubbish", "192.0.2.7", "192.0.2.7"),
    (("192.0.2.0/24",), "", "192.0.2.7", "192.0.2.7"),
])
def test_the_log_has_the_client_of_a_trusted_proxy(
        desk: Desk, tmp_path: Path, proxies: tuple[str, ...], forwarded: str, peer: str, client: str) -> None:
    desk.listen(trusted_proxies=tuple(map(ip_network, proxies)))
    with logs.kept(tmp_path) as log:
        desk.send(head("POST", "/plugin", f"X-Forwarded-For: {forwarded}"), peer)
        assert [line["address"] for line in logs.lines(log)] == [client]


def test_what_is_not_well_is_degraded_with_every_reason(desk: Desk, conn: Failing) -> None:
    desk.vitals = replace(desk.vitals, reasons=("the disk is gone",))
    desk.deepen(1)
    ledger.put_job(conn, "a")
    ledger.put_job(conn, "b")
    reply = desk.health()
    health = json.loads(reply.body)
    assert (reply.status, health["status"], health["reasons"]) == (503, "degraded", [
        "the disk is gone", "2 jobs are waiting, more than service.max_queue_depth (1)"])
    plugin_table.pause(conn, "echo", START)
    plugin_table.pause(conn, "other", START)
    assert json.loads(desk.health().body)["reasons"][2:] == ["plugin echo is paused, and jobs of it are waiting"]


def test_paused_jobs_that_fill_the_queue_are_a_reason(desk: Desk, conn: Failing) -> None:
    desk.deepen(2)
    plugin_table.pause(conn, "echo", START)
    ledger.put_job(conn, "a")
    assert desk.health().status == 200
    ledger.put_job(conn, "b")
    reply = desk.health()
    assert (reply.status, json.loads(reply.body)["reasons"]) == (
        503, ["plugin echo is paused, and jobs of it are waiting"])


def test_a_webhook_that_could_not_be_stored_is_one_to_be_sent_again(desk: Desk, conn: Failing) -> None:
    conn.code = sqlite3.SQLITE_FULL
    assert (desk.post("/plugin", b"{}").status, desk.jobs(), desk.posted) == (503, [], [])
    conn.code = None
    assert (desk.post("/plugin", b"{}").status, len(desk.jobs()), desk.posted) == (202, 1, [None])


@pytest.mark.parametrize(("method", "path", "headers", "status", "reason"), REFUSED_BY_HEAD)
def test_a_request_to_an_endpoint_that_is_refused_by_its_head_is_logged_with_its_reason(
        desk: Desk, tmp_path: Path, method: str, path: str, headers: tuple, status: int, reason: str) -> None:
    with logs.kept(tmp_path) as log:
        reply = desk.send(head(method, path, *headers))
        [line] = logs.lines(log)
    assert (reply.status, reply.body, reply.headers["connection"]) == (status, b"", "close")
    del line["timestamp"]
    assert line == {"level": "info", "component": "webhook", "message": "webhook refused", "path": path,
                    "status": status, "reason": reason, "address": "192.0.2.7"}


@pytest.mark.parametrize(("headers", "reason"), SIGNATURES)
def test_what_was_wrong_with_a_signature_is_told_in_the_log_alone(
        desk: Desk, tmp_path: Path, headers: tuple, reason: str) -> None:
    with logs.kept(tmp_path) as log:
        reply = desk.send(head("POST", "/plugin", "Content-Length: 2", *headers) + b"{}")
        assert [(line["level"], line["reason"]) for line in logs.lines(log)] == [("info", reason)]
    assert (reply.status, reply.body, set(reply.headers)) == (403, b"", {"date", "content-length", "connection"})


def test_the_log_names_a_header_that_is_signed_with_the_body_and_missing(desk: Desk, tmp_path: Path) -> None:
    desk.change("/plugin", scheme=Scheme(headers=("X-Sig",), prefix="v0=", signed=(
        Piece(kind=PieceKind.HEADER, text="X-Time"), Piece(kind=PieceKind.BODY))))
    with logs.kept(tmp_path) as log:
        desk.post("/plugin", b"{}")
        assert [line["reason"] for line in logs.lines(log)] == ["the header X-Time is missing"]


@pytest.mark.parametrize(("status", "is_empty", "first", "again"), [
    (202, False, 202, 200), (200, False, 200, 200), (204, True, 204, 204), (200, True, 200, 200),
])
def test_a_sender_gets_the_status_that_it_counts_as_success(
        desk: Desk, status: int, is_empty: bool, first: int, again: int) -> None:
    desk.change("/plugin", success_status=status, answers_empty=is_empty)
    answers = [desk.post("/plugin", b"{}", "X-Id: 1") for _ in range(2)]
    assert [answer.status for answer in answers] == [first, again]
    assert [bool(answer.body) for answer in answers] == [not is_empty] * 2
    assert len(desk.jobs()) == 1


def test_a_sender_may_want_another_status_for_a_wrong_signature(desk: Desk) -> None:
    desk.change("/plugin", refusal_status=401)
    assert desk.send(head("POST", "/plugin", "Content-Length: 2", "X-Sig: 0") + b"{}").status == 401


def test_of_several_places_the_first_that_is_there_identifies_a_delivery(desk: Desk) -> None:
    desk.change("/plugin", dedupe=tuple(map(as_place, ("X-Id", "json:id", "form:trigger", "signature"))))
    form = "Content-Type: application/x-www-form-urlencoded"
    statuses = [desk.post("/plugin", body, *headers).status for body, *headers in (
        (b'{"id": "a", "n": 1}',), (b'{"id": "a", "n": 2}',), (b'{"id": "a"}', "X-Id: 7"), (b'{"id": "b"}', "X-Id: 7"),
        (b"trigger=1&n=1", form), (b"trigger=1&n=2", form), (b'{"id": 1}',), (b"trigger=", form), (b"{}",), (b"{}",),
    )]
    assert statuses == [202, 200, 202, 200, 202, 200, 202, 202, 202, 200]


def test_what_strangers_ask_for_is_logged_at_debug(desk: Desk, tmp_path: Path) -> None:
    with logs.kept(tmp_path) as log:
        desk.send(head("GET", "/healthz"))
        desk.send(head("GET", "/wp-login.php"))
        desk.send(head("POST", "/" + "a" * 5000))
        said = [(line["level"], line["status"], line["path"]) for line in logs.lines(log)]
    assert said == [("debug", 404, "/healthz"), ("debug", 404, "/wp-login.php"), ("debug", 404, "/" + "a" * 199)]


def test_a_flood_of_refusals_is_counted_for_each_endpoint_and_reason_and_told_once_a_minute(
        desk: Desk, tmp_path: Path) -> None:
    with logs.kept(tmp_path) as log:
        for number in range(50):
            desk.send(head("POST", "/plugin", "Content-Length: 2") + b"{}")
            desk.send(head("POST", "/event", "Content-Length: 2", "X-Sig: 0") + b"{}")
            desk.send(head("GET", f"/{number}"))
        assert len(logs.lines(log)) == 15
        desk.clock.move(59)
        desk.send(head("GET", "/plugin"))
        desk.clock.move(1)
        desk.refusals.report()
        desk.refusals.report()
        said = [[line.get(name) for name in ("level", "path", "reason", "count", "seconds")]
                for line in logs.lines(log)[16:]]
    assert said == [
        ["info", "/plugin", "the header X-Sig is missing", 45, 60],
        ["info", "/event", "the signature is wrong", 45, 60],
        ["debug", None, "no endpoint has this path", 45, 60],
    ]


def test_the_next_minute_begins_with_lines_of_their_own(desk: Desk, tmp_path: Path) -> None:
    with logs.kept(tmp_path) as log:
        for _ in range(7):
            desk.send(head("GET", "/plugin"))
        desk.clock.move(60)
        desk.send(head("GET", "/plugin"))
        assert [line["message"] for line in logs.lines(log)] == [
            *["webhook refused"] * 5, "more webhooks refused", "webhook refused"]


def test_at_the_end_what_was_counted_is_told_at_once(desk: Desk, tmp_path: Path) -> None:
    with logs.kept(tmp_path) as log:
        for _ in range(6):
            desk.send(head("GET", "/plugin"))
        desk.refusals.report(at_once=True)
        assert logs.lines(log)[-1]["count"] == 1


@pytest.mark.parametrize(("code", "error"), [
    (sqlite3.SQLITE_IOERR, db.FateUnknown), (sqlite3.SQLITE_CORRUPT, db.Damaged),
])
def test_what_only_a_start_can_mend_is_told_to_the_loop(
        desk: Desk, conn: Failing, code: int, error: type[Exception]) -> None:
    conn.code = code
    assert desk.post("/plugin", b"{}").status == 503
    assert list(map(type, desk.posted)) == [error]


def test_an_event_is_a_job_for_each_that_takes_it(desk: Desk) -> None:
    reply = desk.post("/event", b'{"a": 1}', "X-Id: 1")
    ids = [job_id for job_id, _ in desk.jobs()]
    assert (reply.status, json.loads(reply.body), len(ids)) == (202, {"job_id": ids[0], "job_ids": ids}, 2)
    again = desk.post("/event", b'{"a": 1}', "X-Id: 1")
    assert (again.status, json.loads(again.body)) == (200, {"job_id": ids[0], "job_ids": ids, "deduped": True})
    assert (len(desk.jobs()), desk.posted) == (2, [None])


def test_an_event_of_which_one_job_is_new_is_taken(desk: Desk, conn: Failing) -> None:
    desk.post("/event", b"{}", "X-Id: 1")
    [(first, _), (second, _)] = desk.jobs()
    for status in (Status.RUNNING, Status.DEAD):
        with db.transaction(conn):
            job_table.move(conn, job_table.get(conn, first), status, FakeClock().now())
    reply = desk.post("/event", b"{}", "X-Id: 1")
    assert (reply.status, json.loads(reply.body)["job_ids"][1]) == (202, second)
    assert len(desk.jobs()) == 3


def test_an_event_too_large_for_a_context_is_refused_and_ends_nothing(desk: Desk, tmp_path: Path) -> None:
    with logs.kept(tmp_path) as log:
        reply = desk.post("/event", json.dumps({"a": "x" * 20_000_000}).encode())
        [line] = logs.lines(log)
    assert (reply.status, reply.body, line["level"], line["reason"]) == (
        422, b"", "warn", "the event cannot be processed")
    assert ("1,048,576" in line["error"], desk.posted, desk.jobs()) == (True, [], [])


def test_a_long_delivery_id_is_kept_as_its_digest_and_still_known(desk: Desk) -> None:
    assert [desk.post("/plugin", b"{}", "X-Id: " + letter * 5000).status for letter in "aba"] == [202, 202, 200]
    assert max(len(row[0]) for row in desk.conn.execute("SELECT dedupe_key FROM job_queue")) < 100


def test_a_delivery_id_is_of_its_endpoint(desk: Desk) -> None:
    paths = ("/plugin", "/event", "/plugin")
    assert [desk.post(path, b"{}", "X-Id: 1").status for path in paths] == [202, 202, 200]


def test_what_is_kept_out_of_the_baggage_is_said(desk: Desk, tmp_path: Path) -> None:
    body = json.dumps({"origin_plugin": "eve", "origin_user": "ann", "ductile_x": 1}).encode()
    with logs.kept(tmp_path) as path:
        ids = json.loads(desk.post("/event", body, "X-Id: 1").body)["job_ids"]
        desk.post("/event", body, "X-Id: 1")
        said = [(line["level"], line["message"], line["path"], line.get("job_ids"), line.get("reason"))
                for line in logs.lines(path)]
    assert said == [
        ("info", "webhook accepted", "/event", ids, None),
        ("warn", "reserved baggage key", "/event", ids, REFUSED),
        ("warn", "reserved baggage key", "/event", ids, MISNAMED),
        *[("info", "webhook deduped", "/event", None, None)] * 2,
    ]


def test_each_job_that_a_request_repeats_is_named_and_each_new_one(desk: Desk, tmp_path: Path) -> None:
    first, second = json.loads(desk.post("/event", b"{}", "X-Id: 1").body)["job_ids"]
    job = job_table.get(desk.conn, first)
    with db.transaction(desk.conn):
        job_table.move(desk.conn, job, Status.RUNNING, START)
        job_table.move(desk.conn, replace(job, status=Status.RUNNING), Status.DEAD, START)
    with logs.kept(tmp_path) as path:
        answer = json.loads(desk.post("/event", b"{}", "X-Id: 1").body)
        said = [{name: line[name] for name in line if name not in ("timestamp", "component", "level")}
                for line in logs.lines(path)]
    assert answer["job_ids"][1] == second and answer["job_ids"][0] != first
    key = "webhook:/event 1"
    assert said == [
        {"message": "webhook deduped", "path": "/event", "earlier_job_id": second, "dedupe_key": key},
        {"message": "webhook accepted", "path": "/event", "job_ids": answer["job_ids"][:1], "dedupe_key": key},
    ]


def test_what_was_stored_is_logged_after_the_answer_and_for_a_client_that_is_gone_as_well(
        desk: Desk, tmp_path: Path) -> None:
    def lose() -> None:
        before.extend(logs.lines(log))
        raise ConnectionResetError

    before: list[Any] = []
    desk.on_send = lose
    with logs.kept(tmp_path) as log:
        with pytest.raises(ConnectionError):
            desk.post("/plugin", b"{}")
        with pytest.raises(ConnectionError):
            desk.send(head("POST", "/plugin"))
        said = [line["message"] for line in logs.lines(log)]
    assert (said, len(desk.jobs())) == (["webhook accepted", "webhook refused"], 1)
    assert [line["message"] for line in before] == ["webhook accepted"]


def test_a_job_that_would_only_wait_wakes_nobody(conn: Failing) -> None:
    desk = Desk(conn, not_loaded="its manifest is gone")
    assert [desk.post(path, b"{}").status for path in ("/plugin", "/event")] == [202, 202]
    assert desk.posted == []
    # Once it is loaded, even for requests that came before.
    desk.swap()
    assert (desk.post("/plugin", b"{}").status, desk.posted) == (202, [None])


# How full the queue is


@pytest.fixture
def others(conn: Failing, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The connection of everybody else, as the loop and ductilectl have their own."""
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        yield other


def test_jobs_of_others_fill_the_queue_too(conn: Failing, others: sqlite3.Connection) -> None:
    desk = Desk(conn, max_queue_depth=4)
    assert desk.post("/plugin", b"{}").status == 202
    ledger.put_job(others, "a")
    assert desk.post("/plugin", b"{}").status == 202
    ledger.put_job(others, "b")
    assert desk.post("/plugin", b"{}").status == 503
    assert (len(desk.jobs()), desk.post("/plugin", b"{}").headers["retry-after"]) == (4, "30")


def test_a_place_in_a_full_queue_is_taken_as_soon_as_it_is_free(
        conn: Failing, others: sqlite3.Connection) -> None:
    desk = Desk(conn, max_queue_depth=2)
    assert [desk.post("/plugin", b"{}").status for _ in range(3)] == [202, 202, 503]
    with db.transaction(others):
        job_table.move(others, job_table.get(others, desk.jobs()[0][0]), Status.RUNNING, FakeClock().now())
    assert [desk.post("/plugin", b"{}").status for _ in range(2)] == [202, 503]


def test_a_dead_job_that_was_queued_again_is_counted_at_once(conn: Failing, others: sqlite3.Connection) -> None:
    desk = Desk(conn, max_queue_depth=3)
    ledger.put_job(others, "a", Status.DEAD)
    ledger.put_job(others, "b", Status.DEAD)
    assert desk.post("/plugin", b"{}").status == 202
    with db.transaction(others):
        for name in ("a", "b"):
            job_table.move(others, job_table.get(others, name), Status.QUEUED, FakeClock().now())
    assert desk.post("/plugin", b"{}").status == 503
    assert len(desk.jobs()) == 3


def test_a_smaller_depth_holds_at_once(conn: Failing) -> None:
    desk = Desk(conn, max_queue_depth=10)
    assert [desk.post("/plugin", b"{}").status for _ in range(2)] == [202, 202]
    desk.deepen(2)
    assert desk.post("/plugin", b"{}").status == 503
    desk.deepen(3)
    assert [desk.post("/plugin", b"{}").status for _ in range(2)] == [202, 503]


def test_a_webhook_costs_the_same_however_many_jobs_wait(conn: Failing) -> None:
    def cost() -> int:
        with ledger.steps(conn) as counted:
            assert desk.post("/plugin", b"{}").status == 202
        return counted[0]

    desk = Desk(conn)
    desk.post("/plugin", b"{}")
    few = cost()
    with db.transaction(conn):
        job_table.add(conn, [ledger.new_job(f"j{number}") for number in range(3000)], START)
    assert cost() <= few + 5


def test_a_webhook_that_was_not_stored_is_not_counted(conn: Failing) -> None:
    desk = Desk(conn, max_queue_depth=2)
    assert desk.post("/plugin", b"{}").status == 202
    conn.code = sqlite3.SQLITE_FULL
    assert [desk.post("/plugin", b"{}").status for _ in range(3)] == [503] * 3
    conn.code = None
    assert [desk.post("/plugin", b"{}").status for _ in range(2)] == [202, 503]
    assert len(desk.jobs()) == 2


# Handshakes

ZOOM = HANDSHAKES["zoom"]


def test_an_unsigned_handshake_is_answered_and_has_no_effect(desk: Desk, tmp_path: Path) -> None:
    desk.change("/plugin", handshake=HANDSHAKES["dropbox"])
    desk.deepen(1)
    desk.post("/plugin", b"{}")
    with logs.kept(tmp_path) as log:
        answers = [desk.send(head("GET", "/plugin?challenge=abc")) for _ in range(3)]
        said = [(line["message"], line["path"]) for line in logs.lines(log)]
    # The queue is full.
    assert desk.post("/plugin", b"{}").status == 503
    assert {(each.status, each.body, each.headers["content-type"], each.headers["x-content-type-options"])
            for each in answers} == {(200, b"abc", "text/plain; charset=utf-8", "nosniff")}
    assert (said, len(desk.jobs())) == ([("webhook handshake answered", "/plugin")], 1)


@pytest.mark.parametrize(("method", "target", "status"), [
    ("GET", "/plugin", 405), ("GET", "/plugin?challenge=", 405), ("GET", "/plugin?challenge=a&challenge=b", 405),
    ("HEAD", "/plugin?challenge=a", 405), ("PUT", "/plugin?challenge=a", 405), ("GET", "/event?challenge=a", 405),
    ("GET", "/plugin?challenge=<b>", 400), ("GET", "/plugin?challenge=%0d%0aX:1", 400),
    ("GET", "/plugin?challenge=" + "a" * 1025, 400), ("GET", "/plugin?challenge=" + "a" * 1024, 200),
])
def test_what_is_not_quite_a_handshake_is_refused(desk: Desk, method: str, target: str, status: int) -> None:
    desk.change("/plugin", handshake=HANDSHAKES["dropbox"])
    answer = desk.send(head(method, target), to_head=method == "HEAD")
    allowed = "GET, POST" if target.startswith("/plugin") else "POST"
    assert (answer.status, answer.headers.get("allow")) == (status, allowed if status == 405 else None)


@pytest.mark.parametrize(("token", "status"), [("right", 200), ("wrong", 403), ("", 403), ("right&x=1", 200)])
def test_a_verify_token_must_be_right(desk: Desk, token: str, status: int) -> None:
    desk.change("/plugin", handshake=HANDSHAKES["meta"], verify_token=b"right")
    target = f"/plugin?hub.mode=subscribe&hub.challenge=7&hub.verify_token={token}"
    answer = desk.send(head("GET", target))
    assert (answer.status, answer.body) == (status, b"7" if status == 200 else b"")


def test_a_signed_handshake_is_verified_before_it_is_answered(desk: Desk) -> None:
    desk.change("/plugin", handshake=HANDSHAKES["slack"], dedupe=(as_place("json:type"),))
    body = b'{"type": "url_verification", "challenge": "c", "token": "t"}'
    forged = head("POST", "/plugin", f"Content-Length: {len(body)}", "X-Sig: " + "0" * 64) + body
    assert [(desk.post("/plugin", body).body, desk.send(forged).status) for _ in range(2)] == [(b"c", 403)] * 2
    assert desk.jobs() == []
    assert desk.post("/plugin", b'{"type": "event_callback"}').status == 202


def test_the_answer_to_a_challenge_never_signs_a_delivery(desk: Desk) -> None:
    desk.change("/plugin", handshake=HANDSHAKES["x-crc"])
    for challenge in ('%7B"a":1%7D', "%5B1%5D", "v0:1:x", "a b", "a" * 257):
        assert desk.send(head("GET", f"/plugin?crc_token={challenge}")).status == 400
    signed_by_us = desk.send(head("GET", "/plugin?crc_token=a=1")).json["response_token"].removeprefix("sha256=")
    digest = base64.b64decode(signed_by_us).hex()
    assert digest == signature(b"a=1")
    request = head("POST", "/plugin", "Content-Length: 3", f"X-Sig: {digest}",
                   "Content-Type: application/x-www-form-urlencoded") + b"a=1"
    assert (desk.send(request).status, desk.jobs()) == (403, [])
    assert desk.post("/plugin", b"{}").status == 202


def test_zooms_challenge_is_guarded_even_when_it_is_signed(desk: Desk) -> None:
    desk.change("/plugin", handshake=ZOOM)

    def asked(challenge: str) -> Answer:
        return desk.post("/plugin", json.dumps({"event": "endpoint.url_validation",
                                                "payload": {"plainToken": challenge}}).encode())

    assert asked("abc").json == {"plainToken": "abc", "encryptedToken": signature(b"abc")}
    assert [asked(text).status for text in ("v0:1796065700:{}", "{}", "[1]")] == [400] * 3
    assert desk.jobs() == []


def test_an_unsigned_handshake_with_a_body_gives_way_to_a_signature(desk: Desk, tmp_path: Path) -> None:
    desk.change("/plugin", handshake=HANDSHAKES["notion"])
    body = b'{"verification_token": "secret_x"}'
    with logs.kept(tmp_path) as log:
        answer = desk.send(head("POST", "/plugin", f"Content-Length: {len(body)}") + body)
        assert [line.get("challenge") for line in logs.lines(log)] == ["secret_x"]
    assert (answer.status, answer.body, desk.jobs()) == (200, b"", [])
    assert desk.post("/plugin", body).status == 202
    large = b'{"verification_token": "secret_x", "a": "' + b"a" * 70_000 + b'"}'
    assert desk.send(head("POST", "/plugin", f"Content-Length: {len(large)}") + large).status == 403


def test_a_header_or_a_form_may_be_the_handshake(desk: Desk) -> None:
    desk.change("/plugin", handshake=HANDSHAKES["asana"])
    answer = desk.send(head("POST", "/plugin", "Content-Length: 2", "x-hook-secret: abc") + b"{}")
    assert (answer.status, answer.headers["x-hook-secret"], answer.body) == (200, "abc", b"")
    # It changes no secret.
    assert desk.post("/plugin", b"{}").status == 202
    desk.change("/plugin", handshake=HANDSHAKES["woocommerce"])
    form = head("POST", "/plugin", "Content-Length: 12", "Content-Type: application/x-www-form-urlencoded")
    assert (desk.send(form + b"webhook_id=7").status, len(desk.jobs())) == (200, 1)


def test_a_handshake_without_a_challenge_has_an_empty_answer(desk: Desk) -> None:
    desk.change("/plugin", handshake=HANDSHAKES["head"])
    assert desk.send(head("HEAD", "/plugin"), to_head=True).status == 200
    assert desk.send(head("GET", "/plugin")).status == 405
