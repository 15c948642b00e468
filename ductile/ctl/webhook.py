"""`ductilectl webhook`: the senders of webhooks that have a preset, and a request as one of them would send it."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any

from ductile.config import misnamed
from ductile.config.handshakes import HANDSHAKES
from ductile.config.model import Address, Endpoint
from ductile.config.presets import PRESETS, Preset
from ductile.ctl import table
from ductile.ctl.inputs import read_payload
from ductile.ctl.lookup import quoted
from ductile.ctl.on_disk import load
from ductile.ctl.session import Session
from ductile.errors import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    DuctileError,
)
from ductile.pidfile import pid_file, running_pid
from ductile.validation import nearest
from ductile.webhook.signature import sign

_INDENT = "    "


def presets(session: Session, *, name: str | None) -> int:
    """Show every preset, or one, with what to enter at the sender. Raises DuctileError (66) for an unknown name."""
    names = list(PRESETS) if name is None else [_known(name)]
    session.emit([_row(each, PRESETS[each]) for each in names], "".join(_block(each, PRESETS[each]) for each in names))
    return EXIT_OK


def _known(name: str) -> str:
    if name in PRESETS:
        return name
    lowered = name.lower()
    if lowered in misnamed.WITHOUT_HMAC:
        why = f": {misnamed.WITHOUT_HMAC[lowered]}"
    elif lowered in misnamed.SENDERS:
        why = f" (use {misnamed.SENDERS[lowered]})"
    else:
        why = nearest(lowered, PRESETS)
    raise DuctileError(f"no preset {quoted(name)}{why}", exit_code=EXIT_NOT_FOUND)


def _row(name: str, preset: Preset) -> dict[str, Any]:
    return {"preset": name, "senders": list(preset.senders), "enter": preset.enter, "docs": preset.docs,
            "needs": _needs(preset), "signature_header": list(preset.headers), "signed": preset.signed,
            "dedupe": list(preset.dedupe), "success_status": preset.status, "handshake": preset.handshake}


def _needs(preset: Preset) -> list[str]:
    """Return the keys that an endpoint needs beside `preset`."""
    needed = ["secret"]
    if "{url}" in preset.signed:
        needed.append("url")
    if preset.handshake is not None and HANDSHAKES[preset.handshake].token is not None:
        needed.append("verify_token")
    return needed


def _block(name: str, preset: Preset) -> str:
    lines = [f"{name}: {', '.join(preset.senders)}", f"{_INDENT}{preset.enter}"]
    beside = _needs(preset)[1:]
    if beside:
        lines.append(f"{_INDENT}also needs: {', '.join(beside)}")
    if not preset.dedupe:
        lines.append(f"{_INDENT}no delivery id; `dedupe: signature` drops equal deliveries")
    lines.append(f"{_INDENT}{preset.docs}")
    return "".join(f"{line}\n" for line in lines)


_PATIENCE_SECONDS = 20
_LARGEST_ANSWER = 1024 * 1024


def test(session: Session, *, path: str, payload: str | None) -> int:
    """Post a payload to an endpoint of the running daemon, signed as its sender does. Return 1 if it is refused.

    The job is a real one. Raises DuctileError: 66 for a path without an endpoint, 69 if the daemon does not run or
    cannot be reached, 78 for an invalid configuration or an unset variable, and as `read_payload` does.
    """
    config = load(session, keep_unset=False).runtime.config
    endpoints = {each.path: each for each in config.webhooks.endpoints} if config.webhooks is not None else {}
    if path not in endpoints:
        raise DuctileError(f"no endpoint has the path {quoted(path)}{nearest(path, endpoints)}",
                           exit_code=EXIT_NOT_FOUND)
    value = {} if payload is None else read_payload(payload, session.stdin)
    body = json.dumps(value, separators=(",", ":")).encode()
    if running_pid(pid_file(session.state_path)) is None:
        raise DuctileError("ductiled is not running, and `webhook test` needs it; nothing was sent",
                           exit_code=EXIT_UNAVAILABLE)
    if config.webhooks is None or not config.webhooks.listen:
        raise DuctileError("webhooks.listen has no address to send to", exit_code=EXIT_CONFIG)
    address = config.webhooks.listen[0]
    headers = _headers(endpoints[path], body, session)
    try:
        status, reason, answer = _post(address, path, headers, body)
    except OSError as error:
        raise DuctileError(f"cannot reach ductiled at {address}: {error.strerror or error}",
                           exit_code=EXIT_UNAVAILABLE) from error
    _show(session, endpoints[path], address, (status, reason, answer))
    return EXIT_OK if 200 <= status < 300 else EXIT_FAILED


def _headers(endpoint: Endpoint, body: bytes, session: Session) -> dict[str, str]:
    headers = sign(body, endpoint.scheme, endpoint.keys[0], session.now())
    # A delivery of its own each time, or the second one would be a duplicate.
    new = {place.name: session.new_id() for place in endpoint.dedupe if place.kind == "header"}
    known = {name.lower() for name in headers}
    return {**headers, **{name: value for name, value in new.items() if name.lower() not in known}}


def _post(address: Address, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str, str]:
    """Return status, reason and body of the answer. Raises OSError."""
    connection = HTTPConnection("localhost", timeout=_PATIENCE_SECONDS)
    connection.sock = _connect(address)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", "Connection": "close", **headers})
        answer = connection.getresponse()
        return answer.status, answer.reason, answer.read(_LARGEST_ANSWER).decode("utf-8", "replace")
    except HTTPException as error:
        raise OSError(f"no HTTP answer: {error!r}") from error
    finally:
        connection.close()


def _connect(address: Address) -> socket.socket:
    if address.path is not None:
        found = socket.socket(socket.AF_UNIX)
        try:
            found.settimeout(_PATIENCE_SECONDS)
            found.connect(str(address.path))
        except OSError:
            found.close()
            raise
        return found
    # What listens on every address is reached on this machine's own.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return socket.create_connection((host, address.port), timeout=_PATIENCE_SECONDS)


def _show(session: Session, endpoint: Endpoint, address: Address, answer: tuple[int, str, str]) -> None:
    status, reason, text = answer
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    sender = "" if endpoint.preset is None else f", signed as {endpoint.preset}"
    lines = [f"POST {endpoint.path} to {address}{sender}", f"{status} {reason}"]
    if text.strip():
        lines.append(text.strip())
    elif status == HTTPStatus.NO_CONTENT:
        lines.append("no body, as the sender expects; `ductilectl jobs` shows the job")
    session.emit({"path": endpoint.path, "address": str(address), "status": status, "body": body},
                 "".join(table.block(line, "") for line in lines))
