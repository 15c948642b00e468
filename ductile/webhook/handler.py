"""Answers a webhook request in a straight line: limits, signature, commit, answer, log."""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from blake3 import blake3

from ductile import submit
from ductile.clock import Clock
from ductile.config.model import Endpoint, Handshake
from ductile.db import NotWritten
from ductile.errors import DuctileError
from ductile.injected import NewId
from ductile.log import Component
from ductile.protocol import HANDLE
from ductile.queue.job import Submitter
from ductile.runtime_config import RuntimeConfig
from ductile.strictjson import encode
from ductile.submit import EventJob, Submitted
from ductile.webhook.group_commit import QueueFull
from ductile.webhook.handshake import answer, is_asked
from ductile.webhook.http_head import Head, Refused
from ductile.webhook.listener import Connection, Reply
from ductile.webhook.metrics import CONTENT_TYPE
from ductile.webhook.places import find
from ductile.webhook.request import DEFAULT_TYPE, Content, http_of, read_content, source_of
from ductile.webhook.signature import Unverified, verify
from ductile.webhook.sockets import UNIX_CLIENT

HEALTH_PATH = "/healthz"
METRICS_PATH = "/metrics"
_OWN_PATHS = (HEALTH_PATH, METRICS_PATH)
_JSON = ("Content-Type", "application/json")
_METRICS = (("Content-Type", CONTENT_TYPE),)
_RETRY_AFTER = ("Retry-After", "30")
_KEY_LIMIT = 200        # characters; a longer dedupe key is stored as its digest
_HANDSHAKE_BYTES = 64 * 1024     # of an unsigned handshake with a body
_NOTHING = Content(payload=None)
_PERIOD_SECONDS = 60.0
_LOGGED = 5             # refusals of a kind that get a line of their own in a period; the rest are counted
_PATH_CHARACTERS = 200  # of a path in the log: the client has chosen it

_log = Component("webhook")


class Handler:
    """Answers requests in the threads of the listener."""

    def __init__(self, *, current: Callable[[], RuntimeConfig], clock: Clock, new_id: NewId,
                 submit: Callable[[RuntimeConfig, Sequence[EventJob], datetime], Sequence[Submitted]],
                 health: Callable[[], Mapping[str, Any]], metrics: Callable[[], str]) -> None:
        """`current` returns the configuration in force, `health` and `metrics` what `/healthz` and `/metrics` show.

        `submit` stores the jobs of one event and returns once they are on disk. It raises QueueFull, NotWritten, or a
        DuctileError if the database is lost.
        """
        self._current = current
        self._clock = clock
        self._new_id = new_id
        self._submit = submit
        self._health = health
        self._metrics = metrics
        self._answers: Counter[tuple[str, int]] = Counter()     # by endpoint and status
        self._answers_lock = threading.Lock()
        self._greeted: dict[str, float] = {}    # when the last handshake of a path was logged
        self.refusals = RefusalLog(clock)

    def handle(self, connection: Connection) -> None:
        """Answer one request. A reload in the meantime does not affect it.

        Raises OSError when the client is gone; what was stored or refused is logged in any case.
        """
        runtime = self._current()
        try:
            head = connection.read_head()
            if (head.path in _OWN_PATHS or connection.is_health) and (
                    reply := self._health_reply(runtime, connection, head)) is not None:
                connection.send(reply)
                return
            endpoint = _find(runtime, head.path)
            if endpoint is None:
                raise Refused(HTTPStatus.NOT_FOUND, "no endpoint has this path")
            if head.method != "POST":
                self._greet_or_refuse(connection, endpoint, head)
                return
            body = connection.read_body(head, endpoint.max_body_size)
            if self._greet_unsigned(connection, endpoint, head, body):
                return
            digest = _verified(endpoint, head, body)
            connection.mark_verified()
            content = read_content(body, head, endpoint.max_body_size)
            if self._greet(connection, endpoint, head, content, signed=True):
                return
            _refuse_challenge(endpoint, content)
            now = self._clock.now()
            jobs = self._jobs(runtime, endpoint, self._event(endpoint, head, content, digest, now))
            submitted = self._store(runtime, jobs, now)
        except Refused as refused:
            self._refuse(connection, runtime, refused)
            return
        try:
            self._send(connection, endpoint, _success(endpoint, submitted))
        finally:
            _log_submitted(endpoint, jobs, submitted)

    def _greet(self, connection: Connection, endpoint: Endpoint, head: Head, content: Content, *,
               signed: bool) -> bool:
        """Answer the endpoint's handshake and return True if the request is one. Raises Refused."""
        handshake = endpoint.handshake
        if handshake is None or handshake.signed != signed or not is_asked(handshake, head, content):
            return False
        body, headers = answer(handshake, head, content, key=endpoint.keys[0], token=endpoint.verify_token)
        try:
            # The body of another method than POST was not read.
            self._send(connection, endpoint, Reply(status=HTTPStatus.OK, body=body, headers=headers,
                                                   close=head.method != "POST"))
        finally:
            self._log_handshake(endpoint, handshake, head, content, _client(self._current(), connection))
        return True

    def _greet_or_refuse(self, connection: Connection, endpoint: Endpoint, head: Head) -> None:
        if self._greet(connection, endpoint, head, _NOTHING, signed=False):
            return
        allowed = {"POST"} if endpoint.handshake is None else {"POST", endpoint.handshake.method}
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "the method is not POST",
                      headers=(("Allow", ", ".join(sorted(allowed))),))

    def _greet_unsigned(self, connection: Connection, endpoint: Endpoint, head: Head, body: bytes) -> bool:
        """Answer an unsigned handshake with a body. What has a signature, or is large, is a delivery."""
        handshake = endpoint.handshake
        if handshake is None or handshake.signed or handshake.method != "POST" or len(body) > _HANDSHAKE_BYTES or any(
                head.values(name.lower()) for name in endpoint.scheme.headers):
            return False
        return self._greet(connection, endpoint, head, read_content(body, head, _HANDSHAKE_BYTES), signed=False)

    def _log_handshake(self, endpoint: Endpoint, handshake: Handshake, head: Head, content: Content,
                       address: str) -> None:
        """Log a handshake, at most one for each endpoint and minute: anybody may ask."""
        now = self._clock.monotonic()
        if now - self._greeted.get(endpoint.path, -_PERIOD_SECONDS) < _PERIOD_SECONDS:
            return
        self._greeted[endpoint.path] = now
        challenge = {}
        if handshake.logs_challenge and handshake.take is not None:
            challenge = {"challenge": find(handshake.take, head, content)}
        _log.info("webhook handshake answered", path=endpoint.path, address=address, **challenge)

    def _event(self, endpoint: Endpoint, head: Head, content: Content, digest: bytes, now: datetime) -> dict[str, Any]:
        event = submit.new_event(endpoint.event or DEFAULT_TYPE, content.payload, source_of(endpoint.path),
                                 new_id=self._new_id, now=now)
        event["http"] = http_of(head, endpoint.scheme.headers)
        if content.fault is not None:
            event["http"]["body_fault"] = content.fault
        key = _dedupe_key(endpoint, head, content, digest)
        if key is not None:
            event["dedupe_key"] = key
        return event

    def _jobs(self, runtime: RuntimeConfig, endpoint: Endpoint, event: Mapping[str, Any]) -> list[EventJob]:
        """Return the jobs of an event: one for the endpoint's plugin, or one for each matching pipeline and route."""
        if endpoint.plugin is not None:
            plugin = runtime.plugins[endpoint.plugin]
            job = submit.command_job(plugin, HANDLE, Submitter.WEBHOOK, new_id=self._new_id, event=event)
            return [EventJob(job=job)]
        try:
            return submit.jobs_for_event(runtime, event, None, Submitter.WEBHOOK, new_id=self._new_id)
        except DuctileError as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "the event cannot be processed", level="warn",
                          error=str(error)) from error

    def _store(self, runtime: RuntimeConfig, jobs: Sequence[EventJob], now: datetime) -> Sequence[Submitted]:
        try:
            return self._submit(runtime, jobs, now)
        except QueueFull as error:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the queue is full", level="warn",
                          headers=(_RETRY_AFTER,)) from error
        except (NotWritten, DuctileError) as error:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the job could not be stored", level="error",
                          error=str(error), headers=(_RETRY_AFTER,)) from error

    def _refuse(self, connection: Connection, runtime: RuntimeConfig, refused: Refused) -> None:
        path = connection.request_path
        endpoint = None if connection.is_health else _find(runtime, path)
        reply = Reply(status=refused.status, headers=refused.headers)
        try:
            if endpoint is None:
                connection.send(reply)
            else:
                self._send(connection, endpoint, reply)
        finally:
            self.refusals.add(refused, path=path, is_endpoint=endpoint is not None,
                              address=_client(runtime, connection))

    def answers(self) -> dict[tuple[str, int], int]:
        """Return how many answers each endpoint has given since the start, by path and status."""
        with self._answers_lock:
            return dict(self._answers)

    def _send(self, connection: Connection, endpoint: Endpoint, reply: Reply) -> None:
        """Answer a request to an endpoint. Raises OSError when the client is gone."""
        with self._answers_lock:
            self._answers[endpoint.path, reply.status.value] += 1
        connection.send(reply)

    def _health_reply(self, runtime: RuntimeConfig, connection: Connection, head: Head) -> Reply | None:
        """Answer `/healthz` and `/metrics` on `health_listen`, or to this machine itself; None if it is neither.

        For others these paths do not exist. Raises Refused.
        """
        webhooks = runtime.config.webhooks
        has_metrics = head.path == METRICS_PATH and webhooks is not None and webhooks.has_metrics
        if head.path != HEALTH_PATH and not has_metrics:
            if connection.is_health:
                raise Refused(HTTPStatus.NOT_FOUND, "only health is served on this address")
            return None
        if not connection.is_health and (head.is_forwarded or not _is_local(connection.address)):
            raise Refused(HTTPStatus.NOT_FOUND, "health is shown to this machine and on health_listen only")
        if head.method not in ("GET", "HEAD"):
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "the method is not GET or HEAD",
                          headers=(("Allow", "GET, HEAD"),))
        if has_metrics:
            return Reply(status=HTTPStatus.OK, body=self._metrics().encode(), headers=_METRICS)
        health = self._health()
        status = HTTPStatus.SERVICE_UNAVAILABLE if health["reasons"] else HTTPStatus.OK
        return Reply(status=status, body=encode(health).encode(), headers=(_JSON,))


class RefusalLog:
    """Logs refused requests: the first few of a kind one by one, the others counted, in a line a minute.

    Called by any thread. The configuration, not the clients, limits how many kinds there are.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock.monotonic()
        self._counts: Counter[tuple[str | None, HTTPStatus, str, str]] = Counter()

    def add(self, refused: Refused, *, path: str | None, is_endpoint: bool, address: str) -> None:
        """Log or count a refusal; at DEBUG if `path` is no endpoint's, because anybody can send such requests."""
        self.report()
        level = refused.level if is_endpoint else "debug"
        with self._lock:
            kind = path if is_endpoint else None, refused.status, refused.reason, level
            self._counts[kind] += 1
            if self._counts[kind] > _LOGGED:
                return
        error = {} if refused.error is None else {"error": refused.error}
        _log.at(level, "webhook refused", path=path and path[:_PATH_CHARACTERS], status=refused.status,
                reason=refused.reason, address=address, **error)

    def report(self, *, at_once: bool = False) -> None:
        """Log the counted refusals, once a minute is over or `at_once`."""
        with self._lock:
            seconds = self._clock.monotonic() - self._since
            if seconds < _PERIOD_SECONDS and not at_once:
                return
            counts, self._counts = self._counts, Counter()
            self._since = self._clock.monotonic()
        for (path, status, reason, level), count in counts.items():
            if count > _LOGGED:
                _log.at(level, "more webhooks refused", path=path, status=status, reason=reason,
                        count=count - _LOGGED, seconds=round(seconds))


def _is_local(address: str) -> bool:
    return address == UNIX_CLIENT or ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _client(runtime: RuntimeConfig, connection: Connection) -> str:
    """Return the address of the client, which a trusted proxy tells for its own clients."""
    webhooks = runtime.config.webhooks
    proxies = () if webhooks is None else webhooks.trusted_proxies
    address = connection.address
    if not proxies and address != UNIX_CLIENT:
        return address
    for told in reversed(connection.forwarded_for):
        if address != UNIX_CLIENT and not _is_in(address, proxies):
            break
        if not _is_address(told):
            break
        address = told
    return address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    return any(found in network for network in networks)


def _find(runtime: RuntimeConfig, path: str | None) -> Endpoint | None:
    webhooks = runtime.config.webhooks
    return next((each for each in webhooks.endpoints if each.path == path), None) if webhooks is not None else None


def _verified(endpoint: Endpoint, head: Head, body: bytes) -> bytes:
    """Return the digest that signs the request. Raises Refused."""
    try:
        return verify(body, head, endpoint.scheme, endpoint.keys)
    except Unverified as fault:
        raise Refused(HTTPStatus(endpoint.refusal_status), str(fault)) from fault


def _refuse_challenge(endpoint: Endpoint, content: Content) -> None:
    """Refuse what could be a challenge that the endpoint has signed. Raises Refused.

    No challenge has a brace or bracket, so a JSON object or list is none.
    """
    signs = endpoint.handshake is not None and endpoint.handshake.mac is not None
    if signs and not isinstance(content.json, dict | list):
        raise Refused(HTTPStatus.FORBIDDEN, "the body is no JSON object or list, as the handshake requires")


def _dedupe_key(endpoint: Endpoint, head: Head, content: Content, digest: bytes) -> str | None:
    """Return the key by which repeated deliveries to an endpoint are recognised; None if there is none."""
    for place in endpoint.dedupe:
        value = digest.hex() if place.kind == "signature" else find(place, head, content)
        if value is None:
            continue
        if len(value) > _KEY_LIMIT:
            value = blake3(value.encode()).hexdigest()
        # Two places of an endpoint may have the same value for different deliveries.
        return f"{source_of(endpoint.path)} {value if place.kind == 'header' else f'{place} {value}'}"
    return None


def _success(endpoint: Endpoint, submitted: Sequence[Submitted]) -> Reply:
    answer: dict[str, Any] = {"job_id": submitted[0].job_id}
    if endpoint.plugin is None:
        answer["job_ids"] = [each.job_id for each in submitted]
    status = endpoint.success_status
    if not any(each.is_new for each in submitted):
        answer["deduped"] = True
        status = HTTPStatus.NO_CONTENT if endpoint.success_status == HTTPStatus.NO_CONTENT else HTTPStatus.OK
    if endpoint.answers_empty:
        return Reply(status=HTTPStatus(status), close=False)
    return Reply(status=HTTPStatus(status), body=encode(answer).encode(), headers=(_JSON,), close=False)


def _log_submitted(endpoint: Endpoint, jobs: Sequence[EventJob], submitted: Sequence[Submitted]) -> None:
    key = jobs[0].job.dedupe_key
    for each in submitted:
        if not each.is_new:
            _log.info("webhook deduped", path=endpoint.path, earlier_job_id=each.job_id, dedupe_key=key)
    new = [each.job_id for each in submitted if each.is_new]
    if not new:
        return
    _log.info("webhook accepted", path=endpoint.path, job_ids=new, dedupe_key=key)
    # The jobs of an event have the same baggage except for names of the core, so the warnings of one are enough.
    for warning in jobs[0].warnings:
        _log.warn("reserved baggage key", path=endpoint.path, job_ids=new, reason=warning)
