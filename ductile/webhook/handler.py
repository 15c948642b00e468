"""What becomes of a webhook: checked against its endpoint, queued, and only then acknowledged."""

from __future__ import annotations

import ipaddress
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from typing import Any

from blake3 import blake3

from ductile import submit
from ductile.clock import Clock
from ductile.config.model import Endpoint
from ductile.db import Damaged, FateUnknown, NotWritten
from ductile.errors import DuctileError
from ductile.health import Health
from ductile.injected import NewId
from ductile.log import Component
from ductile.protocol import HANDLE
from ductile.queue import job_table
from ductile.queue.job import Submitter
from ductile.runtime_config import RuntimeConfig
from ductile.scheduler import schedule_table
from ductile.strictjson import encode
from ductile.webhook.group_commit import GroupCommit
from ductile.webhook.http_head import Head, body_length
from ductile.webhook.listener import Expected, Reply
from ductile.webhook.refusals import Refusal, Refusals
from ductile.webhook.request import DEFAULT_TYPE, http_of, payload_of, source_of
from ductile.webhook.signature import headers_of, verify

HEALTH_PATH = "/healthz"
# Waiting jobs are counted no further, whoever asks how often: a million takes 50 ms.
_MOST_COUNTED = 100_000
_JSON = ("Content-Type", "application/json")
_RETRY_AFTER = ("Retry-After", "30")
_LENGTH_REASONS = {
    HTTPStatus.LENGTH_REQUIRED: "there is no Content-Length",
    HTTPStatus.BAD_REQUEST: "Content-Length or Transfer-Encoding is wrong",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is larger than max_body_size",
}
_KEY_LIMIT = 200     # characters of a dedupe key that are stored as they are
_LARGE_BYTES = 1024**2     # of a body whose memory is given back at once

_log = Component("webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What one request became: the jobs that stand for it."""

    jobs: tuple[submit.Submitted, ...]

    @property
    def job_ids(self) -> tuple[str, ...]:
        return tuple([each.job_id for each in self.jobs])

    @property
    def is_new(self) -> bool:
        """Say whether any of them is."""
        return any([each.is_new for each in self.jobs])


class Handler:
    """Answers requests in the threads of the listener. `world` may be swapped at any time; a request keeps its own."""

    def __init__(self, runtime: RuntimeConfig, group: GroupCommit, *, clock: Clock, new_id: NewId,
                 health: Callable[[], Health], post: Callable[[BaseException | None], None]) -> None:
        """`health` tells how the daemon is; `post` takes None for a new job in the queue, or a fatal error."""
        self.runtime = runtime
        self._group = group
        self._clock = clock
        self._new_id = new_id
        self._health = health
        self._post = post
        self.refusals = Refusals(clock)

    def refused(self, path: str | None, address: str, reply: Reply) -> None:
        """Log or count a refusal: at DEBUG where no endpoint was meant, for anybody can send such requests."""
        refusal = reply.refusal
        if refusal is None:
            return
        endpoint = path if self._endpoint(self.runtime, path) is not None else None
        if endpoint is None:
            refusal = replace(refusal, level="debug")
        self.refusals.note(refusal, endpoint=endpoint, path=path, status=reply.status, address=address)

    def receive(self, head: Head, address: str) -> Reply | Expected:
        """Refuse a request by its head, or say how much of a body is to be read."""
        runtime = self.runtime
        if head.path == HEALTH_PATH:
            return self._tell_health(head, address)
        endpoint = self._endpoint(runtime, head.path)
        if endpoint is None:
            return _refuse(HTTPStatus.NOT_FOUND, "no endpoint has this path")
        if head.method != "POST":
            return _refuse(HTTPStatus.METHOD_NOT_ALLOWED, "the method is not POST", ("Allow", "POST"))
        length, refusal = body_length(head, endpoint.max_body_size)
        if refusal is not None:
            return _refuse(refusal, _LENGTH_REASONS[refusal])

        def answer(body: bytes, verified: Callable[[], None]) -> Reply:
            if not verify(body, head.headers, secrets=endpoint.secrets, header=endpoint.signature_header,
                          format=endpoint.signature_format):
                return _refuse(HTTPStatus.FORBIDDEN, _why_unverified(head, endpoint))
            verified()
            reply = self._take(runtime, endpoint, head, body)
            if reply.refusal is not None or len(body) < _LARGE_BYTES:
                return reply
            return replace(reply, after=lambda: self._end_large(reply))

        return Expected(length=length, answer=answer)

    def _end_large(self, reply: Reply) -> None:
        if reply.after is not None:
            reply.after()
        self._group.renew()

    @staticmethod
    def _endpoint(runtime: RuntimeConfig, path: str | None) -> Endpoint | None:
        webhooks = runtime.config.webhooks
        return next((each for each in webhooks.endpoints if each.path == path), None) if webhooks is not None else None

    def _take(self, runtime: RuntimeConfig, endpoint: Endpoint, head: Head, body: bytes) -> Reply:
        """Queue a verified request and answer when it is on the disk."""
        now = self._clock.now()
        key = _dedupe_key(endpoint, head)
        event = submit.new_event(endpoint.event or DEFAULT_TYPE, payload_of(body), source_of(endpoint.path),
                                 new_id=self._new_id, now=now)
        event["http"] = http_of(head, endpoint.signature_header)
        if key is not None:
            event["dedupe_key"] = key
        return self._queue(runtime, endpoint, event, now)

    def _queue(self, runtime: RuntimeConfig, endpoint: Endpoint, event: Mapping[str, Any], now: datetime) -> Reply:
        """Queue the jobs of an event and say what came of it."""
        try:
            arrivals = self._arrivals(runtime, endpoint, event)
            taken = self._group.run(lambda conn: self._submit(conn, runtime, arrivals, now))
        except NotWritten as error:
            return _unavailable("error", "it could not be stored", str(error))
        except (Damaged, FateUnknown) as error:
            # The loop ends, and the next start finds out what is on the disk.
            self._post(error)
            return _unavailable("error", "it could not be stored", str(error))
        except DuctileError as error:
            refusal = Refusal(level="warn", reason="its event cannot be taken", error=str(error))
            return Reply(status=HTTPStatus.UNPROCESSABLE_ENTITY, refusal=refusal)
        if taken is None:
            return _unavailable("warn", "the queue is full")
        if taken.is_new:
            self._wake(arrivals)
        return _tell(taken, many=endpoint.plugin is None, after=lambda: _report(endpoint, arrivals, taken))

    def _wake(self, arrivals: Sequence[submit.EventJob]) -> None:
        """Have the loop look for what has been committed, unless it would only wait: a turn costs as much as a webhook.

        By the world of now, not of the request: one that is swapped in later has the loop look anyway.
        """
        plugins = self.runtime.plugins
        if any(each.job.plugin in plugins and plugins[each.job.plugin].runnable for each in arrivals):
            self._post(None)

    def _submit(self, conn: sqlite3.Connection, runtime: RuntimeConfig, arrivals: Sequence[submit.EventJob],
                now: datetime) -> _Taken | None:
        """Queue the jobs of an event, in the caller's transaction; None where the queue is full."""
        service = runtime.config.service
        if job_table.is_full(conn, service.max_queue_depth):
            return None
        return _Taken(jobs=tuple([
            submit.submit_once(conn, each.job, context=each.context, dedupe_ttl=service.dedupe_ttl, now=now)
            for each in arrivals]))

    def _arrivals(self, runtime: RuntimeConfig, endpoint: Endpoint,
                  event: Mapping[str, Any]) -> list[submit.EventJob]:
        """Return the jobs that an event becomes: the endpoint's plugin, or whatever takes it."""
        if endpoint.plugin is not None:
            plugin = runtime.plugins[endpoint.plugin]
            job = submit.command_job(plugin, HANDLE, Submitter.WEBHOOK, new_id=self._new_id, event=event)
            return [submit.EventJob(job=job)]
        return submit.jobs_for_event(runtime, event, None, Submitter.WEBHOOK, new_id=self._new_id)

    def _tell_health(self, head: Head, address: str) -> Reply:
        """Answer `/healthz` for this machine alone; for others there is no such path."""
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return _refuse(HTTPStatus.NOT_FOUND, "only this machine may ask for its health")
        if head.method not in ("GET", "HEAD"):
            return _refuse(HTTPStatus.METHOD_NOT_ALLOWED, "the method is not GET or HEAD", ("Allow", "GET, HEAD"))
        vitals = self._health()
        reasons = list(vitals.reasons)
        most = self.runtime.config.service.max_queue_depth
        try:
            depth, breakers = self._group.look(
                lambda conn: (job_table.count_waiting(conn, max(most + 1, _MOST_COUNTED)), schedule_table.count_open_breakers(conn)))
            if depth > most:
                reasons.append(f"{depth} jobs wait, more than service.max_queue_depth ({most})")
        except sqlite3.Error as error:
            depth = breakers = None
            reasons.append(f"the database cannot be read: {error}")
        health = {
            "status": "degraded" if reasons else "ok", "reasons": reasons, "uptime_seconds": vitals.uptime_seconds,
            "queue_depth": depth, "plugins_loaded": vitals.plugins_loaded, "plugins_circuit_open": breakers,
        }
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return Reply(status=status, body=encode(health).encode(), headers=(_JSON,))


def _refuse(status: HTTPStatus, reason: str, *headers: tuple[str, str]) -> Reply:
    return Reply(status=status, headers=headers, refusal=Refusal(reason=reason))


def _unavailable(level: str, reason: str, error: str | None = None) -> Reply:
    return Reply(status=HTTPStatus.SERVICE_UNAVAILABLE, headers=(_RETRY_AFTER,),
                 refusal=Refusal(level=level, reason=reason, error=error))


def _why_unverified(head: Head, endpoint: Endpoint) -> str:
    """Return what was wrong with a signature, for the operator's log and never for the answer."""
    for name in headers_of(endpoint.signature_format, endpoint.signature_header):
        values = head.values(name.lower())
        if len(values) != 1:
            return f"the header {name} {'is missing' if not values else 'is there twice'}"
    return "the signature is wrong"


def _dedupe_key(endpoint: Endpoint, head: Head) -> str | None:
    """Return what tells a request from its repetitions, within its endpoint; None where nothing does."""
    if endpoint.dedupe_header is None:
        return None
    value = head.alone(endpoint.dedupe_header.lower())
    if not value:
        return None
    if len(value) > _KEY_LIMIT:
        value = blake3(value.encode()).hexdigest()
    return f"{source_of(endpoint.path)} {value}"


def _report(endpoint: Endpoint, arrivals: Sequence[submit.EventJob], taken: _Taken) -> None:
    key = arrivals[0].job.dedupe_key
    for each in taken.jobs:
        if not each.is_new:
            _log.info("webhook deduped", path=endpoint.path, earlier_job_id=each.job_id, dedupe_key=key)
    fresh = [each.job_id for each in taken.jobs if each.is_new]
    if not fresh:
        return
    _log.info("webhook accepted", path=endpoint.path, job_ids=fresh, dedupe_key=key)
    # Each that an event becomes has the same baggage, but for names of the core's that no sender knows.
    for warning in arrivals[0].warnings:
        _log.warn("misnamed key", path=endpoint.path, job_ids=fresh, reason=warning)


def _tell(taken: _Taken, *, many: bool, after: Callable[[], None]) -> Reply:
    answer: dict[str, Any] = {"job_id": taken.job_ids[0]}
    if many:
        answer["job_ids"] = list(taken.job_ids)
    if not taken.is_new:
        answer["deduped"] = True
    status = HTTPStatus.ACCEPTED if taken.is_new else HTTPStatus.OK
    return Reply(status=status, body=encode(answer).encode(), headers=(_JSON,), close=False, after=after)
