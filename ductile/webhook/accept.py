"""What a request to an endpoint is, once its body is there: a handshake to answer, or an event that becomes jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, NoReturn

from blake3 import blake3

from ductile import submit
from ductile.config.model import Endpoint, Handshake, Webhooks
from ductile.errors import DuctileError
from ductile.injected import NewId
from ductile.protocol import HANDLE
from ductile.queue.job import Submitter
from ductile.runtime_config import RuntimeConfig
from ductile.strictjson import encode
from ductile.submit import EventJob
from ductile.webhook.handshake import answer, is_asked
from ductile.webhook.http_head import Head, Refused
from ductile.webhook.places import find
from ductile.webhook.request import DEFAULT_TYPE, Content, http_of, read_content, source_of
from ductile.webhook.signature import Unverified, verify

JSON = ("Content-Type", "application/json")
_KEY_LIMIT = 200        # characters; a longer dedupe key is stored as its digest
_HANDSHAKE_BYTES = 64 * 1024     # of an unsigned handshake with a body
_NOTHING = Content(payload=None)

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The answer to a handshake, status 200. `signed`: its request was. `challenge` is to be logged, None if not."""

    body: bytes
    headers: Headers
    signed: bool
    challenge: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """The answer to a delivery whose jobs are stored."""

    status: HTTPStatus
    body: bytes = b""
    headers: Headers = ()


def find_endpoint(webhooks: Webhooks | None, path: str | None) -> Endpoint | None:
    """Return the endpoint with this path, None if there is none."""
    return None if webhooks is None else next((each for each in webhooks.endpoints if each.path == path), None)


def accept(endpoint: Endpoint, head: Head, body: bytes, *, new_id: NewId, now: datetime) -> Greeting | dict[str, Any]:
    """Return the answer to a handshake, or the event of a delivery whose signature is valid.

    `body` is empty for another method than POST. Raises Refused for anything else.
    """
    if head.method != "POST":
        return _greeting(endpoint, head, _NOTHING, signed=False) or _refuse_method(endpoint)
    greeting = _unsigned_greeting(endpoint, head, body)
    if greeting is not None:
        return greeting
    try:
        digest = verify(body, head, endpoint.scheme, endpoint.keys)
    except Unverified as fault:
        raise Refused(HTTPStatus(endpoint.refusal_status), str(fault)) from fault
    content = read_content(body, head, endpoint.max_body_size)
    greeting = _greeting(endpoint, head, content, signed=True)
    if greeting is not None:
        return greeting
    _refuse_challenge(endpoint, content)
    return _event(endpoint, head, content, digest, new_id, now)


def jobs_of(runtime: RuntimeConfig, endpoint: Endpoint, event: Mapping[str, Any], *, new_id: NewId) -> list[EventJob]:
    """Return the jobs of an event: one for the endpoint's plugin, or one for each matching pipeline and route.

    Raises Refused (422).
    """
    if endpoint.plugin is not None:
        plugin = runtime.plugins[endpoint.plugin]
        return [EventJob(job=submit.command_job(plugin, HANDLE, Submitter.WEBHOOK, new_id=new_id, event=event))]
    try:
        return submit.jobs_for_event(runtime, event, None, Submitter.WEBHOOK, new_id=new_id)
    except DuctileError as error:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "the event cannot be processed", level="warn",
                      error=str(error)) from error


def success(endpoint: Endpoint, job_ids: Sequence[str], *, is_new: bool) -> Success:
    """Return the answer to a delivery. `job_ids` are its jobs, or the earlier ones if none of them `is_new`."""
    document: dict[str, Any] = {"job_id": job_ids[0]}
    if endpoint.plugin is None:
        document["job_ids"] = list(job_ids)
    status = HTTPStatus(endpoint.success_status)
    if not is_new:
        document["deduped"] = True
        status = HTTPStatus.NO_CONTENT if status is HTTPStatus.NO_CONTENT else HTTPStatus.OK
    if endpoint.answers_empty:
        return Success(status=status)
    return Success(status=status, body=encode(document).encode(), headers=(JSON,))


def _greeting(endpoint: Endpoint, head: Head, content: Content, *, signed: bool) -> Greeting | None:
    """Return the answer to the endpoint's handshake, None if the request is none. Raises Refused."""
    handshake = endpoint.handshake
    if handshake is None or handshake.signed != signed or not is_asked(handshake, head, content):
        return None
    body, headers = answer(handshake, head, content, key=endpoint.keys[0], token=endpoint.verify_token)
    return Greeting(body=body, headers=headers, signed=signed, challenge=_logged_challenge(handshake, head, content))


def _logged_challenge(handshake: Handshake, head: Head, content: Content) -> str | None:
    return find(handshake.take, head, content) if handshake.logs_challenge and handshake.take is not None else None


def _unsigned_greeting(endpoint: Endpoint, head: Head, body: bytes) -> Greeting | None:
    """Return the answer to an unsigned handshake with a body. What has a signature, or is large, is a delivery."""
    handshake = endpoint.handshake
    if handshake is None or handshake.signed or handshake.method != "POST" or len(body) > _HANDSHAKE_BYTES or any(
            head.values(name.lower()) for name in endpoint.scheme.headers):
        return None
    return _greeting(endpoint, head, read_content(body, head, _HANDSHAKE_BYTES), signed=False)


def _refuse_method(endpoint: Endpoint) -> NoReturn:
    allowed = {"POST"} if endpoint.handshake is None else {"POST", endpoint.handshake.method}
    raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "the method is not POST",
                  headers=(("Allow", ", ".join(sorted(allowed))),))


def _refuse_challenge(endpoint: Endpoint, content: Content) -> None:
    """Refuse what could be a challenge that the endpoint has signed. Raises Refused.

    No challenge has a brace or bracket, so a JSON object or list is none.
    """
    signs = endpoint.handshake is not None and endpoint.handshake.mac is not None
    if signs and not isinstance(content.json, dict | list):
        raise Refused(HTTPStatus.FORBIDDEN, "the body is no JSON object or list, as the handshake requires")


def _event(endpoint: Endpoint, head: Head, content: Content, digest: bytes, new_id: NewId,
           now: datetime) -> dict[str, Any]:
    event = submit.new_event(endpoint.event or DEFAULT_TYPE, content.payload, source_of(endpoint.path), new_id=new_id,
                             now=now)
    event["http"] = http_of(head, endpoint.scheme.headers)
    if content.fault is not None:
        event["http"]["body_fault"] = content.fault
    key = _dedupe_key(endpoint, head, content, digest)
    if key is not None:
        event["dedupe_key"] = key
    return event


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
