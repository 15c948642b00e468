"""An event that the operator makes by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ductile import intake
from ductile.chance import NewId
from ductile.ctl.configured import shown
from ductile.errors import EXIT_DATA, EXIT_USAGE, DuctileError
from ductile.protocol import reserved_prefix
from ductile.strictjson import JSONRefused, decode

CLI_SOURCE = "cli"


def by_hand(event_type: str, payload: str | None, *, source: str, option: str, new_id: NewId,
            now: datetime) -> dict[str, Any]:
    """Return an event with the payload that a text of JSON says, `{}` without one.

    `option` is where the type was given. Raises DuctileError: 64 for a type that is the core's own, 65 for a payload
    that is not strict JSON.
    """
    reserved = reserved_prefix(event_type)
    if reserved is not None:
        raise DuctileError(f"{option} {shown(event_type)}: types that start {reserved!r} are ductile's own",
                           exit_code=EXIT_USAGE)
    value = {} if payload is None else _decoded(payload)
    return intake.new_event(event_type, value, source, new_id=new_id, now=now)


def _decoded(payload: str) -> Any:
    try:
        return decode(payload)
    except JSONRefused as error:
        raise DuctileError(f"--payload is not strict JSON: {error}", exit_code=EXIT_DATA) from error
