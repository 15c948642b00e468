"""What `ductilectl test` tells a plugin: an event, a state, or a whole request that was shown before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, BinaryIO

from ductile import intake
from ductile.chance import NewId
from ductile.ctl.event import CLI_SOURCE
from ductile.ctl.given import STDIN, as_object, place, read_json
from ductile.ctl.run import DEFAULT_TYPE
from ductile.ctl.scratch import Told
from ductile.ctl.state import read as read_state
from ductile.errors import EXIT_DATA, EXIT_USAGE, DuctileError
from ductile.protocol import HANDLE, POLL

_EVENT_KEYS = ("type", "payload", "source", "timestamp", "event_id", "dedupe_key", "http")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of the plugin."""

    command: str
    told: Told


def read(*, command: str | None, request: str | None, event: str | None, state: str | None, stdin: BinaryIO,
         now: datetime, new_id: NewId) -> Asked:
    """Return what the files of these names say, `-` being standard input.

    The command is the given one, else the request's, else `handle` with an event and `poll` without. An event and a
    state take the place of the request's. Raises DuctileError: 77 or 74 where one cannot be read, 65 where it is not
    what it should be, 64 where two are to come from standard input.
    """
    if [request, event, state].count(STDIN) > 1:
        raise DuctileError("ductilectl test: only one of --request, --event and --state can be standard input (-)",
                           exit_code=EXIT_USAGE)
    captured = Told()
    if request is not None:
        found = _request(read_json(request, stdin), place(request))
        captured = _told(found, place(request), now, new_id)
        command = command or _command(found, place(request))
    if event is not None:
        captured = replace(captured, event=_event(read_json(event, stdin), place(event), now, new_id))
    if state is not None:
        captured = replace(captured, state=read_state(state, stdin))
    return Asked(command=command or (POLL if captured.event is None else HANDLE), told=captured)


def _request(value: Any, where: str) -> Mapping[str, Any]:
    """Return the request that an object is, or has: `test --json` shows it beside the response."""
    found = as_object(value, where)
    return as_object(found["request"], f"{where}: request") if "request" in found else found


def _told(request: Mapping[str, Any], where: str, now: datetime, new_id: NewId) -> Told:
    event = request.get("event")
    if event is not None:
        as_object(event, f"{where}: event")
        if "type" not in event:
            raise DuctileError(f"{where}: event: the key 'type' is missing", exit_code=EXIT_DATA)
        event = _event(event, f"{where}: event", now, new_id)
    return Told(event=event, state=as_object(request.get("state", {}), f"{where}: state"),
                context=as_object(request.get("context", {}), f"{where}: context"))


def _command(request: Mapping[str, Any], where: str) -> str:
    command = request.get("command")
    if not isinstance(command, str):
        raise DuctileError(f"{where}: no request: the key 'command' is missing, or is no text", exit_code=EXIT_DATA)
    return command


def _event(value: Any, where: str, now: datetime, new_id: NewId) -> Mapping[str, Any]:
    """Return an event with all that the core gives it; what has no `type` is the payload of one."""
    if not isinstance(value, dict) or "type" not in value:
        return intake.new_event(DEFAULT_TYPE, value, CLI_SOURCE, new_id=new_id, now=now)
    if not isinstance(value["type"], str) or not value["type"]:
        raise DuctileError(f"{where}: type: expected a text, for what has a 'type' is read as an event",
                           exit_code=EXIT_DATA)
    unknown = [key for key in value if key not in _EVENT_KEYS]
    if unknown:
        raise DuctileError(
            f"{where}: what has a 'type' is read as an event, and an event has no key {unknown[0]!a}; if it is a"
            f" payload, give it as {{\"type\": \"{DEFAULT_TYPE}\", \"payload\": …}}", exit_code=EXIT_DATA)
    return {**intake.new_event(value["type"], {}, CLI_SOURCE, new_id=new_id, now=now), **value}
