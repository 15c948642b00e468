"""Answers a webhook request in a straight line: limits, signature, commit, answer, log."""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from ductile.clock import Clock
from ductile.config.model import Endpoint
from ductile.db import NotWritten
from ductile.errors import DuctileError
from ductile.injected import NewId
from ductile.log import Component
from ductile.runtime_config import RuntimeConfig
from ductile.strictjson import encode
from ductile.submit import EventJob, Submitted
from ductile.webhook.accept import JSON, Greeting, accept, find_endpoint, jobs_of, success
from ductile.webhook.group_commit import QueueFull
from ductile.webhook.http_head import Head, Refused
from ductile.webhook.listener import Connection, Reply
from ductile.webhook.metrics import CONTENT_TYPE
from ductile.webhook.sockets import UNIX_CLIENT

HEALTH_PATH = "/healthz"
METRICS_PATH = "/metrics"
_OWN_PATHS = (HEALTH_PATH, METRICS_PATH)
_METRICS = (("Content-Type", CONTENT_TYPE),)
_RETRY_AFTER = ("Retry-After", "30")
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
            endpoint = find_endpoint(runtime.config.webhooks, head.path)
            if endpoint is None:
                raise Refused(HTTPStatus.NOT_FOUND, "no endpoint has this path")
            # The body of another method than POST is not read.
            body = connection.read_body(head, endpoint.max_body_size) if head.method == "POST" else b""
            now = self._clock.now()
            accepted = accept(endpoint, head, body, new_id=self._new_id, now=now)
            if isinstance(accepted, Greeting):
                self._greet(connection, endpoint, head, accepted)
                return
            connection.mark_verified()
            jobs = jobs_of(runtime, endpoint, accepted, new_id=self._new_id)
            submitted = self._store(runtime, jobs, now)
        except Refused as refused:
            self._refuse(connection, runtime, refused)
            return
        try:
            self._send(connection, endpoint, _success(endpoint, submitted))
        finally:
            _log_submitted(endpoint, jobs, submitted)

    def _greet(self, connection: Connection, endpoint: Endpoint, head: Head, greeting: Greeting) -> None:
        if greeting.signed:
            connection.mark_verified()
        try:
            self._send(connection, endpoint, Reply(status=HTTPStatus.OK, body=greeting.body, headers=greeting.headers,
                                                   close=head.method != "POST"))
        finally:
            self._log_handshake(endpoint, greeting, _client(self._current(), connection))

    def _log_handshake(self, endpoint: Endpoint, greeting: Greeting, address: str) -> None:
        """Log a handshake, at most one for each endpoint and minute: anybody may ask."""
        now = self._clock.monotonic()
        if now - self._greeted.get(endpoint.path, -_PERIOD_SECONDS) < _PERIOD_SECONDS:
            return
        self._greeted[endpoint.path] = now
        challenge = {} if greeting.challenge is None else {"challenge": greeting.challenge}
        _log.info("webhook handshake answered", path=endpoint.path, address=address, **challenge)

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
        endpoint = None if connection.is_health else find_endpoint(runtime.config.webhooks, path)
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
        return Reply(status=status, body=encode(health).encode(), headers=(JSON,))


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


def _success(endpoint: Endpoint, submitted: Sequence[Submitted]) -> Reply:
    found = success(endpoint, [each.job_id for each in submitted], is_new=any(each.is_new for each in submitted))
    return Reply(status=found.status, body=found.body, headers=found.headers, close=False)


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
