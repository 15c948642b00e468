from __future__ import annotations

import errno
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

import pytest

from ductile.config.model import Address
from ductile.errors import DuctileError
from ductile.webhook.http_head import Head, Refused
from ductile.webhook.listener import Connection, Limits, Listener, Reply
from ductile.webhook.sockets import ServerSocket, bind
from support import logs
from support.wire import Wire, ask, head

_SECONDS = 20.0
GOOD = b"good"
LIMIT = 100_000


class Desk:
    """Handles requests: one whose body is `good` is verified and answered with 202, any other with 403."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.bodies: list[bytes] = []
        self.hold = threading.Event()
        self.hold.set()
        self.held = threading.Semaphore(0)
        self.refusals: list[tuple[str | None, int, str]] = []

    def handle(self, connection: Connection) -> None:
        try:
            connection.send(self._answer(connection))
        except Refused as refused:
            self.refusals.append((connection.request_path, refused.status, refused.reason))
            connection.send(Reply(status=refused.status))

    def _answer(self, connection: Connection) -> Reply:
        head = connection.read_head()
        self.heads.append(head)
        if head.path == "/bug":
            raise LookupError("a bug\nin two lines")
        if head.path == "/late-bug":
            connection.send(Reply(status=HTTPStatus.ACCEPTED, body=b"taken"))
            raise LookupError("a bug after the answer")
        if head.method != "POST":
            return Reply(status=HTTPStatus.METHOD_NOT_ALLOWED, body=b"not this")
        body = connection.read_body(head, LIMIT)
        self.bodies.append(body)
        if body == GOOD:
            connection.mark_verified()
        self.held.release()
        assert self.hold.wait(_SECONDS)
        if body != GOOD:
            return Reply(status=HTTPStatus.FORBIDDEN)
        return Reply(status=HTTPStatus.ACCEPTED, body=b"taken", close=False)


class Place:
    """A listener on a free port."""

    def __init__(self) -> None:
        self.desk = Desk()
        self._listeners: list[tuple[Listener, ServerSocket]] = []

    def open(self, **limits: float) -> Listener:
        """Listen, with these limits and the usual ones."""
        self.listener = Listener(self.desk.handle, limits=Limits(**limits))
        self.server = bind(Address(host="127.0.0.1"))
        self.listener.serve([self.server])
        self.address = self.server.socket.getsockname()
        self._listeners.append((self.listener, self.server))
        return self.listener

    def connect(self) -> Wire:
        return Wire(self.address)

    def close(self) -> None:
        self.desk.hold.set()
        for listener, server in self._listeners:
            listener.close()
            server.close()
            listener.wait_until_quiet(_SECONDS)


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    made.open()
    yield made
    made.close()


def post(body: bytes, *headers: str) -> bytes:
    return head("POST", "/", f"Content-Length: {len(body)}", *headers) + body


def status_of(place: Place, request: bytes) -> int:
    """Send a request with a good one right behind it, and see that the connection ends before that is read."""
    with place.connect() as wire:
        wire.send(request + post(GOOD))
        answer = wire.answer()
        assert (answer.headers["connection"], wire.rest()) == ("close", b"")
    assert GOOD not in place.desk.bodies
    return answer.status


def test_requests_on_one_connection_are_answered_in_turn(place: Place) -> None:
    with place.connect() as wire:
        for _ in range(3):
            wire.send(post(GOOD))
            answer = wire.answer()
            assert (answer.status, answer.body, set(answer.headers)) == (202, b"taken", {"date", "content-length"})
        wire.send(post(GOOD) * 3)
        assert [wire.answer().status for _ in range(3)] == [202] * 3
    assert place.desk.bodies == [GOOD] * 6


@pytest.mark.parametrize("request_", [
    head("POST", "/", "Content-Length: 4", "Connection: close") + GOOD,
    head("POST", "/", "Content-Length: 4", version="HTTP/1.0") + GOOD,
    head("POST", "/", "Content-Length: 4", "Connection: keep-alive", version="HTTP/1.0") + GOOD,
], ids=["close", "1.0", "1.0 and keep-alive"])
def test_a_connection_ends_where_the_client_wants_no_more(place: Place, request_: bytes) -> None:
    with place.connect() as wire:
        wire.send(request_ * 2)
        assert (wire.answer().status, wire.rest()) == (202, b"")
    assert place.desk.bodies == [GOOD]


@pytest.mark.parametrize(("request_", "status"), [
    (post(b"evil"), 403),
    (head("GET", "/"), 405),
    (head("POST", "/"), 411),
    (head("POST", "/", "Transfer-Encoding: chunked", version="HTTP/1.0") + b"4\r\ngood\r\n0\r\n\r\n", 400),
    (head("POST", "/", "Transfer-Encoding: gzip, chunked") + b"4\r\ngood\r\n0\r\n\r\n", 400),
    (head("POST", "/", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    (head("POST", "/", "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    (head("POST", "/", "Content-Length: 4", "Content-Length: 4") + GOOD, 400),
    (head("POST", "/", "Content-Length: -4") + GOOD, 400),
    (head("POST", "/", "Content-Length: +4") + GOOD, 400),
    (head("POST", "/", "Content-Length: " + "9" * 30) + GOOD, 400),
    (head("POST", "/", "Content-Length : 4") + GOOD, 400),
    (head("POST", "/", "X-A: 1\rContent-Length: 4") + GOOD, 400),
    (head("POST", "/", "X-A: 1\nContent-Length: 4") + GOOD, 400),
    (head("POST", "/", "X-A: 1", " folded: 2", "Content-Length: 4") + GOOD, 400),
    (head("POST", "/", "no colon", "Content-Length: 4") + GOOD, 400),
    (head("POST", "/", "X-A: \0", "Content-Length: 4") + GOOD, 400),
    (post(GOOD).replace(b"\r\n", b"\n"), 400),
    (head("POST", "/", f"Content-Length: {LIMIT + 1}"), 413),
    (head("POST", "/", f"Content-Length: {LIMIT + 1}") + bytes(LIMIT + 1), 413),
    (head("POST", "/", *["X-A: 1"] * 200, "Content-Length: 4") + GOOD, 431),
    (head("POST", "/", "X-A: " + "a" * 100_000, "Content-Length: 4") + GOOD, 431),
    (head("POST", "/" + "a" * 100_000, "Content-Length: 4") + GOOD, 414),
    (b"GET /\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    (head("POST", "/", "Content-Length: 4", version="HTTP/2.0") + GOOD, 400),
    (head("POST", "/bug", "Content-Length: 4") + GOOD, 500),
])
def test_a_refused_request_is_the_last_on_its_connection(place: Place, request_: bytes, status: int) -> None:
    assert status_of(place, request_) == status


def test_a_second_request_smuggled_in_a_body_never_runs(place: Place) -> None:
    smuggled = b"0\r\n\r\n" + post(GOOD)
    for lines in (["Transfer-Encoding : chunked"], ["Content-Length: 5", "Transfer-Encoding: chunked"],
                  ["Content-Length: 5", "Transfer-Encoding : chunked"], ["Content-Length: 5", "Content-Length: 0"]):
        assert status_of(place, head("POST", "/", *lines) + smuggled) in (400, 411)
    assert place.desk.bodies == []


def test_an_answer_says_nothing_of_who_answers(place: Place) -> None:
    for request in (b"nonsense\r\n\r\n", head("GET", "/<script>"), head("POST", "/bug"), post(b"evil"),
                    head("BREW", "/")):
        answer = ask(place.address, request)
        assert set(answer.headers) == {"date", "content-length", "connection"}
        assert answer.body in (b"", b"not this")


def test_a_bug_is_logged_and_the_next_request_answered(place: Place, tmp_path: Path) -> None:
    with logs.kept(tmp_path) as path:
        assert ask(place.address, head("POST", "/bug")).status == 500
        assert ask(place.address, post(GOOD)).status == 202
        [line] = logs.lines(path)
    assert (line["level"], line["message"]) == ("error", "request failed because of a bug")
    assert line["error"].endswith("LookupError: a bug\nin two lines\n")


def test_a_bug_after_the_answer_sends_no_second_one(place: Place, tmp_path: Path) -> None:
    with logs.kept(tmp_path) as path:
        with place.connect() as wire:
            wire.send(head("POST", "/late-bug"))
            wire.stop_sending()
            assert (wire.answer().body, wire.rest()) == (b"taken", b"")
        place.close()
        assert [line["message"] for line in logs.lines(path)] == ["request failed because of a bug"]


def test_head_gets_the_head_alone(place: Place) -> None:
    with place.connect() as wire:
        wire.send(head("HEAD", "/"))
        answer = wire.answer(to_head=True)
        assert (answer.status, answer.headers["content-length"], wire.rest()) == (405, "8", b"")


def test_leave_to_send_is_given_once_the_head_is_good(place: Place) -> None:
    with place.connect() as wire:
        wire.send(head("POST", "/", "Content-Length: 4", "Expect: 100-continue"))
        assert wire.answer().status == 100
        wire.send(GOOD)
        assert wire.answer().status == 202
        wire.send(head("POST", "/", f"Content-Length: {LIMIT + 1}", "Expect: 100-continue"))
        assert (wire.answer().status, wire.rest()) == (413, b"")


def test_a_body_that_stops_in_the_midst_is_refused(place: Place) -> None:
    with place.connect() as wire:
        wire.send(head("POST", "/", "Content-Length: 5") + GOOD)
        wire.stop_sending()
        assert wire.answer().status == 400
    assert place.desk.bodies == []


def test_the_query_is_not_the_path_and_slashes_stay(place: Place) -> None:
    ask(place.address, head("POST", "//a?b=c"))
    assert [(each.path, each.query) for each in place.desk.heads] == [("//a", "b=c")]


ENDED_EARLY = "the body ended early"
MALFORMED = "the head is malformed or too large"


@pytest.mark.parametrize(("request_", "refusal"), [
    (head("POST", "/a", "Content-Length: 5") + GOOD, ("/a", 400, ENDED_EARLY)),
    (head("POST", "/a?b=c", "Content-Length : 4"), ("/a", 400, MALFORMED)),
    (b"POST /a HTTP/1.1\r\nX-A: 1\n", ("/a", 400, MALFORMED)),
    (b"POST /a HTTP/1.1\r\nX-A: 1", ("/a", 400, MALFORMED)),
    (head("POST", "/a", *["X-A: 1"] * 200), ("/a", 431, MALFORMED)),
    (head("POST", "/" + "a" * 100_000), (None, 414, MALFORMED)),
    (b"nonsense\r\n\r\n", (None, 400, MALFORMED)),
])
def test_a_refusal_before_the_body_is_whole_is_noted_with_its_path_and_its_reason(
        place: Place, request_: bytes, refusal: tuple[str | None, int, str]) -> None:
    with place.connect() as wire:
        wire.send(request_)
        wire.stop_sending()
        assert wire.answer().headers["connection"] == "close"
    place.close()
    assert place.desk.refusals == [refusal]


@pytest.mark.parametrize(("request_", "refusal"), [
    (b"POST /a HTTP/1.1\r\n", ("/a", 408, "the head did not arrive in time")),
    (head("POST", "/a", "Content-Length: 5") + GOOD, ("/a", 408, "the body did not arrive in time")),
])
def test_what_did_not_come_in_time_is_noted(
        place: Place, request_: bytes, refusal: tuple[str | None, int, str]) -> None:
    place.open(head_seconds=0.2, body_seconds=0.2)
    with place.connect() as wire:
        wire.send(request_)
        assert (wire.answer().headers["connection"], wire.rest()) == ("close", b"")
    place.close()
    assert place.desk.refusals == [refusal]


@pytest.mark.parametrize("begun", [b"P", b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nX-A: "])
def test_the_time_for_a_head_is_a_total(place: Place, begun: bytes) -> None:
    place.open(head_seconds=0.3)
    with place.connect() as wire:
        wire.send(begun)
        assert wire.trickle(b"a", every=0.05, most=200) < 100
        assert (wire.answer().status, wire.rest()) == (408, b"")
    assert place.desk.heads == []


def test_the_time_for_a_body_is_a_total(place: Place) -> None:
    place.open(body_seconds=0.3)
    with place.connect() as wire:
        wire.send(head("POST", "/", "Content-Length: 5000"))
        assert wire.trickle(b"a", every=0.05, most=200) < 100
        assert (wire.answer().status, wire.rest()) == (408, b"")
    assert place.desk.bodies == []


def test_who_says_nothing_is_closed_without_a_word(place: Place) -> None:
    place.open(head_seconds=0.2)
    with place.connect() as wire:
        assert wire.rest() == b""


def test_a_kept_connection_on_which_nothing_comes_is_closed(place: Place) -> None:
    place.open(idle_seconds=0.2)
    with place.connect() as wire:
        wire.send(post(GOOD))
        assert (wire.answer().status, wire.rest()) == (202, b"")


def test_the_head_has_its_own_time_after_a_long_silence(place: Place) -> None:
    place.open(head_seconds=1.0, idle_seconds=60)
    with place.connect() as wire:
        wire.send(post(GOOD))
        assert wire.answer().status == 202
        wire.send(b"P")
        assert wire.answer().status == 408


def test_a_head_that_begins_late_has_its_whole_time(place: Place) -> None:
    place.open(head_seconds=20, idle_seconds=0.3)
    with place.connect() as wire:
        wire.send(post(GOOD))
        assert wire.answer().status == 202
        # Far longer than a connection may be idle.
        wire.send(b"POST / HTTP/1.1\r\nX-A: ")
        assert wire.trickle(b"a", every=0.05, most=12) == 12
        wire.send(b"\r\nContent-Length: 4\r\n\r\n" + GOOD)
        assert wire.answer().status == 202


def test_one_connection_too_many_closes_the_one_that_has_longest_shown_nothing_good(place: Place) -> None:
    place.open(connections=3)
    with place.connect() as first, place.connect() as second, place.connect() as third:
        for wire in (second, third, first):
            wire.send(post(GOOD))
            assert wire.answer().status == 202
        with place.connect() as fourth:
            assert second.rest() == b""
            for wire in (first, third, fourth):
                wire.send(post(GOOD))
                assert wire.answer().status == 202


def test_who_has_shown_nothing_good_goes_before_who_did_long_ago(place: Place) -> None:
    place.open(connections=3)
    with place.connect() as sender:
        sender.send(post(GOOD))
        assert sender.answer().status == 202
        with place.connect() as stranger, place.connect() as another, place.connect() as newcomer:
            assert stranger.rest() == b""
            for wire in (sender, another, newcomer):
                wire.send(post(GOOD))
                assert wire.answer().status == 202


def test_two_hundred_silent_clients_do_not_keep_a_good_one_waiting(place: Place) -> None:
    silent = [socket.create_connection(place.address, _SECONDS) for _ in range(200)]
    assert ask(place.address, post(GOOD)).status == 202
    for each in silent:
        each.close()


def test_an_end_lets_what_has_begun_be_answered_and_ends_what_waits(place: Place) -> None:
    with place.connect() as idle, place.connect() as slow, place.connect() as busy:
        idle.send(post(GOOD))
        assert idle.answer().status == 202
        place.desk.hold.clear()
        slow.send(head("POST", "/", "Content-Length: 4", "Expect: 100-continue"))
        assert slow.answer().status == 100
        assert place.desk.held.acquire(timeout=_SECONDS)
        busy.send(post(GOOD))
        assert place.desk.held.acquire(timeout=_SECONDS)
        place.listener.close()
        place.server.close()
        assert idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            place.connect()
        place.desk.hold.set()
        slow.send(GOOD)
        for wire in (slow, busy):
            answer = wire.answer()
            assert (answer.status, answer.headers["connection"], wire.rest()) == (202, "close", b"")
    place.listener.wait_until_quiet(_SECONDS)
    assert place.listener.is_quiet


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize(("count", "status"), [(100, 202), (101, 431), (102, 431)])
def test_a_hundred_headers_are_taken_and_no_more(place: Place, count: int, status: int, is_split: bool) -> None:
    request = head("POST", "/", *["X-A: 1"] * (count - 2), "Content-Length: 4") + GOOD
    with place.connect() as wire:
        wire.send(request[:100] if is_split else b"")
        wire.send(request[100:] if is_split else request)
        assert wire.answer().status == status


def test_a_request_may_come_in_any_two_pieces(place: Place) -> None:
    request = post(GOOD, "X-A: 1")
    with place.connect() as wire:
        for end in range(1, len(request)):
            wire.send(request[:end])
            wire.send(request[end:])
            assert wire.answer().status == 202
    assert place.desk.bodies == [GOOD] * (len(request) - 1)


def test_a_wrong_line_is_refused_before_the_next_has_come(place: Place) -> None:
    for wrong in (b"\r\n\r\n", b"POST / HTTP/1.1\n", b"POST / HTTP/1.1\r\nX-A: 1\n"):
        with place.connect() as wire:
            wire.send(wrong)
            assert (wire.answer().status, wire.rest()) == (400, b"")


def test_who_is_gone_before_the_answer_harms_nobody(place: Place, capfd: pytest.CaptureFixture) -> None:
    place.desk.hold.clear()
    with place.connect() as wire:
        wire.send(post(b"evil") + b"more")
        assert place.desk.held.acquire(timeout=_SECONDS)
    place.desk.hold.set()
    assert ask(place.address, post(GOOD)).status == 202
    place.close()
    assert capfd.readouterr() == ("", "")


def test_an_address_that_is_taken_is_refused(place: Place) -> None:
    host, port = place.address
    with pytest.raises(DuctileError) as error:
        bind(Address(host=host, port=port))
    assert (error.value.exit_code, str(error.value)) == (
        71, f"cannot listen on 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}; set webhooks.listen to a free"
            " address")


def test_an_address_of_another_machine_is_refused(place: Place) -> None:
    with pytest.raises(DuctileError) as error:
        bind(Address(host="2001:db8::1", port=8081))
    assert re.fullmatch(r"cannot listen on \[2001:db8::1\]:8081: .*; set webhooks.listen to a free address",
                        str(error.value))


def chunked(*chunks: bytes, trailers: bytes = b"", extension: bytes = b"") -> bytes:
    """Return a request whose body comes in these chunks."""
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(each), extension, each) for each in chunks)
    return head("POST", "/", "Transfer-Encoding: Chunked") + body + b"0\r\n" + trailers + b"\r\n"


@pytest.mark.parametrize("request_", [
    chunked(GOOD), chunked(b"g", b"oo", b"d"), chunked(GOOD, extension=b";a=b"), chunked(GOOD, extension=b" ; a=\"b\""),
    chunked(GOOD, trailers=b"X-A: 1\r\nX-B: 2\r\n"), chunked(GOOD).replace(b"4\r\n", b"0004\r\n"),
    b"\r\n" + post(GOOD), post(GOOD).replace(b"POST / ", b"POST http://example.org:8081/ "),
    post(GOOD).replace(b"POST / ", b"POST HTTPS://example.org?a ")])
def test_what_proxies_and_clients_may_send_is_understood(place: Place, request_: bytes) -> None:
    with place.connect() as wire:
        wire.send(request_ * 2)
        assert [wire.answer().status for _ in range(2)] == [202, 202]
        # In pieces too.
        for byte in request_:
            wire.send(bytes([byte]))
        assert wire.answer().status == 202
    assert (place.desk.bodies, {each.path for each in place.desk.heads}) == ([GOOD] * 3, {"/"})


@pytest.mark.parametrize(("body", "status"), [
    (b"4\ngood\r\n0\r\n\r\n", 400), (b"4 \r\ngood\r\n0\r\n\r\n", 400), (b"+4\r\ngood\r\n0\r\n\r\n", 400),
    (b"0x4\r\ngood\r\n0\r\n\r\n", 400), (b"-1\r\n", 400), (b"\r\n", 400), (b"4\r\ngoodX\r\n0\r\n\r\n", 400),
    (b"5\r\ngood\r\n0\r\n\r\n", 400), (b"3\r\ngood\r\n0\r\n\r\n", 400), (b"4;a\rb\r\ngood\r\n0\r\n\r\n", 400),
    (b"4;" + b"a" * 5000 + b"\r\ngood\r\n0\r\n\r\n", 400), (b"4\r\ngood\r\n0\r\nno trailer\r\n\r\n", 400),
    (b"4\r\ngood\r\n0\r\n" + b"X: 1\r\n" * 101 + b"\r\n", 400), (b"f" * 11 + b"\r\n", 400),
    (b"%x\r\n" % (LIMIT + 1), 413), (b"ffffffffff\r\n", 413), (b"4\r\ngood\r\n" + b"%x\r\n" % LIMIT, 413),
    (b"4\r\nevil\r\n0\r\n\r\n", 403),
])
def test_a_chunk_that_is_not_quite_right_is_refused_and_nothing_behind_it_is_read(
        place: Place, body: bytes, status: int) -> None:
    assert status_of(place, head("POST", "/", "Transfer-Encoding: chunked") + body) == status


def test_chunks_that_stop_coming_are_refused_in_time(place: Place) -> None:
    place.open(body_seconds=0.2)
    with place.connect() as wire:
        wire.send(head("POST", "/", "Transfer-Encoding: chunked") + b"4\r\ngo")
        assert (wire.answer().status, wire.rest()) == (408, b"")


def test_a_verified_request_is_never_cut_to_make_room_and_new_clients_wait(place: Place) -> None:
    place.open(connections=3)
    place.desk.hold.clear()
    with ExitStack() as stack:
        busy = [stack.enter_context(place.connect()) for _ in range(3)]
        for wire in busy:
            wire.send(post(GOOD))
            assert place.desk.held.acquire(timeout=_SECONDS)
        late = [stack.enter_context(place.connect()) for _ in range(5)]
        for wire in late:
            wire.send(post(GOOD, "Connection: close"))
        place.desk.hold.set()
        assert [wire.answer().status for wire in (*busy, *late)] == [202] * 8


def test_a_stranger_goes_before_a_request_that_is_being_answered(place: Place) -> None:
    place.open(connections=2)
    place.desk.hold.clear()
    with place.connect() as busy, place.connect() as stranger:
        busy.send(post(GOOD))
        assert place.desk.held.acquire(timeout=_SECONDS)
        with place.connect() as late:
            assert stranger.rest() == b""
            place.desk.hold.set()
            late.send(post(GOOD))
            assert [busy.answer().status, late.answer().status] == [202, 202]


def test_three_hundred_clients_of_which_a_hundred_are_slow_are_all_served(place: Place) -> None:
    slow = [place.connect() for _ in range(100)]
    for wire in slow:
        wire.send(b"POST / HTTP/1.1\r\n")
    statuses: list[int] = []

    def send() -> None:
        statuses.append(ask(place.address, post(GOOD)).status)

    threads = [threading.Thread(target=send) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_SECONDS)
    assert statuses == [202] * 200
    for wire in slow:
        wire.vanish()


def test_addresses_can_be_added_and_removed_while_requests_are_answered(place: Place) -> None:
    other = bind(Address(host="127.0.0.1"))
    place.listener.serve([place.server, other])
    place.desk.hold.clear()
    with place.connect() as busy, place.connect() as idle, Wire(other.socket.getsockname()) as kept:
        idle.send(head("GET", "/bug"))
        busy.send(post(GOOD))
        assert place.desk.held.acquire(timeout=_SECONDS)
        place.listener.serve([other])
        place.desk.hold.set()
        answer = busy.answer()
        assert (answer.status, answer.headers["connection"], busy.rest()) == (202, "close", b"")
        kept.send(post(GOOD) * 2)
        assert [kept.answer().status for _ in range(2)] == [202, 202]
    place.listener.serve([place.server])
    other.close()
    assert ask(place.address, post(GOOD)).status == 202


def test_a_client_that_has_just_connected_at_the_end_is_still_answered(place: Place) -> None:
    place.open(grace_seconds=5)
    place.desk.hold.clear()
    with place.connect() as late, place.connect() as busy:
        busy.send(post(GOOD))
        # Both are accepted, in this order.
        assert place.desk.held.acquire(timeout=_SECONDS)
        place.listener.close()
        place.desk.hold.set()
        late.send(post(GOOD))
        answer = late.answer()
        assert (answer.status, answer.headers["connection"], late.rest()) == (202, "close", b"")
