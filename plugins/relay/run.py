#!/usr/bin/env python3
"""Posts an event to another Ductile's webhook, signed as Standard Webhooks says (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import re
import sys
import time
from functools import partial

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import (
    MIB,
    URL,
    Permanent,
    event_of,
    http,
    is_headers,
    is_number,
    is_url,
    main,
    one_line,
    seconds_left,
    settings,
    where,
)

LIMIT_BYTES = MIB
LEAST_SECRET_BYTES = 16
# An event that two gateways hand to each other goes round for ever: neither sees the other's chain.
HOPS = "relay_hops"
MOST_HOPS = 5
# What this gateway says of its own chain; the other one says it of its.
OWN = ("origin_plugin", "origin_event_type", "origin_job_id")
HINTS = {
    401: "; look at secret", 403: "; look at secret", 404: "; look at url: nothing takes webhooks there",
    410: "; the endpoint is gone, remove it from the configuration", 413: "; the event is too large for the endpoint",
}
# The connection's own headers, and those that carry the signature.
_RESERVED = ("host", "content-length", "transfer-encoding", "connection", "content-type", "webhook-id",
             "webhook-timestamp", "webhook-signature")


def key_of(secret: object) -> bytes | None:
    """Return the key that a secret stands for, or None: base64 in either alphabet, with or without `whsec_`."""
    try:
        text = secret.removeprefix("whsec_").translate(str.maketrans("-_", "+/")).rstrip("=")
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        return key if len(key) >= LEAST_SECRET_BYTES else None
    except (AttributeError, binascii.Error, ValueError):
        return None


KEYS = {
    "url": (is_url, URL),
    "secret": (key_of, f"whsec_ and the base64 of at least {LEAST_SECRET_BYTES} bytes; openssl rand -base64 32 makes "
                       f"one"),
    "body": (("payload", "envelope"), None, "payload"),
    "headers": (partial(is_headers, reserved=_RESERVED),
                "a mapping of header names to strings, without those of the connection and the signature", {}),
    "timeout": (is_number(0.01, 600), "seconds, at most 600", 15),
}


def signature(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    return "v1," + base64.b64encode(
        hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")).decode()


def message(event: dict, context: object, form: str) -> bytes:
    """Return the body to post. Raises Permanent for an event that has been relayed too often."""
    payload = event.get("payload", {})
    if isinstance(payload, dict):
        hops = payload.get(HOPS, context.get(HOPS) if isinstance(context, dict) else None)
        hops = hops if type(hops) is int and hops > 0 else 0
        if hops >= MOST_HOPS:
            raise Permanent(f"the event has been relayed {hops} times: do two gateways hand it to each other?")
        payload = {key: value for key, value in payload.items() if key not in OWN} | {HOPS: hops + 1}
    if form == "envelope":
        payload = {"type": event.get("type"), "timestamp": event.get("timestamp"), "data": payload}
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def post(request: dict, config: dict, event: dict) -> object:
    """Return the answer that took the event. Raises Failed."""
    body = message(event, request.get("context"), config["body"])
    # The same for each attempt: the other side can tell a repetition.
    webhook_id = re.sub("[^!-~]", "", str(event.get("event_id") or request.get("job_id")))
    now = int(time.time())
    headers = {"User-Agent": "ductile-relay", **config["headers"], "Content-Type": "application/json",
               "webhook-id": webhook_id, "webhook-timestamp": str(now),
               "webhook-signature": signature(key_of(config["secret"]), webhook_id, now, body)}
    answer = http("POST", config["url"], headers=headers, body=body, limit=LIMIT_BYTES, cut=True,
                  timeout=min(config["timeout"], seconds_left(request, default=config["timeout"])))
    if answer.ok:
        return answer
    if 300 <= answer.status < 400:
        raise answer.error(": redirects are not followed, give the url where it ends")
    wait = answer.retry_after
    raise answer.error(HINTS.get(answer.status, "" if wait is None else f" and asks to wait {wait:.0f} s"))


def job_of(answer: object) -> dict:
    """Return what another Ductile says of the job: its id, and whether it had the event already."""
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, dict):
        return {}
    found = {"job_id": one_line(said["job_id"], 64)} if isinstance(said.get("job_id"), str) else {}
    return found | ({"deduped": True} if said.get("deduped") is True else {})


def respond(request: dict) -> dict:
    config = settings(request, KEYS)
    place = where(config["url"])
    if request.get("command") == "health":
        return {"status": "ok", "result": f"would post to {place}"}
    if request.get("command") != "handle":
        raise Permanent("relay has no such command")
    answer = post(request, config, event_of(request))
    remote = job_of(answer)
    sent = {"status": answer.status} | {f"remote_{name}": value for name, value in remote.items()}
    known = ", which had it already" if remote.get("deduped") else ""
    return {"status": "ok", "result": f"posted to {place}{known}", "events": [{"type": "relay.sent", "payload": sent}]}


if __name__ == "__main__":
    main(respond)
